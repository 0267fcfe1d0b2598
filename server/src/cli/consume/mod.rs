//! `forebay consume`, alias `kafka-console-consumer`: records of topics become lines on stdout.
//!
//! Without `--group` it reads all partitions itself and leaves no trace in the broker; with `--group` it shares them
//! with the other members and commits what it has written.

mod fetcher;
mod formatter;

use std::{
    io::Write,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use clap::{ArgGroup, Parser};

use self::{
    fetcher::{FetchedBatch, Fetcher, Isolation, OffsetReset},
    formatter::{FormatError, Formatter, Origin},
};
use super::{
    args::{ConnectArgs, TopicFilter},
    client::{
        AutoCreate, Client, ClientError, Metadata, TopicPartition,
        group::{GroupConfig, Membership, Standing},
        offsets::OffsetSpec,
    },
    outcome::CliError,
    properties::Properties,
    signal,
};

/// How often new topics and partitions are looked for.
const METADATA_AGE_MAX: Duration = Duration::from_secs(30);
/// The same while there is nothing to read at all.
const TOPIC_WAIT: Duration = Duration::from_millis(500);

const CLIENT_PROPERTIES: [&str; 8] = [
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "enable.auto.commit",
    "group.id",
    "group.instance.id",
    "heartbeat.interval.ms",
    "isolation.level",
    "session.timeout.ms",
];

/// Prints the records of a topic: new ones only, unless --from-beginning
#[derive(Parser, Debug)]
#[command(
    group = ArgGroup::new("what").required(true),
    after_help = "Examples:\n  \
forebay consume --topic first\n  \
forebay consume --topic first --from-beginning --max-messages 10\n  \
forebay consume --topic first --group billing --formatter-property print.key=true\n  \
forebay consume --topic first --partition 0 --offset 42\n\n\
Formatter properties and their defaults:\n  \
print.timestamp=false print.partition=false print.offset=false\n  \
print.epoch=false print.headers=false print.key=false print.value=true\n  \
key.separator=\\t line.separator=\\n headers.separator=, null.literal=null\n  \
key.deserializer, value.deserializer, headers.deserializer: String, ByteArray,\n  \
Short, Integer, Long, Float, Double or Boolean\n\n\
Client properties:\n  \
auto.commit.interval.ms auto.offset.reset client.id enable.auto.commit\n  \
group.id group.instance.id heartbeat.interval.ms isolation.level\n  \
request.timeout.ms session.timeout.ms"
)]
pub struct ConsumeArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// The topic to read.
    #[arg(long, group = "what")]
    topic: Option<String>,
    /// Read all topics whose whole name matches this regular expression.
    #[arg(long, alias = "whitelist", group = "what", value_name = "REGEX")]
    include: Option<String>,
    /// Read only this partition.
    #[arg(long, requires = "topic", conflicts_with = "group", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Where to begin in the partition: a number, earliest or latest.
    #[arg(long, requires = "partition", conflicts_with = "from_beginning", value_parser = parse_start)]
    offset: Option<Start>,
    /// Begin with the oldest record, where there is no committed offset.
    #[arg(long)]
    from_beginning: bool,
    /// Stop after this many records.
    #[arg(long, value_name = "COUNT")]
    max_messages: Option<u64>,
    /// Stop when no record has come for this long.
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// The consumer group to join.
    #[arg(long)]
    group: Option<String>,
    /// read_uncommitted or read_committed.
    #[arg(long, value_name = "LEVEL")]
    isolation_level: Option<String>,
    /// Skip records that cannot be printed, instead of stopping.
    #[arg(long)]
    skip_message_on_error: bool,

    /// Kafka's DefaultMessageFormatter or NoOpMessageFormatter.
    #[arg(long, value_name = "CLASS")]
    formatter: Option<String>,
    /// What is printed; may be repeated.
    #[arg(long, alias = "property", value_name = "KEY=VALUE")]
    formatter_property: Vec<String>,
    /// File of formatter properties.
    #[arg(long, value_name = "FILE")]
    formatter_config: Option<PathBuf>,
    /// Short for the formatter property key.deserializer.
    #[arg(long, value_name = "CLASS")]
    key_deserializer: Option<String>,
    /// Short for the formatter property value.deserializer.
    #[arg(long, value_name = "CLASS")]
    value_deserializer: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    At(i64),
    Spec(OffsetSpec),
}

fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => Ok(Start::Spec(OffsetSpec::Earliest)),
        "latest" => Ok(Start::Spec(OffsetSpec::Latest)),
        _ => match text.parse::<i64>() {
            Ok(offset) if offset >= 0 => Ok(Start::At(offset)),
            _ => Err("an offset is earliest, latest or a number from 0".to_string()),
        },
    }
}

pub fn run(args: &ConsumeArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let formatter = message_formatter(args)?;
    let properties = args.connect.properties(&CLIENT_PROPERTIES)?;
    let isolation = isolation(args, &properties)?;
    let reset = reset(args, &properties)?;
    let group = group_config(args, &properties)?;
    let topics = match (&args.topic, &args.include) {
        (Some(topic), _) => Topics::One(topic.clone()),
        (None, Some(pattern)) => Topics::Matching(TopicFilter::new(pattern)?),
        (None, None) => unreachable!("clap requires one of them"),
    };
    let mut client = args.connect.connect(&properties, "console-consumer")?;
    signal::install();
    let metadata = topics.metadata(&mut client)?;
    let seen = shape(&topics, &metadata);
    let mut consumer = Consumer {
        client,
        topics,
        seen,
        fetcher: Fetcher::new(isolation, reset, metadata),
        refreshed_at: Instant::now(),
        membership: None,
        printer: Printer {
            formatter,
            skip_errors: args.skip_message_on_error,
            printed: 0,
            printed_max: args.max_messages.unwrap_or(u64::MAX),
        },
    };
    let outcome = match group {
        Some((config, commit_interval)) => consumer.join(config, commit_interval),
        None => consumer.read_alone(args, reset),
    };
    let outcome = outcome.and_then(|()| consumer.read(args.timeout_ms, out));
    let outcome = match outcome {
        Err(CliError::Client(ClientError::Interrupted)) => Ok(()),
        outcome => outcome,
    };
    // Only what has left this process is committed.
    let flushed = out.flush().map_err(CliError::Output);
    let farewell = match flushed {
        Ok(()) => consumer.close(),
        Err(_) => Ok(()),
    };
    eprintln!("Processed a total of {} messages", consumer.printer.printed);
    outcome.and(flushed).and(farewell)
}

/// Which topics are read.
enum Topics {
    One(String),
    Matching(TopicFilter),
}

/// Names of the topics and how many partitions each has: when this changes, there is something new to read.
type Shape = Vec<(String, usize)>;

fn shape(topics: &Topics, metadata: &Metadata) -> Shape {
    let wanted = metadata.topics.values().filter(|topic| match topics {
        Topics::One(name) => topic.name == *name,
        Topics::Matching(filter) => !topic.is_internal && filter.matches(&topic.name),
    });
    let readable = wanted.filter(|topic| topic.error_code == 0);
    readable
        .map(|topic| (topic.name.clone(), topic.partitions.len()))
        .collect()
}

fn partitions_of(shape: &Shape) -> Vec<TopicPartition> {
    let partitions = shape.iter().flat_map(|(topic, count)| {
        let indices = 0..i32::try_from(*count).unwrap_or(i32::MAX);
        indices.map(move |index| (topic.clone(), index))
    });
    partitions.collect()
}

impl Topics {
    fn metadata(&self, client: &mut Client) -> Result<Metadata, ClientError> {
        match self {
            // As with Kafka's consumer, asking for a topic may create it.
            Topics::One(name) => {
                let names = [name.clone()];
                let metadata = client.metadata(Some(&names), AutoCreate::Allow)?;
                if let Some(topic) = metadata.topics.get(name) {
                    match ClientError::check(topic.error_code, || format!("topic '{name}'")) {
                        Err(error) if !error.is_retriable() => return Err(error),
                        _ => {}
                    }
                }
                Ok(metadata)
            }
            Topics::Matching(_) => client.metadata(None, AutoCreate::Forbid),
        }
    }
}

struct Consumer {
    client: Client,
    topics: Topics,
    /// What the topics looked like when partitions were last added or assigned.
    seen: Shape,
    fetcher: Fetcher,
    refreshed_at: Instant,
    membership: Option<GroupMembership>,
    printer: Printer,
}

struct GroupMembership {
    member: Membership,
    group: String,
    /// `None`: offsets are not committed.
    commit_interval: Option<Duration>,
    commit_at: Instant,
}

impl Consumer {
    /// Takes all partitions, or the one that the flags name.
    fn read_alone(&mut self, args: &ConsumeArgs, reset: OffsetReset) -> Result<(), CliError> {
        let spec = match reset {
            OffsetReset::Earliest => OffsetSpec::Earliest,
            OffsetReset::Latest | OffsetReset::Error => OffsetSpec::Latest,
        };
        let start = args.offset.unwrap_or(Start::Spec(spec));
        let partitions = match (args.partition, &self.topics) {
            (Some(index), Topics::One(topic)) => vec![(topic.clone(), index)],
            _ => partitions_of(&self.seen),
        };
        match start {
            Start::At(offset) => {
                for partition in partitions {
                    self.fetcher.add(partition, offset);
                }
            }
            Start::Spec(_) if partitions.is_empty() => {}
            Start::Spec(spec) => self.fetcher.add_at(&mut self.client, &partitions, spec)?,
        }
        if args.partition.is_some() {
            // One partition is all there ever is to read.
            self.refreshed_at = Instant::now() + Duration::from_secs(u32::MAX.into());
        }
        Ok(())
    }

    fn join(
        &mut self,
        config: GroupConfig,
        commit_interval: Option<Duration>,
    ) -> Result<(), CliError> {
        self.membership = Some(GroupMembership {
            group: config.group.clone(),
            member: Membership::new(config),
            commit_interval,
            commit_at: Instant::now(),
        });
        self.rejoin()
    }

    /// Joins the group (again) and goes to the committed offsets of what it is given.
    fn rejoin(&mut self) -> Result<(), CliError> {
        let metadata = self.topics.metadata(&mut self.client)?;
        self.seen = shape(&self.topics, &metadata);
        self.refreshed_at = Instant::now();
        self.fetcher.clear();
        self.fetcher.set_metadata(metadata.clone());
        let Some(membership) = &mut self.membership else {
            return Ok(());
        };
        let topics: Vec<String> = match &self.topics {
            Topics::One(topic) => vec![topic.clone()],
            Topics::Matching(_) => self.seen.iter().map(|(topic, _)| topic.clone()).collect(),
        };
        let assigned = membership
            .member
            .join(&mut self.client, &topics, &metadata)?;
        let committed = if assigned.is_empty() {
            Default::default()
        } else {
            self.client
                .committed_offsets(&membership.group, Some(&assigned))?
        };
        let is_new = |partition: &&TopicPartition| !committed.contains_key(*partition);
        let without: Vec<TopicPartition> = assigned.iter().filter(is_new).cloned().collect();
        for (partition, offset) in committed {
            self.fetcher.add(partition, offset);
        }
        self.fetcher.add_by_reset(&mut self.client, &without)?;
        membership.commit_at = Instant::now() + membership.commit_interval.unwrap_or_default();
        Ok(())
    }

    /// Prints until the limit, the timeout, or Ctrl-C.
    fn read(&mut self, timeout_ms: Option<u64>, out: &mut dyn Write) -> Result<(), CliError> {
        let timeout = timeout_ms.map(Duration::from_millis);
        let mut last_record = Instant::now();
        while !signal::interrupted() && !self.printer.is_done() {
            let batches = self.fetcher.poll(&mut self.client)?;
            let before = self.printer.printed;
            for batch in &batches {
                self.printer.print(&mut self.fetcher, batch, out)?;
            }
            out.flush()?;
            if self.printer.printed > before {
                last_record = Instant::now();
            } else if timeout.is_some_and(|timeout| last_record.elapsed() >= timeout) {
                return Ok(());
            }
            self.keep_membership()?;
            self.look_for_news()?;
        }
        Ok(())
    }

    fn keep_membership(&mut self) -> Result<(), CliError> {
        let Some(membership) = &mut self.membership else {
            return Ok(());
        };
        let mut standing = membership.member.heartbeat_if_due(&mut self.client)?;
        if let Some(interval) = membership.commit_interval
            && (Instant::now() >= membership.commit_at || standing == Standing::Rejoin)
        {
            membership.commit_at = Instant::now() + interval;
            let positions = self.fetcher.positions();
            let committed = membership.member.commit(&mut self.client, positions)?;
            if committed == Standing::Rejoin {
                standing = Standing::Rejoin;
            }
        }
        match standing {
            Standing::Member => Ok(()),
            Standing::Rejoin => self.rejoin(),
        }
    }

    /// Finds topics and partitions that were created meanwhile. They are read from their beginning.
    fn look_for_news(&mut self) -> Result<(), CliError> {
        let is_idle = self.seen.is_empty();
        let age_max = if is_idle {
            TOPIC_WAIT
        } else {
            METADATA_AGE_MAX
        };
        if Instant::now().saturating_duration_since(self.refreshed_at) < age_max {
            if is_idle {
                sleep(Duration::from_millis(50));
            }
            return Ok(());
        }
        self.refreshed_at = Instant::now();
        let metadata = self.topics.metadata(&mut self.client)?;
        let now = shape(&self.topics, &metadata);
        self.fetcher.set_metadata(metadata);
        if now == self.seen {
            return Ok(());
        }
        if let Some(membership) = &mut self.membership {
            if membership.commit_interval.is_some() {
                let positions = self.fetcher.positions();
                membership.member.commit(&mut self.client, positions)?;
            }
            return self.rejoin();
        }
        let known = partitions_of(&self.seen);
        let mut new_ones = partitions_of(&now);
        new_ones.retain(|partition| !known.contains(partition));
        self.seen = now;
        if !new_ones.is_empty() {
            self.fetcher
                .add_at(&mut self.client, &new_ones, OffsetSpec::Earliest)?;
        }
        Ok(())
    }

    /// Commits what was printed and leaves the group.
    fn close(&mut self) -> Result<(), CliError> {
        self.client.ignore_interrupts();
        let Some(membership) = &mut self.membership else {
            return Ok(());
        };
        if membership.commit_interval.is_some() {
            let positions = self.fetcher.positions();
            membership.member.commit(&mut self.client, positions)?;
        }
        membership.member.leave(&mut self.client)?;
        Ok(())
    }
}

struct Printer {
    /// `None` prints nothing and counts.
    formatter: Option<Formatter>,
    skip_errors: bool,
    printed: u64,
    printed_max: u64,
}

impl Printer {
    fn is_done(&self) -> bool {
        self.printed >= self.printed_max
    }

    /// Prints the records of a batch from the fetcher's position on, and moves the position along.
    fn print(
        &mut self,
        fetcher: &mut Fetcher,
        batch: &FetchedBatch,
        out: &mut dyn Write,
    ) -> Result<(), CliError> {
        let Some(position) = fetcher.position(&batch.partition) else {
            return Ok(());
        };
        if self.is_done() || batch.header.next_offset().get() <= position {
            return Ok(());
        }
        if batch.is_visible {
            let (topic, partition) = &batch.partition;
            let broken = |error| CliError::failed(format!("batch of {topic}-{partition}: {error}"));
            let origin = Origin {
                partition: *partition,
                leader_epoch: batch.header.leader_epoch.0,
                timestamp_type: batch.header.timestamp_type(),
            };
            for record in batch.records().map_err(broken)? {
                let record = record.map_err(broken)?;
                if FetchedBatch::is_before(&record, position) {
                    continue;
                }
                if self.is_done() {
                    return Ok(());
                }
                let outcome = match &self.formatter {
                    Some(formatter) => formatter.write(out, origin, &record),
                    None => Ok(()),
                };
                match outcome {
                    Ok(()) => self.printed += 1,
                    Err(FormatError::Output(error)) => return Err(CliError::Output(error)),
                    Err(FormatError::Field(what)) => {
                        let message = format!("{topic}-{partition}@{}: {what}", record.offset);
                        if !self.skip_errors {
                            return Err(CliError::failed(message));
                        }
                        eprintln!("{message}");
                    }
                }
                fetcher.advance(&batch.partition, record.offset.get() + 1);
            }
        }
        fetcher.advance(&batch.partition, batch.header.next_offset().get());
        Ok(())
    }
}

fn message_formatter(args: &ConsumeArgs) -> Result<Option<Formatter>, CliError> {
    let mut properties = match &args.formatter_config {
        Some(path) => Properties::from_file(path)?,
        None => Properties::default(),
    };
    properties.add_all(&args.formatter_property)?;
    for (name, class) in [
        ("key.deserializer", &args.key_deserializer),
        ("value.deserializer", &args.value_deserializer),
    ] {
        if let Some(class) = class {
            properties.set(name, class);
        }
    }
    match args.formatter.as_deref() {
        Some(class) if class.ends_with("NoOpMessageFormatter") => Ok(None),
        Some(class) if !class.ends_with("DefaultMessageFormatter") => {
            Err(CliError::failed(format!("unknown formatter {class}")))
        }
        _ => Formatter::new(&properties).map(Some),
    }
}

fn isolation(args: &ConsumeArgs, properties: &Properties) -> Result<Isolation, CliError> {
    let flag = args.isolation_level.as_deref();
    match flag.or(properties.get("isolation.level")) {
        None | Some("read_uncommitted") => Ok(Isolation::ReadUncommitted),
        Some("read_committed") => Ok(Isolation::ReadCommitted),
        Some(other) => Err(CliError::failed(format!("unknown isolation level {other}"))),
    }
}

fn reset(args: &ConsumeArgs, properties: &Properties) -> Result<OffsetReset, CliError> {
    if args.from_beginning {
        return Ok(OffsetReset::Earliest);
    }
    match properties.get("auto.offset.reset") {
        None | Some("latest") => Ok(OffsetReset::Latest),
        Some("earliest") => Ok(OffsetReset::Earliest),
        Some("none") => Ok(OffsetReset::Error),
        Some(other) => Err(CliError::failed(format!(
            "auto.offset.reset is earliest, latest or none, not {other}"
        ))),
    }
}

/// The group to join, if any, and how often to commit.
fn group_config(
    args: &ConsumeArgs,
    properties: &Properties,
) -> Result<Option<(GroupConfig, Option<Duration>)>, CliError> {
    let group = args.group.as_deref().or(properties.get("group.id"));
    let Some(group) = group.filter(|_| args.partition.is_none()) else {
        return Ok(None);
    };
    if group.is_empty() {
        return Err(CliError::failed("a group has a name"));
    }
    let millis = |name: &str, default: u64| -> Result<Duration, CliError> {
        Ok(Duration::from_millis(
            properties.parse(name)?.unwrap_or(default),
        ))
    };
    let config = GroupConfig {
        group: group.to_string(),
        instance_id: properties.get("group.instance.id").map(str::to_string),
        session_timeout: millis("session.timeout.ms", 45_000)?,
        heartbeat_interval: millis("heartbeat.interval.ms", 3_000)?,
        rebalance_timeout: Duration::from_secs(300),
    };
    let interval = millis("auto.commit.interval.ms", 5_000)?;
    let commits = properties.flag("enable.auto.commit", true);
    Ok(Some((config, commits.then_some(interval))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_partition_is_a_name_or_a_number() {
        assert_eq!(parse_start("7"), Ok(Start::At(7)));
        assert_eq!(
            parse_start("earliest"),
            Ok(Start::Spec(OffsetSpec::Earliest))
        );
        assert_eq!(parse_start("latest"), Ok(Start::Spec(OffsetSpec::Latest)));
        for bad in ["-1", "", "first", "1.5"] {
            assert!(parse_start(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_and_properties_say_where_to_begin() {
        let check = |flags: &str, want: Option<OffsetReset>| {
            let line = format!("consume --topic t {flags}");
            let args = ConsumeArgs::try_parse_from(line.split_whitespace()).unwrap();
            let properties = args.connect.properties(&CLIENT_PROPERTIES).unwrap();
            assert_eq!(reset(&args, &properties).ok(), want, "{flags}");
        };
        check("", Some(OffsetReset::Latest));
        check("--from-beginning", Some(OffsetReset::Earliest));
        check(
            "--consumer-property auto.offset.reset=earliest",
            Some(OffsetReset::Earliest),
        );
        check("--command-property auto.offset.reset=soon", None);
    }
}
