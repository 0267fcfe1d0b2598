//! What the last run left besides the segments: checkpoints and journals of all shards.
//!
//! A start reads the checkpoint file and the ring of its own shard, and of the others only the headers. That is enough for a log that was this
//! shard's in the last run: the newest generation of any file or ring is that of its record. For any other log (one that moved here
//! from another shard, one that was created and not yet in a checkpoint) everything is read, once.

use std::cell::{Cell, RefCell};

use crate::{
    checkpoint::{Checkpoints, Known},
    error::Fault,
    journal::{JournalPosition, Replay},
    rt::{Rt, local::Budget},
    types::{LogId, ShardId},
};

use super::{CHECKPOINT_DIR, EngineConfig, JOURNAL_DIR};

pub struct LastRun {
    rt: Rt,
    shard: ShardId,
    checkpoints: RefCell<Checkpoints>,
    pub replay: Replay,
    /// One looks at a time.
    looking: Budget,
    looked_everywhere: Cell<bool>,
    unreadable: RefCell<Option<Fault>>,
}

impl LastRun {
    pub async fn open(rt: &Rt, config: &EngineConfig) -> Result<LastRun, Fault> {
        let checkpoint_dir = config.data_dir.join(CHECKPOINT_DIR);
        let mut checkpoints = Checkpoints::open(rt, &checkpoint_dir).await?;
        checkpoints.load(rt, config.shard).await?;
        let replay = Replay::open(rt, &config.data_dir.join(JOURNAL_DIR)).await?;
        let from = checkpoints.journal(config.shard);
        replay.scan(u32::from(config.shard.0), from).await?;
        let last_run = LastRun {
            rt: rt.clone(),
            shard: config.shard,
            checkpoints: RefCell::new(checkpoints),
            replay,
            looking: Budget::new(1),
            looked_everywhere: Cell::new(false),
            unreadable: RefCell::default(),
        };
        last_run.report_damage(0, 0);
        Ok(last_run)
    }

    /// A ring generation that no run has used.
    pub fn next_generation(&self) -> Result<u64, Fault> {
        let newest = self.newest_generation().unwrap_or(0);
        let used_up = || {
            let what =
                "its generation is the last one there is; no run of this broker has written that";
            Fault::corrupt(what, "a header in checkpoint or journal")
        };
        newest.checked_add(1).ok_or_else(used_up)
    }

    /// Whether this shard's last run was closed, so that all it left is durable.
    pub fn ended_in_order(&self) -> bool {
        self.checkpoints.borrow().ended_in_order(self.shard)
    }

    fn newest_generation(&self) -> Option<u64> {
        let checkpoints = self.checkpoints.borrow();
        self.replay.generation().max(checkpoints.generation())
    }

    /// What is known of a log. From here on the replay has all its entries that may be needed.
    pub async fn known(&self, log: LogId) -> Result<Option<Known>, Fault> {
        if let Some(known) = self.checkpoints.borrow().log(log)
            && known.shard == self.shard
            && Some(known.generation) == self.newest_generation()
        {
            return Ok(Some(known.clone()));
        }
        if let Err(fault) = self.look_everywhere().await {
            *self.unreadable.borrow_mut() = Some(fault.clone());
            return Err(fault);
        }
        Ok(self.checkpoints.borrow().log(log).cloned())
    }

    /// Whether the last run closed this log in order, so that there is nothing to recover. Asked for after `known`.
    pub fn is_clean(&self, log: LogId) -> bool {
        self.checkpoints.borrow().is_clean(log)
    }

    /// Why not all could be read that somebody asked for. Nothing may be overwritten then.
    pub fn unreadable(&self) -> Option<Fault> {
        self.unreadable.borrow().clone()
    }

    /// Records in this shard's own file, which its next checkpoint replaces, but for those that no log can have any more.
    pub fn own_records(&self) -> Vec<Known> {
        let checkpoints = self.checkpoints.borrow();
        let newest = checkpoints.generation();
        // Once a journal of a run has started, all logs have a record of that run.
        let all_are_newest = self.replay.generation() == newest;
        let own = checkpoints.logs().filter(|known| {
            known.shard == self.shard && (!all_are_newest || Some(known.generation) == newest)
        });
        own.cloned().collect()
    }

    /// What this shard's ring held before this was covered.
    pub fn journal(&self) -> Option<JournalPosition> {
        self.checkpoints.borrow().journal(self.shard)
    }

    pub fn checkpoint_read_bytes(&self) -> u64 {
        self.checkpoints.borrow().read_bytes()
    }

    async fn look_everywhere(&self) -> Result<(), Fault> {
        let _looking = self.looking.take(1).await;
        if self.looked_everywhere.get() {
            return Ok(());
        }
        let (files_damaged, rings_damaged) = {
            let checkpoints = self.checkpoints.borrow();
            (checkpoints.damage().len(), self.replay.damage().len())
        };
        // Taken away meanwhile: nobody else looks, and who has a record of its own needs no more.
        let mut checkpoints = self.checkpoints.borrow().clone();
        let loaded = checkpoints.load_all(&self.rt).await;
        *self.checkpoints.borrow_mut() = checkpoints;
        loaded?;
        let from = |shard: u32| {
            let shard = ShardId(u16::try_from(shard).ok()?);
            self.checkpoints.borrow().journal(shard)
        };
        self.replay.scan_all(from).await?;
        self.looked_everywhere.set(true);
        self.report_damage(files_damaged, rings_damaged);
        Ok(())
    }

    /// Tells the operator what was found to be damaged, but for the first few, which were told before.
    fn report_damage(&self, files_told: usize, rings_told: usize) {
        for fault in self.checkpoints.borrow().damage().iter().skip(files_told) {
            tracing::error!(%fault, "a checkpoint cannot be used; its logs are walked from their beginning");
        }
        for fault in self.replay.damage().iter().skip(rings_told) {
            tracing::error!(%fault, "the journal is damaged; what it has lost may be acknowledged data");
        }
    }
}
