//! Writes a segment in large aligned chunks; seals it to its exact length.
