//! Tests of a log through the engine, on both back ends.

use super::*;

pub fn config() -> LogConfig {
    LogConfig {
        durability: Durability::Persisted,
        segment_bytes: 1 << 30,
        segment_ms: 7 * 24 * 3_600_000,
        index_interval_bytes: 4096,
        retention_bytes: None,
        retention_ms: None,
        file_delete_delay_ms: 60_000,
        delete: true,
        rules: BatchRules {
            message_bytes_max: 1 << 20,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: None,
            timestamp_after_max_ms: None,
            keys_required: false,
            codec: None,
            control_allowed: false,
        },
    }
}
