//! Free space of the disk, and who may still take some of it.
//!
//! Running full takes logs offline in the middle of a write. So client data is refused while there is still a *reserve*: for what is
//! in memory already and has to be written, for checkpoints and indexes, for committed offsets and metadata. New work for
//! internal topics is refused by their owner when a quarter of the reserve is left: what it has decided it must be able to write. The
//! metadata log goes on until nothing is left.
//!
//! The answer has to be at hand when an append comes, so it is an allowance: a look at the disk (`engine/space_watch.rs`) says how
//! much may be appended until the next one, less what waits to be written. Space is one for all shards and none of them knows what
//! the others took since, so each has an equal share. What another program takes between two looks is not seen.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::SpaceUse;
use crate::rt::{DiskSpace, local::Notify};

/// The default reserve, where the file system is large enough for it.
const RESERVE_BYTES_DEFAULT: u64 = 1 << 30;

/// One for all shards of a process: the operator is told once when the disk runs low, once when offset commits have to be refused too,
/// and once when it has room again.
#[derive(Clone, Debug, Default)]
pub struct SpaceAlarm(Arc<Raised>);

#[derive(Debug, Default)]
struct Raised {
    low: AtomicBool,
    critical: AtomicBool,
}

impl SpaceAlarm {
    /// `true` for the first who says so.
    fn raise_low(&self) -> bool {
        !self.0.low.swap(true, Ordering::Relaxed)
    }

    fn raise_critical(&self) -> bool {
        !self.0.critical.swap(true, Ordering::Relaxed)
    }

    fn clear_low(&self) -> bool {
        self.0.low.swap(false, Ordering::Relaxed)
    }

    fn clear_critical(&self) -> bool {
        self.0.critical.swap(false, Ordering::Relaxed)
    }
}

/// How the engine keeps the disk from running full.
#[derive(Clone, Debug)]
pub struct SpaceConfig {
    /// Free space below which client data is refused. `None`: 1 GiB, at most a tenth of the file system; 0: never refuse.
    pub reserve_bytes: Option<u64>,
    /// Shards that write to this disk.
    pub shards: u16,
    pub alarm: SpaceAlarm,
}

impl Default for SpaceConfig {
    /// For an engine that is alone.
    fn default() -> SpaceConfig {
        SpaceConfig {
            reserve_bytes: None,
            shards: 1,
            alarm: SpaceAlarm::default(),
        }
    }
}

impl SpaceConfig {
    /// The reserve on a file system of `total_bytes`.
    pub fn reserve_bytes_of(&self, total_bytes: u64) -> u64 {
        let default = RESERVE_BYTES_DEFAULT.min(total_bytes / 10);
        self.reserve_bytes.unwrap_or(default)
    }
}

pub struct Space {
    config: SpaceConfig,
    reserve_bytes: Cell<u64>,
    available_bytes: Cell<u64>,
    /// What client data, and what internal topics, may take until the next look.
    data_left: Cell<u64>,
    internal_left: Cell<u64>,
    /// `data_left` as of the last look.
    data_given: Cell<u64>,
    low: Cell<bool>,
    /// Something was appended since the last look.
    used: Cell<bool>,
    /// `used` became true.
    pub arrived: Notify,
    /// The allowance is half used up, or client data is being refused: do not wait with the next look.
    pub pressing: Notify,
    /// Client data is taken again.
    pub room_again: Notify,
}

impl Space {
    /// Before the first look nothing is allowed but metadata.
    pub fn new(config: SpaceConfig) -> Space {
        Space {
            config,
            reserve_bytes: Cell::new(0),
            available_bytes: Cell::new(0),
            data_left: Cell::new(0),
            internal_left: Cell::new(0),
            data_given: Cell::new(0),
            low: Cell::new(false),
            used: Cell::new(false),
            arrived: Notify::new(),
            pressing: Notify::new(),
            room_again: Notify::new(),
        }
    }

    pub fn is_watched(&self) -> bool {
        self.config.reserve_bytes != Some(0)
    }

    /// Client data is refused.
    pub fn is_low(&self) -> bool {
        self.low.get()
    }

    pub fn is_used(&self) -> bool {
        self.used.get()
    }

    /// As of the last look.
    pub fn available_bytes(&self) -> u64 {
        self.available_bytes.get()
    }

    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes.get()
    }

    /// Whether work that ends in appends may begin.
    pub fn has(&self, space_use: SpaceUse) -> bool {
        match space_use {
            _ if !self.is_watched() => true,
            SpaceUse::Data => !self.low.get(),
            SpaceUse::Internal => self.internal_left.get() > 0,
            SpaceUse::Metadata => true,
        }
    }

    /// Whether an append of `bytes` may come in; it is counted then.
    pub fn take(&self, space_use: SpaceUse, bytes: u64) -> bool {
        if !self.is_watched() {
            return true;
        }
        if !self.used.replace(true) {
            self.arrived.notify_all();
        }
        match space_use {
            SpaceUse::Data if self.low.get() => return false,
            SpaceUse::Data => {}
            SpaceUse::Internal => {
                let left = self.internal_left.get();
                self.internal_left.set(left.saturating_sub(bytes));
                if left <= bytes {
                    self.pressing.notify_all();
                }
                return true;
            }
            SpaceUse::Metadata => return true,
        }
        let Some(rest) = self.data_left.get().checked_sub(bytes) else {
            self.run_low();
            return false;
        };
        self.data_left.set(rest);
        if rest < self.data_given.get() / 2 && rest + bytes >= self.data_given.get() / 2 {
            self.pressing.notify_all();
        }
        true
    }

    /// What a look found. `unwritten_bytes` were let in and will still be written.
    pub fn looked(&self, found: DiskSpace, unwritten_bytes: u64) {
        let reserve = self.config.reserve_bytes_of(found.total_bytes);
        let shards = u64::from(self.config.shards.max(1));
        let above = |mark: u64| {
            let share = found.available_bytes.saturating_sub(mark) / shards;
            share.saturating_sub(unwritten_bytes)
        };
        self.reserve_bytes.set(reserve);
        self.available_bytes.set(found.available_bytes);
        self.used.set(false);
        self.data_left.set(above(reserve));
        self.data_given.set(above(reserve));
        self.internal_left.set(above(reserve / 4));
        // A little more than the mark, so that the state does not change with every batch.
        let has_room = above(reserve.saturating_add(reserve / 8)) > 0;
        if self.low.get() && has_room {
            self.low.set(false);
            self.room_again.notify_all();
            if self.config.alarm.clear_low() {
                tracing::info!(
                    available_bytes = found.available_bytes,
                    "the disk has room again: produce is taken"
                );
            }
        } else if self.is_watched() && above(reserve) == 0 {
            self.run_low();
        }
        self.tell_of_internal(above(reserve / 2) > 0);
    }

    /// Commits go on as soon as a quarter of the reserve is free; the operator hears of it when it is a half, so as not to hear of each batch.
    fn tell_of_internal(&self, has_plenty: bool) {
        let alarm = &self.config.alarm;
        let available_bytes = self.available_bytes.get();
        if !self.has(SpaceUse::Internal) {
            if alarm.raise_critical() {
                tracing::error!(
                    available_bytes,
                    "the disk is nearly full: offset commits and joins are refused too until there is room; reads, deletes and metadata go on"
                );
            }
        } else if has_plenty && alarm.clear_critical() {
            tracing::info!(available_bytes, "offset commits and joins are taken again");
        }
    }

    fn run_low(&self) {
        if self.low.replace(true) {
            return;
        }
        self.pressing.notify_all();
        if self.config.alarm.raise_low() {
            tracing::error!(
                available_bytes = self.available_bytes.get(),
                reserve_bytes = self.reserve_bytes.get(),
                "the disk is low on space: produce is refused until there is room; reads, deletes, offset commits and metadata go on"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(reserve_bytes: Option<u64>, shards: u16) -> Space {
        Space::new(SpaceConfig {
            reserve_bytes,
            shards,
            alarm: SpaceAlarm::default(),
        })
    }

    fn disk(available_bytes: u64) -> DiskSpace {
        DiskSpace {
            total_bytes: 1000 * MIB,
            available_bytes,
        }
    }

    #[test]
    fn a_burst_cannot_run_past_the_mark_between_two_looks() {
        let space = space(Some(80 * MIB), 2);
        space.looked(disk(100 * MIB), 2 * MIB);
        // Half of the 20 above the mark, less the 2 that wait.
        for _ in 0..8 {
            assert!(space.take(SpaceUse::Data, MIB));
        }
        assert!(!space.is_low());
        assert!(!space.take(SpaceUse::Data, 1));
        assert!(space.is_low());
        assert!(space.has(SpaceUse::Internal), "has its own reserve");
        assert!(space.take(SpaceUse::Internal, 30 * MIB));
        assert!(space.has(SpaceUse::Internal));
        assert!(space.take(SpaceUse::Internal, 40 * MIB), "was decided");
        assert!(!space.has(SpaceUse::Internal));
        assert!(space.take(SpaceUse::Internal, 1), "was decided");
        assert!(space.take(SpaceUse::Metadata, 1000 * MIB));
    }

    #[test]
    fn room_comes_back_a_little_above_the_mark() {
        let space = space(Some(80 * MIB), 1);
        let check = |available, low| {
            space.looked(disk(available), 0);
            assert_eq!(space.is_low(), low, "{available}");
        };
        check(81 * MIB, false);
        check(80 * MIB, true);
        check(90 * MIB, true);
        check(91 * MIB, false);
        check(82 * MIB, false);
    }

    #[test]
    fn the_reserve_fits_the_disk() {
        let check = |reserve, total, expected| {
            let space = space(reserve, 1);
            let found = DiskSpace {
                total_bytes: total,
                available_bytes: total,
            };
            space.looked(found, 0);
            assert_eq!(space.reserve_bytes(), expected);
            assert!(!space.is_low());
        };
        check(None, 64 * MIB, 64 * MIB / 10);
        check(None, 1 << 40, 1 << 30);
        check(Some(5 * MIB), 1 << 40, 5 * MIB);
        check(Some(0), 0, 0);
        assert!(space(Some(0), 1).take(SpaceUse::Data, u64::MAX));
    }

    #[test]
    fn one_alarm_for_all_shards() {
        let alarm = SpaceAlarm::default();
        assert!(alarm.raise_low());
        assert!(!alarm.clone().raise_low());
        assert!(alarm.raise_critical());
        assert!(alarm.clear_low());
        assert!(!alarm.clone().clear_low());
        assert!(alarm.clear_critical());
    }
}
