//! `forebay-bench kafka`: any broker that speaks Kafka's protocol.
//!
//! A command (`produce`, `consume`, `e2e`) turns its options into a `load`, which the clients (`librdkafka`) put on the topics (`topics`); `finish` makes
//! the result of what it came to.

pub mod drive;
mod finish;
mod librdkafka;
pub mod load;
pub mod options;
mod topics;
mod workload;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{exit::Exit, schedule};
use drive::{Drive, Findings};
use load::{Consume, Load, Produce, When};
use options::{Cluster, ConsumerOptions, Offer, ProducerOptions, RunOptions, TopicOptions};

/// Options that say what a workload says.
const OF_THE_WORKLOAD: [&str; 12] = [
    "topics",
    "partitions",
    "schedule",
    "megabytes",
    "producers",
    "record_bytes",
    "keys",
    "compressible",
    "consumers",
    "consume_rate",
    "seconds",
    "warm_up_seconds",
];

#[derive(Subcommand)]
pub enum Command {
    /// Produce on a schedule, or as fast as the broker acknowledges
    #[command(after_help = "Examples:
  forebay-bench kafka produce --quick
  forebay-bench kafka produce --schedule poisson:50k --producers 100 --linger-ms 0 --keys uniform:100000 --partitions 100
  forebay-bench kafka produce --topic orders --keep-topics --megabytes 1000 --broker-pid $(pgrep -x forebay)", after_long_help = schedule::HELP)]
    Produce(ProducePlan),
    /// Read topics from their beginning to their end
    #[command(after_help = "Example:
  forebay-bench kafka consume --topic orders --consumers 4")]
    Consume(ConsumePlan),
    /// Produce and consume at the same time: end-to-end latency, and whether every record arrives once and in order
    #[command(after_help = "Examples:
  forebay-bench kafka e2e --quick
  forebay-bench kafka e2e --schedule constant:20k --partitions 16 --consumers 2 --out results/e2e
  forebay-bench kafka e2e --workload 1-topic-16-partitions-1kb --quick")]
    E2e(Box<E2ePlan>),
    /// The workloads of OpenMessaging Benchmark that `e2e --workload` knows by name
    Workloads,
}

#[derive(Clone, Debug, Args, Serialize)]
pub struct ProducePlan {
    #[command(flatten)]
    #[serde(skip)]
    cluster: Cluster,
    #[command(flatten)]
    topics: TopicOptions,
    #[command(flatten)]
    offer: Offer,
    #[command(flatten)]
    producers: ProducerOptions,
    #[command(flatten)]
    run: RunOptions,
    /// Read everything back afterwards, and look for what was lost, duplicated, reordered or damaged
    #[arg(long, help_heading = "Run")]
    verify: bool,
}

#[derive(Clone, Debug, Args, Serialize)]
pub struct ConsumePlan {
    #[command(flatten)]
    #[serde(skip)]
    cluster: Cluster,
    #[command(flatten)]
    topics: TopicOptions,
    #[command(flatten)]
    consumers: ConsumerOptions,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Clone, Debug, Args, Serialize)]
pub struct E2ePlan {
    #[command(flatten)]
    #[serde(skip)]
    cluster: Cluster,
    #[command(flatten)]
    topics: TopicOptions,
    #[command(flatten)]
    offer: Offer,
    #[command(flatten)]
    producers: ProducerOptions,
    #[command(flatten)]
    consumers: ConsumerOptions,
    #[command(flatten)]
    run: RunOptions,
    /// A workload of OpenMessaging Benchmark, by its file or by its name (see `kafka workloads`): topics, rate, sizes, keys, producers, consumers and times are its own
    #[arg(long, value_name = "FILE|NAME", help_heading = "Run", conflicts_with_all = OF_THE_WORKLOAD)]
    #[serde(skip)]
    workload: Option<String>,
}

pub fn run(command: &Command) -> Result<Exit, String> {
    match command {
        Command::Produce(plan) => plan.run(),
        Command::Consume(plan) => plan.run(),
        Command::E2e(plan) => plan.run(),
        Command::Workloads => {
            for line in workload::list() {
                println!("{line}");
            }
            Ok(Exit::Done)
        }
    }
}

impl ProducePlan {
    fn run(&self) -> Result<Exit, String> {
        let plan = ProducePlan {
            run: self.offer.bound(&self.run).settled()?,
            ..self.clone()
        };
        plan.producers.check()?;
        plan.offer.check()?;
        let load = Load {
            phases: drive::phases(&plan.offer.schedule, &plan.run),
            produce: Some(Produce {
                options: plan.producers.clone(),
                offer: plan.offer.clone(),
            }),
            consume: plan.verify.then(|| Consume {
                options: ConsumerOptions::to_verify(),
                when: When::AfterProducers,
            }),
            ..Load::of(&plan.run)
        };
        drive::once(
            "kafka produce",
            &plan,
            (&plan.cluster, &plan.topics, &plan.run),
            &load,
        )
    }
}

impl ConsumePlan {
    fn run(&self) -> Result<Exit, String> {
        let plan = ConsumePlan {
            run: self.run.as_long_as_it_takes().settled()?,
            ..self.clone()
        };
        plan.consumers.check()?;
        let load = Load {
            // It lasts as long as there is something to read.
            phases: vec![drive::span("run", Duration::ZERO, plan.run.measured())],
            consume: Some(Consume {
                options: plan.consumers.clone(),
                when: When::FromTheFirst,
            }),
            ..Load::of(&plan.run)
        };
        drive::once(
            "kafka consume",
            &plan,
            (&plan.cluster, &plan.topics, &plan.run),
            &load,
        )
    }
}

impl E2ePlan {
    fn run(&self) -> Result<Exit, String> {
        let Some(name) = &self.workload else {
            return self.run_with(Findings::default());
        };
        let planned = self.with_workload(workload::find(name)?)?;
        for line in &planned.differences {
            eprintln!("workload: {line}");
        }
        let details = workload::Details {
            workload: &planned.workload,
            differences: &planned.differences,
        };
        let findings = Findings {
            details: serde_json::json!({ "omb": details }),
            lines: planned
                .differences
                .iter()
                .map(|line| format!("workload: {line}"))
                .collect(),
            ..Findings::default()
        };
        planned.plan.run_with(findings)
    }

    fn run_with(&self, findings: Findings) -> Result<Exit, String> {
        let plan = E2ePlan {
            run: self.offer.bound(&self.run).settled()?,
            ..self.clone()
        };
        plan.producers.check()?;
        plan.offer.check()?;
        plan.consumers.check()?;
        let load = Load {
            phases: drive::phases(&plan.offer.schedule, &plan.run),
            produce: Some(Produce {
                options: plan.producers.clone(),
                offer: plan.offer.clone(),
            }),
            consume: Some(Consume {
                options: plan.consumers.clone(),
                when: When::FromNowOn,
            }),
            ..Load::of(&plan.run)
        };
        let drive = Drive::new((&plan.cluster, &plan.topics, &plan.run))?;
        let driven = drive.load(&load)?;
        drive.finish("kafka e2e", &plan, driven, findings)
    }
}
