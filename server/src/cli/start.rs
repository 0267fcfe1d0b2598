//! `forebay start`: flags of the broker. What they mean is the configuration's business, what happens is `boot`'s.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};

use super::logging;

/// Starts the broker
#[derive(Parser, Clone, Debug)]
#[command(
    after_help = "Without a configuration it creates its data directory, uses all cores and listens on port 9092.\n\n\
Examples:\n  forebay start\n  forebay start --data-dir /var/lib/forebay --listen 0.0.0.0:9092\n  \
forebay start -c /etc/forebay/forebay.toml --override num.partitions=4"
)]
pub struct StartArgs {
    /// Configuration file: TOML, or Kafka's server.properties.
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// One setting under its Kafka name; may be repeated, and wins over file and environment.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,

    /// Where the log lives (log.dirs).
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Address and port to listen on (listeners).
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Shards to run, at most one per core; all cores by default.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub shards: Option<u16>,

    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Text,
    Json,
}

pub fn run(args: &StartArgs) -> ExitCode {
    if let Err(message) = logging::init(args.log_format) {
        eprintln!("{message}");
        return ExitCode::FAILURE;
    }
    crate::boot::start(args)
}
