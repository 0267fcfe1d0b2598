//! `forebay get-offsets`, alias `kafka-get-offsets`: offsets of partitions at a point in time.

use std::io::Write;

use clap::Parser;

use super::{
    args::{ConnectArgs, TopicFilter},
    client::{AutoCreate, TopicPartition, offsets::OffsetSpec},
    outcome::CliError,
};

/// Prints topic:partition:offset lines
#[derive(Parser, Debug)]
#[command(after_help = "Examples:\n  forebay get-offsets --topic first\n  \
forebay get-offsets --topic first --time earliest\n  \
forebay get-offsets --topic-partitions first:0,other:2-5 --time 1700000000000")]
pub struct GetOffsetsArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// Regular expression for the whole name; all topics without it.
    #[arg(long)]
    topic: Option<String>,
    /// Partitions, for example 0,2-4,7- (the end is not included); all without it.
    #[arg(long, requires = "topic", value_name = "RANGES")]
    partitions: Option<String>,
    /// Topics with partitions, for example first:0,other:2-5,third.
    #[arg(long, conflicts_with_all = ["topic", "partitions"], value_name = "TOPIC:RANGE,...")]
    topic_partitions: Option<String>,
    /// latest (-1), earliest (-2), max-timestamp (-3), or milliseconds since the epoch.
    #[arg(long, default_value = "latest", allow_hyphen_values = true, value_parser = parse_time)]
    time: OffsetSpec,
    /// Leave out topics of the broker's own.
    #[arg(long)]
    exclude_internal_topics: bool,
}

fn parse_time(text: &str) -> Result<OffsetSpec, String> {
    match text {
        "latest" | "-1" => Ok(OffsetSpec::Latest),
        "earliest" | "-2" => Ok(OffsetSpec::Earliest),
        "max-timestamp" | "-3" => Ok(OffsetSpec::MaxTimestamp),
        "earliest-local" => Ok(OffsetSpec::Marker(-4)),
        "latest-tiered" => Ok(OffsetSpec::Marker(-5)),
        _ => match text.parse::<i64>() {
            Ok(millis) if millis >= 0 => Ok(OffsetSpec::Timestamp(millis)),
            Ok(marker) if marker >= -5 => Ok(OffsetSpec::Marker(marker)),
            _ => Err("write latest, earliest, max-timestamp or a time in ms".to_string()),
        },
    }
}

pub fn run(args: &GetOffsetsArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let rules = match &args.topic_partitions {
        Some(text) => text.split(',').map(Rule::parse).collect::<Result<_, _>>()?,
        None => Rule::for_topic(args.topic.as_deref(), args.partitions.as_deref())?,
    };
    let mut client = args.connect.connect_plainly("forebay-get-offsets")?;
    let metadata = client.metadata(None, AutoCreate::Forbid)?;
    let mut wanted: Vec<(TopicPartition, OffsetSpec)> = Vec::new();
    for topic in metadata.topics.values() {
        if args.exclude_internal_topics && topic.is_internal {
            continue;
        }
        for partition in &topic.partitions {
            if rules
                .iter()
                .any(|r| r.matches(&topic.name, partition.index))
            {
                wanted.push(((topic.name.clone(), partition.index), args.time));
            }
        }
    }
    if wanted.is_empty() {
        return Err(CliError::failed(
            "Could not match any topic-partitions with the specified filters",
        ));
    }
    let found = client.list_offsets(&metadata, &wanted, false)?;
    for ((topic, partition), _) in &wanted {
        // Where no record matches, Kafka prints nothing after the last colon.
        let key = (topic.clone(), *partition);
        let offset = found.get(&key).copied().flatten();
        let offset = offset.map_or(String::new(), |offset| offset.to_string());
        writeln!(out, "{topic}:{partition}:{offset}")?;
    }
    Ok(())
}

/// Selects partitions: a topic pattern and a half-open range.
struct Rule {
    topic: Option<TopicFilter>,
    begin: i32,
    end: i32,
}

impl Rule {
    fn for_topic(topic: Option<&str>, ranges: Option<&str>) -> Result<Vec<Rule>, CliError> {
        let ranges = ranges.map_or(vec![""], |text| text.split(',').collect());
        let rule = |range: &str| {
            let (begin, end) = parse_range(range)?;
            let topic = topic.map(TopicFilter::new).transpose()?;
            Ok(Rule { topic, begin, end })
        };
        ranges.into_iter().map(rule).collect()
    }

    fn parse(text: &str) -> Result<Rule, CliError> {
        let (topic, range) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
        let (begin, end) = parse_range(range)?;
        let topic = match topic {
            "" => None,
            topic => Some(TopicFilter::new(topic)?),
        };
        Ok(Rule { topic, begin, end })
    }

    fn matches(&self, topic: &str, partition: i32) -> bool {
        (self.begin..self.end).contains(&partition)
            && self
                .topic
                .as_ref()
                .is_none_or(|filter| filter.matches(topic))
    }
}

/// `3` is one partition, `3-5` two of them, `3-` and `-5` are open, nothing is all.
fn parse_range(text: &str) -> Result<(i32, i32), CliError> {
    let text = text.trim();
    let bad = || CliError::failed(format!("'{text}' is no range of partitions"));
    let number = |part: &str, default: i32| match part {
        "" => Ok(default),
        part => part.parse::<i32>().map_err(|_| bad()),
    };
    match text.split_once('-') {
        None if text.is_empty() => Ok((0, i32::MAX)),
        None => number(text, 0).map(|one| (one, one.saturating_add(1))),
        Some((begin, end)) => Ok((number(begin, 0)?, number(end, i32::MAX)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open() {
        let check = |text: &str, want: Option<(i32, i32)>| {
            assert_eq!(parse_range(text).ok(), want, "{text}");
        };
        check("", Some((0, i32::MAX)));
        check("3", Some((3, 4)));
        check("3-5", Some((3, 5)));
        check("3-", Some((3, i32::MAX)));
        check("-5", Some((0, 5)));
        check("a", None);
        check("1-b", None);
    }

    #[test]
    fn times_have_names_and_numbers() {
        assert_eq!(parse_time("-1"), Ok(OffsetSpec::Latest));
        assert_eq!(parse_time("earliest"), Ok(OffsetSpec::Earliest));
        assert_eq!(parse_time("-4"), Ok(OffsetSpec::Marker(-4)));
        assert_eq!(parse_time("1700"), Ok(OffsetSpec::Timestamp(1700)));
        assert!(parse_time("-6").is_err());
        assert!(parse_time("soon").is_err());
    }
}
