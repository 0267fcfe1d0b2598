//! The bytes that members and leader of a group exchange through the coordinator, and Kafka's range assignor.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ConsumerProtocolAssignment, ConsumerProtocolSubscription,
        consumer_protocol_assignment::TopicPartition as AssignedTopic,
    },
    protocol::{Decodable, Encodable},
};

use super::{ClientError, TopicPartition, str_bytes, topic_name};

pub type Assignment = BTreeMap<String, Vec<i32>>;

/// Kafka's range assignor: per topic, the subscribed members in order of their ids take contiguous ranges, the first
/// ones one more where it does not divide evenly.
pub fn assign_ranges(
    members: &BTreeMap<String, Vec<String>>,
    partition_count: impl Fn(&str) -> Option<usize>,
) -> BTreeMap<String, Assignment> {
    let mut result: BTreeMap<String, Assignment> = members
        .keys()
        .map(|member| (member.clone(), Assignment::new()))
        .collect();
    let mut subscribers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (member, topics) in members {
        for topic in topics {
            subscribers.entry(topic).or_default().push(member);
        }
    }
    for (topic, members) in subscribers {
        let Some(count) = partition_count(topic) else {
            continue;
        };
        let (share, extra) = (count / members.len(), count % members.len());
        let mut next = 0;
        for (index, member) in members.into_iter().enumerate() {
            let end = next + share + usize::from(index < extra);
            if end > next {
                let partitions = (next..end).map(|p| p as i32).collect();
                let assignment = result.get_mut(member).expect("all members have an entry");
                assignment.insert(topic.to_string(), partitions);
            }
            next = end;
        }
        assert_eq!(next, count, "every partition has exactly one owner");
    }
    result
}

const VERSIONED: i16 = 1;

pub fn subscription_bytes(topics: &[String]) -> Bytes {
    let topics = topics.iter().map(|topic| str_bytes(topic)).collect();
    let subscription = ConsumerProtocolSubscription::default().with_topics(topics);
    with_version(|bytes| subscription.encode(bytes, VERSIONED))
}

pub fn assignment_bytes(topics: &Assignment) -> Bytes {
    let assigned = topics.iter().map(|(topic, partitions)| {
        AssignedTopic::default()
            .with_topic(topic_name(topic))
            .with_partitions(partitions.clone())
    });
    let assignment =
        ConsumerProtocolAssignment::default().with_assigned_partitions(assigned.collect());
    with_version(|bytes| assignment.encode(bytes, VERSIONED))
}

fn with_version<E: std::fmt::Debug>(encode: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSIONED);
    encode(&mut bytes).expect("every field exists in this version");
    bytes.freeze()
}

pub fn parse_subscription(bytes: &Bytes) -> Result<Vec<String>, ClientError> {
    let subscription: ConsumerProtocolSubscription = parse_versioned(bytes, "subscription")?;
    let topics = subscription.topics.iter();
    Ok(topics.map(|topic| topic.to_string()).collect())
}

/// The partitions in an assignment, as a member receives it or `--describe` shows it.
pub fn parse_assignment(bytes: &Bytes) -> Result<Vec<TopicPartition>, ClientError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let assignment: ConsumerProtocolAssignment = parse_versioned(bytes, "assignment")?;
    let topics = assignment.assigned_partitions.iter();
    Ok(topics
        .flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|partition| (topic.topic.to_string(), *partition))
        })
        .collect())
}

/// Newer versions only add fields at the end.
fn parse_versioned<T: Decodable>(bytes: &Bytes, what: &str) -> Result<T, ClientError> {
    let malformed = || ClientError::Malformed(format!("{what} of a group member"));
    let mut bytes = bytes.clone();
    let version = bytes.try_get_i16().map_err(|_| malformed())?;
    if version < 0 {
        return Err(malformed());
    }
    T::decode(&mut bytes, version.min(3)).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(members: &[(&str, &[&str])], topics: &[(&str, usize)], want: &[(&str, &str)]) {
        let members = members
            .iter()
            .map(|(member, topics)| {
                let topics = topics.iter().map(ToString::to_string).collect();
                (member.to_string(), topics)
            })
            .collect();
        let counts: BTreeMap<&str, usize> = topics.iter().copied().collect();
        let got = assign_ranges(&members, |topic| counts.get(topic).copied());
        let got: Vec<(String, String)> = got
            .into_iter()
            .map(|(member, assignment)| {
                let topics = assignment.iter();
                let text: Vec<String> = topics.map(|(t, p)| format!("{t}{p:?}")).collect();
                (member, text.join(" "))
            })
            .collect();
        let want: Vec<(String, String)> = want
            .iter()
            .map(|(member, text)| (member.to_string(), text.to_string()))
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn ranges_are_those_of_kafka() {
        check(&[("a", &["t"])], &[("t", 3)], &[("a", "t[0, 1, 2]")]);
        check(
            &[("a", &["t"]), ("b", &["t"])],
            &[("t", 3)],
            &[("a", "t[0, 1]"), ("b", "t[2]")],
        );
        check(
            &[("a", &["t", "u"]), ("b", &["u"]), ("c", &["u"])],
            &[("t", 2), ("u", 2)],
            &[("a", "t[0, 1] u[0]"), ("b", "u[1]"), ("c", "")],
        );
        check(&[("a", &["gone"])], &[], &[("a", "")]);
    }

    #[test]
    fn assignments_survive_the_wire() {
        let assignment = Assignment::from([("t".to_string(), vec![0, 2])]);
        let parsed = parse_assignment(&assignment_bytes(&assignment)).unwrap();
        assert_eq!(parsed, [("t".to_string(), 0), ("t".to_string(), 2)]);
        assert!(parse_assignment(&Bytes::new()).unwrap().is_empty());
        assert!(parse_assignment(&Bytes::from_static(&[0])).is_err());
        let topics = ["x".to_string(), "y".to_string()];
        assert_eq!(
            parse_subscription(&subscription_bytes(&topics)).unwrap(),
            topics
        );
    }
}
