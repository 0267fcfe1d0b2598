//! Spare files: what retention takes out of a log is kept, within a bound, to be the file of the log's next segment.
//!
//! A durable write to blocks that were never written also waits until the file system has recorded that they are; over blocks that were written
//! before it does not (`segment/spare.rs` says why what is left in them does no harm). So a log that deletes as much as it appends
//! goes on in the same blocks. A spare belongs to its log and to no other, and is lost with a restart, a cut, or when space runs low.

use std::{path::PathBuf, rc::Rc};

use super::state::{LogInner, Phase};
use crate::{
    error::Fault,
    rt::{Class, OpenMode, buf::ALIGNMENT},
    segment::{Segment, spare::wipe, spare_path},
    types::Offset,
};

#[derive(Default)]
pub struct Spares {
    ready: Vec<Spare>,
    preparing: usize,
}

/// The file of a segment that is out of the log. No offset in it is ever given again: a cut never goes below the log start.
pub struct Spare {
    pub path: PathBuf,
    base: Offset,
    bytes: u64,
}

impl Spares {
    /// Tasks that still write to files in the log's directory.
    pub fn preparing(&self) -> usize {
        self.preparing
    }
}

impl LogInner {
    /// Whether the file of this segment, which is out of the log, should be kept. Promises that [`LogInner::keep_spare`] follows.
    pub fn wants_spare(&self, segment: &Segment) -> bool {
        let state = self.state.borrow();
        let spares = &state.spares;
        segment.len > 0
            && state.phase == Phase::Open
            && segment.seams.known().is_some()
            && !self.shared.space.is_low()
            && spares.ready.len() + spares.preparing < self.shared.limits.spare_segments_max
    }

    /// The file of the segment has the name of a spare now.
    pub fn keep_spare(self: &Rc<Self>, segment: &Segment) {
        let spare = Spare {
            path: spare_path(&self.dir, segment.base),
            base: segment.base,
            bytes: segment.len,
        };
        let in_file = |block: &u32| u64::from(*block) * (ALIGNMENT as u64) < segment.len;
        let seams = segment.seams.known().unwrap_or_default().iter();
        let seams: Vec<u32> = seams.copied().filter(in_file).collect();
        let generation = {
            let mut state = self.state.borrow_mut();
            state.spares.preparing += 1;
            state.generation
        };
        self.shared.count(|stats| stats.spare_bytes += spare.bytes);
        let log = Rc::clone(self);
        let prepare = async move { log.prepare_spare(spare, seams, generation).await };
        self.shared.rt.spawn(Class::Housekeeping, prepare).detach();
    }

    async fn prepare_spare(self: Rc<Self>, spare: Spare, seams: Vec<u32>, generation: u64) {
        let wiped = self.wipe_seams(&spare, &seams).await;
        if let Err(error) = &wiped {
            tracing::warn!(path = %spare.path.display(), %error, "cannot make a spare file ready; it is removed");
        }
        let is_wanted = {
            let state = self.state.borrow();
            let same = state.phase == Phase::Open && state.generation == generation;
            same && !self.shared.space.is_low()
        };
        let keep = wiped.is_ok() && is_wanted;
        let ready = match keep {
            true => Some(spare),
            false => {
                self.remove_spare(spare).await;
                None
            }
        };
        {
            let mut state = self.state.borrow_mut();
            state.spares.ready.extend(ready);
            state.spares.preparing -= 1;
        }
        self.changed.notify_all();
    }

    async fn wipe_seams(&self, spare: &Spare, seams: &[u32]) -> std::io::Result<()> {
        if seams.is_empty() {
            return Ok(());
        }
        let rt = &self.shared.rt;
        let _names = self.shared.keep_names().await;
        let file = rt.open(&spare.path, OpenMode::ReadWrite).await?;
        wipe(rt, &file, seams).await?;
        file.close().await
    }

    /// A file whose blocks the segment that begins at `base` may take over.
    pub fn take_spare(&self, base: Offset) -> Option<Spare> {
        let spare = self.state.borrow_mut().spares.ready.pop()?;
        assert!(spare.base < base, "a spare file is older than its next use");
        self.shared.count(|stats| stats.spare_bytes -= spare.bytes);
        Some(spare)
    }

    /// It could not be used.
    pub fn put_spare_back(&self, spare: Spare) {
        self.shared.count(|stats| stats.spare_bytes += spare.bytes);
        self.state.borrow_mut().spares.ready.push(spare);
    }

    /// Removes what is ready.
    pub async fn drop_spares(&self) {
        loop {
            let spare = self.state.borrow_mut().spares.ready.pop();
            match spare {
                Some(spare) => self.remove_spare(spare).await,
                None => return,
            }
        }
    }

    /// Waits for those that are being made ready, and removes all.
    pub async fn end_spares(&self) {
        self.wait_until(|state| state.spares.preparing == 0).await;
        self.drop_spares().await;
    }

    async fn remove_spare(&self, spare: Spare) {
        self.shared.count(|stats| stats.spare_bytes -= spare.bytes);
        // Whatever stays is removed at the next open.
        if let Err(error) = self.shared.rt.remove_file(&spare.path).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            let fault = Fault::io("remove", &spare.path, error);
            tracing::warn!(%fault, "cannot remove a spare file");
        }
    }
}
