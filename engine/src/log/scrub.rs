//! Reads a sealed segment through, slowly: is every batch what was written, and does the index say where the batches are?
//!
//! A damaged batch is reported as a reader would report it, and left alone. An index that is wrong is removed: it is only a cache,
//! and whoever needs it next builds it again.

use std::{rc::Rc, time::Duration};

use super::{
    read::{Broken, load_index},
    shared::Handle,
    state::LogInner,
};
use crate::{
    error::Fault,
    rt::Instant,
    segment::{Next, SegmentReader, index::IndexCheck, index_path, segment_path},
    types::Offset,
};

/// Read at a time, so that others wait for little.
const WINDOW_BYTES: usize = 256 * 1024;

/// Bounds what a task reads to so many bytes a second.
pub struct Pace {
    bytes_per_sec: u64,
    /// What was read so far is paid for then.
    paid_until: Instant,
}

impl Pace {
    pub fn new(bytes_per_sec: u64) -> Pace {
        assert!(bytes_per_sec > 0, "a pace of nothing never ends");
        Pace {
            bytes_per_sec,
            paid_until: Instant(0),
        }
    }

    /// How long to wait after reading `bytes`. Time that was not used is not saved up.
    fn pause(&mut self, now: Instant, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_sec);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.paid_until = self.paid_until.max(now).plus(cost);
        self.paid_until.since(now)
    }
}

impl LogInner {
    /// The first sealed segment from `base` on.
    pub fn sealed_from(&self, base: Offset) -> Option<Offset> {
        let state = self.state.borrow();
        let at = state
            .segments
            .partition_point(|segment| segment.base < base);
        let segment = state.segments.get(at)?;
        (segment.base < state.write.segment_base).then_some(segment.base)
    }

    /// Reads the segment through; ends early when the segment leaves the log.
    pub async fn scrub(self: &Rc<Self>, base: Offset, pace: &mut Pace) -> Result<(), Fault> {
        let Some(len) = self.sealed_len(base) else {
            return Ok(());
        };
        self.state.borrow_mut().used = true;
        let result = self.scrub_batches(base, len, pace).await;
        match self.sealed_len(base) {
            Some(_) => result,
            // Whatever was found missing was deleted.
            None => Ok(()),
        }
    }

    fn sealed_len(&self, base: Offset) -> Option<u64> {
        if self.sealed_from(base) != Some(base) {
            return None;
        }
        let state = self.state.borrow();
        Some(state.segments[state.segment_of(base)].len)
    }

    async fn scrub_batches(
        self: &Rc<Self>,
        base: Offset,
        len: u64,
        pace: &mut Pace,
    ) -> Result<(), Fault> {
        let shared = &self.shared;
        let interval = self.state.borrow().config.index_interval_bytes;
        let path = segment_path(&self.dir, base);
        let fault = |error| self.io_fault("scrub", base, error);
        let file = shared
            .open_segment(self.segment_key(base), &path, Handle::Behind)
            .await
            .map_err(fault)?;
        // One that is missing or damaged is built again when it is needed.
        let index = load_index(&shared.rt, &self.dir, base, interval).await.ok();
        let mut check = index.as_ref().map(IndexCheck::new);
        let mut reader = SegmentReader::new(Rc::clone(&file), 0, len).with_piece_max(WINDOW_BYTES);
        let mut offset = base;
        let mut unpaid = 0;
        loop {
            let position = reader.position();
            match self.judge(reader.peek().await.map_err(fault)?, offset) {
                Next::Batch(header, _) => {
                    if let Some(check) = &mut check {
                        check.batch(&header, position);
                    }
                    offset = header.next_offset();
                    reader.advance(&header);
                }
                Next::End => break,
                Next::Broken(why) => {
                    if self.sealed_len(base).is_none() {
                        return Ok(());
                    }
                    // What the index says of the rest cannot be judged.
                    check = None;
                    let broken = Broken {
                        segment_base: base,
                        position,
                        offset,
                        why,
                    };
                    self.report_damage(self.version(), &broken);
                    match self.pass_over(&mut reader, &broken).await? {
                        Some(behind) => offset = behind,
                        None => break,
                    }
                }
            }
            unpaid += reader.position() - position;
            if unpaid >= WINDOW_BYTES as u64 {
                self.pay(pace, &mut unpaid).await;
                if self.sealed_len(base).is_none() {
                    return Ok(());
                }
            }
        }
        self.pay(pace, &mut unpaid).await;
        if check.is_some_and(|check| !check.agrees()) && self.sealed_len(base).is_some() {
            self.drop_index(base).await?;
        }
        Ok(())
    }

    async fn pay(&self, pace: &mut Pace, unpaid: &mut u64) {
        let bytes = std::mem::take(unpaid);
        self.shared.count(|stats| stats.scrubbed_bytes += bytes);
        // It is not to fall asleep in the middle of it.
        self.state.borrow_mut().used = true;
        let rt = &self.shared.rt;
        rt.sleep(pace.pause(rt.now(), bytes)).await;
    }

    async fn drop_index(&self, base: Offset) -> Result<(), Fault> {
        let path = index_path(&self.dir, base);
        tracing::error!(log = %self.name, path = %path.display(), "the index does not agree with the batches; it is removed, and built again when it is needed");
        self.shared.count(|stats| stats.scrub_errors += 1);
        self.shared.indexes.remove(&self.segment_key(base));
        self.remove_files(&[path]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_held_and_idle_time_is_not_saved_up() {
        let second = 1_000_000_000;
        let mut pace = Pace::new(1000);
        assert_eq!(pace.pause(Instant(0), 500), Duration::from_millis(500));
        assert_eq!(pace.pause(Instant(0), 500), Duration::from_secs(1));
        let later = Instant(100 * second);
        assert_eq!(pace.pause(later, 2000), Duration::from_secs(2));
    }
}
