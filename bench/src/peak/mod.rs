//! `forebay-bench peak`: a base rate, bursts above it, and consumers that keep to a rate of their own between the two, so that each burst
//! leaves a backlog that is drained before the next. It shows what no steady load does: how much of a burst is taken in, how far
//! consumers fall behind, how long they take to come back, and what that does to the producers.

mod analysis;
mod knee;

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    exit::Exit,
    kafka::{
        drive::{self, Drive, Findings},
        load::{Consume, Load, Outcome, Produce, When, metric},
        options::{Cluster, ConsumerOptions, Offer, ProducerOptions, RunOptions, TopicOptions},
    },
    limits::within,
    result::run::{Better, Metric},
    schedule::Schedule,
};
use analysis::{Burst, Peak, analyse};

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    #[command(flatten)]
    #[serde(skip)]
    cluster: Cluster,
    #[command(flatten)]
    peak: PeakOptions,
    #[command(flatten)]
    topics: TopicOptions,
    #[command(flatten)]
    producers: ProducerOptions,
    #[command(flatten)]
    consumers: ConsumerOptions,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Peak")]
struct PeakOptions {
    /// Records per second between the bursts
    #[arg(long, default_value_t = 5_000.0)]
    base_rate: f64,
    /// What a burst multiplies it with
    #[arg(long, default_value_t = 5.0)]
    times: f64,
    /// Length of a burst
    #[arg(long, default_value_t = 10)]
    burst_seconds: u64,
    /// Time at the base rate before each burst and after the last
    #[arg(long, default_value_t = 30)]
    base_seconds: u64,
    #[arg(long, default_value_t = 3)]
    bursts: u64,
    /// Instead of one run: the largest factor up to --times-max with which a burst's planned p99 stays within --objective-ms and every record is acknowledged, by bisection
    #[arg(long)]
    knee: bool,
    #[arg(long, default_value_t = 50)]
    objective_ms: u64,
    #[arg(long, default_value_t = 64.0)]
    times_max: f64,
}

impl PeakOptions {
    fn settled(&self, quick: bool) -> Result<PeakOptions, String> {
        let mut peak = self.clone();
        if quick {
            peak.bursts = peak.bursts.min(2);
            peak.burst_seconds = peak.burst_seconds.min(2);
            peak.base_seconds = peak.base_seconds.min(5);
        }
        within("--base-rate", peak.base_rate, 1.0..=1e8)?;
        within("--times", peak.times, 1.0..=10_000.0)?;
        within("--times-max", peak.times_max, 1.0..=10_000.0)?;
        within("--burst-seconds", peak.burst_seconds, 1..=3_600)?;
        within("--base-seconds", peak.base_seconds, 1..=3_600)?;
        within("--bursts", peak.bursts, 1..=1_000)?;
        within("--objective-ms", peak.objective_ms, 1..=3_600_000)?;
        Ok(peak)
    }

    fn seconds(&self) -> u64 {
        self.base_seconds + self.bursts * (self.burst_seconds + self.base_seconds)
    }

    fn schedule(&self, times: f64) -> Result<Schedule, String> {
        let PeakOptions {
            base_rate,
            burst_seconds,
            base_seconds,
            ..
        } = self;
        let spec = format!("burst:{base_rate},{times},{burst_seconds}s,{base_seconds}s");
        spec.parse().map_err(|error| format!("{spec}: {error}"))
    }

    /// Between the base and the burst, so that a burst leaves a backlog and the time after it takes it away.
    fn consume_rate(&self) -> f64 {
        self.base_rate * (1.0 + (self.times - 1.0) / 2.0)
    }
}

pub fn run(plan: &Plan) -> Result<Exit, String> {
    let peak = plan.peak.settled(plan.run.quick)?;
    let mut plan = Plan {
        run: plan.run.settled()?.lasting(peak.seconds()),
        peak,
        ..plan.clone()
    };
    plan.consumers
        .consume_rate
        .get_or_insert(plan.peak.consume_rate());
    plan.producers.check()?;
    plan.consumers.check()?;
    let drive = Drive::new((&plan.cluster, &plan.topics, &plan.run))?;
    if plan.peak.knee {
        return knee::find(&plan, drive);
    }
    let driven = drive.load(&plan.load(plan.peak.times)?)?;
    let findings = match peak_of(&driven.1) {
        Some(peak) => Findings {
            lines: lines(&peak),
            metrics: metrics(&peak),
            details: json!({ "peak": peak }),
        },
        // A signal ended the run before the first burst.
        None => Findings::default(),
    };
    drive.finish("peak", &plan, driven, findings)
}

fn peak_of(outcome: &Outcome) -> Option<Peak> {
    analyse(&outcome.phases, &outcome.collected.series)
}

impl Plan {
    fn load(&self, times: f64) -> Result<Load, String> {
        let offer = Offer {
            schedule: self.peak.schedule(times)?,
            megabytes: None,
        };
        Ok(Load {
            phases: drive::phases(&offer.schedule, &self.run),
            produce: Some(Produce {
                options: self.producers.clone(),
                offer,
            }),
            consume: Some(Consume {
                options: self.consumers.clone(),
                when: When::FromNowOn,
            }),
            ..Load::of(&self.run)
        })
    }

    fn objective(&self) -> Duration {
        Duration::from_millis(self.peak.objective_ms)
    }
}

fn lines(peak: &Peak) -> Vec<String> {
    let mut lines = vec![format!(
        "ingest fidelity {:.4}: part of what the bursts offered that was acknowledged",
        peak.ingest_fidelity
    )];
    let seconds =
        |seconds: Option<f64>| seconds.map_or("not".to_string(), |it| format!("{it:.0} s"));
    for burst in &peak.bursts {
        let Burst {
            name,
            latency,
            backlog_max,
            ..
        } = burst;
        lines.push(format!(
            "{name}: {} of {} acknowledged, p99 {} us; backlog {} records, {:.1} s behind; drained after {}, latency normal after {}",
            burst.acknowledged,
            burst.offered,
            latency.map_or(0, |latency| latency.p99_us),
            backlog_max.records,
            backlog_max.seconds_behind,
            seconds(burst.drain_s),
            seconds(burst.recovery_s),
        ));
    }
    let ratio = |ratio: Option<f64>| ratio.map_or("unknown".to_string(), |it| format!("{it:.2}"));
    lines.push(format!(
        "produce p99 while draining, to before: {}; of the last burst, to the first: {}",
        ratio(peak.drain_interference),
        ratio(peak.last_to_first_p99)
    ));
    lines
}

fn metrics(peak: &Peak) -> Vec<Metric> {
    let mut metrics = vec![
        metric(
            "peak_ingest_fidelity",
            "ratio",
            Better::Higher,
            peak.ingest_fidelity,
        ),
        metric(
            "peak_backlog_records_max",
            "records",
            Better::Lower,
            peak.backlog_max.records as f64,
        ),
    ];
    let mut add = |name: &str, unit: &str, values: Vec<f64>| {
        if !values.is_empty() {
            metrics.push(Metric {
                values,
                ..metric(name, unit, Better::Lower, 0.0)
            });
        }
    };
    let bursts = || peak.bursts.iter();
    let p99 = bursts().filter_map(|burst| Some(burst.latency?.p99_us as f64));
    add("peak_burst_latency_planned_p99_us", "us", p99.collect());
    add(
        "peak_drain_seconds",
        "s",
        bursts().filter_map(|burst| burst.drain_s).collect(),
    );
    add(
        "peak_recovery_seconds",
        "s",
        bursts().filter_map(|burst| burst.recovery_s).collect(),
    );
    metrics
}
