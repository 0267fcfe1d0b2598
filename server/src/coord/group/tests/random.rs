//! Clients that join, sync, commit, leave, crash and come back at random, against a model of what they may see.
//!
//! Checked: one leader and one assignment per generation, a partition has at most one owner in it, committed offsets never go
//! missing (nor come back), generations do not go backwards in the log, every request is answered once, and in the end the
//! dead are gone. The world itself checks after every step that a replay of the records gives the same durable state.
//!
//! A failure names its seed; `FOREBAY_SEED=<seed>` runs that one alone.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    super::{
        CommitOffset, CommitOffsets, DeleteOffsets, FetchOffsets, GroupError, Heartbeat, Join,
        Joined, KnownMemberId, Leave, LeavingMember, OffsetSelection, Protocol, Reply,
        SkipAssignment, Sync, Token, TopicPartition, Verb,
    },
    harness::{Outcome, World, rules},
};
use crate::coord::records::Record;

const SEEDS: u64 = 60;
const STEPS: usize = 200;
const CLIENTS: usize = 5;
const GROUPS: [&str; 2] = ["even", "odd"];
const PARTITIONS: i32 = 6;

struct Rng(u64);

impl Rng {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Default)]
struct Client {
    group: Arc<str>,
    name: Arc<str>,
    instance_id: Option<Arc<str>>,
    member_id: Arc<str>,
    generation: i32,
    /// Set for the leader between its join and its sync.
    plan: Vec<(Arc<str>, Bytes)>,
    owned: Vec<i32>,
}

#[derive(Clone, Copy)]
enum Asked {
    Join,
    Sync,
    Other,
}

struct Model {
    world: World,
    rng: Rng,
    clients: Vec<Client>,
    asked: BTreeMap<Token, (usize, Asked)>,
    offsets: BTreeMap<(Arc<str>, i32), i64>,
    /// Of a group and generation since the last restart (a generation nobody recorded may come again).
    leaders: BTreeMap<(Arc<str>, i32), Arc<str>>,
    /// Who owns a partition in a generation of an incarnation of a group, by instance id or member id.
    owners: BTreeMap<(Arc<str>, u64, i32, i32), Arc<str>>,
    incarnations: BTreeMap<Arc<str>, u64>,
    synced: usize,
}

#[test]
fn random_clients_see_a_consistent_group() {
    let seeds = match std::env::var("FOREBAY_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| run(seed));
        assert!(run.is_ok(), "FOREBAY_SEED={seed} replays this failure");
    }
}

fn run(seed: u64) {
    let mut rules = rules();
    rules.offsets_retention_ms = i64::MAX;
    let clients = (0..CLIENTS)
        .map(|index| Client {
            group: GROUPS[index % GROUPS.len()].into(),
            name: format!("client{index}").into(),
            instance_id: (index < 2).then(|| format!("static{index}").into()),
            ..Client::default()
        })
        .collect();
    let mut model = Model {
        world: World::new(rules),
        rng: Rng(seed),
        clients,
        asked: BTreeMap::new(),
        offsets: BTreeMap::new(),
        leaders: BTreeMap::new(),
        owners: BTreeMap::new(),
        incarnations: BTreeMap::new(),
        synced: 0,
    };
    for _ in 0..STEPS {
        model.act();
        model.check_offsets();
    }
    model.finish();
}

impl Model {
    fn act(&mut self) {
        let who = self.rng.below(CLIENTS as u64) as usize;
        let client = self.clients[who].clone();
        let busy = self.asked.values().any(|(asker, _)| *asker == who);
        match self.rng.below(100) {
            // A client whose request is parked waits, but for a few that lose patience and ask again.
            0..35 if !busy || self.rng.chance(10) => self.join(who),
            35..60 if !busy => self.sync(who),
            60..70 => self.commit(who),
            70..75 => {
                let heartbeat = Verb::Heartbeat(Heartbeat {
                    group: client.group,
                    member_id: client.member_id,
                    instance_id: None,
                    generation: client.generation,
                });
                self.ask(who, Asked::Other, heartbeat);
            }
            75..78 => self.leave(who),
            // A crash: the client knows nothing any more.
            78..81 => self.clients[who].member_id = "".into(),
            81..83 => self.undo(who),
            83..84 => {
                let group = client.group;
                self.ask(who, Asked::Other, Verb::Delete { group });
            }
            84..86 => self.restart(),
            _ => {
                let ms = self.rng.below(5_000);
                let outcome = self.world.wait(ms);
                self.take(outcome);
            }
        }
    }

    fn join(&mut self, who: usize) {
        let client = self.clients[who].clone();
        let fresh = client.member_id.is_empty();
        let metadata = if self.rng.chance(80) { "same" } else { "new" };
        let join = Verb::Join(Join {
            group: client.group,
            member_id: client.member_id,
            instance_id: client.instance_id,
            client_id: client.name,
            client_host: "/".into(),
            session_timeout_ms: 6_000 + 4_000 * i32::try_from(self.rng.below(3)).unwrap(),
            rebalance_timeout_ms: 5_000,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol {
                name: "range".into(),
                metadata: Bytes::from(metadata),
            }],
            known_member_id: match fresh && self.rng.chance(50) {
                true => KnownMemberId::Required,
                false => KnownMemberId::NotRequired,
            },
            skip_assignment: match self.rng.chance(50) {
                true => SkipAssignment::Understood,
                false => SkipAssignment::NotUnderstood,
            },
        });
        self.ask(who, Asked::Join, join);
    }

    /// Now and then a sync of the generation before arrives late, plan and all.
    fn sync(&mut self, who: usize) {
        let late = i32::from(self.rng.chance(5));
        let client = &mut self.clients[who];
        let sync = Verb::Sync(Sync {
            group: client.group.clone(),
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
            generation: client.generation - late,
            protocol_type: None,
            protocol: None,
            assignments: std::mem::take(&mut client.plan),
        });
        self.ask(who, Asked::Sync, sync);
    }

    /// Commits what it owns; now and then as somebody it no longer is.
    fn commit(&mut self, who: usize) {
        let client = self.clients[who].clone();
        let offset = i64::try_from(self.rng.below(1_000)).unwrap();
        let partition = match client.owned.first() {
            Some(partition) => *partition,
            None => 0,
        };
        let (token, outcome) = self.world.request(Verb::CommitOffsets(CommitOffsets {
            group: client.group.clone(),
            member_id: client.member_id,
            instance_id: client.instance_id,
            generation: client.generation,
            offsets: vec![CommitOffset {
                topic: "t".into(),
                partition,
                offset,
                leader_epoch: 0,
                metadata: "".into(),
            }],
        }));
        let committed = Reply::OffsetsCommitted(vec![Ok(())]);
        if outcome.1.contains(&(token, committed)) {
            self.offsets.insert((client.group, partition), offset);
        }
        self.asked.insert(token, (who, Asked::Other));
        self.take(outcome);
    }

    fn leave(&mut self, who: usize) {
        let client = self.clients[who].clone();
        let leave = Verb::Leave(Leave {
            group: client.group,
            members: vec![LeavingMember {
                member_id: client.member_id,
                instance_id: client.instance_id,
            }],
        });
        self.clients[who].member_id = "".into();
        self.clients[who].owned.clear();
        self.ask(who, Asked::Other, leave);
    }

    fn undo(&mut self, who: usize) {
        let group = self.clients[who].group.clone();
        let partition = i32::try_from(self.rng.below(PARTITIONS as u64)).unwrap();
        let (token, outcome) = self.world.request(Verb::DeleteOffsets(DeleteOffsets {
            group: group.clone(),
            partitions: vec![TopicPartition {
                topic: "t".into(),
                partition,
            }],
        }));
        if outcome
            .1
            .contains(&(token, Reply::OffsetsDeleted(vec![Ok(())])))
        {
            self.offsets.remove(&(group, partition));
        }
        self.asked.insert(token, (who, Asked::Other));
        self.take(outcome);
    }

    /// Parked requests are lost with the broker.
    fn restart(&mut self) {
        self.asked.clear();
        self.leaders.clear();
        let outcome = self.world.restart();
        self.take(outcome);
    }

    fn ask(&mut self, who: usize, asked: Asked, verb: Verb) {
        let (token, outcome) = self.world.request(verb);
        self.asked.insert(token, (who, asked));
        self.take(outcome);
    }

    fn take(&mut self, (records, replies): Outcome) {
        for (token, reply) in replies {
            let (who, asked) = self.asked.remove(&token).expect("asked");
            match (asked, reply) {
                (_, Reply::MemberIdRequired { member_id }) => {
                    self.clients[who].member_id = member_id;
                }
                (_, Reply::Joined(joined)) => self.on_joined(who, joined),
                (_, Reply::Synced(synced)) => self.on_synced(who, &synced.assignment),
                (Asked::Join | Asked::Sync, Reply::Refused(error)) => {
                    let gone = [GroupError::UnknownMemberId, GroupError::FencedInstanceId];
                    if gone.contains(&error) {
                        self.clients[who].member_id = "".into();
                    }
                }
                (_, Reply::Deleted) => {
                    let group = self.clients[who].group.clone();
                    self.offsets.retain(|(of, _), _| *of != group);
                }
                _ => {}
            }
        }
        for record in records {
            if let Record::Group { group, value: None } = record {
                *self.incarnations.entry(group.clone()).or_default() += 1;
                self.leaders.retain(|(of, _), _| *of != group);
            }
        }
    }

    fn on_joined(&mut self, who: usize, joined: Joined) {
        let client = &mut self.clients[who];
        client.member_id = joined.member_id.clone();
        client.generation = joined.generation;
        client.plan.clear();
        let leads = !joined.members.is_empty();
        if leads {
            assert_eq!(joined.leader, joined.member_id);
            if !joined.skip_assignment {
                // Every partition to one member, round robin.
                let mut plan: BTreeMap<Arc<str>, Vec<u8>> = BTreeMap::new();
                for partition in 0..PARTITIONS as usize {
                    let member = &joined.members[partition % joined.members.len()];
                    let id = member.member_id.clone();
                    plan.entry(id).or_default().push(partition as u8);
                }
                client.plan = plan
                    .into_iter()
                    .map(|(id, partitions)| (id, partitions.into()))
                    .collect();
            }
        }
        // A static leader that came back has a new id, and an old client is told the former one.
        if client.instance_id.is_none() && leads {
            let key = (client.group.clone(), joined.generation);
            let leader = self.leaders.entry(key).or_insert(joined.leader.clone());
            assert_eq!(*leader, joined.leader, "a generation has one leader");
        }
    }

    fn on_synced(&mut self, who: usize, assignment: &Bytes) {
        self.synced += 1;
        let client = &mut self.clients[who];
        client.owned = assignment.iter().map(|byte| i32::from(*byte)).collect();
        let identity = match &client.instance_id {
            Some(instance_id) => instance_id.clone(),
            None => client.member_id.clone(),
        };
        let incarnation = self.incarnations.get(&client.group).copied().unwrap_or(0);
        for partition in &client.owned {
            let group = client.group.clone();
            let key = (group, incarnation, client.generation, *partition);
            match self.owners.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert(identity.clone());
                }
                Entry::Occupied(entry) => {
                    assert_eq!(*entry.get(), identity, "a partition has one owner");
                }
            }
        }
    }

    fn check_offsets(&mut self) {
        let mut found = BTreeMap::new();
        for group in GROUPS {
            let selection = OffsetSelection::All;
            let group: Arc<str> = group.into();
            let fetch = FetchOffsets {
                group: group.clone(),
                selection,
            };
            let (_, (_, replies)) = self.world.request(Verb::FetchOffsets(fetch));
            let [(_, Reply::OffsetsFetched(fetched))] = &replies[..] else {
                panic!("{replies:?}");
            };
            for offset in fetched {
                let committed = offset.committed.as_ref().expect("only committed ones");
                found.insert((group.clone(), offset.partition), committed.offset);
            }
        }
        assert_eq!(found, self.offsets);
    }

    /// Silence: whoever is parked is answered, whoever is a member goes.
    fn finish(&mut self) {
        let outcome = self.world.wait(24 * 3_600_000);
        self.take(outcome);
        assert_eq!(self.world.unanswered(), 0);
        for group in self.world.machine.groups.values() {
            assert!(group.members.is_empty(), "{} has members left", group.id);
        }
        let mut generations: BTreeMap<Arc<str>, i32> = BTreeMap::new();
        for record in &self.world.log {
            if let Record::Group { group, value } = record {
                let last = generations.entry(group.clone()).or_default();
                match value {
                    Some(value) => {
                        assert!(*last <= value.generation, "generations only grow");
                        *last = value.generation;
                    }
                    None => *last = 0,
                }
            }
        }
        assert!(self.synced > 0, "the run must have come to an assignment");
    }
}
