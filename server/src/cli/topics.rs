//! `forebay topics`, alias `kafka-topics`.

use std::io::Write;

use clap::{ArgGroup, Parser};
use kafka_protocol::{
    ResponseError,
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
        create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        delete_topics_request::DeleteTopicState,
    },
};

use super::{
    args::{ConnectArgs, TopicFilter},
    client::{
        AutoCreate, Client, ClientError, PartitionInfo, Target, TopicInfo, config::ConfigEntry,
        config::ConfigSource, config::ResourceKind, str_bytes, topic_name,
    },
    outcome::CliError,
    properties::Properties,
};

/// Creates, lists, describes, alters and deletes topics
#[derive(Parser, Debug)]
#[command(
    group = ArgGroup::new("action").required(true),
    after_help = "Examples:\n  \
forebay topics --topic first --create --partitions 3\n  \
forebay topics --list\n  \
forebay topics --topic first --describe\n  \
forebay topics --topic first --alter --partitions 6\n  \
forebay topics --topic first --delete"
)]
pub struct TopicsArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// Create a new topic.
    #[arg(long, group = "action", requires = "topic")]
    create: bool,
    /// List the names of all topics.
    #[arg(long, group = "action")]
    list: bool,
    /// Show partitions, leaders, replicas and settings.
    #[arg(long, group = "action")]
    describe: bool,
    /// Raise the number of partitions.
    #[arg(long, group = "action", requires = "topic")]
    alter: bool,
    /// Delete topics and their data.
    #[arg(long, group = "action", requires = "topic")]
    delete: bool,

    /// The topic; but for --create, a regular expression for its whole name.
    #[arg(long)]
    topic: Option<String>,
    /// The topic by its id (with --describe).
    #[arg(long, conflicts_with = "topic")]
    topic_id: Option<String>,
    /// Number of partitions; the broker's default if it is not given.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Copies of each partition; the broker's default if it is not given.
    #[arg(long, value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// Brokers of each partition by hand, for example 1:2,2:3.
    #[arg(long, value_name = "ID:ID,...", conflicts_with_all = ["replication_factor"])]
    replica_assignment: Option<String>,
    /// A setting of the new topic; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<String>,

    /// Do nothing if the topic is not there.
    #[arg(long)]
    if_exists: bool,
    /// Do nothing if the topic is there already.
    #[arg(long)]
    if_not_exists: bool,
    /// Leave out topics of the broker's own.
    #[arg(long)]
    exclude_internal: bool,

    /// Describe only partitions with a replica behind.
    #[arg(long)]
    under_replicated_partitions: bool,
    /// Describe only partitions without a leader.
    #[arg(long)]
    unavailable_partitions: bool,
    /// Describe only partitions with fewer in-sync replicas than min.insync.replicas.
    #[arg(long)]
    under_min_isr_partitions: bool,
    /// Describe only partitions with exactly min.insync.replicas in sync.
    #[arg(long)]
    at_min_isr_partitions: bool,
    /// Describe only topics with settings of their own.
    #[arg(long)]
    topics_with_overrides: bool,
}

pub fn run(args: &TopicsArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let outcome = args
        .connect
        .connect_plainly("forebay-topics")
        .and_then(|mut client| {
            if args.create {
                create(args, &mut client, out)
            } else if args.list {
                list(args, &mut client, out)
            } else if args.describe {
                describe(args, &mut client, out)
            } else if args.alter {
                alter(args, &mut client)
            } else {
                delete(args, &mut client)
            }
        });
    outcome.map_err(|error| error.prefixed("Error while executing topic command : "))
}

fn create(args: &TopicsArgs, client: &mut Client, out: &mut dyn Write) -> Result<(), CliError> {
    let name = args.topic.as_deref().expect("clap requires it");
    if name.contains(['.', '_']) {
        writeln!(
            out,
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') \
             could collide. To avoid issues it is best to use either, but not both."
        )?;
    }
    let mut configs = Properties::default();
    configs.add_all(&args.config)?;
    let configs = configs.names().map(|key| {
        CreatableTopicConfig::default()
            .with_name(str_bytes(key))
            .with_value(configs.get(key).map(str_bytes))
    });
    let mut topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(args.partitions.unwrap_or(-1))
        .with_replication_factor(args.replication_factor.unwrap_or(-1))
        .with_configs(configs.collect());
    if let Some(text) = &args.replica_assignment {
        let assignments = (0..).zip(parse_assignment(text)?).map(|(index, brokers)| {
            CreatableReplicaAssignment::default()
                .with_partition_index(index)
                .with_broker_ids(brokers.into_iter().map(Into::into).collect())
        });
        topic.num_partitions = -1;
        topic.assignments = assignments.collect();
    }
    let timeout_ms = client.request_timeout().as_millis() as i32;
    let controller = controller(client)?;
    let response = client.call(controller, 7, |_| {
        CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(timeout_ms)
    })?;
    for result in &response.topics {
        let message = result.error_message.as_deref().map(AsRef::as_ref);
        let what = || format!("topic '{name}'");
        match ClientError::check_with(result.error_code, message, what) {
            Err(error)
                if args.if_not_exists
                    && error.code() == Some(ResponseError::TopicAlreadyExists) => {}
            Err(error) => return Err(error.into()),
            Ok(()) => writeln!(out, "Created topic {name}.")?,
        }
    }
    Ok(())
}

fn list(args: &TopicsArgs, client: &mut Client, out: &mut dyn Write) -> Result<(), CliError> {
    for topic in selected(args, client)? {
        writeln!(out, "{}", topic.name)?;
    }
    Ok(())
}

fn alter(args: &TopicsArgs, client: &mut Client) -> Result<(), CliError> {
    let Some(count) = args.partitions else {
        return Err(CliError::failed(
            "--alter needs --partitions; settings are changed with 'forebay configs'",
        ));
    };
    let topics = existing(args, client)?;
    let assignments = match &args.replica_assignment {
        Some(text) => Some(parse_assignment(text)?),
        None => None,
    };
    let request = |topic: &TopicInfo| {
        // The flag names all partitions; the request only those that are new.
        let new_ones = assignments.as_ref().map(|all| {
            let new = all.iter().skip(topic.partitions.len());
            new.map(|brokers| {
                let brokers = brokers.iter().copied().map(Into::into).collect();
                CreatePartitionsAssignment::default().with_broker_ids(brokers)
            })
            .collect()
        });
        CreatePartitionsTopic::default()
            .with_name(topic_name(&topic.name))
            .with_count(count)
            .with_assignments(new_ones)
    };
    let topics: Vec<CreatePartitionsTopic> = topics.iter().map(request).collect();
    if topics.is_empty() {
        return Ok(());
    }
    let timeout_ms = client.request_timeout().as_millis() as i32;
    let controller = controller(client)?;
    let response = client.call(controller, 3, |_| {
        CreatePartitionsRequest::default()
            .with_topics(topics)
            .with_timeout_ms(timeout_ms)
    })?;
    for result in &response.results {
        let message = result.error_message.as_deref().map(AsRef::as_ref);
        ClientError::check_with(result.error_code, message, || {
            format!("topic '{}'", &*result.name)
        })?;
    }
    Ok(())
}

fn delete(args: &TopicsArgs, client: &mut Client) -> Result<(), CliError> {
    let topics = existing(args, client)?;
    if topics.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = topics.iter().map(|topic| topic_name(&topic.name)).collect();
    let timeout_ms = client.request_timeout().as_millis() as i32;
    let controller = controller(client)?;
    let response = client.call(controller, 6, |version| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(timeout_ms);
        if version >= 6 {
            let by_name = |name| DeleteTopicState::default().with_name(Some(name));
            request.with_topics(names.into_iter().map(by_name).collect())
        } else {
            request.with_topic_names(names)
        }
    })?;
    for result in &response.responses {
        let message = result.error_message.as_deref().map(AsRef::as_ref);
        let name = result.name.as_deref().map_or("", |name| name);
        ClientError::check_with(result.error_code, message, || format!("topic '{name}'"))?;
    }
    Ok(())
}

fn describe(args: &TopicsArgs, client: &mut Client, out: &mut dyn Write) -> Result<(), CliError> {
    let topics = existing(args, client)?;
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let configs = client.describe_configs(ResourceKind::Topic, &names)?;
    for topic in &topics {
        let settings = configs.get(&topic.name).map_or(&[][..], Vec::as_slice);
        describe_one(args, topic, settings, out)?;
    }
    Ok(())
}

fn describe_one(
    args: &TopicsArgs,
    topic: &TopicInfo,
    settings: &[ConfigEntry],
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let has_overrides = settings
        .iter()
        .any(|entry| entry.source == ConfigSource::Topic);
    let only_some = args.under_replicated_partitions
        || args.unavailable_partitions
        || args.under_min_isr_partitions
        || args.at_min_isr_partitions;
    if !only_some && (!args.topics_with_overrides || has_overrides) {
        let shown: Vec<String> = settings
            .iter()
            .filter(|entry| entry.source != ConfigSource::Default)
            .map(|entry| format!("{}={}", entry.name, entry.value.as_deref().unwrap_or("")))
            .collect();
        let factor = topic.partitions.first().map_or(0, |p| p.replicas.len());
        writeln!(
            out,
            "Topic: {}\tTopicId: {}\tPartitionCount: {}\tReplicationFactor: {factor}\tConfigs: {}",
            topic.name,
            topic.id,
            topic.partitions.len(),
            shown.join(",")
        )?;
    }
    if args.topics_with_overrides {
        return Ok(());
    }
    let min_isr = settings
        .iter()
        .find(|entry| entry.name == "min.insync.replicas")
        .and_then(|entry| entry.value.as_deref()?.parse::<usize>().ok())
        .unwrap_or(1);
    for partition in &topic.partitions {
        if only_some && !is_wanted(args, partition, min_isr) {
            continue;
        }
        let leader = partition.leader.map(|id| id.to_string());
        writeln!(
            out,
            "\tTopic: {}\tPartition: {}\tLeader: {}\tReplicas: {}\tIsr: {}\tElr: N/A\tLastKnownElr: N/A",
            topic.name,
            partition.index,
            leader.as_deref().unwrap_or("none"),
            join(&partition.replicas),
            join(&partition.isr)
        )?;
    }
    Ok(())
}

fn is_wanted(args: &TopicsArgs, partition: &PartitionInfo, min_isr: usize) -> bool {
    let in_sync = partition.isr.len();
    (args.under_replicated_partitions && in_sync < partition.replicas.len())
        || (args.unavailable_partitions && partition.leader.is_none())
        || (args.under_min_isr_partitions && in_sync < min_isr)
        || (args.at_min_isr_partitions && in_sync == min_isr)
}

fn join(ids: &[i32]) -> String {
    let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// The topics that the flags select; all of them without a flag.
fn selected(args: &TopicsArgs, client: &mut Client) -> Result<Vec<TopicInfo>, CliError> {
    let filter = args.topic.as_deref().map(TopicFilter::new).transpose()?;
    let metadata = client.metadata(None, AutoCreate::Forbid)?;
    let topics = metadata.topics.into_values().filter(|topic| {
        let named = filter.as_ref().is_none_or(|f| f.matches(&topic.name));
        let id_fits = args
            .topic_id
            .as_ref()
            .is_none_or(|id| topic.id.to_string() == *id);
        named && id_fits && !(args.exclude_internal && topic.is_internal)
    });
    Ok(topics.collect())
}

/// As [`selected`], but naming a topic that is not there is an error, unless `--if-exists` allows it.
fn existing(args: &TopicsArgs, client: &mut Client) -> Result<Vec<TopicInfo>, CliError> {
    let topics = selected(args, client)?;
    if topics.is_empty() && !args.if_exists {
        if let Some(name) = &args.topic {
            return Err(CliError::failed(format!(
                "Topic '{name}' does not exist as expected"
            )));
        }
        if let Some(id) = &args.topic_id {
            return Err(CliError::failed(format!(
                "TopicId '{id}' does not exist as expected"
            )));
        }
    }
    Ok(topics)
}

/// Topics are made and unmade by the controller.
fn controller(client: &mut Client) -> Result<Target, ClientError> {
    let metadata = client.metadata(Some(&[]), AutoCreate::Forbid)?;
    Ok(match metadata.controller {
        id if id >= 0 => Target::Broker(id),
        _ => Target::Any,
    })
}

/// `1:2,2:3` is partition 0 on brokers 1 and 2, partition 1 on brokers 2 and 3.
fn parse_assignment(text: &str) -> Result<Vec<Vec<i32>>, CliError> {
    let bad = || CliError::failed(format!("'{text}' is no replica assignment; write 1:2,2:3"));
    let partitions: Vec<Vec<i32>> = text
        .split(',')
        .map(|brokers| brokers.split(':').map(|id| id.trim().parse()).collect())
        .collect::<Result<_, _>>()
        .map_err(|_| bad())?;
    for brokers in &partitions {
        let mut distinct = brokers.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() != brokers.len() {
            return Err(CliError::failed(
                "a partition cannot have two replicas on one broker",
            ));
        }
    }
    if partitions
        .iter()
        .any(|brokers| brokers.len() != partitions[0].len())
    {
        return Err(CliError::failed(
            "all partitions must have the same number of replicas",
        ));
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> TopicsArgs {
        TopicsArgs::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn replica_assignments_are_checked() {
        assert_eq!(
            parse_assignment("1:2,2:3").unwrap(),
            [vec![1, 2], vec![2, 3]]
        );
        for bad in ["", "1,1:2", "1:1", "a", "1:2,"] {
            assert!(parse_assignment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_topic_is_described_as_kafka_describes_it() {
        let topic = TopicInfo {
            error_code: 0,
            name: "first".to_string(),
            id: forebay_engine::TopicId([0; 16]),
            is_internal: false,
            partitions: vec![
                PartitionInfo {
                    error_code: 0,
                    index: 0,
                    leader: Some(1),
                    replicas: vec![1, 2],
                    isr: vec![1, 2],
                },
                PartitionInfo {
                    error_code: 0,
                    index: 1,
                    leader: None,
                    replicas: vec![1, 2],
                    isr: vec![2],
                },
            ],
        };
        let entry = |name: &str, value: &str, source| ConfigEntry {
            name: name.to_string(),
            value: Some(value.to_string()),
            source,
            is_sensitive: false,
            synonyms: Vec::new(),
        };
        let settings = [
            entry("min.insync.replicas", "2", ConfigSource::Topic),
            entry("segment.bytes", "1024", ConfigSource::StaticBroker),
            entry("retention.ms", "5", ConfigSource::Default),
        ];
        let check = |flags: &str, want: &str| {
            let args = args(&format!("topics --describe {flags}"));
            let mut out = Vec::new();
            describe_one(&args, &topic, &settings, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), want, "{flags}");
        };
        let head = "Topic: first\tTopicId: AAAAAAAAAAAAAAAAAAAAAA\tPartitionCount: 2\tReplicationFactor: 2\t\
                    Configs: min.insync.replicas=2,segment.bytes=1024\n";
        let first = "\tTopic: first\tPartition: 0\tLeader: 1\tReplicas: 1,2\tIsr: 1,2\tElr: N/A\tLastKnownElr: N/A\n";
        let second = "\tTopic: first\tPartition: 1\tLeader: none\tReplicas: 1,2\tIsr: 2\tElr: N/A\tLastKnownElr: N/A\n";
        check("", &format!("{head}{first}{second}"));
        check("--topics-with-overrides", head);
        check("--under-replicated-partitions", second);
        check("--unavailable-partitions", second);
        check("--under-min-isr-partitions", second);
        check("--at-min-isr-partitions", first);
    }
}
