//! The engine under test: how it is set up, started and ended, and how a broker appends to it.
//!
//! Every measurement of the engine goes through here, so that all of them measure the same one.

use std::{collections::HashMap, path::PathBuf, rc::Rc};

use bytes::BytesMut;
use clap::ValueEnum;
use forebay_engine::{
    Durability, Engine, EngineConfig, LeaderEpoch, Log, LogConfig, LogId, LogName, PartitionIndex,
    SYNCS_TOGETHER_MIN, ShardId, SpaceConfig, SpaceUse, Timestamp, TimestampType, TopicId,
    batch::{BatchBuilder, BatchRules, Codec, ValidBatch, validate},
    rt::{Class, Rt, Task, local::Notify, uring},
};
use serde::Serialize;

use crate::{noise::Noise, result::run::Setting};

/// Beyond it appends that wait in one partition go straight to its segment, unless the plan says something else.
pub const BYPASS_BYTES: usize = 256 << 10;

/// Memory for what waits for the disk and for tail readers, unless the plan says something else.
pub const TAIL_BYTES: usize = 128 << 20;

/// Largest file, unless the plan says something else.
pub const SEGMENT_BYTES: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityArg {
    Persisted,
    Replicated,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Durability {
        match durability {
            DurabilityArg::Persisted => Durability::Persisted,
            DurabilityArg::Replicated => Durability::Replicated,
        }
    }
}

/// Runs one task on one pinned executor and gives back what it returned.
pub fn on_one_shard<T, E, Running>(
    main: impl FnOnce(Rt) -> Running + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<String> + Send + 'static,
    Running: Future<Output = Result<T, E>> + 'static,
{
    let said = |error: std::io::Error| error.to_string();
    let mut options = uring::ShardOptions::for_this_host().map_err(said)?;
    options.shards = 1;
    let mut main = Some(main);
    let handles = uring::run_shards(&options, |_| {
        let main = main.take().expect("one shard is started once");
        move |rt: Rt, _: ShardId| main(rt)
    })
    .map_err(said)?;
    let [handle] =
        <[_; 1]>::try_from(handles).unwrap_or_else(|_| unreachable!("one shard was started"));
    handle.join().map_err(said)?
}

pub fn engine_config(dir: PathBuf, bypass_bytes: usize, tail_bytes_max: usize) -> EngineConfig {
    EngineConfig {
        data_dir: dir,
        shard: ShardId(0),
        journal_file_bytes: 64 << 20,
        journal_files: 4,
        bypass_bytes,
        write_chunk_bytes_max: 4 << 20,
        tail_bytes_max,
        readahead_bytes_max: 64 << 20,
        checkpoint_interval_ms: 60_000,
        retention_check_interval_ms: 300_000,
        spare_segments_max: 0,
        producer_id_expiration_ms: 86_400_000,
        syncs_together_min: SYNCS_TOGETHER_MIN,
        space: SpaceConfig::default(),
    }
}

/// What a result says of the engine, and of one of its logs.
pub fn settings(config: &EngineConfig, log: &LogConfig) -> Vec<Setting> {
    let none = || "none".to_string();
    let space = &config.space;
    let settings = [
        ("shards", "1".to_string()),
        ("journal_file_bytes", config.journal_file_bytes.to_string()),
        ("journal_files", config.journal_files.to_string()),
        ("bypass_bytes", config.bypass_bytes.to_string()),
        (
            "write_chunk_bytes_max",
            config.write_chunk_bytes_max.to_string(),
        ),
        ("tail_bytes_max", config.tail_bytes_max.to_string()),
        (
            "readahead_bytes_max",
            config.readahead_bytes_max.to_string(),
        ),
        (
            "checkpoint_interval_ms",
            config.checkpoint_interval_ms.to_string(),
        ),
        (
            "retention_check_interval_ms",
            config.retention_check_interval_ms.to_string(),
        ),
        ("spare_segments_max", config.spare_segments_max.to_string()),
        ("syncs_together_min", config.syncs_together_min.to_string()),
        ("space", format!("{space:?}")),
        ("log.durability", format!("{:?}", log.durability)),
        ("log.segment_bytes", log.segment_bytes.to_string()),
        (
            "log.index_interval_bytes",
            log.index_interval_bytes.to_string(),
        ),
        (
            "log.retention_bytes",
            log.retention_bytes
                .map_or_else(none, |bytes| bytes.to_string()),
        ),
        (
            "log.file_delete_delay_ms",
            log.file_delete_delay_ms.to_string(),
        ),
    ];
    let setting = |(name, value): (&str, String)| Setting {
        name: name.to_string(),
        value,
        source: None,
    };
    settings.into_iter().map(setting).collect()
}

/// Logs are opened next, and then it is begun.
pub async fn open(rt: &Rt, config: EngineConfig) -> Result<Engine, String> {
    let opened = Engine::open(rt.clone(), config).await;
    opened.map_err(|error| error.to_string())
}

pub async fn open_log(
    engine: &Engine,
    durability: DurabilityArg,
    partition: u32,
) -> Result<Log, String> {
    let partition = PartitionIndex(i32::try_from(partition).map_err(|error| error.to_string())?);
    let id = LogId {
        topic_id: TopicId(*b"forebay-bench-01"),
        partition,
    };
    let name = LogName {
        topic: "bench".to_string(),
        partition,
    };
    let opened = engine.open_log_when_used(id, name, log_config(durability));
    opened.await.map_err(|error| error.to_string())
}

fn log_config(durability: DurabilityArg) -> LogConfig {
    LogConfig {
        durability: durability.into(),
        segment_bytes: SEGMENT_BYTES,
        segment_ms: 7 * 24 * 3_600_000,
        index_interval_bytes: 4096,
        retention_bytes: None,
        retention_ms: None,
        file_delete_delay_ms: 60_000,
        delete: true,
        space: SpaceUse::Data,
        rules: rules(),
    }
}

fn rules() -> BatchRules {
    BatchRules {
        message_bytes_max: 32 << 20,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: None,
        timestamp_after_max_ms: None,
        keys_required: false,
        codec: None,
        control_allowed: false,
    }
}

/// All logs are open; from now on they can be appended to.
pub async fn begin(engine: &Engine) -> Result<(), String> {
    let recovered = engine.sync_recovered().await;
    recovered.map_err(|fault| fault.to_string())?;
    let started = engine.start_journal().await;
    started.map_err(|fault| fault.to_string())
}

pub async fn close(engine: &Engine) -> Result<(), String> {
    let closed = engine.close().await;
    closed.map_err(|fault| fault.to_string())
}

/// Tells writers when the log they wait for moves on, as long as it is not stopped.
pub struct Progress {
    moved: Rc<HashMap<LogId, Notify>>,
    waker: Task<()>,
}

impl Progress {
    pub fn watch<'a>(rt: &Rt, engine: &Engine, logs: impl IntoIterator<Item = &'a Log>) -> Self {
        let notify_of = |log: &Log| (log.id(), Notify::new());
        let moved: Rc<HashMap<_, _>> = Rc::new(logs.into_iter().map(notify_of).collect());
        let waking = wake_writers(engine.clone(), moved.clone());
        let waker = rt.spawn(Class::Foreground, waking);
        Progress { moved, waker }
    }

    /// Notified when `log`, which must be one of those watched, moves on.
    pub fn of(&self, log: &Log) -> Notify {
        self.moved[&log.id()].clone()
    }

    pub async fn stop(self) {
        self.waker.cancel().await;
    }
}

async fn wake_writers(engine: Engine, moved: Rc<HashMap<LogId, Notify>>) {
    loop {
        let logs = engine.progress().await;
        // Nobody else has a replica: what counts is committed, and retention may delete it.
        for log in logs.iter().filter_map(|id| engine.log(*id)) {
            log.set_high_watermark(log.marks().counted_end);
        }
        logs.iter()
            .filter_map(|id| moved.get(id))
            .for_each(Notify::notify_all);
    }
}

/// Waits until the log takes a batch of `len` bytes, as a broker does before it reads the next frame.
pub async fn wait_for_room(log: &Log, room: &Notify, len: usize) {
    loop {
        let more = room.listen();
        if log.has_room(len) {
            return;
        }
        more.await;
    }
}

/// What comes before every append: the bytes of a client are taken over and checked.
pub fn receive(rt: &Rt, template: &BytesMut) -> Result<ValidBatch, String> {
    validate(template.clone(), &rules(), rt.wall_clock()).map_err(|error| error.to_string())
}

/// As a broker does: a frame's bytes are checked, appended, and waited for. `moved` is notified when the log moves on.
pub async fn append_one(
    rt: &Rt,
    log: &Log,
    moved: &Notify,
    template: &BytesMut,
) -> Result<(), String> {
    let batch = receive(rt, template)?;
    let appended = log
        .append(batch, LeaderEpoch(0))
        .map_err(|error| error.to_string())?;
    loop {
        let listen = moved.listen();
        if log.marks().counted_end > appended.last_offset {
            return Ok(());
        }
        if let Some(fault) = log.fault() {
            return Err(fault.to_string());
        }
        listen.await;
    }
}

/// One batch of about `size` bytes: records of 1 KiB (or one smaller record) of noise, which no layer below can compress.
pub fn batch_of(size: usize, now: Timestamp) -> BytesMut {
    const RECORD_BYTES: usize = 1024;
    let mut builder = BatchBuilder::new(Codec::None);
    let mut noise = Noise::new();
    let overhead = 61 + 12;
    while builder.len() + overhead < size || builder.is_empty() {
        let room = size.saturating_sub(builder.len() + 12).max(1);
        builder.push(now, None, Some(&noise.bytes(room.min(RECORD_BYTES))), &[]);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_about_the_size_that_is_asked_for_and_is_valid() {
        for size in [256, 1024, 4096, 65_536, 1 << 20] {
            let batch = batch_of(size, Timestamp(0));
            let off = batch.len().abs_diff(size);
            assert!(off <= 100, "{size} B asked for, {} given", batch.len());
            assert!(validate(batch, &rules(), Timestamp(0)).is_ok(), "{size}");
        }
    }

    #[test]
    fn a_shard_gives_back_what_its_task_said() {
        let done: Result<_, String> = on_one_shard(|_| async { Ok(5) });
        assert_eq!(done, Ok(5));
        let failed: Result<(), String> = on_one_shard(|_| async { Err("why".to_string()) });
        assert_eq!(failed, Err("why".to_string()));
    }
}
