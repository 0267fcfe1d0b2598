//! Deletes whole segments by time, by size, and below the log start.
//!
//! Nothing above the high watermark goes, and never the active segment: when all of it is over age it is rolled first, as Kafka
//! does, and goes the next time. A deleted segment's file is renamed at once and removed later, so that a reader that has it open
//! comes to its end in peace.

use std::{collections::VecDeque, path::Path, rc::Rc, time::Duration};

use super::{
    LogConfig, Marks,
    rest::Rest,
    shared::Deletion,
    state::{LogInner, Phase},
};
use crate::{
    error::Fault,
    rt::durable,
    segment::{Index, Segment, SegmentIndex, index_path, segment_path, spare_path},
    types::{Offset, Timestamp},
};

/// A segment as retention sees it.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    len: u64,
    /// First offset after it.
    end: Offset,
    max_timestamp: Timestamp,
}

/// The log start after retention. `sealed` are the segments that may go, oldest first.
fn log_start_after(
    sealed: &[Candidate],
    active_len: u64,
    config: &LogConfig,
    marks: Marks,
    now: Timestamp,
) -> Offset {
    let mut log_start = marks.log_start;
    if !config.delete {
        return log_start;
    }
    let mut size = active_len + sealed.iter().map(|segment| segment.len).sum::<u64>();
    for segment in sealed {
        if segment.end > marks.high_watermark {
            break;
        }
        let too_old = is_over_age(segment.max_timestamp, config.retention_ms, now);
        // As Kafka: a segment goes when the log without it still holds as much as is to be kept.
        let too_much = config
            .retention_bytes
            .is_some_and(|bytes| size - segment.len >= bytes);
        if !too_old && !too_much && segment.end > log_start {
            break;
        }
        size -= segment.len;
        log_start = log_start.max(segment.end);
    }
    log_start
}

pub fn is_over_age(max_timestamp: Timestamp, retention_ms: Option<u64>, now: Timestamp) -> bool {
    let age_ms = now.0.saturating_sub(max_timestamp.0);
    retention_ms.is_some_and(|kept_ms| u64::try_from(age_ms).is_ok_and(|age_ms| age_ms > kept_ms))
}

impl LogInner {
    /// Applies retention once.
    pub async fn retain(self: &Rc<Self>) -> Result<(), Fault> {
        let was_asleep = self.state.borrow().rest == Rest::Asleep;
        if !self.retention_is_due(self.shared.rt.wall_clock()).await? {
            return Ok(());
        }
        self.awake().await?;
        if was_asleep {
            // Nobody else needs it: it may go to sleep again at the next look.
            self.state.borrow_mut().used = false;
        }
        let config = self.state.borrow().config.clone();
        if !config.delete || self.state.borrow().phase != Phase::Open {
            return Ok(());
        }
        let now = self.shared.rt.wall_clock();
        let sealed = self.sealed_candidates(&config, now).await?;
        let log_start = {
            let mut state = self.state.borrow_mut();
            if state.phase != Phase::Open || state.fault.is_some() {
                return Ok(());
            }
            // It may have been changed while an index was read, and what is to be kept now must not go.
            let config = state.config.clone();
            let active_len = state.active().len;
            let all_committed = state.marks.high_watermark == state.marks.log_end;
            let index = state.active().live_index();
            let newest = index.map(Index::newest);
            let over_age =
                newest.is_some_and(|newest| is_over_age(newest, config.retention_ms, now));
            if over_age && active_len > 0 && all_committed {
                let log_end = state.marks.log_end;
                state.roll(log_end, now);
            }
            log_start_after(&sealed, active_len, &config, state.marks, now)
        };
        self.start_writer();
        self.delete_to(log_start).await?;
        Ok(())
    }

    /// The oldest sealed segments, up to the first whose time has not come, if time is all that counts.
    async fn sealed_candidates(
        self: &Rc<Self>,
        config: &LogConfig,
        now: Timestamp,
    ) -> Result<Vec<Candidate>, Fault> {
        let mut candidates = Vec::new();
        let mut at = 0;
        loop {
            let (base, len, end, known) = {
                let state = self.state.borrow();
                let (Some(segment), Some(next)) =
                    (state.segments.get(at), state.segments.get(at + 1))
                else {
                    return Ok(candidates);
                };
                if segment.base >= state.write.segment_base {
                    return Ok(candidates);
                }
                let known = match &segment.index {
                    SegmentIndex::OnDisk { max_timestamp } => *max_timestamp,
                    SegmentIndex::Live(index) => Some(index.max_timestamp()),
                };
                (segment.base, segment.len, next.base, known)
            };
            let max_timestamp = match known {
                Some(max_timestamp) if max_timestamp >= Timestamp(0) => max_timestamp,
                // Records without timestamps age from the creation of their segment.
                _ => self.ask_index(base, Index::newest).await?,
            };
            candidates.push(Candidate {
                len,
                end,
                max_timestamp,
            });
            let time_decides = config.retention_bytes.is_none();
            if time_decides && !is_over_age(max_timestamp, config.retention_ms, now) {
                return Ok(candidates);
            }
            at += 1;
        }
    }

    /// Takes sealed segments that lie wholly below the log start out of the log. The checkpoint that holds the log start is durable.
    pub async fn remove_segments_below_start(self: &Rc<Self>) -> Result<(), Fault> {
        let mut removal = Removal {
            log: self,
            left: VecDeque::new(),
        };
        {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            if state.rest != Rest::Awake {
                // The next time it wakes they go.
                return Ok(());
            }
            let log_start = state.marks.log_start;
            let sealed_before = state.write.segment_base;
            let count = state
                .segments
                .windows(2)
                .take_while(|pair| pair[0].base < sealed_before && pair[1].base <= log_start)
                .count();
            // Who was stopped before the sync, or saw it fail, has nothing left to rename.
            if count == 0 && !state.has_unsynced_renames() {
                return Ok(());
            }
            state.cursors.clear(&self.shared);
            removal.left.extend(state.segments.drain(..count));
        }
        let count = removal.left.len();
        while !removal.left.is_empty() {
            // One at a time: while names are held no log of the shard can open a file.
            let _names = self.shared.hold_names().await;
            if self.state.borrow().phase == Phase::Removed {
                // What has these names now may belong to the next log of the same name.
                return Ok(());
            }
            self.give_files_up(&removal.left[0]).await?;
            removal.left.pop_front();
        }
        self.shared.deletion_added.notify_all();
        let begun = self.state.borrow().renames_begun;
        durable::sync_dir(&self.shared.rt, &self.dir).await?;
        {
            let mut state = self.state.borrow_mut();
            state.renames_synced = state.renames_synced.max(begun);
        }
        if count == 0 {
            return Ok(());
        }
        tracing::info!(log = %self.name, segments = count, log_start = %self.state.borrow().marks.log_start, "deleted segments");
        self.shared
            .count(|stats| stats.segments_deleted += count as u64);
        Ok(())
    }

    /// Renames the files of a segment that is out of the log; they are removed when their last reader had time to finish. Or its file is kept for
    /// the next segment: a reader that still has it open knows that the log has changed, and throws away what it finds.
    async fn give_files_up(self: &Rc<Self>, segment: &Segment) -> Result<(), Fault> {
        let rt = &self.shared.rt;
        let base = segment.base;
        let delay_ms = self.state.borrow().config.file_delete_delay_ms;
        let due = rt.now().plus(Duration::from_millis(delay_ms));
        self.shared.forget_segment(self.segment_key(base));
        self.state.borrow_mut().renames_begun += 1;
        let rename = async |from: &Path, to: &Path| {
            let renamed = rt.rename(from, to).await;
            renamed.map_err(|error| Fault::io("rename", from, error))
        };
        // The index first: a crash must not leave one that nobody removes.
        for path in [index_path(&self.dir, base), segment_path(&self.dir, base)] {
            if !rt.exists(&path).await {
                continue;
            }
            if path == segment_path(&self.dir, base) && self.wants_spare(segment) {
                rename(&path, &spare_path(&self.dir, base)).await?;
                self.keep_spare(segment);
                continue;
            }
            let mut name = path.clone().into_os_string();
            name.push(".deleted");
            let deleted = std::path::PathBuf::from(name);
            rename(&path, &deleted).await?;
            let deletion = Deletion { due, path: deleted };
            self.shared.deletions.borrow_mut().push_back(deletion);
        }
        Ok(())
    }
}

/// Segments that are on their way out of the log, oldest first. Those that do not get there, because of a fault or since the log is being
/// closed, come back, and the next call tries again: a hole in the sequence of files must not be.
struct Removal<'a> {
    log: &'a LogInner,
    left: VecDeque<Segment>,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        let Some(first) = self.left.front().map(|segment| segment.base) else {
            return;
        };
        let mut state = self.log.state.borrow_mut();
        let at = state.segments.partition_point(|kept| kept.base < first);
        state.segments.splice(at..at, self.left.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::config;

    /// Four sealed segments of 100 bytes and ten offsets, timestamps 1000, 2000, 3000, 4000; 50 bytes active.
    fn check(change: impl FnOnce(&mut LogConfig), high_watermark: i64, now: i64, expected: i64) {
        let mut config = config();
        change(&mut config);
        let sealed: Vec<Candidate> = (1..=4)
            .map(|n| Candidate {
                len: 100,
                end: Offset::new(10 * n),
                max_timestamp: Timestamp(1000 * n),
            })
            .collect();
        let marks = Marks::empty_at(Offset::new(0)).moved(|marks| {
            marks.log_end = Offset::new(45);
            marks.high_watermark = Offset::new(high_watermark);
        });
        let log_start = log_start_after(&sealed, 50, &config, marks, Timestamp(now));
        assert_eq!(log_start.get(), expected, "{config:?} at {now}");
    }

    #[test]
    fn by_time() {
        let keep = |ms| move |config: &mut LogConfig| config.retention_ms = Some(ms);
        check(keep(1500), 45, 2500, 0);
        check(keep(1500), 45, 2501, 10);
        check(keep(1500), 45, 4501, 30);
        check(keep(1500), 45, 90_000, 40);
        check(keep(1500), 25, 90_000, 20);
        check(|config| config.retention_ms = None, 45, 90_000, 0);
    }

    #[test]
    fn by_size() {
        let keep = |bytes| move |config: &mut LogConfig| config.retention_bytes = Some(bytes);
        check(keep(450), 45, 0, 0);
        check(keep(351), 45, 0, 0);
        check(keep(350), 45, 0, 10);
        check(keep(60), 45, 0, 30);
        check(keep(0), 45, 0, 40);
        check(keep(0), 9, 0, 0);
    }

    #[test]
    fn compacted_topics_are_left_alone() {
        let compact = |config: &mut LogConfig| {
            config.delete = false;
            config.retention_bytes = Some(0);
        };
        check(compact, 45, 90_000, 0);
    }
}
