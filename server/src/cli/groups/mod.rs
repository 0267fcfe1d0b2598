//! `forebay groups`, alias `kafka-consumer-groups`: what groups there are, how far they have read, and where they go on.

mod describe;
mod reset;
mod scope;

use std::{io::Write, path::PathBuf};

use clap::{ArgGroup, Parser};
use kafka_protocol::ResponseError;

use self::scope::Scope;
use super::{
    args::ConnectArgs,
    client::{Client, ClientError, group_admin::GroupListing},
    outcome::CliError,
    table,
};

/// Lists, describes, deletes and resets consumer groups
#[derive(Parser, Debug)]
#[command(
    group = ArgGroup::new("action").required(true),
    group = ArgGroup::new("scenario"),
    after_help = "Examples:\n  \
forebay groups --list\n  \
forebay groups --describe --group billing\n  \
forebay groups --describe --all-groups --state\n  \
forebay groups --reset-offsets --group billing --topic first --to-earliest --execute\n  \
forebay groups --delete --group billing"
)]
pub struct GroupsArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// List the groups.
    #[arg(long, group = "action")]
    list: bool,
    /// Show the offsets, members or state of groups.
    #[arg(long, group = "action", requires = "who")]
    describe: bool,
    /// Delete groups that have no members.
    #[arg(long, group = "action", requires = "who")]
    delete: bool,
    /// Delete the offsets that a group has committed for topics.
    #[arg(long, group = "action", requires_all = ["group", "topic"])]
    delete_offsets: bool,
    /// Move the offsets of a group that has no members.
    #[arg(long, group = "action", requires = "who")]
    reset_offsets: bool,

    /// The group; may be repeated.
    #[arg(long, id = "group", groups = ["who"], value_name = "GROUP")]
    group: Vec<String>,
    /// All groups.
    #[arg(long, groups = ["who"], conflicts_with = "group")]
    all_groups: bool,

    /// With --describe: committed offsets and lag (this is the default).
    #[arg(long)]
    offsets: bool,
    /// With --describe: the members.
    #[arg(long, conflicts_with = "offsets")]
    members: bool,
    /// With --describe: the state. With --list: states, or only groups in the states that follow.
    #[arg(long, num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["offsets", "members"], value_name = "STATE,...")]
    state: Option<String>,
    /// With --members: the partitions of each.
    #[arg(long)]
    verbose: bool,

    /// A topic, or some partitions of it (first:0,1); may be repeated.
    #[arg(long, value_name = "TOPIC[:P,...]")]
    topic: Vec<String>,
    /// All topics that the group has offsets for.
    #[arg(long, conflicts_with = "topic")]
    all_topics: bool,

    /// Only show what would be done (this is the default).
    #[arg(long)]
    dry_run: bool,
    /// Do it.
    #[arg(long, conflicts_with = "dry_run")]
    execute: bool,
    /// Print CSV, fit for --from-file.
    #[arg(long)]
    export: bool,

    /// To the oldest record.
    #[arg(long, group = "scenario")]
    to_earliest: bool,
    /// To the end.
    #[arg(long, group = "scenario")]
    to_latest: bool,
    /// To the committed offset (the end where there is none).
    #[arg(long, group = "scenario")]
    to_current: bool,
    /// To this offset, or the nearest that exists.
    #[arg(long, group = "scenario", value_name = "OFFSET")]
    to_offset: Option<i64>,
    /// Forward by so many records, or back if negative.
    #[arg(
        long,
        group = "scenario",
        allow_negative_numbers = true,
        value_name = "COUNT"
    )]
    shift_by: Option<i64>,
    /// To the first record at or after a time: 2026-01-31T12:00:00.000, UTC unless it ends in +hh:mm or -hh:mm.
    #[arg(long, group = "scenario", value_name = "TIME")]
    to_datetime: Option<String>,
    /// Back by an ISO 8601 duration such as P1DT2H30M5S.
    #[arg(long, group = "scenario", value_name = "DURATION")]
    by_duration: Option<String>,
    /// To the offsets in a CSV file: topic,partition,offset lines.
    #[arg(long, group = "scenario", value_name = "FILE")]
    from_file: Option<PathBuf>,

    /// Longest wait for an answer, in ms.
    #[arg(long, value_name = "MS")]
    timeout: Option<u32>,
}

pub fn run(args: &GroupsArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let mut properties = args.connect.properties(&[])?;
    if let Some(millis) = args.timeout {
        properties.set("request.timeout.ms", &millis.to_string());
    }
    let plan = match args.reset_offsets {
        true => Some(reset::Plan::new(args)?),
        false => None,
    };
    let mut client = args.connect.connect(&properties, "forebay-groups")?;
    if args.list {
        return list(args, &mut client, out);
    }
    let groups = if args.all_groups {
        let listings = client.list_groups()?;
        listings.into_iter().map(|listing| listing.group).collect()
    } else {
        args.group.clone()
    };
    if args.describe {
        describe_all(args, &groups, &mut client, out)
    } else if args.delete {
        delete(&groups, &mut client, out)
    } else if args.delete_offsets {
        delete_offsets(args, &groups[0], &mut client, out)
    } else {
        let plan = plan.expect("it is the only action left");
        reset::run(&plan, &groups, &mut client, out)
    }
}

fn list(args: &GroupsArgs, client: &mut Client, out: &mut dyn Write) -> Result<(), CliError> {
    let listings = client.list_groups()?;
    let Some(states) = &args.state else {
        for listing in listings {
            writeln!(out, "{}", listing.group)?;
        }
        return Ok(());
    };
    let states: Vec<&str> = states
        .split(',')
        .map(str::trim)
        .filter(|state| !state.is_empty())
        .collect();
    let is_wanted = |listing: &&GroupListing| {
        let same = |state: &&str| state.eq_ignore_ascii_case(&listing.state);
        states.is_empty() || states.iter().any(same)
    };
    let mut rows = vec![vec!["GROUP".to_string(), "STATE".to_string()]];
    for listing in listings.iter().filter(is_wanted) {
        rows.push(vec![listing.group.clone(), listing.state.clone()]);
    }
    table::print(out, &[32, 20], &rows)?;
    Ok(())
}

/// Describes what can be described; what cannot does not keep the others from being shown.
fn describe_all(
    args: &GroupsArgs,
    groups: &[String],
    client: &mut Client,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let view = if args.members {
        describe::View::Members {
            verbose: args.verbose,
        }
    } else if args.state.is_some() {
        describe::View::State
    } else {
        describe::View::Offsets
    };
    let mut failures = Vec::new();
    for group in groups {
        match describe::run(view, group, client, out) {
            Err(CliError::Client(error))
                if error.code() == Some(ResponseError::GroupIdNotFound) =>
            {
                failures.push(format!("Error: Consumer group '{group}' does not exist."));
            }
            Err(CliError::Client(error)) if error.code().is_some() => {
                failures.push(format!("Error: {error}"));
            }
            outcome => outcome?,
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(CliError::failed(failures.join("\n")))
    }
}

fn delete(groups: &[String], client: &mut Client, out: &mut dyn Write) -> Result<(), CliError> {
    let mut failures = Vec::new();
    let mut deleted = Vec::new();
    for group in groups {
        match client.delete_group(group) {
            Ok(()) => deleted.push(format!("'{group}'")),
            Err(error) if error.code().is_some() => {
                failures.push(format!(
                    "* Group '{group}' could not be deleted due to: {error}"
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let deleted = deleted.join(", ");
    if failures.is_empty() {
        writeln!(
            out,
            "Deletion of requested consumer groups ({deleted}) was successful."
        )?;
        return Ok(());
    }
    if !deleted.is_empty() {
        writeln!(
            out,
            "These consumer groups were deleted successfully: {deleted}"
        )?;
    }
    Err(CliError::failed(format!(
        "Error: Deletion of some consumer groups failed:\n{}",
        failures.join("\n")
    )))
}

fn delete_offsets(
    args: &GroupsArgs,
    group: &str,
    client: &mut Client,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let partitions = Scope::parse(&args.topic)?.partitions(client)?;
    let outcomes = client.delete_offsets(group, &partitions)?;
    let is_ok = outcomes.values().all(Result::is_ok);
    if is_ok {
        writeln!(
            out,
            "Request succeeded for deleting offsets from group {group}."
        )?;
    } else {
        writeln!(
            out,
            "Encounter some partition level error, see the follow-up details:"
        )?;
    }
    let mut rows = vec![["TOPIC", "PARTITION", "STATUS"].map(String::from).to_vec()];
    for ((topic, partition), outcome) in &outcomes {
        let status = match outcome {
            Ok(()) => "Successful".to_string(),
            Err(error) => format!("Error: {error}"),
        };
        rows.push(vec![topic.clone(), partition.to_string(), status]);
    }
    writeln!(out)?;
    table::print(out, &[15, 10, 15], &rows)?;
    if is_ok {
        Ok(())
    } else {
        Err(CliError::failed(format!(
            "not all offsets of group '{group}' were deleted"
        )))
    }
}

/// For a group that is not there, in Kafka's words of old and of late.
fn not_found(group: &str) -> ClientError {
    ClientError::Broker {
        error: ResponseError::GroupIdNotFound,
        what: format!("group '{group}'"),
        message: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_ask_for_what_they_need() {
        let check = |flags: &str, want: bool| {
            let line = format!("groups {flags}");
            let parsed = GroupsArgs::try_parse_from(line.split_whitespace());
            assert_eq!(parsed.is_ok(), want, "{flags}: {:?}", parsed.err());
        };
        check("--list", true);
        check("--list --state", true);
        check("--list --state Stable,Empty", true);
        check("--describe", false);
        check("--describe --group g", true);
        check("--describe --all-groups --members --verbose", true);
        check("--describe --group g --all-groups", false);
        check("--describe --group g --members --state", false);
        check("--delete --group g --group h", true);
        check("--delete-offsets --group g", false);
        check("--delete-offsets --group g --topic t:0,1", true);
        check(
            "--reset-offsets --group g --topic t --shift-by -5 --execute",
            true,
        );
        check("--reset-offsets --group g --to-earliest --to-latest", false);
        check("--reset-offsets --group g --dry-run --execute", false);
        check("--list --describe --group g", false);
    }
}
