//! Options that the Kafka commands share. What decides what is measured is part of the plan in the result; addresses and names are not.

use std::{fs, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::{
    limits::{COUNT_MAX, SECONDS_MAX, within},
    payload::{KeyDistribution, SizeDistribution},
    result::folder::ResultFolder,
    sample,
    schedule::Schedule,
};

/// Largest file that a peer's start script may leave.
const PEER_BYTES_MAX: u64 = 1 << 20;

/// The broker, and what is known about it from elsewhere.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Broker")]
pub struct Cluster {
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT,...")]
    pub bootstrap_server: String,
    /// More settings of the client, in librdkafka's names (security.protocol, sasl.username, ...)
    #[arg(long = "property", value_name = "NAME=VALUE")]
    pub properties: Vec<String>,
    /// Process of a broker on this host: its CPU time and memory are reported
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,
    /// What the broker writes to, when it is on this host: a folder or a device whose disk is sampled
    /// [default: with --broker-pid, where that process has files open]
    #[arg(long, value_name = "DIR|DEVICE")]
    pub disk: Option<PathBuf>,
    /// peer.json of the script that started the broker, for the report
    #[arg(long, value_name = "FILE")]
    pub peer: Option<PathBuf>,
}

impl Cluster {
    pub fn properties(&self) -> Result<Vec<(&str, &str)>, String> {
        let split = |property: &'_ String| property.find('=').map(|at| (at, property.len()));
        let mut properties = Vec::new();
        for property in &self.properties {
            let (at, _) = split(property).ok_or_else(|| {
                format!("--property {property}: a setting is given as NAME=VALUE")
            })?;
            properties.push((&property[..at], &property[at + 1..]));
        }
        Ok(properties)
    }

    /// Whose disk is sampled: nobody's, of a broker elsewhere.
    pub fn disk(&self) -> Option<PathBuf> {
        let found = || self.broker_pid.and_then(sample::folder_written_by);
        self.disk.clone().or_else(found)
    }

    pub fn peer(&self) -> Result<Option<Value>, String> {
        let Some(path) = &self.peer else {
            return Ok(None);
        };
        let said = |error: &dyn std::fmt::Display| format!("--peer {}: {error}", path.display());
        let bytes = fs::metadata(path).map_err(|error| said(&error))?.len();
        if bytes > PEER_BYTES_MAX {
            return Err(said(&format!("{bytes} bytes are too many")));
        }
        let text = fs::read_to_string(path).map_err(|error| said(&error))?;
        serde_json::from_str(&text).map_err(|error| said(&error))
    }
}

/// Topics that are made for the run and deleted after it, or that are there.
#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Topics")]
pub struct TopicOptions {
    /// Name of the topic; with several topics, what their names begin with. One that is missing is created, and deleted after the run
    /// [default: a new one]
    #[arg(long)]
    #[serde(skip)]
    topic: Option<String>,
    #[arg(long, default_value_t = 1)]
    pub topics: u32,
    /// Partitions of a topic that is created
    #[arg(long, default_value_t = 1)]
    pub partitions: u32,
    #[arg(long, default_value_t = 1)]
    pub replication_factor: i32,
    /// Settings of a topic that is created
    #[arg(long = "topic-config", value_name = "NAME=VALUE")]
    pub topic_config: Vec<String>,
    /// Leave the topics that were created
    #[arg(long)]
    #[serde(skip)]
    pub keep_topics: bool,
}

impl TopicOptions {
    pub fn check(&self) -> Result<(), String> {
        within("--topics", self.topics, 1..=10_000)?;
        within("--partitions", self.partitions, 1..=100_000)?;
        within("--replication-factor", self.replication_factor, 1..=100)
    }

    /// `new` is for topics that were not named.
    pub fn names(&self, new: &str) -> Vec<String> {
        let topic = self.topic.as_deref().unwrap_or(new);
        match self.topics {
            1 => vec![topic.to_string()],
            many => (0..many)
                .map(|number| format!("{topic}-{number:04}"))
                .collect(),
        }
    }

    /// For a command that reads what is there.
    pub fn check_named(&self) -> Result<(), String> {
        match self.topic {
            Some(_) => Ok(()),
            None => Err("--topic: which topic is to be read?".to_string()),
        }
    }
}

/// Whose client is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// The one that applications use
    Librdkafka,
}

#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Producers")]
pub struct ProducerOptions {
    /// Producers, each with connections of its own
    #[arg(long, default_value_t = 1)]
    pub producers: u32,
    /// Of the values: fixed:BYTES, uniform:LEAST-MOST, choice:BYTESxWEIGHT,...
    #[arg(long, default_value = "fixed:1024")]
    pub record_bytes: SizeDistribution,
    /// none, round-robin:N, uniform:N, zipf:N,EXPONENT. Records with the same key go to the same partition
    #[arg(long, default_value = "none")]
    pub keys: KeyDistribution,
    /// Values that codecs can shorten to about half; without it they are noise
    #[arg(long)]
    pub compressible: bool,
    /// batch.size
    #[arg(long, default_value_t = 1_000_000)]
    pub batch_bytes: u32,
    /// linger.ms
    #[arg(long, default_value_t = 5)]
    pub linger_ms: u32,
    /// compression.type
    #[arg(long, default_value = "none")]
    pub compression: String,
    #[arg(long, default_value = "all", value_parser = ["all", "-1", "1", "0"])]
    pub acks: String,
    /// enable.idempotence
    #[arg(long)]
    pub idempotent: bool,
    /// Records of one producer that may wait for an answer; beyond it they wait in the bench, and their latency counts on
    #[arg(long, default_value_t = 100_000)]
    pub in_flight_max: u32,
}

impl ProducerOptions {
    pub fn check(&self) -> Result<(), String> {
        within("--producers", self.producers, 1..=10_000)?;
        within("--batch-bytes", self.batch_bytes, 1..=1_000_000_000)?;
        within("--linger-ms", self.linger_ms, 0..=900_000)?;
        within("--in-flight-max", self.in_flight_max, 1..=10_000_000)
    }
}

/// How much is produced, and when.
#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Producers")]
pub struct Offer {
    /// When records are due, over all producers together; closed:N keeps N in flight per producer. See the end of this help
    #[arg(long, default_value = "closed:10000")]
    pub schedule: Schedule,
    /// Stop when so much was produced, if that comes before the end of the time
    #[arg(long, value_name = "MB")]
    pub megabytes: Option<u64>,
}

impl Offer {
    /// An amount bounds a run instead of a time.
    pub fn bound(&self, run: &RunOptions) -> RunOptions {
        match self.megabytes {
            Some(_) => run.as_long_as_it_takes(),
            None => run.clone(),
        }
    }

    pub fn check(&self) -> Result<(), String> {
        within(
            "--megabytes",
            self.megabytes.unwrap_or(1),
            1..=1_000_000_000,
        )
    }
}

#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Consumers")]
pub struct ConsumerOptions {
    /// Consumers, which share the partitions evenly
    #[arg(long, default_value_t = 1)]
    pub consumers: u32,
    /// Records per second that all consumers take together; without it as fast as they come
    #[arg(long, value_name = "RATE")]
    pub consume_rate: Option<f64>,
    /// max.partition.fetch.bytes
    #[arg(long, default_value_t = 1 << 20)]
    pub fetch_bytes: u32,
    /// fetch.max.wait.ms
    #[arg(long, default_value_t = 500)]
    pub fetch_wait_ms: u32,
}

impl ConsumerOptions {
    /// One that reads everything back.
    pub fn to_verify() -> ConsumerOptions {
        ConsumerOptions {
            consumers: 1,
            consume_rate: None,
            fetch_bytes: 1 << 20,
            fetch_wait_ms: 500,
        }
    }

    pub fn check(&self) -> Result<(), String> {
        within("--consumers", self.consumers, 1..=10_000)?;
        within(
            "--consume-rate",
            self.consume_rate.unwrap_or(1.0),
            0.001..=1e9,
        )?;
        within("--fetch-bytes", self.fetch_bytes, 1..=1_000_000_000)?;
        within("--fetch-wait-ms", self.fetch_wait_ms, 0..=300_000)
    }
}

/// How long, and where the result goes.
#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Run")]
pub struct RunOptions {
    /// Time that is measured [default: 30, or as long as --megabytes takes]
    #[arg(long)]
    seconds: Option<u64>,
    /// Time before it that is not [default: 5, or none with --megabytes]
    #[arg(long)]
    warm_up_seconds: Option<u64>,
    /// A short run: 10 s measured, 2 s before it
    #[arg(long)]
    pub quick: bool,
    /// Of arrivals, keys and sizes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The run is invalid when the generator's lateness is above this at p99
    #[arg(long, default_value_t = 10)]
    pub lateness_ms_max: u64,
    /// Longest wait for answers and for consumers after the last record was sent
    #[arg(long, default_value_t = 60)]
    pub drain_seconds_max: u64,
    /// New folder for result.json, report.html, series.csv and the histograms
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub out: Option<PathBuf>,
    /// What to call this side in reports
    #[arg(long)]
    #[serde(skip)]
    pub label: Option<String>,
    /// No lines while it runs
    #[arg(long)]
    #[serde(skip)]
    pub quiet: bool,
    /// Print the result as JSON
    #[arg(long)]
    #[serde(skip)]
    pub json: bool,
}

/// Of a run that does not say.
const SECONDS: u64 = 30;
const WARM_UP_SECONDS: u64 = 5;

impl RunOptions {
    /// Every time is known: `--quick` and the defaults are put in.
    pub fn settled(&self) -> Result<RunOptions, String> {
        let mut run = self.clone();
        let (mut seconds, mut warm_up) = (
            run.seconds.unwrap_or(SECONDS),
            run.warm_up_seconds.unwrap_or(WARM_UP_SECONDS),
        );
        if run.quick {
            seconds = seconds.min(10);
            warm_up = warm_up.min(2);
            run.drain_seconds_max = run.drain_seconds_max.min(10);
        }
        within("--seconds", seconds, 1..=24 * SECONDS_MAX)?;
        within("--warm-up-seconds", warm_up, 0..=SECONDS_MAX)?;
        within(
            "--drain-seconds-max",
            run.drain_seconds_max,
            0..=SECONDS_MAX,
        )?;
        within(
            "--lateness-ms-max",
            run.lateness_ms_max,
            0..=u64::from(COUNT_MAX),
        )?;
        run.seconds = Some(seconds);
        run.warm_up_seconds = Some(warm_up);
        Ok(run)
    }

    /// Of a run that ends by itself.
    pub fn as_long_as_it_takes(&self) -> RunOptions {
        RunOptions {
            seconds: self.seconds.or(Some(24 * SECONDS_MAX)),
            warm_up_seconds: self.warm_up_seconds.or(Some(0)),
            ..self.clone()
        }
    }

    /// Of a run whose length another option decides.
    pub fn lasting(&self, seconds: u64) -> RunOptions {
        RunOptions {
            seconds: Some(seconds),
            ..self.clone()
        }
    }

    pub fn warming_up(&self, seconds: u64) -> RunOptions {
        RunOptions {
            warm_up_seconds: Some(seconds),
            ..self.clone()
        }
    }

    /// Panics before it is settled.
    pub fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up_seconds.expect("settled"))
    }

    /// Panics before it is settled.
    pub fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds.expect("settled"))
    }

    pub fn drain_max(&self) -> Duration {
        Duration::from_secs(self.drain_seconds_max)
    }

    /// Made before the run begins.
    pub fn folder(&self) -> Result<Option<ResultFolder>, String> {
        self.out.as_deref().map(ResultFolder::create).transpose()
    }
}
