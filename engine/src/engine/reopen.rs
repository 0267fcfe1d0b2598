//! Tries to take offline logs online again: each after a second, then at growing intervals of its own, and all at once when the disk has
//! room again. One that cannot be mended makes no other wait.
//!
//! The operator hears of each log when it goes offline and when it is back, not of the attempts between.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use futures_util::future::{Either, select};

use super::Inner;
use crate::{error::Fault, log::state::LogInner, rt::Instant};

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A log that was not tried for so long begins with a short pause again. A disk that comes and goes does not get here, nor do its messages.
const QUIET_TIME: Duration = Duration::from_secs(120);

/// When a log is tried, by its key.
type Plans = BTreeMap<u64, Plan>;

struct Plan {
    /// Before the next attempt that is not due yet.
    pause: Duration,
    /// `None` from one attempt to the moment in which the log is seen to be offline.
    due: Option<Instant>,
    tried: Instant,
    /// The operator knows that only a restart helps.
    told: bool,
}

impl Plan {
    fn new(now: Instant) -> Plan {
        Plan {
            pause: PAUSE_MIN,
            due: None,
            tried: now,
            told: false,
        }
    }

    fn due(&mut self, now: Instant) -> Instant {
        if self.due.is_none() && now.since(self.tried) > QUIET_TIME {
            self.pause = PAUSE_MIN;
        }
        *self.due.get_or_insert_with(|| now.plus(self.pause))
    }

    fn on_tried(&mut self, now: Instant) {
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.due = None;
        self.tried = now;
    }
}

impl Inner {
    pub(super) async fn run_reopening(self: Rc<Self>) {
        let rt = &self.shared.rt;
        let mut plans = Plans::new();
        let mut room_again = self.shared.space.room_again.listen();
        loop {
            let mut went_offline = self.shared.went_offline.listen();
            let Some(due) = self.plan(&mut plans) else {
                went_offline.await;
                continue;
            };
            let wait = due.since(rt.now());
            let event = select(&mut room_again, &mut went_offline);
            let has_room = match rt.timeout(wait, event).await {
                Some(Either::Left(_)) => true,
                Some(Either::Right(_)) => continue,
                None => false,
            };
            if has_room {
                room_again = self.shared.space.room_again.listen();
            }
            for log in self.logs_to_mend().into_values() {
                let plan = plans.entry(log.key).or_insert_with(|| Plan::new(rt.now()));
                let is_due = plan.due(rt.now()) <= rt.now();
                if !is_due && !has_room {
                    continue;
                }
                if log.is_mendable() {
                    self.reopen(&log, plan).await;
                    plan.on_tried(rt.now());
                } else {
                    // A write of it is still in flight, or a cut.
                    plan.due = Some(rt.now().plus(PAUSE_MIN));
                }
            }
        }
    }

    /// When the next log is due; `None` if none is offline.
    fn plan(&self, plans: &mut Plans) -> Option<Instant> {
        let now = self.shared.rt.now();
        let offline = self.logs_to_mend();
        plans.retain(|key, plan| {
            let is_offline = offline.contains_key(key);
            plan.due = plan.due.filter(|_| is_offline);
            is_offline || now.since(plan.tried) <= QUIET_TIME
        });
        let due = offline.keys().map(|key| {
            let plan = plans.entry(*key).or_insert_with(|| Plan::new(now));
            plan.due(now)
        });
        due.min()
    }

    async fn reopen(&self, log: &Rc<LogInner>, plan: &mut Plan) {
        match log.mend().await {
            Ok(()) => {
                plan.told = false;
                self.shared.count(|stats| stats.logs_reopened += 1);
                tracing::info!(log = %log.name, "log is online again; nothing was lost");
            }
            Err(fault) => {
                if matches!(fault, Fault::Corrupt { .. }) && !plan.told {
                    plan.told = true;
                    tracing::error!(log = %log.name, %fault, "log cannot be taken online again while the broker runs");
                }
            }
        }
    }

    /// Also those that cannot be mended yet, since a write of them is still in flight.
    fn logs_to_mend(&self) -> BTreeMap<u64, Rc<LogInner>> {
        let logs = self.logs.borrow();
        let offline = logs.values().filter(|log| log.wants_mending());
        offline.map(|log| (log.key, log.clone())).collect()
    }
}
