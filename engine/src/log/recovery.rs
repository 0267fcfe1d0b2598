//! From what a crash left on disk to an open log: a table of decisions.
