//! What a person sees while a run goes on: one line a second.

use crate::result::run::Second;

/// Prints to standard error, so that standard output is what was found.
#[derive(Debug, Default)]
pub struct Live {
    quiet: bool,
}

impl Live {
    pub fn new(quiet: bool) -> Live {
        Live { quiet }
    }

    pub fn show(&mut self, second: &Second) {
        if self.quiet {
            return;
        }
        let flow = &second.produced;
        let p99 = flow.planned.map_or(0, |latency| latency.p99_us);
        eprintln!(
            "{:>5} s  offered {:>9}  completed {:>9}  {:>8.1} MB/s  p99 {:>8} us  consumed {:>9}",
            second.second,
            flow.offered,
            flow.completed,
            flow.bytes as f64 / 1e6,
            p99,
            second.consumed.completed,
        );
    }

    pub fn end(&mut self) {}
}
