//! Records of groups as batches of the log, and a machine from the log: nothing here knows who coordinates what.

use std::fmt;

use bytes::Bytes;
use forebay_engine::{
    Log, ReadError, Timestamp, TimestampType,
    batch::{
        BatchBuilder, BatchError, BatchHeader, BatchRules, Codec, Records, ValidBatch, validate,
    },
    log::ReadLimit,
    rt::Rt,
};

use super::{
    group::{Machine, Rules},
    records::{Record, RecordError},
};

/// Most bytes of one batch; [`Rules::batch_bytes_max`] keeps every single request below.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What the frame of a batch and the lengths of its records may add to that.
const BATCH_OVERHEAD_BYTES_MAX: usize = 64 * 1024;

/// Why a coordinator's log could not be read.
#[derive(Debug)]
pub enum LoadError {
    Read(ReadError),
    Batch(BatchError),
    Record(RecordError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Read(error) => error.fmt(f),
            LoadError::Batch(error) => error.fmt(f),
            LoadError::Record(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

impl LoadError {
    /// The disk did not give the bytes: another attempt may get them. What cannot be understood stays as it is.
    pub fn may_pass(&self) -> bool {
        matches!(self, LoadError::Read(ReadError::Fault(_)))
    }
}

/// Packs records into batches, in order: as few as the size allows. Those of one request stay together, since they are bounded.
pub fn batches(records: &[Record], now: Timestamp) -> Vec<ValidBatch> {
    let mut batches = Vec::new();
    let mut builder = BatchBuilder::new(Codec::None);
    for record in records {
        let full = builder.len() + record.encoded_len_max() > BATCH_BYTES_MAX;
        if full && !builder.is_empty() {
            let next = BatchBuilder::new(Codec::None);
            batches.push(valid(std::mem::replace(&mut builder, next), now));
        }
        let (key, value) = record.encode();
        builder.push(now, Some(&key), value.as_deref(), &[]);
    }
    if !builder.is_empty() {
        batches.push(valid(builder, now));
    }
    batches
}

/// Reads the whole log into a machine; the caller then steps it with `Loaded`.
pub async fn load(
    rt: &Rt,
    log: &Log,
    rules: Rules,
    read_bytes_max: usize,
) -> Result<Machine, LoadError> {
    let mut machine = Machine::new(rules);
    let marks = log.marks();
    let mut from = marks.log_start;
    while from < marks.log_end {
        let limit = ReadLimit {
            below: marks.log_end,
            bytes_max: read_bytes_max,
            at_least_one: true,
        };
        let fetched = log.read(from, limit).await.map_err(LoadError::Read)?;
        // Compaction may have removed the last records below the end.
        let Some(next) = fetched.next else { break };
        assert!(next > from, "a read goes forward");
        replay(&mut machine, contiguous(fetched.slices))?;
        from = next;
        rt.yield_now().await;
    }
    Ok(machine)
}

fn valid(builder: BatchBuilder, now: Timestamp) -> ValidBatch {
    let rules = BatchRules {
        message_bytes_max: BATCH_BYTES_MAX + BATCH_OVERHEAD_BYTES_MAX,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: None,
        timestamp_after_max_ms: None,
        keys_required: true,
        codec: None,
        control_allowed: false,
    };
    validate(builder.build(), &rules, now).expect("a batch of our own is valid")
}

/// Slices may cut through batches.
fn contiguous(mut slices: Vec<Bytes>) -> Bytes {
    if slices.len() == 1 {
        return slices.remove(0);
    }
    slices.concat().into()
}

fn replay(machine: &mut Machine, mut bytes: Bytes) -> Result<(), LoadError> {
    while !bytes.is_empty() {
        let header = BatchHeader::parse(&bytes).map_err(LoadError::Batch)?;
        if header.total_len > bytes.len() {
            return Err(LoadError::Batch(BatchError::Truncated));
        }
        let batch = bytes.split_to(header.total_len);
        // Transaction markers: there is nothing of them in groups yet.
        if header.is_control() {
            continue;
        }
        for record in Records::new(&batch, BATCH_BYTES_MAX).map_err(LoadError::Batch)? {
            let record = record.map_err(LoadError::Batch)?;
            let decoded = Record::decode(record.key.as_ref(), record.value.as_ref());
            if let Some(record) = decoded.map_err(LoadError::Record)? {
                machine.replay(&record);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_engine::{LeaderEpoch, Offset};

    use super::*;
    use crate::coord::{group::GroupFilter, records::CommittedOffset};

    fn offset(group: &str, metadata_bytes: usize) -> Record {
        Record::Offset {
            group: group.into(),
            topic: "t".into(),
            partition: 0,
            value: Some(CommittedOffset {
                offset: 7,
                leader_epoch: -1,
                metadata: "m".repeat(metadata_bytes).into(),
                committed_at: Timestamp(1),
                expires_at: None,
            }),
        }
    }

    fn rules() -> Rules {
        Rules {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            initial_rebalance_delay_ms: 0,
            group_size_max: 10,
            offset_metadata_bytes_max: 4096,
            offsets_retention_ms: 1_000,
            batch_bytes_max: BATCH_BYTES_MAX,
        }
    }

    #[test]
    fn what_is_packed_is_replayed() {
        let records = [offset("a", 1), offset("b", 0), offset("a", 3)];
        let mut bytes = Vec::new();
        for batch in batches(&records, Timestamp(5)) {
            let (_, batch) = batch.assign(Offset::new(3), LeaderEpoch(0));
            bytes.extend_from_slice(&batch);
        }
        let mut machine = Machine::new(rules());
        replay(&mut machine, bytes.clone().into()).unwrap();
        let groups: Vec<Arc<str>> = machine
            .list(&GroupFilter::default())
            .into_iter()
            .map(|group| group.group)
            .collect();
        assert_eq!(groups, ["a".into(), "b".into()]);
        bytes.pop();
        let cut = replay(&mut Machine::new(rules()), bytes.into());
        assert!(matches!(cut, Err(LoadError::Batch(BatchError::Truncated))));
    }

    #[test]
    fn many_records_make_several_batches_in_order() {
        assert!(batches(&[], Timestamp(0)).is_empty());
        let records: Vec<Record> = (0..600)
            .map(|index| offset(&format!("g{index}"), 30_000))
            .collect();
        let packed = batches(&records, Timestamp(0));
        assert!(packed.len() > 2);
        let counts: i32 = packed.iter().map(|batch| batch.header().record_count).sum();
        assert_eq!(counts, 600);
        for batch in &packed {
            assert!(batch.len() <= BATCH_BYTES_MAX);
        }
    }
}
