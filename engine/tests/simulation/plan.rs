//! What a seed decides before anything runs: sizes, configurations, lives and the disk's misbehaviour.
//!
//! Everything is small, so that segments roll, the ring wraps, caches overflow and checkpoints come within a short run.

use std::{ops::Range, path::PathBuf, time::Duration};

use forebay_engine::{
    Durability, EngineConfig, LogConfig, ShardId, SpaceConfig, TimestampType, batch::BatchRules,
    log::SpaceUse, rt::sim::Faults,
};

use crate::testing::Rng;

pub const DATA_DIR: &str = "/data";
pub const LOGS: usize = 4;
pub const PRODUCERS: usize = 3;

/// What the disk does in one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Nothing,
    /// Operations take long. No fault may come of it.
    Slow,
    /// Operations fail.
    Errors,
    /// It becomes full; before the next life somebody makes it larger.
    Full,
    /// It reads wrong or writes to the wrong place, after recovery. Only in the last life but one.
    Lies,
}

/// What some seeds are bent to: situations that chance alone brings about too seldom, and in which known bugs would show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bent {
    Nothing,
    /// Each log syncs its own file, some of these syncs fail, and after a while the power does, or the process is killed: then the next
    /// life sees what is not on the disk.
    Syncs,
    /// Many short lives of small batches, without checkpoints but the first. Each ends with a batch in every log that is only in memory
    /// and one behind it that the journal has, and then with a power failure. So the journal holds what the log has lost the way to, and
    /// every other life writes less of the ring than the one before it did.
    ShortLives,
}

impl Bent {
    /// Two seeds of sixteen.
    pub fn of(seed: u64) -> Bent {
        match seed % 16 {
            7 => Bent::Syncs,
            15 => Bent::ShortLives,
            _ => Bent::Nothing,
        }
    }
}

/// How a life ends, unless the power goes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    PowerFailure,
    /// The process dies, what it wrote stays in the page cache.
    Kill,
    /// An orderly end; the power goes afterwards.
    Close,
}

#[derive(Clone, Debug)]
pub struct Life {
    pub trouble: Trouble,
    pub end: End,
    /// In virtual time; then the power goes wherever the engine is.
    pub duration: Duration,
    pub actors: usize,
    pub steps: usize,
    /// What the disk does while the engine opens, and afterwards.
    pub faults_opening: Faults,
    pub faults: Faults,
}

pub fn lives(rng: &mut Rng, bent: Bent) -> Vec<Life> {
    match bent {
        Bent::Nothing => {}
        Bent::Syncs => return (0..2 + rng.below(3)).map(|_| life_of_syncs(rng)).collect(),
        Bent::ShortLives => {
            let count = 4 + rng.below(5);
            return (0..count).map(|at| short_life(rng, at)).collect();
        }
    }
    let count = 2 + rng.below(4);
    let mut lives: Vec<Life> = (0..count).map(|_| life(rng)).collect();
    if rng.chance(20) {
        let mut lying = life(rng);
        lying.trouble = Trouble::Lies;
        lying.faults_opening = Faults::default();
        lying.faults = lies(rng);
        lives.push(lying);
    }
    lives
}

fn life(rng: &mut Rng) -> Life {
    let trouble = match rng.below(100) {
        0..55 => Trouble::Nothing,
        55..65 => Trouble::Slow,
        65..92 => Trouble::Errors,
        _ => Trouble::Full,
    };
    let faults = match trouble {
        Trouble::Slow => slow(rng),
        Trouble::Errors => errors(rng),
        _ => Faults::default(),
    };
    // Often early, so that the power also goes during recovery.
    let micros_max = match rng.below(4) {
        0 => 10_000,
        1 => 80_000,
        _ => 500_000,
    };
    let end = match rng.below(100) {
        0..35 => End::Close,
        35..60 => End::Kill,
        _ => End::PowerFailure,
    };
    let stretch = match trouble {
        Trouble::Slow => 10,
        // Long enough for offline logs to be mended.
        Trouble::Errors | Trouble::Full if rng.chance(20) => 20,
        _ => 1,
    };
    Life {
        trouble,
        end,
        duration: Duration::from_micros(stretch * rng.below(micros_max) as u64),
        actors: 1 + rng.below(4),
        steps: rng.below(400),
        faults_opening: if rng.chance(40) {
            faults
        } else {
            Faults::default()
        },
        faults,
    }
}

fn life_of_syncs(rng: &mut Rng) -> Life {
    let otherwise = [End::Close, End::Kill][rng.below(2)];
    let life = brief(rng, 40, otherwise, 40_000..240_000);
    Life {
        trouble: Trouble::Errors,
        steps: 50 + rng.below(150),
        faults: Faults {
            sync_error: [0.005, 0.02, 0.05][rng.below(3)],
            ..Faults::default()
        },
        ..life
    }
}

fn short_life(rng: &mut Rng, at: usize) -> Life {
    let life = brief(rng, 20, End::Kill, 20_000..150_000);
    let steps = [20..80, 4..24][at % 2].clone();
    Life {
        actors: 1,
        steps: steps.start + rng.below(steps.len()),
        ..life
    }
}

/// Ends with a power failure, or in so many of a hundred otherwise.
fn brief(rng: &mut Rng, percent: u64, otherwise: End, micros: Range<usize>) -> Life {
    Life {
        trouble: Trouble::Nothing,
        end: if rng.chance(percent) {
            otherwise
        } else {
            End::PowerFailure
        },
        duration: Duration::from_micros((micros.start + rng.below(micros.len())) as u64),
        actors: 1 + rng.below(3),
        steps: 200,
        faults_opening: Faults::default(),
        faults: Faults::default(),
    }
}

fn slow(rng: &mut Rng) -> Faults {
    Faults {
        spike: if rng.chance(70) { 0.05 } else { 0.0 },
        stall: if rng.chance(50) { 0.002 } else { 0.0 },
        ..Faults::default()
    }
}

/// Of one kind, of some, or of all.
fn errors(rng: &mut Rng) -> Faults {
    let strength = [0.001, 0.005, 0.03][rng.below(3)];
    let only = (!rng.chance(30)).then(|| rng.below(6));
    let chance = |kind: usize| match only {
        Some(only) if only != kind => 0.0,
        _ => strength,
    };
    Faults {
        read_error: chance(0),
        write_error: chance(1),
        sync_error: chance(2),
        open_error: chance(3),
        name_error: chance(4),
        no_space: chance(5),
        ..Faults::default()
    }
}

fn lies(rng: &mut Rng) -> Faults {
    let strength = [0.002, 0.02][rng.below(2)];
    let mut faults = Faults::default();
    // Not misdirected writes: a batch carries no name of its log, so one that lands whole in another's file at the right offset is
    // right by all that can be checked.
    match rng.below(3) {
        0 => faults.flip_in_read = 5.0 * strength,
        1 => faults.rot = strength,
        _ => faults.lost_write = strength,
    }
    faults
}

pub fn engine_config(rng: &mut Rng, bent: Bent) -> EngineConfig {
    let config = any_engine_config(rng);
    match bent {
        Bent::Nothing => config,
        Bent::Syncs => EngineConfig {
            checkpoint_interval_ms: [3, 15][rng.below(2)],
            syncs_together_min: 16,
            ..config
        },
        Bent::ShortLives => EngineConfig {
            // A life writes no more than the first file of the ring.
            journal_file_bytes: 512 * 1024,
            checkpoint_interval_ms: 10_000,
            ..config
        },
    }
}

fn any_engine_config(rng: &mut Rng) -> EngineConfig {
    let bypass_bytes = [2, 6, 12][rng.below(3)] * 1024;
    let journal_file_bytes = [32, 48, 128][rng.below(3)] * 1024;
    let journal_files = 2 + rng.below(3);
    EngineConfig {
        data_dir: PathBuf::from(DATA_DIR),
        shard: ShardId(0),
        journal_file_bytes,
        journal_files,
        bypass_bytes,
        write_chunk_bytes_max: [8, 16, 64][rng.below(3)] * 1024,
        tail_bytes_max: [24, 64, 512][rng.below(3)] * 1024,
        readahead_bytes_max: [16, 256][rng.below(2)] * 1024,
        checkpoint_interval_ms: [3, 15, 60, 10_000][rng.below(4)],
        retention_check_interval_ms: [5, 30][rng.below(2)],
        // 2, 0 or 1. Not drawn, so that each seed stays what it was.
        spare_segments_max: journal_files % 3,
        producer_id_expiration_ms: 86_400_000,
        syncs_together_min: 2,
        space: SpaceConfig {
            reserve_bytes: Some(0),
            ..SpaceConfig::default()
        },
    }
}

pub fn log_config(rng: &mut Rng) -> LogConfig {
    let persisted = rng.chance(70);
    LogConfig {
        durability: if persisted {
            Durability::Persisted
        } else {
            Durability::Replicated
        },
        segment_bytes: [6, 24, 120, 400][rng.below(4)] * 1024,
        segment_ms: if rng.chance(15) { 30 } else { 86_400_000 },
        index_interval_bytes: 4096,
        retention_bytes: rng.chance(15).then(|| 30_000 + rng.below(100_000) as u64),
        retention_ms: rng.chance(15).then(|| 20 + rng.below(100) as u64),
        file_delete_delay_ms: [0, 5, 60_000][rng.below(3)],
        delete: true,
        space: SpaceUse::Data,
        rules: rules(),
    }
}

/// In one of 16 seeds all batches are of one length, so that they stand at the same positions in every segment: the most that a torn write over an
/// older batch can mix up, where the file of a deleted segment is used again. No random number is drawn for it: the other seeds stay what they were.
pub fn uniform_bytes(seed: u64) -> Option<usize> {
    (seed % 16 == 15).then(|| 400 + (seed / 16 * 37 % 900) as usize)
}

/// The same with segments that are soon deleted.
pub fn deleting_soon(config: LogConfig) -> LogConfig {
    LogConfig {
        segment_bytes: config.segment_bytes.min(24 << 10),
        retention_bytes: Some(30_000),
        ..config
    }
}

pub fn rules() -> BatchRules {
    BatchRules {
        message_bytes_max: 1 << 20,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: None,
        timestamp_after_max_ms: None,
        keys_required: false,
        codec: None,
        control_allowed: false,
    }
}
