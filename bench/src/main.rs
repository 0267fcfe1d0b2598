//! The `forebay-bench` command: what the engine does on a disk, next to what the disk can do.

mod environment;
mod result;
mod storage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
}

fn main() -> ExitCode {
    let Command::Storage(command) = Cli::parse().command;
    match storage::run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("forebay-bench: {message}");
            ExitCode::FAILURE
        }
    }
}
