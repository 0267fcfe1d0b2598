//! The clock of a run: monotonic, shared by all workers, and with a zero that may lie ahead, so that workers begin together.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Copied to every worker.
#[derive(Clone, Copy, Debug)]
pub struct RunClock {
    zero: Instant,
    /// `CLOCK_MONOTONIC` at zero: what other processes of this host can subtract from.
    zero_nanos: i64,
}

impl RunClock {
    /// Zero is `lead` from now.
    pub fn starting_in(lead: Duration) -> RunClock {
        let zero_nanos = host_nanos() + nanos(lead);
        RunClock {
            zero: Instant::now() + lead,
            zero_nanos,
        }
    }

    pub fn zero(&self) -> Instant {
        self.zero
    }

    /// Since zero; nothing before it.
    pub fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(self.zero)
    }

    /// A time of the run as the host's monotonic nanoseconds, for a record that another process may read.
    pub fn host_nanos_at(&self, at: Duration) -> i64 {
        self.zero_nanos + nanos(at)
    }

    /// The reverse. What lies before zero is zero.
    pub fn at_host_nanos(&self, host_nanos: i64) -> Duration {
        let nanos = host_nanos.saturating_sub(self.zero_nanos);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds: the same in all processes of a host, and no clock jump moves it.
fn host_nanos() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).expect("a run ends within 292 years")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_run_and_of_the_host_lead_to_each_other() {
        let clock = RunClock::starting_in(Duration::from_secs(1));
        assert_eq!(clock.elapsed(), Duration::ZERO);
        for at in [0, 1, 999_999_999, 3_600_000_000_000] {
            let at = Duration::from_nanos(at);
            assert_eq!(clock.at_host_nanos(clock.host_nanos_at(at)), at);
        }
        assert_eq!(clock.at_host_nanos(0), Duration::ZERO);
        let ahead = clock.host_nanos_at(Duration::ZERO) - host_nanos();
        assert!((0..=1_000_000_000).contains(&ahead), "{ahead}");
    }
}
