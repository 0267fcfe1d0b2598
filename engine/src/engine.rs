//! All logs of one shard: open, recover, checkpoint, background work, shutdown.

mod background;
mod checkpointer;
mod last_run;
mod reopen;
mod scrub;
mod space_watch;
mod strays;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    rc::Rc,
};

use futures_util::{StreamExt, stream};

pub use crate::log::shared::EngineStats;
pub use crate::log::space::{SpaceAlarm, SpaceConfig};
use crate::{
    checkpoint::{self, Known},
    error::{Fault, OpenError},
    journal::{Journal, JournalConfig, JournalPosition},
    log::{
        Log, LogConfig,
        open::{self, Left, Opened},
        settle,
        shared::{Limits, Shared},
        state::LogInner,
    },
    rt::{Rt, Task, buf::ALIGNMENT, durable, local::Notify},
    types::{LogId, LogName, ShardId},
};
use checkpointer::Kind;
use last_run::LastRun;
pub use strays::Strays;

/// Logs that are closed at the same time.
const CLOSES_IN_FLIGHT_MAX: usize = 256;

const CHECKPOINT_DIR: &str = "checkpoint";
const JOURNAL_DIR: &str = "journal";

/// Directories of deleted logs end in this until they are gone.
const DELETED_SUFFIX: &str = "-delete";

/// One commit of the journal gathers no more than this.
const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// From so many on, one sync of a file system takes less time than theirs.
pub const SYNCS_TOGETHER_MIN: usize = 16;

#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub data_dir: PathBuf,
    pub shard: ShardId,
    /// Size of one journal file, and how many make the ring.
    pub journal_file_bytes: u64,
    pub journal_files: usize,
    /// Appends waiting for the disk in one partition beyond this go straight to the segment, which is the durable write then.
    pub bypass_bytes: usize,
    /// Largest single write to a segment, but for a batch that is larger.
    pub write_chunk_bytes_max: usize,
    /// Memory of the tail cache, of what waits for the disk included.
    pub tail_bytes_max: usize,
    /// Memory for read-ahead of cold readers.
    pub readahead_bytes_max: usize,
    pub checkpoint_interval_ms: u64,
    pub retention_check_interval_ms: u64,
    /// Files of deleted segments that each log keeps for its next ones; with 0 each segment is a new file.
    pub spare_segments_max: usize,
    pub producer_id_expiration_ms: u64,
    /// When so many logs wait for a sync of their own, one sync of the file system takes its place.
    pub syncs_together_min: usize,
    pub space: SpaceConfig,
}

/// The engine of one shard.
///
/// Start: [`Engine::open`] on every shard (reads all checkpoints and journals of the data directory, changes nothing), then
/// [`Engine::open_log`] for each log the shard owns, then, when *all* shards have opened all of theirs,
/// [`Engine::sync_recovered`], and after another barrier [`Engine::start_journal`]: only from then on may logs be appended to,
/// since it is what lets old journals be overwritten.
#[derive(Clone)]
pub struct Engine(pub(crate) Rc<Inner>);

pub(crate) struct Inner {
    shared: Rc<Shared>,
    config: EngineConfig,
    /// Ordered, so that a seed of the simulator is one order of events.
    logs: RefCell<BTreeMap<LogId, Rc<LogInner>>>,
    /// What the last run left; nothing of it counts once the journal of this run has started.
    last_run: RefCell<Option<Rc<LastRun>>>,
    /// Logs that could not be opened at the start, and what the last run's checkpoint says of them, which the checkpoints of this run
    /// repeat until they are open or deleted.
    unopened: RefCell<BTreeMap<LogId, Option<Known>>>,
    /// Away while a checkpoint is being written.
    checkpoint_writer: RefCell<Option<checkpoint::Writer>>,
    /// What this shard's ring holds before this is covered by a durable checkpoint.
    journal_needed_from: Cell<Option<JournalPosition>>,
    /// Of the journal rings of this run; the same in all shards.
    generation: Cell<u64>,
    tasks: RefCell<Vec<Task<()>>>,
}

impl Engine {
    pub async fn open(rt: Rt, config: EngineConfig) -> Result<Engine, OpenError> {
        let bypass_bytes = config.bypass_bytes as u64;
        assert!(
            bypass_bytes + 4 * ALIGNMENT as u64 <= config.journal_file_bytes,
            "what may go to the journal must fit one of its files"
        );
        assert!(config.syncs_together_min > 0, "one is not together");
        let data_dir = &config.data_dir;
        let file_system = rt.file_system(data_dir).await;
        let file_system =
            file_system.map_err(|error| Fault::io("open the file system of", data_dir, error))?;
        let last_run = LastRun::open(&rt, &config).await?;
        if !last_run.ended_in_order() {
            // A run that was killed may have cut, created or renamed what it did not come to sync. What this run sees of it must not be
            // undone by a power failure after it was taken for true.
            let synced = file_system.sync().await;
            synced.map_err(|error| Fault::io("sync the file system of", data_dir, error))?;
        }
        let generation = last_run.next_generation()?;
        let journal_needed_from = last_run.journal();
        let limits = Limits {
            bypass_bytes: config.bypass_bytes,
            write_chunk_bytes_max: config.write_chunk_bytes_max,
            tail_bytes_max: config.tail_bytes_max,
            readahead_bytes_max: config.readahead_bytes_max,
            syncs_together_min: config.syncs_together_min,
            spare_segments_max: config.spare_segments_max,
        };
        let shared = Shared::new(rt, limits, config.space.clone(), file_system);
        let engine = Engine(Rc::new(Inner {
            shared,
            config,
            logs: RefCell::default(),
            last_run: RefCell::new(Some(Rc::new(last_run))),
            unopened: RefCell::default(),
            checkpoint_writer: RefCell::default(),
            journal_needed_from: Cell::new(journal_needed_from),
            generation: Cell::new(generation),
            tasks: RefCell::default(),
        }));
        engine.0.look_at_space().await?;
        Ok(engine)
    }

    /// Opens the log in `<data_dir>/<name>`, recovering it, or creates it.
    pub async fn open_log(
        &self,
        id: LogId,
        name: LogName,
        config: LogConfig,
    ) -> Result<Log, OpenError> {
        self.open_log_as(id, name, config, Opened::Now).await
    }

    /// As `open_log`, but where there is nothing to recover its segments are looked for only when they are needed, and given up when they
    /// have not been for a while. Such a log refuses an append with `Busy` where another would take it, so ask [`Log::has_room`] first.
    pub async fn open_log_when_used(
        &self,
        id: LogId,
        name: LogName,
        config: LogConfig,
    ) -> Result<Log, OpenError> {
        self.open_log_as(id, name, config, Opened::WhenUsed).await
    }

    async fn open_log_as(
        &self,
        id: LogId,
        name: LogName,
        config: LogConfig,
        opened: Opened,
    ) -> Result<Log, OpenError> {
        let inner = &self.0;
        assert!(self.log(id).is_none(), "a log is opened once");
        let last_run = inner.last_run.borrow().clone();
        let known = match &last_run {
            Some(last_run) => last_run.known(id).await?,
            None => inner.unopened.borrow().get(&id).cloned().flatten(),
        };
        let left = Left {
            checkpoint: known.as_ref().map(|known| &known.record),
            closed: last_run
                .as_ref()
                .is_some_and(|last_run| last_run.is_clean(id)),
            replay: last_run.as_ref().map(|last_run| &last_run.replay),
        };
        let data_dir = &inner.config.data_dir;
        let opened = open::open(&inner.shared, data_dir, id, name, config, opened, left).await;
        if opened.is_err() && last_run.is_some() {
            inner.unopened.borrow_mut().insert(id, known);
        }
        let log = opened?;
        inner.unopened.borrow_mut().remove(&id);
        let before = inner.logs.borrow_mut().insert(id, Rc::clone(&log));
        assert!(before.is_none(), "a log is opened once");
        inner.shared.count(|stats| stats.logs += 1);
        let marks = log.state.borrow().marks;
        if last_run.is_none() && marks.durable_end < marks.log_end {
            // Nobody else will ask for the sync that makes it count.
            inner.shared.checkpoints.request();
        }
        Ok(Log(log))
    }

    /// Makes what recovery kept durable: segments and checkpoint. The first step of two; between them all shards meet.
    pub async fn sync_recovered(&self) -> Result<(), Fault> {
        if let Some(fault) = self.0.unopened_in_journal() {
            return Err(fault);
        }
        self.0.checkpoint(Kind::Recovered).await?;
        // Without this log's bytes in its segments the journal may not be overwritten.
        match self.0.first_fault() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// Starts the journal of this run, and with it the background work. From here on what the last run left is void.
    pub async fn start_journal(&self) -> Result<(), Fault> {
        let inner = &self.0;
        let config = &inner.config;
        let dir = config
            .data_dir
            .join(JOURNAL_DIR)
            .join(config.shard.0.to_string());
        let commits_bytes_max = config.journal_file_bytes as usize - ALIGNMENT;
        let journal_config = JournalConfig {
            file_bytes: config.journal_file_bytes,
            files: config.journal_files,
            commit_bytes_max: COMMIT_BYTES_MAX.min(commits_bytes_max),
        };
        let rt = &inner.shared.rt;
        let generation = inner.generation.get();
        let journal = Journal::start(rt, dir, journal_config, generation).await?;
        *inner.shared.journal.borrow_mut() = Some(journal);
        if let Some(last_run) = inner.last_run.take() {
            inner.count_reads(&last_run);
            if let Ok(last_run) = Rc::try_unwrap(last_run) {
                last_run.replay.close().await?;
            }
        }
        if config.shard == ShardId(0) {
            inner.remove_deleted_dirs().await?;
        }
        inner.start_background();
        Ok(())
    }

    pub fn log(&self, id: LogId) -> Option<Log> {
        self.0.logs.borrow().get(&id).cloned().map(Log)
    }

    /// Closes the log and removes its directory (renamed to `*-delete` first, so that a crash cannot leave half a log).
    /// Also of one that could not be opened, if the directory says that it is this log's. Until this has succeeded the log counts as one
    /// that could not be opened: nobody has brought it to rest, so an end with it is not an orderly one.
    pub async fn delete_log(&self, id: LogId, name: &LogName) -> Result<(), Fault> {
        let inner = &self.0;
        let data_dir = &inner.config.data_dir;
        let open = inner.logs.borrow_mut().remove(&id);
        match open {
            Some(log) => {
                inner.shared.count(|stats| stats.logs -= 1);
                let known = inner.known_of(&log);
                inner.unopened.borrow_mut().insert(id, known);
                log.remove(data_dir).await?;
            }
            None => settle::remove_unopened(&inner.shared, data_dir, id, name).await?,
        }
        inner.unopened.borrow_mut().remove(&id);
        Ok(())
    }

    /// Waits until the counted end of some logs moved, or some went offline, and names them: one wake-up for a whole group commit.
    /// One caller only.
    pub async fn progress(&self) -> Vec<LogId> {
        let moved = self.0.shared.progress.wait().await;
        let logs = self.0.logs.borrow();
        for id in &moved {
            if let Some(log) = logs.get(id) {
                log.state.borrow_mut().reported = false;
            }
        }
        moved
    }

    /// Notified whenever appends that were refused with `Busy` may be tried again.
    pub fn room(&self) -> Notify {
        self.0.shared.room.clone()
    }

    pub fn stats(&self) -> EngineStats {
        EngineStats {
            logs_offline: self.0.offline_logs() as u64,
            ..self.0.shared.stats()
        }
    }

    /// Writes everything behind, syncs, checkpoints, cuts files to their exact length. The engine takes no more appends.
    pub async fn close(&self) -> Result<(), Fault> {
        // While logs come to rest checkpoints go on: a truncation that has begun waits for one.
        let logs: Vec<Rc<LogInner>> = self.0.logs.borrow().values().cloned().collect();
        stream::iter(logs)
            .for_each_concurrent(CLOSES_IN_FLIGHT_MAX, |log| async move {
                // A log that is offline stays as it is; recovery sees to it.
                if let Err(fault) = log.finish().await {
                    log.poison(fault);
                }
            })
            .await;
        self.0.stop_background().await;
        self.0.checkpoint(Kind::Clean).await?;
        self.0.finish_removals().await;
        self.0.remove_all_deleted_files().await;
        match self.0.first_fault() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }
}

impl Inner {
    fn count_reads(&self, last_run: &LastRun) {
        self.shared.count(|stats| {
            stats.recovery_journal_bytes = last_run.replay.read_bytes();
            stats.recovery_checkpoint_bytes = last_run.checkpoint_read_bytes();
        });
        let stats = self.shared.stats();
        tracing::info!(
            logs = stats.recovered_logs,
            segment_bytes = stats.recovery_segment_bytes,
            journal_bytes = stats.recovery_journal_bytes,
            checkpoint_bytes = stats.recovery_checkpoint_bytes,
            "read at the start"
        );
    }

    /// What a checkpoint of this run says of a log.
    fn known_of(&self, log: &LogInner) -> Option<Known> {
        let record = log.state.borrow().checkpoint.clone()?;
        Some(Known {
            generation: self.generation.get(),
            shard: self.config.shard,
            clean: false,
            record,
        })
    }

    /// What retention was about when it was stopped. Log starts are in a checkpoint by now.
    async fn finish_removals(&self) {
        let logs: Vec<Rc<LogInner>> = self.logs.borrow().values().cloned().collect();
        for log in logs {
            if log.fault().is_none()
                && let Err(fault) = log.remove_segments_below_start().await
            {
                tracing::warn!(log = %log.name, %fault, "segments below the log start are left for the next start to remove");
            }
        }
    }

    fn first_fault(&self) -> Option<Fault> {
        let logs = self.logs.borrow();
        let mut offline = logs.values().filter(|log| log.holds_the_journal());
        offline.find_map(|log| log.fault())
    }

    fn offline_logs(&self) -> usize {
        let logs = self.logs.borrow();
        logs.values().filter(|log| log.fault().is_some()).count()
    }

    /// A log that could not be opened, and of which the journal holds what no segment may have: the journal must not be overwritten.
    fn unopened_in_journal(&self) -> Option<Fault> {
        let last_run = self.last_run.borrow().clone()?;
        if let Some(fault) = last_run.unreadable() {
            return Some(fault);
        }
        let unopened = self.unopened.borrow();
        let (id, _) = unopened.iter().find(|(id, known)| {
            last_run.replay.entries(**id).iter().any(|entry| {
                known.as_ref().is_none_or(|known| {
                    entry.log_generation == known.record.log_generation
                        && entry.next_offset > known.record.recovery_offset
                })
            })
        })?;
        let what = format!("it holds acknowledged records of {id:?}, which cannot be opened");
        let journal = self.config.data_dir.join(JOURNAL_DIR);
        Some(Fault::corrupt(what, journal))
    }

    async fn remove_deleted_dirs(&self) -> Result<(), Fault> {
        let rt = &self.shared.rt;
        let data_dir = &self.config.data_dir;
        let listed = rt.list_dir(data_dir).await;
        let listed = listed.map_err(|error| Fault::io("list", data_dir, error))?;
        let deleted = listed
            .into_iter()
            .filter(|entry| entry.is_dir && entry.name.ends_with(DELETED_SUFFIX));
        for entry in deleted {
            let path = data_dir.join(&entry.name);
            let removed = rt.remove_dir_all(&path).await;
            removed.map_err(|error| Fault::io("remove", path, error))?;
        }
        durable::sync_dir(rt, data_dir).await
    }
}
