//! The `forebay-bench` command: what the engine does on a disk, next to what the disk can do, and what a broker does for a client.

mod compare;
mod environment;
mod exit;
mod kafka;
mod latency;
mod limits;
mod live;
mod mounts;
mod network;
mod noise;
mod omb;
mod payload;
mod peak;
mod random;
mod result;
mod run;
mod sample;
mod schedule;
mod statistics;
mod storage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use exit::Exit;

#[global_allocator]
static ALLOCATOR: storage::Counting = storage::Counting;

#[derive(Parser)]
#[command(
    name = "forebay-bench",
    version,
    about = "Benchmarks of the Forebay engine"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The storage engine without a network, against the raw device in the same run
    #[command(subcommand)]
    Storage(storage::Command),
    /// A running broker, driven by librdkafka
    #[command(subcommand)]
    Kafka(Box<kafka::Command>),
    /// Bursts above a base rate, the backlog they leave, and its drain
    #[command(after_help = "Examples:
  forebay-bench peak --quick
  forebay-bench peak --base-rate 20000 --times 5 --partitions 16 --consumers 2 --out results/peak
  forebay-bench peak --knee --objective-ms 50 --burst-seconds 5 --base-seconds 5 --bursts 1")]
    Peak(Box<peak::Plan>),
    /// Whether one side is better than the other, from repeated runs of both that were taken in turns
    #[command(
        after_help = "Exit codes: 0 same or better, 6 worse, 7 the runs do not compare.

Example:
  forebay-bench compare results/old results/new"
    )]
    Compare(compare::Plan),
    /// Write report.html of a run anew, from its result.json
    Report {
        /// Folder of the run
        dir: std::path::PathBuf,
    },
    /// Print the JSON Schema of result.json
    Schema,
    /// A bare pair of sockets on loopback: the floor of the network
    Network(network::Plan),
}

fn main() -> ExitCode {
    let done = |()| Exit::Done;
    let result = match Cli::parse().command {
        Command::Storage(command) => storage::run(&command),
        Command::Kafka(command) => kafka::run(&command),
        Command::Peak(plan) => peak::run(&plan),
        Command::Compare(plan) => compare::run(&plan),
        Command::Report { dir } => result::render(&dir).map(done),
        Command::Schema => {
            print!("{}", result::schema::text());
            Ok(Exit::Done)
        }
        Command::Network(plan) => network::run(&plan).map(done),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(message) => {
            eprintln!("forebay-bench: {message}");
            ExitCode::FAILURE
        }
    }
}
