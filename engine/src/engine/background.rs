//! The engine's own tasks: one commits the journal, one checkpoints, one applies retention, one takes
//! offline logs online again, one watches the free space. None per log.

use std::{
    rc::{Rc, Weak},
    time::Duration,
};

use futures_util::future::select;

use super::{Inner, checkpointer::Kind};
use crate::{
    error::Fault,
    journal::{Committed, Journal},
    log::{Durability, state::LogInner},
    rt::{Class, Instant},
};

impl Inner {
    pub fn start_background(self: &Rc<Self>) {
        let journal = self.shared.journal.borrow().clone();
        let journal = journal.expect("the journal has started");
        let rt = &self.shared.rt;
        let commits = Rc::clone(self).run_commits(journal.clone());
        let checkpoints = Rc::clone(self).run_checkpoints(journal);
        let retention = Rc::clone(self).run_retention();
        let reopening = Rc::clone(self).run_reopening();
        let space_watch = Rc::clone(self).run_space_watch();
        let tasks = [
            rt.spawn(Class::Foreground, commits),
            rt.spawn(Class::Housekeeping, checkpoints),
            rt.spawn(Class::Housekeeping, retention),
            rt.spawn(Class::Housekeeping, reopening),
            rt.spawn(Class::Foreground, space_watch),
        ];
        self.tasks.borrow_mut().extend(tasks);
    }

    pub async fn stop_background(&self) {
        let tasks = self.tasks.take();
        for task in tasks {
            task.cancel().await;
        }
    }

    /// Group commit: while one commit is in flight the next one gathers.
    async fn run_commits(self: Rc<Self>, journal: Journal) {
        loop {
            match journal.commit().await {
                Ok(committed) => {
                    self.shared.count(|stats| stats.journal_commits += 1);
                    self.distribute(&committed);
                }
                Err(fault) => {
                    self.poison_persisted(&fault);
                    return;
                }
            }
        }
    }

    fn distribute(&self, committed: &[Committed]) {
        for (at, entry) in committed.iter().enumerate() {
            // Entries that a log submitted together stand together; the last one speaks for all.
            let is_last = committed.get(at + 1).is_none_or(|next| {
                next.log != entry.log || next.log_generation != entry.log_generation
            });
            if !is_last {
                continue;
            }
            let log = self.logs.borrow().get(&entry.log).cloned();
            if let Some(log) = log {
                log.journal_committed(entry.log_generation, entry.next_offset);
            }
        }
    }

    fn poison_persisted(&self, fault: &Fault) {
        tracing::error!(%fault, "the journal failed: all persisted logs of this shard go offline; those that can be written go on past the journal until the broker is restarted");
        let logs: Vec<Rc<LogInner>> = self.logs.borrow().values().cloned().collect();
        for log in logs {
            if log.state.borrow().config.durability == Durability::Persisted {
                log.poison(fault.clone());
            }
        }
    }

    async fn run_checkpoints(self: Rc<Self>, journal: Journal) {
        let interval = Duration::from_millis(self.config.checkpoint_interval_ms);
        let mut appended_before = self.shared.stats().appended_batches;
        let mut was_full = false;
        loop {
            let requests = &self.shared.checkpoints;
            let requested = requests.wanted.listen();
            let journal_wants = journal.checkpoint_wanted().listen();
            // While a log is offline the journal keeps what that log may need, and a checkpoint frees nothing.
            let journal_needs =
                journal.needs_checkpoint() && journal.fault().is_none() && self.faulted_logs() == 0;
            // It does let those count that wait in a journal that cannot go on.
            let full = journal.is_full();
            let journal_stands = full && !was_full;
            was_full = full;
            if !requests.is_open() && !journal_needs && !journal_stands {
                let wanted = select(requested, journal_wants);
                let timed_out = self.shared.rt.timeout(interval, wanted).await.is_none();
                let appended = self.shared.stats().appended_batches;
                if timed_out && appended == appended_before {
                    continue;
                }
            }
            appended_before = self.shared.stats().appended_batches;
            let ticket = requests.begin();
            let result = self.checkpoint(Kind::Running).await;
            if let Err(fault) = &result {
                tracing::error!(%fault, "the checkpoint failed; the journal keeps its files until one succeeds");
            }
            requests.end(ticket, &result);
            if result.is_err() {
                self.shared.rt.sleep(interval).await;
            }
        }
    }

    async fn run_retention(self: Rc<Self>) {
        let interval = Duration::from_millis(self.config.retention_check_interval_ms);
        let mut next_check = self.after(interval);
        let mut hurried = false;
        loop {
            let added = self.shared.deletion_added.listen();
            // When space runs low what may go goes now.
            let low = self.shared.space.is_low();
            if low && !hurried {
                next_check = self.shared.rt.now();
            }
            hurried = low;
            let due = self
                .next_deletion()
                .map_or(next_check, |due| due.min(next_check));
            let wait = Duration::from_nanos(due.0.saturating_sub(self.shared.rt.now().0));
            self.shared.rt.timeout(wait, added).await;
            self.remove_due_files().await;
            self.retain_rolled().await;
            if self.shared.rt.now() >= next_check {
                self.check_retention().await;
                next_check = self.after(interval);
            }
        }
    }

    fn after(&self, interval: Duration) -> Instant {
        let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.shared.rt.now().0.saturating_add(nanos))
    }

    /// Files wait in the order in which their logs gave them up; delays differ little, so the oldest stands for all. While space is
    /// low none waits: a reader that has a file open keeps it.
    fn next_deletion(&self) -> Option<Instant> {
        let deletions = self.shared.deletions.borrow();
        let due = deletions.front().map(|deletion| deletion.due)?;
        Some(match self.shared.space.is_low() {
            true => due.min(self.shared.rt.now()),
            false => due,
        })
    }

    async fn remove_due_files(&self) {
        while self
            .next_deletion()
            .is_some_and(|due| due <= self.shared.rt.now())
        {
            self.remove_oldest_deletion().await;
        }
    }

    /// Nobody reads any more: what waits for its last readers goes now, since a log at rest is not looked into by the next start.
    pub async fn remove_all_deleted_files(&self) {
        while !self.shared.deletions.borrow().is_empty() {
            self.remove_oldest_deletion().await;
        }
    }

    async fn remove_oldest_deletion(&self) {
        let deletion = self.shared.deletions.borrow_mut().pop_front();
        // Whatever stays is removed when its log is opened.
        if let Some(deletion) = deletion
            && let Err(error) = self.shared.rt.remove_file(&deletion.path).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %deletion.path.display(), %error, "cannot remove a deleted file");
        }
    }

    /// Logs that have just completed a segment.
    async fn retain_rolled(&self) {
        let rolled = self.shared.rolled.take();
        for log in rolled.iter().filter_map(Weak::upgrade) {
            retain(&log).await;
        }
    }

    async fn check_retention(&self) {
        let logs: Vec<Rc<LogInner>> = self.logs.borrow().values().cloned().collect();
        let now = self.shared.rt.wall_clock();
        for log in logs {
            let idle_ms = self.config.producer_id_expiration_ms;
            {
                let mut state = log.state.borrow_mut();
                state.producers.expire(now, idle_ms);
                state.cursors.drop_idle(&self.shared);
            }
            if self.shared.space.is_low() {
                log.drop_spares().await;
            }
            retain(&log).await;
            self.shared.rt.yield_now().await;
        }
        self.rest_idle_logs().await;
    }

    async fn rest_idle_logs(&self) {
        let logs: Vec<Rc<LogInner>> = self.logs.borrow().values().cloned().collect();
        for log in logs {
            if let Err(fault) = log.rest_if_idle().await {
                tracing::warn!(log = %log.name, %fault, "cannot bring an idle log to rest");
            }
        }
    }
}

async fn retain(log: &Rc<LogInner>) {
    if log.fault().is_none()
        && let Err(fault) = log.retain().await
    {
        // Nothing is lost by deleting later.
        tracing::warn!(log = %log.name, %fault, "retention failed");
    }
}
