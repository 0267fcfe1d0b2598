//! Kafka record batches of magic 2: the only format in the log and on the wire.
//!
//! Bytes that came from outside become a [`ValidBatch`] once, by [`validate::validate`]; nothing below checks them again
//! except after a read from disk (CRC).

pub mod builder;
pub mod codec;
pub mod header;
pub mod records;
pub mod validate;

pub use builder::BatchBuilder;
pub use codec::Codec;
pub use header::{BatchHeader, HEADER_LEN};
pub use records::{Record, Records};
pub use validate::{BatchError, BatchRules, ValidBatch, validate};
