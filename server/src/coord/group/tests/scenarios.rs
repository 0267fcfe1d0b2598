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

fn check(script: &str) {
    check_with(rules(), script);
}

fn check_with(rules: Rules, script: &str) {
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

#[test]
fn one_member_joins_syncs_beats_and_leaves() {
    check(
        "
        join a known
            a needs id a
        join a id known
        wait 2999
        wait 1
            a joined as a gen=1 range leader=a members=a
        describe
            describe CompletingRebalance [consumer] [] a=b\"\"
        beat a 1
            a alive
        sync a 1 a=x
            write group gen=1 members=1
            a synced b\"x\"
        describe
            describe Stable [consumer] [range] a=b\"x\"
        sync a 1
            a synced b\"x\"
        beat a 0
            a IllegalGeneration
        beat b 1
            b UnknownMemberId
        leave a
            write group gen=2 members=0
            a ok
        beat a 1
            a UnknownMemberId
        list
            g consumer Empty
        list stable
        ",
    );
}

#[test]
fn two_members_share_and_the_follower_is_told_its_part() {
    check(
        "
        join a
        wait 1000
        join b
        wait 2000
        wait 3000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync b 1
        sync a 0 a=old
            a IllegalGeneration
        sync a 2 a=new
            a IllegalGeneration
        sync a 1 a=p0 b=p1
            write group gen=1 members=2
            a synced b\"p0\"
            b synced b\"p1\"
        beat b 1
            b alive
        ",
    );
}

#[test]
fn a_third_member_starts_a_rebalance_and_all_come_back() {
    check(
        "
        join a
        wait 3000
            a joined as a gen=1 range leader=a members=a
        sync a 1 a=all
            write group gen=1 members=1
            a synced b\"all\"
        join b
        beat a 1
            a RebalanceInProgress
        commit a 1 t-0=7
            write t-0=7
            a ok
        sync a 1
            a RebalanceInProgress
        join a id
            a joined as a gen=2 range leader=a members=a+b
            b joined as b gen=2 range leader=a
        commit a 2 t-0=8
            a RebalanceInProgress
        commit a 1 t-0=8
            a IllegalGeneration
        sync a 2 a=p0
            write group gen=2 members=2
            a synced b\"p0\"
        sync b 2
            b synced b\"\"
        commit b 2 t-1=9
            write t-1=9
            b ok
        ",
    );
}

#[test]
fn members_that_do_not_rejoin_are_dropped() {
    check(
        "
        join a rebalance=20000 session=6000
        join b rebalance=30000 session=1800000
        wait 3000
        wait 3000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1
            write group gen=1 members=2
            a synced b\"\"
        sync b 1
            b synced b\"\"
        join a id rebalance=20000 session=6000
        wait 29999
        wait 1
            a joined as a gen=2 range leader=a members=a
        beat b 1
            b UnknownMemberId
        ",
    );
}

#[test]
fn the_leader_dies_and_another_leads() {
    check(
        "
        join a session=6000
        join b session=30000
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync b 1
        wait 6000
            b RebalanceInProgress
        join b id session=30000
            b joined as b gen=2 range leader=b members=b
        sync b 2 b=all
            write group gen=2 members=1
            b synced b\"all\"
        wait 29999
        wait 1
            write group gen=3 members=0
        describe
            describe Empty [consumer] []
        ",
    );
}

#[test]
fn an_unanswered_first_join_ends() {
    check(
        "
        join a session=1800000 rebalance=1800000
        wait 6000
            a joined as a gen=1 range leader=a members=a
        sync a 1
            write group gen=1 members=1
            a synced b\"\"
        join b session=10000
        wait 299999
        wait 1
            b UnknownMemberId
        join a id session=1800000
            a joined as a gen=2 range leader=a members=a
        ",
    );
}

#[test]
fn whoever_does_not_sync_in_time_is_dropped() {
    check(
        "
        join a rebalance=20000 session=60000
        join b rebalance=20000 session=60000
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1 a=x
            write group gen=1 members=2
            a synced b\"x\"
        wait 19999
        beat a 1
            a alive
        wait 1
        beat a 1
            a RebalanceInProgress
        join a id
            a joined as a gen=2 range leader=a members=a
        ",
    );
}

#[test]
fn a_retried_join_or_sync_replaces_the_parked_one() {
    check(
        "
        join a known
            a needs id a
        join a id
        join a id
            a RebalanceInProgress
        wait 3000
            a joined as a gen=1 range leader=a members=a
        join a id
            a joined as a gen=1 range leader=a members=a
        join b
        join a id meta=u
            a joined as a gen=2 range leader=a members=a+b
            b joined as b gen=2 range leader=a
        sync b 2
        sync b 2
            b RebalanceInProgress
        sync a 2 b=x
            write group gen=2 members=2
            a synced b\"\"
            b synced b\"x\"
        ",
    );
}

#[test]
fn a_follower_that_changes_nothing_gets_the_present_generation() {
    check(
        "
        join a
        join b
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1
            write group gen=1 members=2
            a synced b\"\"
        sync b 1
            b synced b\"\"
        join b id
            b joined as b gen=1 range leader=a
        join b id meta=other
        beat a 1
            a RebalanceInProgress
        ",
    );
}

#[test]
fn an_id_given_out_holds_up_the_rebalance_until_it_expires() {
    check(
        "
        join a
        wait 3000
            a joined as a gen=1 range leader=a members=a
        sync a 1
            write group gen=1 members=1
            a synced b\"\"
        join b known session=8000
            b needs id b
        join a id
        wait 7999
        wait 1
            a joined as a gen=2 range leader=a members=a
        join b id
            b UnknownMemberId
        ",
    );
    // Used in time; or handed back.
    check(
        "
        join a known
            a needs id a
        list
            g  Empty
        leave a
            a ok
        list
        join b known
            b needs id b
        wait 10000
        list
        ",
    );
}

#[test]
fn protocols_are_agreed_on() {
    check(
        "
        join a proto=
            a InconsistentGroupProtocol
        join a type= proto=range
            a InconsistentGroupProtocol
        join a proto=range+sticky
        join b proto=sticky+other
        join c proto=other
            c InconsistentGroupProtocol
        join c type=connect proto=sticky
            c InconsistentGroupProtocol
        wait 6000
            a joined as a gen=1 sticky leader=a members=a+b
            b joined as b gen=1 sticky leader=a
        sync a 1 proto:range
            a InconsistentGroupProtocol
        sync a 1 type:connect
            a InconsistentGroupProtocol
        sync a 1 proto:sticky type:consumer
            write group gen=1 members=2
            a synced b\"\"
        ",
    );
}

#[test]
fn limits_of_timeouts_size_and_memory() {
    check(
        "
        join a session=5999
            a InvalidSessionTimeout
        join a session=1800001
            a InvalidSessionTimeout
        join a id
            a UnknownMemberId
        join a
        join b
        join c
        join d
        join e
            e GroupMaxSizeReached
        wait 6000
            a joined as a gen=1 range leader=a members=a+b+c+d
            b joined as b gen=1 range leader=a
            c joined as c gen=1 range leader=a
            d joined as d gen=1 range leader=a
        join e
            e GroupMaxSizeReached
        leave d
            d ok
        join e
        room 10
        join f
            f GroupMaxSizeReached
        commit a 1 t-0=1
            a CoordinatorNotAvailable
        room 1000
        commit a 1 t-0=1
            write t-0=1
            a ok
        room 10
        commit a 1 t-0=2
            write t-0=2
            a ok
        ",
    );
    check(
        "
        room 100
        join a
            a CoordinatorNotAvailable
        commit - -1 t-0=1
            - CoordinatorNotAvailable
        list
        ",
    );
}

#[test]
fn an_assignment_too_large_for_the_log_starts_over() {
    let mut small = rules();
    small.batch_bytes_max = 2_000;
    let script = format!(
        "
        join a
        wait 3000
            a joined as a gen=1 range leader=a members=a
        sync a 1 a={}
            a AssignmentTooLarge
        beat a 1
            a RebalanceInProgress
        join a id
            a joined as a gen=2 range leader=a members=a
        ",
        "x".repeat(2_000)
    );
    check_with(small, &script);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    check(
        "
        join a as=one
        join b as=two
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1 a=p0 b=p1
            write group gen=1 members=2
            a synced b\"p0\"
        sync b 1
            b synced b\"p1\"
        join b as=two
            write group gen=1 members=2
            b joined as b2 gen=1 range leader=a
        beat b 1 as=two
            b FencedInstanceId
        beat b 1
            b UnknownMemberId
        sync b2 1
            b2 synced b\"p1\"
        join a as=one
            write group gen=1 members=2
            a joined as a2 gen=1 range leader=a
        join a as=one skip
            write group gen=1 members=2
            a joined as a3 gen=1 range leader=a3 members=a3+b2 skip
        sync a3 1
            a3 synced b\"p0\"
        restart
        beat a3 1 as=one
            a3 alive
        sync b2 1
            b2 synced b\"p1\"
        ",
    );
}

#[test]
fn a_static_member_that_joins_twice_fences_the_first() {
    check(
        "
        join a as=one
        join a as=one
            a FencedInstanceId
        wait 6000
            a joined as a gen=1 range leader=a members=a
        join b
        join a as=one
            a joined as a2 gen=2 range leader=a2 members=a2+b
            b joined as b gen=2 range leader=a2
        sync b 2
        join a as=one
            b RebalanceInProgress
        join b id
            a joined as a3 gen=3 range leader=a3 members=a3+b
            b joined as b gen=3 range leader=a3
        join x id as=one
            x FencedInstanceId
        join x id as=unknown
            x UnknownMemberId
        ",
    );
}

#[test]
fn static_members_may_be_away_during_a_rebalance_and_leave_by_instance() {
    check(
        "
        join a as=one session=100000
        join b session=100000
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1
            write group gen=1 members=2
            a synced b\"\"
        sync b 1
            b synced b\"\"
        join b id meta=u session=100000
        wait 59999
        wait 1
            b joined as b gen=2 range leader=b members=a+b
        leave - as=nobody
            - UnknownMemberId
        leave b as=one
            b FencedInstanceId
        leave - as=one
            - ok
        beat b 2
            b RebalanceInProgress
        ",
    );
}

#[test]
fn only_static_members_all_away_wait_for_their_sessions() {
    check(
        "
        join a as=one rebalance=10000 session=40000
        join b rebalance=10000 session=10000
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1
            write group gen=1 members=2
            a synced b\"\"
        sync b 1
            b synced b\"\"
        leave b
            b ok
        wait 39000
        describe
            describe PreparingRebalance [consumer] [] a=b\"\"
        wait 1000
            write group gen=2 members=0
        ",
    );
}

#[test]
fn offsets_are_committed_fetched_and_deleted() {
    check(
        "
        fetch t-0
            fetch t-0 none
        fetch
            fetch 
        commit a 1 t-0=5
            a IllegalGeneration
        commit - -1 t-0=5:note u-3=0
            write t-0=5
            write u-3=0
            - ok ok
        commit - -1 t-0=6:a-note-that-is-too-long t-1=9
            write t-1=9
            - OffsetMetadataTooLarge ok
        fetch t-0 t-1 t-2
            fetch t-0=5:note t-1=9: t-2 none
        list
            g  Empty
        describe
            describe Empty [] []
        restart
        fetch
            fetch t-0=5:note t-1=9: u-3=0:
        undo t-0 t-9
            write t-0 deleted
            undo ok ok
        gone t v
            write t-1 deleted
        delete
            write u-3 deleted
            delete deleted
        delete
            delete GroupIdNotFound
        undo t-0
            undo GroupIdNotFound
        describe
            describe GroupIdNotFound
        list
        ",
    );
}

#[test]
fn offsets_of_a_group_with_members_are_guarded() {
    check(
        "
        join a meta=t
        commit - -1 t-0=1
            - UnknownMemberId
        wait 6000
            a joined as a gen=1 range leader=a members=a
        sync a 1
            write group gen=1 members=1
            a synced b\"\"
        commit - -1 t-0=1
            - UnknownMemberId
        commit x 1 t-0=1
            x UnknownMemberId
        commit a 2 t-0=1
            a IllegalGeneration
        commit a -1 t-0=1
            a IllegalGeneration
        commit a 1 t-0=1 u-0=2
            write t-0=1
            write u-0=2
            a ok ok
        undo t-0 u-0
            write u-0 deleted
            undo GroupSubscribedToTopic ok
        delete
            delete NonEmptyGroup
        leave a
            write group gen=2 members=0
            a ok
        commit a 2 t-0=9
            a UnknownMemberId
        undo t-0
            write t-0 deleted
            undo ok
        delete
            write group deleted
            delete deleted
        restart
        list
        ",
    );
    check(
        "
        join w type=connect
        undo t-0
            undo NonEmptyGroup
        ",
    );
}

#[test]
fn committing_keeps_a_session_alive() {
    check(
        "
        join a session=6000
        wait 3000
            a joined as a gen=1 range leader=a members=a
        sync a 1
            write group gen=1 members=1
            a synced b\"\"
        wait 5000
        commit a 1 t-0=1
            write t-0=1
            a ok
        wait 5999
        beat a 1
            a alive
        wait 6000
            write group gen=2 members=0
        ",
    );
}

#[test]
fn offsets_expire_once_the_group_is_empty() {
    check(
        "
        commit - -1 solo-0=1
            write solo-0=1
            - ok
        join a meta=t session=1800000
        wait 6000
            a joined as a gen=1 range leader=a members=a
        sync a 1
            write group gen=1 members=1
            a synced b\"\"
        commit a 1 t-0=1
            write t-0=1
            a ok
        wait 593999
        expire
        wait 1
        expire
            write solo-0 deleted
        wait 600000
        expire
        leave a
            write group gen=2 members=0
            a ok
        restart
        wait 599999
        expire
        wait 1
        expire
            write t-0 deleted
            write group deleted
        list
        ",
    );
    check(
        "
        commit - -1 t-0=1
            write t-0=1
            - ok
        wait 599999
        commit - -1 t-1=1
            write t-1=1
            - ok
        wait 1
        expire
            write t-0 deleted
        ",
    );
}

#[test]
fn a_restart_keeps_members_and_their_generation() {
    check(
        "
        join a
        join b
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1 a=x b=y
            write group gen=1 members=2
            a synced b\"x\"
        restart
        describe
            describe Stable [consumer] [range] a=b\"x\" b=b\"y\"
        sync b 1
            b synced b\"y\"
        beat a 1
            a alive
        wait 9999
        beat a 1
            a alive
        wait 1
        beat a 1
            a RebalanceInProgress
        join a id
            a joined as a gen=2 range leader=a members=a
        restart
        beat a 2
            a IllegalGeneration
        beat a 1
            a alive
        ",
    );
}

#[test]
fn a_group_larger_than_allowed_after_a_restart_rebalances() {
    check(
        "
        join a
        join b
        wait 6000
            a joined as a gen=1 range leader=a members=a+b
            b joined as b gen=1 range leader=a
        sync a 1
            write group gen=1 members=2
            a synced b\"\"
        sync b 1
            b synced b\"\"
        limit 1
        restart
        beat b 1
            b RebalanceInProgress
        join b id
        join a id
            a GroupMaxSizeReached
        wait 10000
            b joined as b gen=2 range leader=b members=b
        ",
    );
}

#[test]
fn empty_and_oversized_names_are_refused() {
    let mut world = World::new(rules());
    let mut refused = |group: &str, verb: fn(Arc<str>) -> Verb| {
        let (_, (_, replies)) = world.request(verb(group.into()));
        match &replies[..] {
            [(_, Reply::Refused(error))] => *error,
            other => panic!("{other:?}"),
        }
    };
    let long = "x".repeat(40_000);
    let beat = |group| {
        Verb::Heartbeat(Heartbeat {
            group,
            member_id: "m".into(),
            instance_id: None,
            generation: 0,
        })
    };
    assert_eq!(refused("", beat), super::super::GroupError::InvalidGroupId);
    assert_eq!(
        refused(&long, beat),
        super::super::GroupError::InvalidGroupId
    );
}
