//! How a run ends before its time: SIGINT or SIGTERM, once, ends it in order with a partial result; a second one ends the process at once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// What a shell reports of a process that SIGINT ended (128 and the number of the signal).
pub const INTERRUPTED: i32 = 130;

/// Copied to every worker.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Set by a signal from now on.
    pub fn on_signals(&self) -> io::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down and puts it up, the second finds it up.
            flag::register_conditional_shutdown(signal, INTERRUPTED, self.0.clone())?;
            flag::register(signal, self.0.clone())?;
        }
        Ok(())
    }

    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_copies_hear_of_it() {
        let stop = Stop::new();
        let of_worker = stop.clone();
        assert!(!of_worker.is_asked());
        stop.ask();
        assert!(of_worker.is_asked());
    }
}
