//! All logs of one shard: open, recover, checkpoint, background work, shutdown.

use std::path::PathBuf;

use crate::{
    error::{Fault, OpenError},
    log::{Log, LogConfig},
    rt::{Rt, local::Notify},
    types::{LogId, LogName, ShardId},
};

#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub data_dir: PathBuf,
    pub shard: ShardId,
    /// Size of one journal file, and how many make the ring.
    pub journal_file_bytes: u64,
    pub journal_files: usize,
    /// Appends waiting for the disk in one partition beyond this go straight to the segment, which is the durable write then.
    pub bypass_bytes: usize,
    /// Largest single write to a segment.
    pub write_chunk_bytes_max: usize,
    /// Memory of the tail cache, of what waits for the disk included.
    pub tail_bytes_max: usize,
    /// Memory for read-ahead of cold readers.
    pub readahead_bytes_max: usize,
    pub checkpoint_interval_ms: u64,
    pub retention_check_interval_ms: u64,
    pub producer_id_expiration_ms: u64,
}

/// Plain counters of one shard, read by metrics and benchmarks.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineStats {
    pub logs: u64,
    pub appended_batches: u64,
    pub appended_bytes: u64,
    pub journal_commits: u64,
    pub journal_bytes: u64,
    pub segment_writes: u64,
    pub segment_bytes: u64,
    pub segment_syncs: u64,
    pub bypass_writes: u64,
    pub bypass_bytes: u64,
    pub checkpoints: u64,
    pub tail_bytes: u64,
    pub tail_unflushed_bytes: u64,
    pub cached_reads: u64,
    pub cold_reads: u64,
    pub cold_read_bytes: u64,
    pub faults: u64,
}

/// The engine of one shard.
///
/// Start: [`Engine::open`] on every shard (reads all checkpoints and journals of the data directory, changes nothing), then
/// [`Engine::open_log`] for each log the shard owns, then, when *all* shards have opened all of theirs, [`Engine::finish_recovery`]:
/// `sync_recovered`, and after another barrier `start_journal`: only from then on may logs be appended to, since it is what lets old journals be overwritten.
#[derive(Clone)]
pub struct Engine {
    _private: std::rc::Rc<()>,
}

impl Engine {
    pub async fn open(_rt: Rt, _config: EngineConfig) -> Result<Engine, OpenError> {
        unimplemented!()
    }
    /// Opens the log in `<data_dir>/<name>`, recovering it, or creates it.
    pub async fn open_log(
        &self,
        _id: LogId,
        _name: LogName,
        _config: LogConfig,
    ) -> Result<Log, OpenError> {
        unimplemented!()
    }
    /// Makes what recovery kept durable (segments, checkpoint) and starts the journal of this run. Two steps, with a barrier of all
    /// shards between them: `sync_recovered`, then `start_journal`.
    pub async fn sync_recovered(&self) -> Result<(), Fault> {
        unimplemented!()
    }
    pub async fn start_journal(&self) -> Result<(), Fault> {
        unimplemented!()
    }
    pub fn log(&self, _id: LogId) -> Option<Log> {
        unimplemented!()
    }
    /// Closes the log and removes its directory (renamed to `*-delete` first, so that a crash cannot leave half a log).
    pub async fn delete_log(&self, _id: LogId) -> Result<(), Fault> {
        unimplemented!()
    }
    /// Waits until the counted end of some logs moved, or some went offline, and names them: one wake-up for a whole group commit.
    /// One caller only.
    pub async fn progress(&self) -> Vec<LogId> {
        unimplemented!()
    }
    /// Notified whenever appends that were refused with `Busy` may be tried again.
    pub fn room(&self) -> Notify {
        unimplemented!()
    }
    pub fn stats(&self) -> EngineStats {
        unimplemented!()
    }
    /// Writes everything behind, syncs, checkpoints, cuts files to their exact length. The engine takes no more appends.
    pub async fn close(&self) -> Result<(), Fault> {
        unimplemented!()
    }
}
