//! Tries to take offline logs online again: after a second, then at growing intervals, and at once when the disk has room again.
//!
//! The operator hears of each log when it goes offline and when it is back, not of the attempts between.

use std::{collections::HashSet, rc::Rc, time::Duration};

use super::Inner;
use crate::{error::Fault, log::state::LogInner};

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// When nothing was tried for so long the next pause is a short one. A disk that comes and goes does not get here, nor do its messages.
const QUIET_TIME: Duration = Duration::from_secs(120);

impl Inner {
    pub(super) async fn run_reopening(self: Rc<Self>) {
        let rt = &self.shared.rt;
        let mut pause = PAUSE_MIN;
        let mut last = rt.now();
        // Logs of which the operator knows that only a restart helps.
        let mut told = HashSet::new();
        loop {
            let went_offline = self.shared.went_offline.listen();
            if !self.has_log_to_mend() {
                went_offline.await;
                if rt.now().since(last) > QUIET_TIME {
                    pause = PAUSE_MIN;
                }
            }
            let room_again = self.shared.space.room_again.listen();
            rt.timeout(pause, room_again).await;
            for log in self.mendable_logs() {
                self.reopen(&log, &mut told).await;
            }
            last = rt.now();
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn reopen(&self, log: &Rc<LogInner>, told: &mut HashSet<u64>) {
        match log.mend().await {
            Ok(()) => {
                told.remove(&log.key);
                self.shared.count(|stats| stats.logs_reopened += 1);
                tracing::info!(log = %log.name, "log is online again; nothing was lost");
            }
            Err(fault) => {
                if matches!(fault, Fault::Corrupt { .. }) && told.insert(log.key) {
                    tracing::error!(log = %log.name, %fault, "log cannot be taken online again while the broker runs");
                }
            }
        }
    }

    /// Also one that cannot be mended yet, since a write of it is still in flight.
    fn has_log_to_mend(&self) -> bool {
        let logs = self.logs.borrow();
        logs.values().any(|log| log.wants_mending())
    }

    fn mendable_logs(&self) -> Vec<Rc<LogInner>> {
        let logs = self.logs.borrow();
        let mendable = logs.values().filter(|log| log.is_mendable());
        mendable.cloned().collect()
    }
}
