//! Kafka record batches of magic 2: the only format in the log and on the wire.
//!
//! Bytes that came from outside become a [`ValidBatch`] once, by [`validate::validate`]; nothing below checks them again
//! except after a read from disk (CRC).

pub mod builder;
pub mod codec;
pub mod fuzz;
pub mod header;
pub mod records;
#[cfg(test)]
mod tests;
pub mod validate;
mod varint;

pub use builder::BatchBuilder;
pub use codec::Codec;
pub use header::{BatchHeader, HEADER_LEN, LENGTH_PREFIX_LEN, attribute};
pub use records::{DECOMPRESSED_BYTES_MAX, Record, Records};
pub use validate::{BatchError, BatchRules, ValidBatch, validate};
