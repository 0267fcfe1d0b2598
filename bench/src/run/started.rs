//! When a run began, by both clocks, and on which machine.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use crate::environment::Environment;

/// A clock that was set by more than this while the run went on is worth a line.
const JUMP: Duration = Duration::from_millis(200);

/// The machine is looked at before anything runs: its own load is not part of what that was doing.
pub struct Started {
    environment: Environment,
    wall: SystemTime,
    monotonic: Instant,
}

impl Started {
    pub fn now() -> Started {
        Started {
            environment: Environment::machine(),
            wall: SystemTime::now(),
            monotonic: Instant::now(),
        }
    }

    /// UTC, RFC 3339; empty when the clock shows a time that this has no words for.
    pub fn at(&self) -> String {
        jiff::Timestamp::try_from(self.wall).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
    }

    /// With the disk that holds `dir`.
    pub fn environment(self, dir: Option<&Path>) -> Environment {
        self.environment.with_disk(dir)
    }

    /// A line about a wall clock that went apart from the monotonic one since then.
    pub fn jump(&self) -> Option<String> {
        let monotonic = self.monotonic.elapsed();
        let jump = match self.wall.elapsed() {
            Ok(wall) => wall.abs_diff(monotonic),
            Err(behind) => behind.duration() + monotonic,
        };
        let millis = jump.as_millis();
        (jump > JUMP).then(|| {
            format!("the wall clock was set by {millis} ms during the run; latencies are from the monotonic clock and not touched by it")
        })
    }
}

/// Told apart from other runs in the records it writes; never 0.
pub fn run_id() -> u32 {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = nanos.map_or(0, |since| since.as_nanos() as u64);
    let mixed = (nanos ^ u64::from(std::process::id()) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed >> 32) as u32).max(1)
}
