//! The disk's misbehaviour: how often it fails, lies and dawdles, all drawn from the run's seed.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;

use super::{
    Damage, Sim,
    disk::{FileRef, Survives},
};

const SPIKE_NANOS_MAX: u64 = 100_000_000;
const STALL_NANOS_MIN: u64 = 1_000_000_000;
const STALL_NANOS_MAX: u64 = 5_000_000_000;

/// Chances per operation, each from 0.0 (never) to 1.0.
///
/// Errors: a failed write may have reached the file in part; after a failed sync any part of what it was to make durable is lost
/// for good, although reads still show it and the next sync succeeds, as on Linux; all other operations that fail change nothing.
///
/// Lies, each noted in [`Sim::damage`] but for transient flips: a log cannot survive them, only notice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// EIO from reads, of small files too.
    pub read_error: f64,
    /// EIO from writes, truncations and allocations.
    pub write_error: f64,
    /// EIO from syncs of files and directories.
    pub sync_error: f64,
    /// EIO from opening a file, and from creating one.
    pub open_error: f64,
    /// EIO from renaming, removing, listing and creating directories.
    pub name_error: f64,
    /// ENOSPC from writes, truncations, allocations and creations, whatever the capacity.
    pub no_space: f64,
    /// A bit differs in what one read returns.
    pub flip_in_read: f64,
    /// A bit of what is read has changed on the disk.
    pub rot: f64,
    /// A write is acknowledged and not done.
    pub lost_write: f64,
    /// A write is acknowledged and done in another place.
    pub misdirected_write: f64,
    /// The operation takes up to a tenth of a second.
    pub spike: f64,
    /// The whole disk answers nothing for seconds.
    pub stall: f64,
}

/// What becomes of a write that reports success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    Lost,
    Misdirected,
}

impl Sim {
    /// True with this probability. Draws nothing without faults, so that switching them off leaves a run's other choices alone.
    fn strikes(&self, probability: f64) -> bool {
        probability > 0.0 && self.0.random.chance(probability)
    }

    pub(super) fn fail_read(&self) -> io::Result<()> {
        self.fail(self.0.faults.get().read_error, libc::EIO)
    }

    pub(super) fn fail_sync(&self) -> io::Result<()> {
        self.fail(self.0.faults.get().sync_error, libc::EIO)
    }

    pub(super) fn fail_open(&self) -> io::Result<()> {
        self.fail(self.0.faults.get().open_error, libc::EIO)
    }

    pub(super) fn fail_name(&self) -> io::Result<()> {
        self.fail(self.0.faults.get().name_error, libc::EIO)
    }

    /// `growth` is what the operation adds to the file.
    pub(super) fn fail_write(&self, growth: u64) -> io::Result<()> {
        self.fail(self.0.faults.get().write_error, libc::EIO)?;
        self.fail_space(growth)
    }

    pub(super) fn fail_space(&self, growth: u64) -> io::Result<()> {
        self.fail(self.0.faults.get().no_space, libc::ENOSPC)?;
        self.0.disk.borrow().make_room(growth)
    }

    fn fail(&self, probability: f64, errno: i32) -> io::Result<()> {
        match self.strikes(probability) {
            true => {
                self.record("fault", errno as u64);
                Err(io::Error::from_raw_os_error(errno))
            }
            false => Ok(()),
        }
    }

    /// How much longer than usual the operation that begins now takes.
    pub(super) fn dawdle(&self) -> Duration {
        let faults = self.0.faults.get();
        let now = self.0.now_nanos.get();
        if self.strikes(faults.stall) {
            let spread = self.0.random.below(STALL_NANOS_MAX - STALL_NANOS_MIN);
            let until = now + STALL_NANOS_MIN + spread;
            self.0
                .stalled_until
                .set(until.max(self.0.stalled_until.get()));
            self.record("stall", until);
        }
        let spike = match self.strikes(faults.spike) {
            true => self.0.random.below(SPIKE_NANOS_MAX),
            false => 0,
        };
        Duration::from_nanos(self.0.stalled_until.get().saturating_sub(now) + spike)
    }

    pub(super) fn fate_of_write(&self) -> Fate {
        let faults = self.0.faults.get();
        if self.strikes(faults.lost_write) {
            Fate::Lost
        } else if self.strikes(faults.misdirected_write) {
            Fate::Misdirected
        } else {
            Fate::Done
        }
    }

    /// The write to `path` was acknowledged: its place keeps what it had, and another one may get the bytes.
    pub(super) fn falsify(
        &self,
        fate: Fate,
        path: &Path,
        (position, bytes): (u64, Bytes),
        survives: Survives,
    ) {
        let len = bytes.len() as u64;
        self.note_damage(path, position, len);
        if fate != Fate::Misdirected {
            return;
        }
        let place = self.0.disk.borrow().stray_place(len, &self.0.random);
        if let Some((path, file, position)) = place {
            file.borrow_mut().stray_write(position, bytes, survives);
            self.note_damage(&path, position, len);
        }
    }

    /// What a read returns, after the disk had its way with it.
    pub(super) fn falsify_read(
        &self,
        file: &FileRef,
        path: &Path,
        position: u64,
        bytes: Bytes,
    ) -> Bytes {
        let faults = self.0.faults.get();
        if bytes.is_empty() {
            return bytes;
        }
        let rotten = self.strikes(faults.rot);
        if !rotten && !self.strikes(faults.flip_in_read) {
            return bytes;
        }
        let at = self.0.random.below(bytes.len() as u64);
        let mask = 1 << self.0.random.below(8);
        if rotten {
            file.borrow_mut().flip(position + at, mask);
            self.note_damage(path, position + at, 1);
        } else {
            self.record("flip", position + at);
            self.tell("flip", path, position + at);
        }
        let mut bytes = bytes.to_vec();
        bytes[at as usize] ^= mask;
        bytes.into()
    }

    fn note_damage(&self, path: &Path, position: u64, len: u64) {
        self.record("damage", position);
        self.tell("damage", path, (position, len));
        self.0.damage.borrow_mut().push(Damage {
            path: path.to_owned(),
            position,
            len,
        });
    }
}
