//! Sparse index of offsets and timestamps to file positions.
