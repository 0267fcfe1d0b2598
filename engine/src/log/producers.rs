//! Idempotent producers: epoch and the last five batches of each, checked on append.
