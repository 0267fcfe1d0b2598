//! A `storage` command under way: where it writes, what it measures with, and how it ends, whichever command it is.
//!
//! A command turns its options into turns, each of which goes to the session as soon as it is over; from all of them it makes its figures, and
//! the session makes the result. A signal ends the turn that is under way, and the result is of those before it.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

use super::{
    finish::{self, Found},
    folder::{Folder, RunOptions},
    measured::Turns,
    probe::{Broken, Probe},
};
use crate::{
    exit::Exit,
    live::Live,
    result::folder::ResultFolder,
    run::{RunClock, Started, Stop, collector::Collector},
    sample::{Disk, Sampler},
};

pub struct Session {
    options: RunOptions,
    folder: Folder,
    out: Option<ResultFolder>,
    started: Started,
    probe: Probe,
    collector: Collector,
}

impl Session {
    /// On a disk that must have room for what the run writes. A run whose result could not be written is not begun.
    pub fn begin(options: &RunOptions, planned_bytes: u64) -> Result<Session, String> {
        let stop = Stop::new();
        stop.on_signals().map_err(|error| error.to_string())?;
        let folder = options.folder(planned_bytes)?;
        let out = options
            .out
            .as_deref()
            .map(ResultFolder::create)
            .transpose()?;
        let started = Started::now();
        let disk = Some(folder.path()).filter(|dir| Disk::of(dir).is_some());
        let sampler = Sampler::new(None, disk)?;
        let clock = RunClock::starting_in(Duration::ZERO);
        // Each turn has a line of its own.
        let quiet = Live::new(true, Vec::new());
        let (collector, slices) = Collector::start(clock, sampler, quiet);
        Ok(Session {
            options: options.clone(),
            folder,
            out,
            started,
            probe: Probe::new(clock, slices, stop),
            collector,
        })
    }

    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }

    /// An empty folder on the disk that is measured.
    pub fn make(&self, name: &str) -> Result<PathBuf, String> {
        self.folder.make(name)
    }

    /// Once everything was measured, or it broke off.
    pub fn finish(
        self,
        command: &str,
        plan: &impl Serialize,
        ended: Result<(), Broken>,
        find: impl FnOnce(&Turns) -> Found,
    ) -> Result<Exit, String> {
        let interrupted = match ended {
            Ok(()) => false,
            Err(Broken::Interrupted) => true,
            Err(Broken::Failed(why)) => {
                if let Some(out) = &self.out {
                    out.abandon();
                }
                return Err(why);
            }
        };
        let Session {
            options,
            folder,
            out,
            started,
            probe,
            collector,
        } = self;
        drop(folder);
        let gathered = std::mem::take(&mut *probe.gathered());
        let seconds = probe.now().as_secs_f64();
        // The collector ends with its last sender.
        drop(probe);
        let collected = collector.finish();
        let found = find(&gathered.turns);
        let ended = finish::Ended {
            options,
            started,
            seconds,
            interrupted,
            gathered,
            collected,
            found,
        };
        finish::finish(command, plan, out.as_ref(), ended)
    }
}
