//! Deletes whole segments by time, size and log start.
