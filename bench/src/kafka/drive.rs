//! From options to a result: the topics are made, the load is put on them, and they are removed again.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{
    finish::{self, Side},
    load::{Load, Outcome},
    options::{Cluster, RunOptions, TopicOptions},
    topics::{self, Topics},
};
use crate::{
    exit::Exit,
    live::Live,
    result::{folder::ResultFolder, run::Metric},
    run::{PhaseSpan, Started, Stop, started},
    sample::Sampler,
    schedule::Schedule,
};

/// Where the load goes, and for how long.
pub type Where<'a> = (&'a Cluster, &'a TopicOptions, &'a RunOptions);

/// What one command reports besides what all report.
#[derive(Default)]
pub struct Findings {
    pub details: Value,
    pub metrics: Vec<Metric>,
    /// Lines for the eye.
    pub lines: Vec<String>,
}

/// A command whose options have been checked, ready to run loads.
pub struct Drive<'a> {
    to: Where<'a>,
    config: rdkafka::ClientConfig,
    peer: Option<Value>,
    folder: Option<ResultFolder>,
    started: Started,
    pub stop: Stop,
}

impl<'a> Drive<'a> {
    /// A run whose result could not be written is not begun.
    pub fn new(to: Where<'a>) -> Result<Drive<'a>, String> {
        let (cluster, topics, run) = to;
        topics.check()?;
        let stop = Stop::new();
        stop.on_signals().map_err(|error| error.to_string())?;
        Ok(Drive {
            to,
            config: topics::client_config(cluster)?,
            peer: cluster.peer()?,
            folder: run.folder()?,
            started: Started::now(),
            stop,
        })
    }

    /// One load on topics that are made for it, or that are there.
    pub fn load(&self, load: &Load) -> Result<(Side, Outcome), String> {
        let (cluster, topic_options, run) = self.to;
        let sampler = Sampler::new(cluster.broker_pid, cluster.disk().as_deref())?;
        let mut topics = match load.produce {
            Some(_) => {
                let new = format!("forebay-bench-{:08x}", load.run_id);
                Topics::prepare(cluster, topic_options, &new)?
            }
            None => Topics::existing(cluster, topic_options)?,
        };
        let side = Side::of(cluster, load, self.peer.clone(), &topics);
        let live = Live::new(run.quiet || run.json, load.phases.clone());
        let mut outcome = load.run(&self.config, &topics, &self.stop, sampler, live)?;
        if topic_options.keep_topics {
            topics.keep();
        }
        if outcome.is_broker_lost() {
            // Nobody is there to delete them.
            for topic in topics.keep() {
                outcome.refuse(format!("topic {topic} could not be deleted, and is left"));
            }
        } else if let Err(error) = topics.remove() {
            // What was measured is not lost with it.
            outcome.refuse(error);
        }
        Ok((side, outcome))
    }

    pub fn finish(
        self,
        command: &str,
        plan: &impl Serialize,
        (side, outcome): (Side, Outcome),
        findings: Findings,
    ) -> Result<Exit, String> {
        let (_, _, run) = self.to;
        let ended = finish::Ended {
            started: self.started,
            side,
            outcome,
            findings,
        };
        finish::finish(command, plan, run, self.folder.as_ref(), ended)
    }
}

/// For a command that is one load and no more.
pub fn once(
    command: &str,
    plan: &impl Serialize,
    to: Where<'_>,
    load: &Load,
) -> Result<Exit, String> {
    let drive = Drive::new(to)?;
    let driven = drive.load(load)?;
    drive.finish(command, plan, driven, Findings::default())
}

impl Load {
    /// Without producers and consumers.
    pub fn of(run: &RunOptions) -> Load {
        Load {
            run_id: started::run_id(),
            seed: run.seed,
            phases: Vec::new(),
            warm_up: run.warm_up(),
            produce: None,
            consume: None,
            drain_max: run.drain_max(),
            lateness_max: Duration::from_millis(run.lateness_ms_max),
        }
    }
}

/// The warm-up, and the parts of the schedule.
pub fn phases(schedule: &Schedule, run: &RunOptions) -> Vec<PhaseSpan> {
    let warm_up = run.warm_up();
    let mut phases = Vec::new();
    if !warm_up.is_zero() {
        phases.push(PhaseSpan {
            measured: false,
            ..span("warm-up", Duration::ZERO, warm_up)
        });
    }
    let parts = schedule.phases(run.measured());
    phases.extend(
        parts
            .into_iter()
            .map(|part| span(&part.name, part.start + warm_up, part.end + warm_up)),
    );
    phases
}

pub fn span(name: &str, start: Duration, end: Duration) -> PhaseSpan {
    PhaseSpan {
        name: name.to_string(),
        start,
        end,
        measured: true,
    }
}
