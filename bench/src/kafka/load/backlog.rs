//! How far consumers are behind: the broker's end offsets against what they have received, looked at while the load goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use super::Shared;
use crate::{result::run::Backlog, run::collector::Told};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// Longest wait for one answer: a broker that stalls leaves a gap in the series.
const PATIENCE: Duration = Duration::from_secs(1);

/// A thread that looks until it is stopped.
pub struct Monitor {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Monitor {
    pub fn start(cluster: &ClientConfig, shared: &Shared) -> Result<Monitor, String> {
        let observer: BaseConsumer = cluster.create().map_err(|error| error.to_string())?;
        let over = Arc::new(AtomicBool::new(false));
        let (of_thread, shared) = (over.clone(), shared.clone());
        let thread = thread::Builder::new()
            .name("backlog".to_string())
            .spawn(move || {
                while !of_thread.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    look(&observer, &shared);
                    thread::sleep(EVERY.saturating_sub(began.elapsed()));
                }
            });
        let thread = thread.map_err(|error| format!("a thread for the backlog: {error}"))?;
        Ok(Monitor { over, thread })
    }

    pub fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

fn look(observer: &BaseConsumer, shared: &Shared) {
    let at = shared.clock.elapsed();
    let mut backlog = Backlog::default();
    for (index, it) in shared.partitions.iter().enumerate() {
        // Before the offset: what is consumed meanwhile must not count as behind.
        let progress = &shared.progress[index];
        let (position, planned) = (progress.position(), progress.last_planned());
        let Ok((_, end)) = observer.fetch_watermarks(&it.topic, it.partition, PATIENCE) else {
            return;
        };
        let Ok(records @ 1..) = u64::try_from(end - position) else {
            continue;
        };
        backlog.records += records;
        let behind = at.saturating_sub(planned).as_secs_f64();
        backlog.seconds_behind = backlog.seconds_behind.max(behind);
    }
    backlog.bytes = (backlog.records as f64 * shared.record_bytes_mean) as u64;
    let second = at.as_secs();
    // The collector ends after this thread.
    let _ = shared.told.send(Told::Backlog { second, backlog });
}
