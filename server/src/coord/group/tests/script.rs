//! Scripts: a line is a command; the indented lines below it are exactly what must follow from it.
//!
//! Commands (of group `g`): `join NAME [id] [as=INSTANCE] [known] [skip] [proto=a+b] [meta=x] [session=ms] [rebalance=ms]`,
//! `sync NAME GENERATION [MEMBER=assignment ...]`, `beat NAME GENERATION [as=..]`, `leave NAME [as=..]`, `commit NAME GENERATION t-0=5 ...`,
//! `fetch [t-0 ...]`, `undo t-0 ...` (OffsetDelete), `describe`, `delete`, `list [STATE]`, `gone TOPIC`, `expire`, `wait MS`,
//! `room BYTES` (memory left), `limit MEMBERS` (from the next start on), `restart`.
//! A member id is shown as the name of the client that got it; a second id of the same client as NAME2, and so on.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use bytes::{BufMut, Bytes};

use super::{
    super::{
        CommitOffset, CommitOffsets, DeleteOffsets, Event, FetchOffsets, GroupFilter, Heartbeat,
        Join, KnownMemberId, Leave, LeavingMember, OffsetSelection, Protocol, Reply, Rules,
        SkipAssignment, Sync, Token, TopicPartition, Verb,
    },
    harness::{Outcome, World, rules},
};
use crate::coord::records::Record;

const GROUP: &str = "g";

/// A script's view of the world: names for member ids and for open requests.
struct Script {
    world: World,
    ids: BTreeMap<String, Arc<str>>,
    asked: BTreeMap<Token, String>,
    /// Which client came with an instance id: ids of static members begin with that instead of the client's name.
    clients: BTreeMap<Arc<str>, String>,
}

pub fn check(script: &str) {
    check_with(rules(), script);
}

pub fn check_with(rules: Rules, script: &str) {
    let mut runner = Script {
        world: World::new(rules),
        ids: BTreeMap::new(),
        asked: BTreeMap::new(),
        clients: BTreeMap::new(),
    };
    let mut expected = String::new();
    let mut actual = String::new();
    for line in script.lines().filter(|line| !line.trim().is_empty()) {
        writeln!(expected, "{}", line.trim()).unwrap();
        let indent = line.len() - line.trim_start().len();
        if indent == 8 {
            writeln!(actual, "{}", line.trim()).unwrap();
            for effect in runner.run(line.trim()) {
                writeln!(actual, "{}", effect.trim()).unwrap();
            }
        }
    }
    assert!(
        expected == actual,
        "expected:\n{expected}\nactual:\n{actual}"
    );
}

impl Script {
    fn run(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (command, rest) = (words[0], &words[1..]);
        let outcome = match command {
            "join" => {
                if let Some(instance) = option(rest, "as") {
                    self.clients.insert(instance, rest[0].to_owned());
                }
                self.ask(rest[0], join(rest, &self.ids))
            }
            "sync" => self.ask(rest[0], self.sync(rest)),
            "beat" => {
                let heartbeat = Verb::Heartbeat(Heartbeat {
                    group: GROUP.into(),
                    member_id: self.id(rest[0]),
                    instance_id: option(rest, "as"),
                    generation: rest[1].parse().unwrap(),
                });
                self.ask(rest[0], heartbeat)
            }
            "leave" => self.ask(rest[0], self.leave(rest)),
            "commit" => self.ask(rest[0], self.commit(rest)),
            "fetch" => {
                let selection = if rest.is_empty() {
                    OffsetSelection::All
                } else {
                    OffsetSelection::Of(partitions(rest))
                };
                let group = GROUP.into();
                self.ask(
                    "fetch",
                    Verb::FetchOffsets(FetchOffsets { group, selection }),
                )
            }
            "undo" => {
                let delete = DeleteOffsets {
                    group: GROUP.into(),
                    partitions: partitions(rest),
                };
                self.ask("undo", Verb::DeleteOffsets(delete))
            }
            "describe" => self.ask(
                "describe",
                Verb::Describe {
                    group: GROUP.into(),
                },
            ),
            "delete" => self.ask(
                "delete",
                Verb::Delete {
                    group: GROUP.into(),
                },
            ),
            "list" => {
                let states = rest.iter().map(|state| state.to_string()).collect();
                let types = Vec::new();
                let listed = self.world.machine.list(&GroupFilter { states, types });
                return listed
                    .iter()
                    .map(|group| format!("{} {} {}", group.group, group.protocol_type, group.state))
                    .collect();
            }
            "gone" => {
                let topics = rest.iter().map(|topic| (*topic).into()).collect();
                self.world.event(Event::TopicsDeleted(topics))
            }
            "expire" => self.world.event(Event::ExpireOffsets),
            "wait" => self.world.wait(rest[0].parse().unwrap()),
            "room" => {
                self.world.room_bytes = rest[0].parse().unwrap();
                Outcome::default()
            }
            "limit" => {
                self.world.rules.group_size_max = rest[0].parse().unwrap();
                Outcome::default()
            }
            "restart" => self.world.restart(),
            _ => panic!("{line}"),
        };
        self.show(outcome)
    }

    fn ask(&mut self, name: &str, verb: Verb) -> Outcome {
        let (token, outcome) = self.world.request(verb);
        self.asked.insert(token, name.to_owned());
        outcome
    }

    fn id(&self, name: &str) -> Arc<str> {
        match name {
            "-" => "".into(),
            _ => self.ids.get(name).cloned().unwrap_or_else(|| name.into()),
        }
    }

    fn sync(&self, words: &[&str]) -> Verb {
        let assignments = words[2..].iter().filter(|word| !word.contains(':'));
        Verb::Sync(Sync {
            group: GROUP.into(),
            member_id: self.id(words[0]),
            instance_id: None,
            generation: words[1].parse().unwrap(),
            protocol_type: words
                .iter()
                .find_map(|word| word.strip_prefix("type:"))
                .map(Into::into),
            protocol: words
                .iter()
                .find_map(|word| word.strip_prefix("proto:"))
                .map(Into::into),
            assignments: assignments
                .map(|pair| {
                    let (member, assignment) = pair.split_once('=').unwrap();
                    (self.id(member), Bytes::from(assignment.to_owned()))
                })
                .collect(),
        })
    }

    fn leave(&self, words: &[&str]) -> Verb {
        Verb::Leave(Leave {
            group: GROUP.into(),
            members: vec![LeavingMember {
                member_id: self.id(words[0]),
                instance_id: option(words, "as"),
            }],
        })
    }

    fn commit(&self, words: &[&str]) -> Verb {
        let offsets = words[2..].iter().map(|word| {
            let (partition, rest) = word.split_once('=').unwrap();
            let (offset, metadata) = rest.split_once(':').unwrap_or((rest, ""));
            let TopicPartition { topic, partition } = partitions(&[partition]).remove(0);
            CommitOffset {
                topic,
                partition,
                offset: offset.parse().unwrap(),
                leader_epoch: 3,
                metadata: metadata.into(),
            }
        });
        Verb::CommitOffsets(CommitOffsets {
            group: GROUP.into(),
            member_id: self.id(words[0]),
            instance_id: None,
            generation: words[1].parse().unwrap(),
            offsets: offsets.collect(),
        })
    }

    fn show(&mut self, (records, replies): Outcome) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for record in &records {
            lines.push(match record {
                Record::Offset {
                    topic,
                    partition,
                    value,
                    ..
                } => match value {
                    Some(value) => format!("write {topic}-{partition}={}", value.offset),
                    None => format!("write {topic}-{partition} deleted"),
                },
                Record::Group {
                    value: Some(value), ..
                } => format!(
                    "write group gen={} members={}",
                    value.generation,
                    value.members.len()
                ),
                Record::Group { value: None, .. } => "write group deleted".to_owned(),
            });
        }
        // The order of replies among each other means nothing.
        let first_reply = lines.len();
        for (token, reply) in replies {
            let name = self.asked.remove(&token).expect("asked before");
            let shown = self.show_reply(reply);
            lines.push(format!("{name} {shown}"));
        }
        lines[first_reply..].sort();
        lines
    }

    fn show_reply(&mut self, reply: Reply) -> String {
        match reply {
            Reply::Refused(error) => format!("{error:?}"),
            Reply::MemberIdRequired { member_id } => {
                format!("needs id {}", self.name_of(&member_id))
            }
            Reply::Joined(joined) => {
                let me = self.name_of(&joined.member_id);
                let mut text = format!(
                    "joined as {me} gen={} {} leader={}",
                    joined.generation,
                    joined.protocol,
                    self.name_of(&joined.leader),
                );
                if !joined.members.is_empty() {
                    let mut names: Vec<String> = Vec::new();
                    for member in &joined.members {
                        names.push(self.name_of(&member.member_id));
                    }
                    names.sort();
                    write!(text, " members={}", names.join("+")).unwrap();
                }
                if joined.skip_assignment {
                    text.push_str(" skip");
                }
                text
            }
            Reply::Synced(synced) => format!("synced {:?}", synced.assignment),
            Reply::Alive => "alive".to_owned(),
            Reply::Left(results)
            | Reply::OffsetsCommitted(results)
            | Reply::OffsetsDeleted(results) => {
                let shown = results.iter().map(|result| match result {
                    Ok(()) => "ok".to_owned(),
                    Err(error) => format!("{error:?}"),
                });
                shown.collect::<Vec<_>>().join(" ")
            }
            Reply::OffsetsFetched(fetched) => {
                let shown = fetched.iter().map(|offset| match &offset.committed {
                    Some(it) => format!(
                        "{}-{}={}:{}",
                        offset.topic, offset.partition, it.offset, it.metadata
                    ),
                    None => format!("{}-{} none", offset.topic, offset.partition),
                });
                shown.collect::<Vec<_>>().join(" ")
            }
            Reply::Described(group) => {
                let mut text = format!(
                    "{} [{}] [{}]",
                    group.state, group.protocol_type, group.protocol
                );
                for member in &group.members {
                    let name = self.name_of(&member.member_id);
                    write!(text, " {name}={:?}", member.assignment).unwrap();
                }
                text
            }
            Reply::Deleted => "deleted".to_owned(),
            Reply::Listed(_) => unreachable!("the runtime lists"),
        }
    }

    fn name_of(&mut self, id: &Arc<str>) -> String {
        if let Some((name, _)) = self.ids.iter().find(|(_, known)| *known == id) {
            return name.clone();
        }
        let (prefix, _) = id.split_once('-').expect("a name, a dash, a UUID");
        let client = self.clients.get(prefix).map_or(prefix, String::as_str);
        let name = (1..)
            .map(|count| match count {
                1 => client.to_owned(),
                _ => format!("{client}{count}"),
            })
            .find(|name| !self.ids.contains_key(name))
            .expect("names do not run out");
        self.ids.insert(name.clone(), id.clone());
        name
    }
}

fn option(words: &[&str], key: &str) -> Option<Arc<str>> {
    words
        .iter()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .map(Into::into)
}

fn join(words: &[&str], ids: &BTreeMap<String, Arc<str>>) -> Verb {
    let has = |flag: &str| words.contains(&flag);
    let number =
        |key: &str, default: i32| option(words, key).map_or(default, |text| text.parse().unwrap());
    let meta = option(words, "meta").unwrap_or_else(|| "t".into());
    let protocols = option(words, "proto").unwrap_or_else(|| "range".into());
    Verb::Join(Join {
        group: GROUP.into(),
        member_id: match has("id") {
            true => ids
                .get(words[0])
                .cloned()
                .unwrap_or_else(|| words[0].into()),
            false => "".into(),
        },
        instance_id: option(words, "as"),
        client_id: words[0].into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: number("session", 10_000),
        rebalance_timeout_ms: number("rebalance", 60_000),
        protocol_type: option(words, "type").unwrap_or_else(|| "consumer".into()),
        protocols: protocols
            .split('+')
            .filter(|name| !name.is_empty())
            .map(|name| Protocol {
                name: name.into(),
                metadata: subscription(&meta),
            })
            .collect(),
        known_member_id: match has("known") {
            true => KnownMemberId::Required,
            false => KnownMemberId::NotRequired,
        },
        skip_assignment: match has("skip") {
            true => SkipAssignment::Understood,
            false => SkipAssignment::NotUnderstood,
        },
    })
}

/// A consumer's metadata that subscribes to one topic.
fn subscription(topic: &str) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    bytes.put_i16(i16::try_from(topic.len()).unwrap());
    bytes.put_slice(topic.as_bytes());
    bytes.into()
}

fn partitions(words: &[&str]) -> Vec<TopicPartition> {
    words
        .iter()
        .map(|word| {
            let (topic, partition) = word.rsplit_once('-').unwrap();
            TopicPartition {
                topic: topic.into(),
                partition: partition.parse().unwrap(),
            }
        })
        .collect()
}
