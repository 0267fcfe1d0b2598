//! `forebay delete-records`, alias `kafka-delete-records`: gives up the oldest records of partitions.

use std::{collections::BTreeMap, fs, io::Write, path::PathBuf};

use clap::Parser;
use kafka_protocol::messages::{
    DeleteRecordsRequest,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
};
use serde::Deserialize;

use super::{
    args::ConnectArgs,
    client::{AutoCreate, ClientError, Target, topic_name},
    outcome::CliError,
};

/// A larger file is a mistake.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Deletes the records before given offsets
#[derive(Parser, Debug)]
#[command(
    after_help = "The file holds, with -1 for \"everything there is\":\n  \
{\"partitions\": [{\"topic\": \"first\", \"partition\": 0, \"offset\": 42}], \"version\": 1}"
)]
pub struct DeleteRecordsArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// JSON file of partitions and the first offset to keep in each.
    #[arg(long, value_name = "FILE")]
    offset_json_file: PathBuf,
}

#[derive(Debug, Deserialize)]
struct OffsetFile {
    #[serde(default = "version_one")]
    version: i64,
    partitions: Vec<OffsetEntry>,
}

fn version_one() -> i64 {
    1
}

#[derive(Debug, Deserialize)]
struct OffsetEntry {
    topic: String,
    partition: i32,
    offset: i64,
}

pub fn run(args: &DeleteRecordsArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let path = args.offset_json_file.display();
    let fail = |error: String| CliError::failed(format!("{path}: {error}"));
    let length = fs::metadata(&args.offset_json_file).map_err(|e| fail(e.to_string()))?;
    if length.len() > FILE_BYTES_MAX {
        return Err(fail(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    let text = fs::read_to_string(&args.offset_json_file).map_err(|e| fail(e.to_string()))?;
    let entries = parse(&text).map_err(fail)?;
    writeln!(out, "Executing records delete operation")?;
    let mut client = args.connect.connect_plainly("forebay-delete-records")?;
    let topics: Vec<String> = entries.keys().map(|(topic, _)| topic.clone()).collect();
    let metadata = client.metadata(Some(&topics), AutoCreate::Forbid)?;
    let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<DeleteRecordsPartition>>> = BTreeMap::new();
    let mut results: BTreeMap<(String, i32), Result<i64, String>> = BTreeMap::new();
    for ((topic, partition), offset) in &entries {
        match metadata.leader(topic, *partition) {
            Some(leader) => {
                let entry = DeleteRecordsPartition::default()
                    .with_partition_index(*partition)
                    .with_offset(*offset);
                let topics = by_leader.entry(leader).or_default();
                topics.entry(topic).or_default().push(entry);
            }
            None => {
                let error = "there is no such partition, or it has no leader".to_string();
                results.insert((topic.clone(), *partition), Err(error));
            }
        }
    }
    let timeout_ms = client.request_timeout().as_millis() as i32;
    for (leader, topics) in by_leader {
        let topics = topics.into_iter().map(|(name, partitions)| {
            DeleteRecordsTopic::default()
                .with_name(topic_name(name))
                .with_partitions(partitions)
        });
        let request = DeleteRecordsRequest::default()
            .with_topics(topics.collect())
            .with_timeout_ms(timeout_ms);
        let response = client.call(Target::Broker(leader), 2, |_| request)?;
        for topic in response.topics {
            for partition in topic.partitions {
                let what = || "deleting records".to_string();
                let outcome = ClientError::check(partition.error_code, what)
                    .map(|()| partition.low_watermark)
                    .map_err(|error| error.to_string());
                results.insert((topic.name.to_string(), partition.partition_index), outcome);
            }
        }
    }
    writeln!(out, "Records delete operation completed:")?;
    let mut failed = 0;
    for ((topic, partition), outcome) in &results {
        match outcome {
            Ok(low) => writeln!(out, "partition: {topic}-{partition}\tlow_watermark: {low}")?,
            Err(error) => {
                failed += 1;
                writeln!(out, "partition: {topic}-{partition}\terror: {error}")?;
            }
        }
    }
    if failed > 0 {
        return Err(CliError::failed(format!("{failed} partitions failed")));
    }
    Ok(())
}

fn parse(text: &str) -> Result<BTreeMap<(String, i32), i64>, String> {
    let file: OffsetFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if file.version != 1 {
        return Err(format!("version {} is not known", file.version));
    }
    let mut entries = BTreeMap::new();
    for entry in file.partitions {
        let key = (entry.topic, entry.partition);
        if entries.contains_key(&key) {
            return Err(format!("{}-{} is named twice", key.0, key.1));
        }
        entries.insert(key, entry.offset);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_file_is_that_of_kafka() {
        let text = r#"{"partitions":[{"topic":"t","partition":1,"offset":-1}],"version":1}"#;
        assert_eq!(parse(text).unwrap()[&("t".to_string(), 1)], -1);
        assert!(parse(r#"{"version":2,"partitions":[]}"#).is_err());
        let entry = r#"{"topic":"t","partition":1,"offset":1}"#;
        let twice = format!(r#"{{"partitions":[{entry},{entry}]}}"#);
        assert!(parse(&twice).is_err());
    }
}
