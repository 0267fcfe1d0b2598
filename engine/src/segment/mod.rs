//! A segment: one file of batches with its sparse index.

pub mod index;
pub mod reader;
pub mod writer;
