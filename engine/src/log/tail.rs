//! The newest batches in memory: what waits for the disk, and what tail readers are served from.
