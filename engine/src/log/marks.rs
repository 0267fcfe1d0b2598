//! The offsets that describe a log, moved in one place that asserts their order.

use crate::types::Offset;

/// `log_start <= last_stable <= high_watermark <= log_end`, `counted_end <= log_end`, `durable_end <= log_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    pub log_start: Offset,
    pub last_stable: Offset,
    pub high_watermark: Offset,
    /// Durable in the journal or a segment of the present log generation.
    pub durable_end: Offset,
    /// `durable_end` under `persisted`, `log_end` under `replicated`: what this replica may count for acks.
    pub counted_end: Offset,
    /// The next offset to be assigned.
    pub log_end: Offset,
}
