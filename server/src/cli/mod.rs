//! The command line: the broker and the tools of Kafka under their own names.
//!
//! One binary, `forebay`, with subcommands; called as `kafka-topics`, `kafka-console-producer` and so on (with or
//! without `.sh` or `.bat`) it is that tool, with the same flags and the same output. Every command but `start` is a
//! plain blocking program. Exit codes: 0, or 1 with a message on stderr; `start` has its own.

mod args;
pub mod client;
mod configs;
mod consume;
mod delete_records;
mod dump_log;
mod get_offsets;
mod groups;
mod links;
pub mod logging;
mod murmur2;
mod outcome;
mod produce;
mod properties;
mod signal;
mod start;
mod table;
mod topics;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use start::{LogFormat, StartArgs};

use outcome::CliError;

/// A log that takes peaks at the speed of the disk and speaks Kafka.
#[derive(Parser)]
#[command(
    name = "forebay",
    version,
    infer_long_args = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Forebay {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Start(StartArgs),
    Topics(topics::TopicsArgs),
    Produce(produce::ProduceArgs),
    Consume(consume::ConsumeArgs),
    Groups(groups::GroupsArgs),
    Configs(configs::ConfigsArgs),
    GetOffsets(get_offsets::GetOffsetsArgs),
    DeleteRecords(delete_records::DeleteRecordsArgs),
    DumpLog(dump_log::DumpLogArgs),
    InstallLinks(links::InstallLinksArgs),
}

type ParseTool = fn(&'static str, &[OsString]) -> Result<Command, clap::Error>;

/// Kafka's tools that this binary can stand in for.
const TOOLS: [(&str, ParseTool); 8] = [
    ("kafka-topics", |name, args| {
        parse_as(name, args).map(Command::Topics)
    }),
    ("kafka-console-producer", |name, args| {
        parse_as(name, args).map(Command::Produce)
    }),
    ("kafka-console-consumer", |name, args| {
        parse_as(name, args).map(Command::Consume)
    }),
    ("kafka-consumer-groups", |name, args| {
        parse_as(name, args).map(Command::Groups)
    }),
    ("kafka-configs", |name, args| {
        parse_as(name, args).map(Command::Configs)
    }),
    ("kafka-get-offsets", |name, args| {
        parse_as(name, args).map(Command::GetOffsets)
    }),
    ("kafka-delete-records", |name, args| {
        parse_as(name, args).map(Command::DeleteRecords)
    }),
    ("kafka-dump-log", |name, args| {
        parse_as(name, args).map(Command::DumpLog)
    }),
];

/// Runs the command that the arguments (the program's name first) ask for.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    match parse(&args) {
        Ok(Command::Start(start)) => start::run(&start),
        Ok(command) => execute(command),
        Err(error) => {
            // Help and version come this way too: they go to stdout and are no error.
            let code = ExitCode::from(u8::from(error.use_stderr()));
            match error.print() {
                Ok(()) => code,
                Err(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn parse(args: &[OsString]) -> Result<Command, clap::Error> {
    let program = args.first().map(Path::new).and_then(Path::file_name);
    let program = program.and_then(|name| name.to_str()).unwrap_or("forebay");
    let name = program
        .strip_suffix(".sh")
        .or_else(|| program.strip_suffix(".bat"))
        .unwrap_or(program);
    match TOOLS.iter().find(|(tool, _)| *tool == name) {
        Some((tool, parse)) => parse(tool, args),
        None => Forebay::try_parse_from(args).map(|forebay| forebay.command),
    }
}

/// Reads the arguments of one subcommand as those of a program of its own.
fn parse_as<A: CommandFactory + FromArgMatches>(
    name: &'static str,
    args: &[OsString],
) -> Result<A, clap::Error> {
    let mut command = A::command().name(name).bin_name(name).infer_long_args(true);
    let matches = command.try_get_matches_from_mut(args)?;
    A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn execute(command: Command) -> ExitCode {
    let out = &mut io::BufWriter::new(io::stdout());
    let outcome = match command {
        Command::Start(start) => return start::run(&start),
        Command::Topics(args) => topics::run(&args, out),
        Command::Produce(args) => produce::run(&args),
        Command::Consume(args) => consume::run(&args, out),
        Command::Groups(args) => groups::run(&args, out),
        Command::Configs(args) => configs::run(&args, out),
        Command::GetOffsets(args) => get_offsets::run(&args, out),
        Command::DeleteRecords(args) => delete_records::run(&args, out),
        Command::DumpLog(args) => dump_log::run(&args, out),
        Command::InstallLinks(args) => links::run(&args, out),
    };
    // What was printed before an error comes before the error.
    let flushed = out.flush().map_err(CliError::Output);
    match outcome.and(flushed) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has seen enough.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, clap::Error> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&args)
    }

    #[test]
    fn the_definitions_of_all_commands_are_consistent() {
        Forebay::command().debug_assert();
    }

    #[test]
    fn the_commands_people_type_are_understood_under_every_name() {
        let lines = [
            (
                "topics",
                "kafka-topics",
                "--topic first --create --partitions 1 --replication-factor 1",
            ),
            ("topics", "kafka-topics", "--list"),
            ("topics", "kafka-topics", "--topic first --describe"),
            ("produce", "kafka-console-producer", "--topic first"),
            ("consume", "kafka-console-consumer", "--topic first"),
            (
                "consume",
                "kafka-console-consumer",
                "--topic first --from-beginning",
            ),
        ];
        for (subcommand, tool, flags) in lines {
            let common = format!("--bootstrap-server localhost:9092 {flags}");
            for program in [
                format!("forebay {subcommand}"),
                tool.to_string(),
                format!("{tool}.sh"),
                format!("/opt/kafka/bin/{tool}.bat"),
            ] {
                let line = format!("{program} {common}");
                let parsed = parse_line(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                let found = match parsed {
                    Command::Topics(_) => "topics",
                    Command::Produce(_) => "produce",
                    Command::Consume(_) => "consume",
                    _ => "another",
                };
                assert_eq!(found, subcommand, "{line}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "forebay",
            "forebay nothing",
            "kafka-topics --bootstrap-server localhost:9092",
            "kafka-topics --bootstrap-server localhost:9092 --list --create",
            "kafka-console-producer --bootstrap-server localhost:9092",
            "kafka-console-consumer --bootstrap-server localhost:9092",
            "kafka-console-consumer --topic a --include b",
            "kafka-console-consumer --topic a --offset 5",
        ] {
            assert!(parse_line(line).is_err(), "{line}");
        }
    }
}
