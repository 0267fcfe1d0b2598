//! Checkpoints: everything that is in memory goes to the segments, the segments are synced, the shard's checkpoint file says so,
//! and the journal gets its oldest files back.
//!
//! The order is what makes it safe. The journal's position is taken first, so every entry before it belongs to an append that a
//! log knows already. Each log is described at its present end, then synced up to there: appends that come meanwhile are
//! after the description. The file is written when all descriptions hold, and only then are entries released.

use std::{collections::HashMap, rc::Rc};

use futures_util::{StreamExt, stream};

use super::Inner;
use crate::{
    checkpoint::{self, Conclusion, Known, LogCheckpoint},
    error::Fault,
    log::{settle::Described, state::LogInner},
};

/// Logs that are synced at the same time.
const SYNCS_IN_FLIGHT_MAX: usize = 256;

/// The side file of an active segment is written again when it has fallen so far behind.
const INDEX_LAG_BYTES: u64 = 16 * 1024 * 1024;

/// Whether the logs take appends after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first one of a run, before the journals of the last one are given up. It is not written if a log failed: its old record would be
    /// taken for one of this run, and what the last run's journals hold of the log would not be looked for again.
    Recovered,
    Running,
    /// The last one of an orderly end.
    Clean,
}

impl Inner {
    /// One checkpoint of all logs. Only one runs at a time.
    pub async fn checkpoint(&self, kind: Kind) -> Result<(), Fault> {
        let journal = self.shared.journal.borrow().clone();
        let position = journal.as_ref().map(|journal| journal.position());
        let described = self.describe_all().await;
        // A log that went offline may need its journal entries when it is opened again.
        let is_now = |(_, known): &(_, Described)| matches!(known, Described::Now(_));
        let all_described = described.iter().all(is_now) && self.faulted_logs() == 0;
        if kind == Kind::Recovered
            && let Some(fault) = self.first_fault()
        {
            return Err(fault);
        }
        let with_record = |(log, known): (Rc<LogInner>, Described)| match known {
            Described::Now(known) | Described::Before(Some(known)) => Some((log, known)),
            Described::Before(None) => None,
        };
        let described: Vec<_> = described.into_iter().filter_map(with_record).collect();
        let needed_from = match position.filter(|_| all_described) {
            Some(position) => Some(position),
            None => self.journal_needed_from.get(),
        };
        let conclusion = Conclusion {
            generation: self.generation.get(),
            journal: needed_from,
            // A log at rest that cannot be woken is to be recovered by the next start.
            clean: kind == Kind::Clean
                && all_described
                && self.offline_logs() == 0
                && self.unopened.borrow().is_empty(),
        };
        let changed = self.write_checkpoint(conclusion, &described).await?;
        self.journal_needed_from.set(needed_from);
        for (log, known) in described {
            log.state.borrow_mut().checkpoint = Some(known);
        }
        self.shared.count(|stats| stats.checkpoints += 1);
        self.shared.checkpoints.dirty_logs(changed);
        if all_described
            && self.faulted_logs() == 0
            && let (Some(journal), Some(position)) = (journal, position)
            && journal.fault().is_none()
        {
            journal.release_before(position);
        }
        self.save_indexes().await;
        Ok(())
    }

    /// Writes the records of those that changed since the last checkpoint, or of all. Returns how many changed.
    async fn write_checkpoint(
        &self,
        conclusion: Conclusion,
        described: &[(Rc<LogInner>, Rc<LogCheckpoint>)],
    ) -> Result<usize, Fault> {
        let mut writer = self.checkpoint_writer.take().unwrap_or_else(|| {
            let dir = self.config.data_dir.join(super::CHECKPOINT_DIR);
            checkpoint::Writer::new(self.shared.rt.clone(), &dir, self.config.shard)
        });
        let has_changed = |log: &LogInner, known: &Rc<LogCheckpoint>| {
            let state = log.state.borrow();
            let before = state.checkpoint.as_ref();
            !before.is_some_and(|before| Rc::ptr_eq(before, known))
        };
        let changed: Vec<bool> = described
            .iter()
            .map(|(log, known)| has_changed(log, known))
            .collect();
        let wants_all = writer.wants_all();
        // Logs that are not open here stay as the last run knew them.
        let unopened: Vec<Known> = match wants_all {
            true => self.unopened.borrow().values().flatten().cloned().collect(),
            false => Vec::new(),
        };
        let records = described
            .iter()
            .zip(&changed)
            .filter(|(_, changed)| wants_all || **changed)
            .map(|((_, known), _)| &**known)
            .chain(unopened.iter().map(|known| &*known.record));
        let repeated = self.repeated_records();
        let repeated = repeated
            .iter()
            .map(|known| (known.generation, &*known.record));
        let result = writer.write(conclusion, records, repeated).await;
        *self.checkpoint_writer.borrow_mut() = Some(writer);
        result?;
        Ok(changed.into_iter().filter(|changed| *changed).count())
    }

    /// Before the journal has started: the logs in this shard's old file that another shard has now. Its own file, with a record of this
    /// run, may not be there yet.
    fn repeated_records(&self) -> Vec<Known> {
        let last_run = self.last_run.borrow().clone();
        let Some(last_run) = last_run else {
            return Vec::new();
        };
        let (logs, unopened) = (self.logs.borrow(), self.unopened.borrow());
        let is_elsewhere = |known: &Known| {
            let log = known.record.log;
            !logs.contains_key(&log) && !unopened.contains_key(&log)
        };
        let mut repeated = last_run.own_records();
        repeated.retain(is_elsewhere);
        repeated.sort_by_key(|known| known.generation);
        repeated
    }

    pub fn faulted_logs(&self) -> usize {
        let logs = self.logs.borrow();
        logs.values().filter(|log| log.holds_the_journal()).count()
    }

    /// A description of every log, durable and true at the moment this returns. A log that is offline keeps its last one.
    async fn describe_all(&self) -> Vec<(Rc<LogInner>, Described)> {
        let mut described: HashMap<u64, Described> = HashMap::new();
        loop {
            let logs: Vec<Rc<LogInner>> = self.logs.borrow().values().cloned().collect();
            let is_settled = |log: &Rc<LogInner>| {
                let known = described.get(&log.key);
                known.is_some_and(|known| log.fault().is_some() || log.is_described_by(known))
            };
            let open: Vec<Rc<LogInner>> = logs
                .iter()
                .filter(|log| !is_settled(log))
                .cloned()
                .collect();
            if open.is_empty() {
                let with_log = |log: Rc<LogInner>| {
                    let known = described.get(&log.key).cloned();
                    known.map(|known| (log, known))
                };
                return logs.into_iter().filter_map(with_log).collect();
            }
            let new: Vec<_> = stream::iter(open)
                .map(|log| async move { (log.key, log.describe_durably().await) })
                .buffer_unordered(SYNCS_IN_FLIGHT_MAX)
                .collect()
                .await;
            described.extend(new);
        }
    }

    /// Writes the side files of active segments that are far ahead of theirs. What theirs do not say is in the checkpoint.
    async fn save_indexes(&self) {
        let logs: Vec<Rc<LogInner>> = self.logs.borrow().values().cloned().collect();
        for log in logs {
            if let Err(fault) = log.save_index(INDEX_LAG_BYTES).await {
                // Only a cache: the index can be built again.
                tracing::warn!(log = %log.name, %fault, "cannot write the index");
            }
        }
    }
}
