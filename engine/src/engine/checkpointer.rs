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
    checkpoint::{self, Checkpoint, LogCheckpoint},
    error::Fault,
    log::state::LogInner,
};

/// Logs that are synced at the same time.
const SYNCS_IN_FLIGHT_MAX: usize = 16;

/// The side file of an active segment is written again when it has fallen so far behind.
const INDEX_LAG_BYTES: u64 = 16 * 1024 * 1024;

/// Whether the logs take appends after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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
        let unopened = self.unopened.borrow().clone();
        let known = described.iter().map(|(_, known)| known);
        let logs = known
            .chain(unopened.values().flatten())
            .map(|known| LogCheckpoint::clone(known))
            .collect();
        let checkpoint = Checkpoint {
            generation: self.generation.get(),
            clean: kind == Kind::Clean && self.faulted_logs() == 0,
            logs,
        };
        let dir = self.config.data_dir.join(super::CHECKPOINT_DIR);
        checkpoint::write(&self.shared.rt, &dir, self.config.shard, &checkpoint).await?;
        for (log, known) in described {
            log.state.borrow_mut().checkpoint = Some(known);
        }
        self.shared.count(|stats| stats.checkpoints += 1);
        // A log that went offline may need its journal entries when it is opened again.
        if self.faulted_logs() == 0
            && let (Some(journal), Some(position)) = (journal, position)
            && journal.fault().is_none()
        {
            journal.release_before(position);
        }
        if kind == Kind::Running {
            self.save_indexes(INDEX_LAG_BYTES).await;
        }
        Ok(())
    }

    pub fn faulted_logs(&self) -> usize {
        let logs = self.logs.borrow();
        logs.values().filter(|log| log.fault().is_some()).count()
    }

    /// A durable description of every log, all of them true at the moment this returns. A log that is offline keeps its last one.
    async fn describe_all(&self) -> Vec<(Rc<LogInner>, Rc<LogCheckpoint>)> {
        let mut described: HashMap<u64, Option<Rc<LogCheckpoint>>> = HashMap::new();
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
                    let known = described.get(&log.key).cloned().flatten();
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

    /// Writes the side files of active segments that are more than `lag_bytes` ahead of theirs.
    pub async fn save_indexes(&self, lag_bytes: u64) {
        let logs: Vec<Rc<LogInner>> = self.logs.borrow().values().cloned().collect();
        for log in logs {
            if let Err(fault) = log.save_index(lag_bytes).await {
                // Only a cache: the index can be built again.
                tracing::warn!(log = %log.name, %fault, "cannot write the index");
            }
        }
    }
}
