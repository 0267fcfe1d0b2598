//! How busy each core was, from /proc/stat (proc_stat(5)).
//!
//! Busy is all but idle and waiting for a disk. Time of guests is in that of their host's processes already and is not counted again. Time that a
//! hypervisor gave to others ("steal") counts as busy: nobody here could use it.

use std::{collections::BTreeMap, fs};

/// Highest number of a core that is looked at.
const CORE_MAX: usize = 4_095;

/// Ticks so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    idle: u64,
}

/// The ticks of every core, by its number. A core that is off has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cores(BTreeMap<usize, Ticks>);

impl Cores {
    /// None when the kernel does not tell.
    pub fn now() -> Option<Cores> {
        parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// Busy part of each core since then, 0 to 1, in the order of their numbers; a core that is off has 0.
    pub fn busy_since(&self, before: &Cores) -> Vec<f64> {
        let cores = self.0.keys().last().map_or(0, |last| last + 1);
        let mut parts = vec![0.0; cores];
        for (core, now) in &self.0 {
            let Some(before) = before.0.get(core) else {
                continue;
            };
            // The idle counter of a core that went off and came back may be lower.
            let busy = now.busy.saturating_sub(before.busy);
            let idle = now.idle.saturating_sub(before.idle);
            if busy + idle > 0 {
                parts[*core] = busy as f64 / (busy + idle) as f64;
            }
        }
        parts
    }
}

fn parse(stat: &str) -> Option<Cores> {
    let mut cores = BTreeMap::new();
    for line in stat.lines() {
        let mut fields = line.split_ascii_whitespace();
        let core = fields.next().and_then(|name| name.strip_prefix("cpu"));
        let Some(core) = core.and_then(|core| core.parse::<usize>().ok()) else {
            continue;
        };
        let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal guest guest_nice; the first kernels had four.
        if core > CORE_MAX || ticks.len() < 4 {
            continue;
        }
        let sum = |fields: &[usize]| {
            let ticks = fields.iter().filter_map(|field| ticks.get(*field));
            ticks.fold(0_u64, |sum, it| sum.saturating_add(*it))
        };
        cores.insert(
            core,
            Ticks {
                busy: sum(&[0, 1, 2, 5, 6, 7]),
                idle: sum(&[3, 4]),
            },
        );
    }
    (!cores.is_empty()).then_some(Cores(cores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_was_not_idle() {
        let check = |before: &str, now: &str, expected: &[f64]| {
            let (before, now) = (parse(before).expect("cores"), parse(now).expect("cores"));
            assert_eq!(now.busy_since(&before), expected);
        };
        let before = "cpu  1 1 1 1\ncpu0 100 0 50 800 10 0 0 0 0 0\ncpu1 0 0 0 100\nintr 5\n";
        check(before, before, &[0.0, 0.0]);
        // Guests are part of user time, steal is not idle, waiting for a disk is.
        let now = "cpu0 110 5 60 850 35 0 0 0 10 0\ncpu1 10 0 0 100 0 5 5 5\nctxt 3 cpu2 1 1 1 1\n";
        check(before, now, &[0.25, 1.0]);
        // One that came, with another off before it; one whose counters went back.
        check(
            before,
            "cpu1 5 0 0 95\ncpu3 1 1 1 1\n",
            &[0.0, 1.0, 0.0, 0.0],
        );
    }

    #[test]
    fn odd_texts_have_no_cores() {
        for odd in [
            "",
            "cpu 1 2 3 4",
            "cpu0",
            "cpu0 1 2 x 4",
            "cpu0 -1 2 3 4",
            "cpux 1 2 3 4",
            "cpu99999999 1 2 3 4",
            "cpu99999999999999999999999 1 2 3 4",
        ] {
            assert_eq!(parse(odd), None, "{odd}");
        }
        let most = format!("cpu0 {0} {0} {0} {0} {0}", u64::MAX);
        assert!(parse(&most).is_some());
        assert!(Cores::now().is_some());
    }
}
