//! From a file position to whole batches: aligned reads with read-ahead.
