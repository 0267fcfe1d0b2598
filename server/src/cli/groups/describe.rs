//! The three views of a group: offsets, members, state.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use super::{not_found, table};
use crate::cli::{
    client::{
        AutoCreate, Client, TopicPartition,
        group_admin::{GroupDescription, GroupMember},
        offsets::OffsetSpec,
    },
    outcome::CliError,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Offsets,
    Members { verbose: bool },
    State,
}

pub fn run(
    view: View,
    group: &str,
    client: &mut Client,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let description = client.describe_group(group)?;
    let committed = client.committed_offsets(group, None)?;
    if description.state == "Dead" && committed.is_empty() {
        return Err(not_found(group).into());
    }
    match description.state.as_str() {
        "Empty" | "Dead" => eprintln!("\nConsumer group '{group}' has no active members."),
        "PreparingRebalance" | "CompletingRebalance" | "Assigning" | "Reconciling" => {
            eprintln!("\nWarning: Consumer group '{group}' is rebalancing.");
        }
        _ => {}
    }
    match view {
        View::Offsets => {
            let ends = log_ends(&description, &committed, client)?;
            print_offsets(group, &description, &committed, &ends, out)
        }
        View::Members { verbose } => print_members(group, &description, verbose, out),
        View::State => {
            let address = client.broker_address(description.coordinator);
            print_state(group, &description, &address, out)
        }
    }
}

/// Log ends of all partitions that the group reads or has offsets for. A topic that was deleted has none.
fn log_ends(
    description: &GroupDescription,
    committed: &BTreeMap<TopicPartition, i64>,
    client: &mut Client,
) -> Result<BTreeMap<TopicPartition, Option<i64>>, CliError> {
    let assigned = description.members.iter().flat_map(|m| &m.assignment);
    let partitions: BTreeSet<&TopicPartition> = assigned.chain(committed.keys()).collect();
    let topics: BTreeSet<&String> = partitions.iter().map(|(topic, _)| topic).collect();
    let topics: Vec<String> = topics.into_iter().cloned().collect();
    let metadata = client.metadata(Some(&topics), AutoCreate::Forbid)?;
    let wanted: Vec<(TopicPartition, OffsetSpec)> = partitions
        .into_iter()
        .filter(|(topic, partition)| metadata.leader(topic, *partition).is_some())
        .map(|partition| (partition.clone(), OffsetSpec::Latest))
        .collect();
    Ok(client.list_offsets(&metadata, &wanted, false)?)
}

fn print_offsets(
    group: &str,
    description: &GroupDescription,
    committed: &BTreeMap<TopicPartition, i64>,
    ends: &BTreeMap<TopicPartition, Option<i64>>,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut owners: BTreeMap<&TopicPartition, Option<&GroupMember>> = BTreeMap::new();
    for partition in committed.keys() {
        owners.insert(partition, None);
    }
    for member in &description.members {
        for partition in &member.assignment {
            owners.insert(partition, Some(member));
        }
    }
    let text = |number: Option<i64>| number.map_or("-".to_string(), |n| n.to_string());
    let mut rows = vec![header(&[
        "GROUP",
        "TOPIC",
        "PARTITION",
        "CURRENT-OFFSET",
        "LOG-END-OFFSET",
        "LAG",
        "CONSUMER-ID",
        "HOST",
        "CLIENT-ID",
    ])];
    for (partition, owner) in owners {
        let current = committed.get(partition).copied();
        let end = ends.get(partition).copied().flatten();
        let lag = end.zip(current).map(|(end, current)| end - current);
        rows.push(vec![
            group.to_string(),
            partition.0.clone(),
            partition.1.to_string(),
            text(current),
            text(end),
            text(lag),
            owner.map_or("-".to_string(), |member| member.member_id.clone()),
            owner.map_or("-".to_string(), |member| member.host.clone()),
            owner.map_or("-".to_string(), |member| member.client_id.clone()),
        ]);
    }
    writeln!(out)?;
    table::print(out, &[15, 15, 10, 15, 15, 15, 15, 15, 0], &rows)?;
    Ok(())
}

fn print_members(
    group: &str,
    description: &GroupDescription,
    verbose: bool,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    if !description.has_members() {
        return Ok(());
    }
    let has_instances = description.members.iter().any(|m| m.instance_id.is_some());
    let mut names = vec!["GROUP", "CONSUMER-ID"];
    let mut widths = vec![15, 15];
    if has_instances {
        names.push("GROUP-INSTANCE-ID");
        widths.push(17);
    }
    names.extend(["HOST", "CLIENT-ID", "#PARTITIONS"]);
    widths.extend([15, 15, 15]);
    if verbose {
        names.push("ASSIGNMENT");
        widths.push(0);
    }
    let mut rows = vec![header(&names)];
    for member in &description.members {
        let mut row = vec![group.to_string(), member.member_id.clone()];
        if has_instances {
            row.push(member.instance_id.clone().unwrap_or_default());
        }
        row.push(member.host.clone());
        row.push(member.client_id.clone());
        row.push(member.assignment.len().to_string());
        if verbose {
            row.push(assignment_text(&member.assignment));
        }
        rows.push(row);
    }
    writeln!(out)?;
    table::print(out, &widths, &rows)?;
    Ok(())
}

/// `first:0,1;second:0`, or `-` for nothing.
fn assignment_text(assignment: &[TopicPartition]) -> String {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in assignment {
        by_topic.entry(topic).or_default().push(*partition);
    }
    let topics: Vec<String> = by_topic
        .into_iter()
        .map(|(topic, mut partitions)| {
            partitions.sort_unstable();
            let texts: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            format!("{topic}:{}", texts.join(","))
        })
        .collect();
    if topics.is_empty() {
        "-".to_string()
    } else {
        topics.join(";")
    }
}

fn print_state(
    group: &str,
    description: &GroupDescription,
    address: &str,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let assignor = match description.assignor.as_str() {
        "" => "-",
        name => name,
    };
    let rows = [
        header(&[
            "GROUP",
            "COORDINATOR (ID)",
            "ASSIGNMENT-STRATEGY",
            "STATE",
            "#MEMBERS",
        ]),
        vec![
            group.to_string(),
            format!("{address}  ({})", description.coordinator),
            assignor.to_string(),
            description.state.clone(),
            description.members.len().to_string(),
        ],
    ];
    writeln!(out)?;
    table::print(out, &[15, 25, 20, 20, 0], &rows)?;
    Ok(())
}

fn header(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> GroupDescription {
        GroupDescription {
            coordinator: 1,
            state: "Stable".to_string(),
            assignor: "range".to_string(),
            members: vec![GroupMember {
                member_id: "m1".to_string(),
                instance_id: None,
                client_id: "c1".to_string(),
                host: "/127.0.0.1".to_string(),
                assignment: vec![("t".to_string(), 1), ("t".to_string(), 0)],
            }],
        }
    }

    #[test]
    fn offsets_are_printed_as_kafka_prints_them() {
        let key = |partition| ("t".to_string(), partition);
        let committed = BTreeMap::from([(key(0), 3), (key(2), 4)]);
        let ends = BTreeMap::from([(key(0), Some(5)), (key(1), Some(7))]);
        let mut out = Vec::new();
        print_offsets("g", &description(), &committed, &ends, &mut out).unwrap();
        let want = "
GROUP           TOPIC           PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG             CONSUMER-ID     HOST            CLIENT-ID
g               t               0          3               5               2               m1              /127.0.0.1      c1
g               t               1          -               7               -               m1              /127.0.0.1      c1
g               t               2          4               -               -               -               -               -
";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn the_state_is_printed_as_kafka_prints_it() {
        let mut out = Vec::new();
        print_state("g1", &description(), "127.0.0.1:19092", &mut out).unwrap();
        let want = "
GROUP           COORDINATOR (ID)          ASSIGNMENT-STRATEGY  STATE                #MEMBERS
g1              127.0.0.1:19092  (1)      range                Stable               1
";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn assignments_are_grouped_by_topic() {
        let assignment = [("u", 0), ("t", 1), ("t", 0)].map(|(t, p)| (t.to_string(), p));
        assert_eq!(assignment_text(&assignment), "t:0,1;u:0");
        assert_eq!(assignment_text(&[]), "-");
    }
}
