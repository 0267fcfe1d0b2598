//! The `forebay-tune` command: knows the host. (Changing it comes later.)

use std::{path::PathBuf, process::ExitCode, thread};

use clap::{Parser, Subcommand};
use forebay_tune::{check, report};

#[derive(Parser)]
#[command(
    name = "forebay-tune",
    version,
    about = "Checks what a host allows a Forebay broker"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Looks at io_uring, limits, and the disk of the data directory. Changes nothing.
    ///
    /// Exit codes: 0 all is well, 1 warnings, 2 something fatal, 3 could not run.
    #[command(after_help = "Example: forebay-tune check --data-dir /var/lib/forebay --json")]
    Check {
        /// The data directory, or any directory on the same file system
        #[arg(long, default_value = ".")]
        data_dir: PathBuf,
        /// Shards the broker will run, one per core by default
        #[arg(long)]
        shards: Option<u64>,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let Command::Check {
        data_dir,
        shards,
        json,
    } = Cli::parse().command;
    if !data_dir.is_dir() {
        eprintln!(
            "{} is not a directory: create it, or name another with --data-dir",
            data_dir.display()
        );
        return ExitCode::from(3);
    }
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let findings = check::all(&data_dir, shards.unwrap_or(cores).max(1));
    let text = if json {
        report::json(&findings)
    } else {
        report::text(&findings)
    };
    print!("{text}");
    ExitCode::from(report::exit_code(&findings))
}
