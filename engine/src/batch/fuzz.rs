//! The entry for fuzzers: any bytes at all, taken for a batch from a producer.
//!
//! `cargo test` drives it with seeded mutations of good batches, `tests/fuzz` with whatever a fuzzer thinks of.

use bytes::BytesMut;

use super::{
    BatchRules, Codec, HEADER_LEN, LENGTH_PREFIX_LEN, Records,
    header::{at, compute_crc, put},
    validate,
};
use crate::{
    log::TimestampType,
    types::{LeaderEpoch, Offset, Timestamp},
};

/// The first byte picks the rules, the rest is the batch: once as it is, once with length and CRC made right, so that the
/// checks behind them are reached. Panics if something unsound is accepted.
pub fn fuzz_batch(data: &[u8]) {
    let Some((&choice, batch)) = data.split_first() else {
        return;
    };
    let rules = BatchRules {
        message_bytes_max: 1 << 20,
        timestamp_type: match choice & 1 {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        },
        timestamp_before_max_ms: None,
        timestamp_after_max_ms: (choice & 2 != 0).then_some(3_600_000),
        keys_required: choice & 4 != 0,
        codec: (choice & 8 != 0).then(|| Codec::ALL[usize::from(choice >> 4) % Codec::ALL.len()]),
        control_allowed: choice & 128 != 0,
    };
    check(BytesMut::from(batch), &rules);
    check(repaired(batch), &rules);
}

fn repaired(batch: &[u8]) -> BytesMut {
    let mut batch = BytesMut::from(batch);
    if batch.len() >= HEADER_LEN {
        let length = (batch.len() - LENGTH_PREFIX_LEN) as i32;
        put(&mut batch, at::BATCH_LENGTH, length.to_be_bytes());
        let crc = compute_crc(&batch);
        put(&mut batch, at::CRC, crc.to_be_bytes());
    }
    batch
}

/// Makes the CRCs of the batches in a segment right, as far as their lengths lead.
pub fn repair_all(mut segment: &mut [u8]) {
    while let Some(length) = segment.get(8..LENGTH_PREFIX_LEN) {
        let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
        let end = LENGTH_PREFIX_LEN + usize::try_from(length).unwrap_or(0);
        if end < HEADER_LEN || end > segment.len() {
            return;
        }
        let (batch, rest) = segment.split_at_mut(end);
        let crc = compute_crc(batch);
        put(batch, at::CRC, crc.to_be_bytes());
        segment = rest;
    }
}

fn check(batch: BytesMut, rules: &BatchRules) {
    let now = Timestamp(1_700_000_000_000);
    let Ok(valid) = validate(batch, rules, now) else {
        return;
    };
    let (header, batch) = valid.assign(Offset::new(5), LeaderEpoch(1));
    assert!(batch.len() <= rules.message_bytes_max);
    assert!(header.check_crc(&batch).is_ok());
    assert!(header.timestamp_type() == rules.timestamp_type);
    assert!(header.next_offset().since(header.base_offset) == i64::from(header.record_count));
    // Records in compressed batches were not looked into, so reading them may fail, but not more than that.
    let compressed = header.codec() != Ok(Codec::None);
    let records = Records::new(&batch, 1 << 22).map(|records| records.collect::<Vec<_>>());
    if !compressed {
        let records = records.expect("validated");
        assert!(records.len() == header.record_count as usize);
        assert!(records.iter().all(Result::is_ok));
        assert!(!rules.keys_required || records.iter().flatten().all(|r| r.key.is_some()));
    }
}
