//! Requests as a script of lines, each with what it should come to; then random ones, held against what must always be true.

use std::collections::BTreeMap;

use forebay_engine::{LeaderEpoch, Offset};

use super::*;
use crate::{
    config::{Host, RawConfig},
    meta::records::{self, tests::Random},
};

/// A controller whose log is a vector.
struct World {
    config: Config,
    image: Image,
    log: Vec<Vec<u8>>,
    random: Random,
}

impl World {
    fn new(seed: u64, brokers: i32, overrides: &[&str]) -> World {
        let mut raw = RawConfig::default();
        for argument in overrides {
            raw.add_override(argument).expect(argument);
        }
        let host = Host {
            memory_bytes: 1 << 30,
        };
        let config = Config::check(raw, &host).expect("valid");
        let mut world = World {
            image: Image::default(),
            log: Vec::new(),
            random: Random(seed),
            config,
        };
        let first = first_records("cluster", &world.config);
        world.commit(&first);
        for id in 1..=brokers {
            let reply = world.request(Request::RegisterBroker(registration(id, 1, None)));
            assert!(matches!(reply, Reply::RegisterBroker(_)), "{reply:?}");
        }
        world
    }

    fn commit(&mut self, group: &[Record]) {
        let offset = Offset::new(self.log.len() as i64);
        let applied = self.image.apply(offset, group);
        assert_eq!(
            applied,
            Ok(()),
            "the image refuses what the controller wrote"
        );
        self.log.push(records::encode(group));
    }

    fn request(&mut self, request: Request) -> Reply {
        let random = &mut self.random;
        let mut next = || random.next_u64();
        let decision = decide(&self.image, &self.config, &mut next, &request);
        if !decision.records.is_empty() {
            self.commit(&decision.records);
        }
        decision.reply
    }

    /// Runs one item; gives its refusal.
    fn one(&mut self, request: Request) -> Result<(), Refusal> {
        match self.request(request) {
            Reply::CreateTopics(mut results) => results.remove(0).map(|_| ()),
            Reply::DeleteTopics(mut results) => results.remove(0).map(|_| ()),
            Reply::CreatePartitions(mut results) | Reply::AlterConfigs(mut results) => {
                results.remove(0)
            }
            Reply::Refused(refusal) => Err(refusal),
            Reply::RegisterBroker(_) | Reply::AllocateProducerIds(_) => Ok(()),
        }
    }

    #[track_caller]
    fn check(&mut self, request: Request, expected: Result<(), Refused>) {
        let got = self.one(request);
        assert_eq!(
            got.as_ref().map_err(|refusal| refusal.why).copied(),
            expected,
            "{got:?}"
        );
    }

    fn topic(&self, name: &str) -> &crate::meta::Topic {
        &self.image.topics[name]
    }

    /// The image that a restart makes of the log.
    fn replay(&self) -> Image {
        let mut image = Image::default();
        for (offset, group) in self.log.iter().enumerate() {
            let group = records::decode(group).expect("written by us");
            let applied = image.apply(Offset::new(offset as i64), &group);
            applied.expect("applied before");
        }
        image
    }
}

fn registration(id: i32, start: u8, clean_epoch: Option<i64>) -> Registration {
    Registration {
        id,
        incarnation: [start; 16],
        storage_id: [id as u8; 16],
        clean_epoch,
        host: format!("broker{id}"),
        port: 9092,
        rack: None,
    }
}

fn topic(name: &str) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        ..NewTopic::default()
    }
}

fn create(topic: NewTopic) -> Request {
    Request::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    }
}

fn sized(name: &str, partitions: i32, factor: i16) -> Request {
    create(NewTopic {
        partitions: Some(partitions),
        replication_factor: Some(factor),
        ..topic(name)
    })
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let assignments = assignments.iter();
    NewTopic {
        assignments: assignments
            .map(|(index, brokers)| (*index, brokers.to_vec()))
            .collect(),
        ..topic(name)
    }
}

fn configured(name: &str, configs: &[(&str, Option<&str>)]) -> Request {
    let configs = configs.iter();
    create(NewTopic {
        configs: configs
            .map(|(key, value)| (key.to_string(), value.map(str::to_owned)))
            .collect(),
        ..topic(name)
    })
}

fn delete(topic: TopicRef) -> Request {
    Request::DeleteTopics {
        topics: vec![topic],
    }
}

fn grow(name: &str, count: i32, assignments: Option<&[&[i32]]>) -> Request {
    Request::CreatePartitions {
        topics: vec![NewPartitions {
            topic: name.to_owned(),
            count,
            assignments: assignments.map(|of| of.iter().map(|one| one.to_vec()).collect()),
        }],
        validate_only: false,
    }
}

fn alter(resource: ResourceName, replace: bool, operations: &[(&str, AlterOperation)]) -> Request {
    let operations = operations.iter();
    Request::AlterConfigs {
        resources: vec![AlterConfigs {
            resource,
            replace,
            operations: operations
                .map(|(key, op)| (key.to_string(), op.clone()))
                .collect(),
        }],
        validate_only: false,
    }
}

fn set(value: &str) -> AlterOperation {
    AlterOperation::Set(Some(value.to_owned()))
}

#[test]
fn topics_are_created_as_kafka_creates_them() {
    use Refused::*;
    let mut world = World::new(1, 1, &["num.partitions=4", "forebay.partitions=100"]);
    world.check(create(topic("plain")), Ok(()));
    assert_eq!(world.topic("plain").partitions.len(), 4);
    world.check(create(topic("plain")), Err(TopicExists));
    world.check(create(topic("a b")), Err(InvalidTopicName));
    world.check(create(topic("..")), Err(InvalidTopicName));
    world.check(create(topic("__cluster_metadata")), Err(InvalidTopicName));
    world.check(create(topic("a.b_c")), Ok(()));
    world.check(create(topic("a_b.c")), Err(InvalidTopicName));
    world.check(sized("x", 0, 1), Err(InvalidPartitions));
    world.check(sized("x", -5, 1), Err(InvalidPartitions));
    world.check(sized("x", 101, 1), Err(Policy));
    world.check(sized("x", i32::MAX, 1), Err(Policy));
    world.check(sized("x", 1, 0), Err(InvalidReplicationFactor));
    world.check(sized("x", 1, 3), Err(InvalidReplicationFactor));
    world.check(
        configured("x", &[("retention.ms", Some("soon"))]),
        Err(InvalidConfig),
    );
    world.check(
        configured("x", &[("retention.msx", Some("1"))]),
        Err(InvalidConfig),
    );
    world.check(
        configured("x", &[("retention.ms", None)]),
        Err(InvalidConfig),
    );
    world.check(configured("x", &[("retention.ms", Some("7"))]), Ok(()));
    assert_eq!(world.topic("x").configs["retention.ms"], "7");
    world.check(create(topic("__consumer_offsets")), Ok(()));
    assert!(world.topic("__consumer_offsets").internal);
    assert!(!world.topic("x").internal);
}

#[test]
fn replicas_are_chosen_or_checked() {
    use Refused::*;
    let mut world = World::new(2, 3, &[]);
    world.check(sized("spread", 6, 2), Ok(()));
    let mut led = BTreeMap::new();
    for partition in &world.topic("spread").partitions {
        assert_eq!(partition.leader, Some(partition.replicas[0]));
        assert_eq!(partition.isr, partition.replicas);
        *led.entry(partition.replicas[0]).or_insert(0) += 1;
    }
    assert_eq!(led, BTreeMap::from([(1, 2), (2, 2), (3, 2)]));

    world.check(
        create(assigned("mine", &[(1, &[2, 1]), (0, &[3, 1])])),
        Ok(()),
    );
    assert_eq!(world.topic("mine").partitions[0].replicas, [3, 1]);
    let wrong = |assignments: &[(i32, &[i32])]| create(assigned("y", assignments));
    world.check(wrong(&[(1, &[1])]), Err(InvalidReplicaAssignment));
    world.check(
        wrong(&[(0, &[1]), (0, &[2])]),
        Err(InvalidReplicaAssignment),
    );
    world.check(
        wrong(&[(0, &[1]), (1, &[1, 2])]),
        Err(InvalidReplicaAssignment),
    );
    world.check(wrong(&[(0, &[])]), Err(InvalidReplicaAssignment));
    world.check(wrong(&[(0, &[1, 1])]), Err(InvalidReplicaAssignment));
    world.check(wrong(&[(0, &[9])]), Err(InvalidReplicaAssignment));
    let both = NewTopic {
        partitions: Some(1),
        ..assigned("y", &[(0, &[1])])
    };
    world.check(create(both), Err(InvalidRequest));
}

#[test]
fn partitions_go_round_the_lanes() {
    let mut world = World::new(3, 1, &["forebay.lanes=5"]);
    for (name, partitions) in [("a", 3), ("b", 4), ("c", 8)] {
        world.check(sized(name, partitions, 1), Ok(()));
    }
    world.check(grow("a", 5, None), Ok(()));
    let lanes = |name: &str| -> Vec<u16> {
        let partitions = world.topic(name).partitions.iter();
        partitions.map(|partition| partition.lane).collect()
    };
    assert_eq!(lanes("a"), [0, 1, 2, 0, 1]);
    assert_eq!(lanes("b"), [3, 4, 0, 1]);
    assert_eq!(lanes("c"), [2, 3, 4, 0, 1, 2, 3, 4]);
}

#[test]
fn a_batch_is_decided_item_by_item() {
    let mut world = World::new(4, 1, &["forebay.partitions=3"]);
    let names = ["a", "bad name", "dup", "dup", "x.y", "x_y", "b", "c"];
    let reply = world.request(Request::CreateTopics {
        topics: names.map(topic).to_vec(),
        validate_only: false,
    });
    let Reply::CreateTopics(results) = reply else {
        panic!("{reply:?}");
    };
    let why: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().err().map(|r| r.why))
        .collect();
    use Refused::*;
    assert_eq!(
        why,
        [
            None,
            Some(InvalidTopicName),
            Some(InvalidRequest),
            Some(InvalidRequest),
            None,
            Some(InvalidTopicName),
            None,
            Some(Policy),
        ]
    );
    assert_eq!(world.image.topics.len(), 3);
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut world = World::new(5, 1, &[]);
    let before = world.image.clone();
    let request = Request::CreateTopics {
        topics: vec![topic("dry"), topic("..")],
        validate_only: true,
    };
    let Reply::CreateTopics(results) = world.request(request) else {
        panic!("another reply");
    };
    assert!(results[0].is_ok() && results[1].is_err());
    assert_eq!(world.image, before);
}

#[test]
fn topics_are_deleted_by_name_or_id() {
    use Refused::*;
    let mut world = World::new(6, 1, &[]);
    world.check(create(topic("a")), Ok(()));
    world.check(create(topic("b")), Ok(()));
    let id = world.topic("a").id;
    world.check(delete(TopicRef::Name("nope".into())), Err(UnknownTopic));
    world.check(delete(TopicRef::Id(TopicId([9; 16]))), Err(UnknownTopicId));
    let twice = Request::DeleteTopics {
        topics: vec![TopicRef::Id(id), TopicRef::Name("a".into())],
    };
    world.check(twice, Err(InvalidRequest));
    world.check(delete(TopicRef::Id(id)), Ok(()));
    world.check(delete(TopicRef::Id(id)), Err(UnknownTopicId));
    world.check(delete(TopicRef::Name("b".into())), Ok(()));
    assert!(world.image.topics.is_empty() && world.image.topics_by_id.is_empty());
    world.check(create(topic("a")), Ok(()));
    assert_ne!(world.topic("a").id, id, "a new topic is another one");

    let mut world = World::new(6, 1, &["delete.topic.enable=false"]);
    world.check(create(topic("a")), Ok(()));
    world.check(
        delete(TopicRef::Name("a".into())),
        Err(TopicDeletionDisabled),
    );
}

#[test]
fn topics_only_grow() {
    use Refused::*;
    let mut world = World::new(7, 2, &[]);
    world.check(sized("t", 2, 2), Ok(()));
    world.check(grow("nope", 3, None), Err(UnknownTopic));
    world.check(grow("t", 2, None), Err(InvalidPartitions));
    world.check(grow("t", 1, None), Err(InvalidPartitions));
    world.check(grow("t", -1, None), Err(InvalidPartitions));
    world.check(grow("t", 1_000_000, None), Err(Policy));
    world.check(
        grow("t", 4, Some(&[&[1, 2]])),
        Err(InvalidReplicaAssignment),
    );
    world.check(grow("t", 3, Some(&[&[1]])), Err(InvalidReplicaAssignment));
    world.check(grow("t", 3, Some(&[&[2, 1]])), Ok(()));
    assert_eq!(world.topic("t").partitions[2].replicas, [2, 1]);
    world.check(grow("t", 7, None), Ok(()));
    assert_eq!(world.topic("t").partitions.len(), 7);
}

#[test]
fn configuration_changes_by_operation() {
    use AlterOperation::*;
    use Refused::*;
    let mut world = World::new(8, 1, &[]);
    world.check(create(topic("t")), Ok(()));
    let of = || ResourceName::Topic("t".into());
    let value = |world: &World, key: &str| world.topic("t").configs.get(key).cloned();

    world.check(alter(of(), false, &[("retention.ms", set("5"))]), Ok(()));
    world.check(alter(of(), false, &[("segment.ms", set("9"))]), Ok(()));
    assert_eq!(value(&world, "retention.ms").as_deref(), Some("5"));
    // Replacing unsets what is not named.
    world.check(alter(of(), true, &[("segment.ms", set("10"))]), Ok(()));
    assert_eq!(value(&world, "retention.ms"), None);
    assert_eq!(value(&world, "segment.ms").as_deref(), Some("10"));
    world.check(alter(of(), false, &[("segment.ms", Delete)]), Ok(()));
    assert_eq!(value(&world, "segment.ms"), None);
    // Appending starts from the default.
    let compact = || Append(Some("compact".to_owned()));
    world.check(alter(of(), false, &[("cleanup.policy", compact())]), Ok(()));
    assert_eq!(
        value(&world, "cleanup.policy").as_deref(),
        Some("delete,compact")
    );
    let gone = Subtract(Some("delete".to_owned()));
    world.check(alter(of(), false, &[("cleanup.policy", gone)]), Ok(()));
    assert_eq!(value(&world, "cleanup.policy").as_deref(), Some("compact"));

    world.check(
        alter(of(), false, &[("retention.ms", compact())]),
        Err(InvalidConfig),
    );
    world.check(
        alter(of(), false, &[("retention.ms", set("x"))]),
        Err(InvalidConfig),
    );
    world.check(
        alter(of(), false, &[("retention.ms", Set(None))]),
        Err(InvalidRequest),
    );
    world.check(
        alter(of(), false, &[("unknown.key", set("1"))]),
        Err(InvalidConfig),
    );
    let twice = [("retention.ms", set("1")), ("retention.ms", Delete)];
    world.check(alter(of(), false, &twice), Err(InvalidRequest));
    let nowhere = ResourceName::Topic("nope".into());
    world.check(alter(nowhere, false, &[]), Err(UnknownTopic));
}

#[test]
fn dynamic_broker_configuration_takes_effect() {
    use Refused::*;
    let mut world = World::new(9, 1, &[]);
    let all = || ResourceName::Broker(None);
    let own = || ResourceName::Broker(Some(1));
    world.check(
        alter(all(), false, &[("message.max.bytes", set("5000"))]),
        Ok(()),
    );
    world.check(
        alter(own(), false, &[("log.retention.ms", set("77"))]),
        Ok(()),
    );
    let log = world
        .config
        .log_config(&world.image.broker_configs, &BTreeMap::new());
    assert_eq!(
        (log.rules.message_bytes_max, log.retention_ms),
        (5000, Some(77))
    );

    world.check(
        alter(all(), false, &[("node.id", set("5"))]),
        Err(InvalidRequest),
    );
    world.check(
        alter(all(), false, &[("nonsense", set("5"))]),
        Err(InvalidRequest),
    );
    world.check(
        alter(all(), false, &[("message.max.bytes", set("-5"))]),
        Err(InvalidConfig),
    );
    let unknown = ResourceName::Broker(Some(9));
    world.check(alter(unknown, false, &[]), Err(UnknownBroker));
    world.check(alter(all(), true, &[]), Ok(()));
    assert_eq!(world.image.broker_configs.len(), 1);
}

#[test]
fn producer_ids_come_in_blocks_that_never_overlap() {
    let mut world = World::new(10, 1, &[]);
    let block = |world: &mut World, broker| {
        let reply = world.request(Request::AllocateProducerIds { broker });
        match reply {
            Reply::AllocateProducerIds(first) => Some(first),
            _ => None,
        }
    };
    assert_eq!(block(&mut world, 1), Some(0));
    assert_eq!(block(&mut world, 1), Some(1000));
    assert_eq!(block(&mut world, 7), None);
    world.image = world.replay();
    assert_eq!(block(&mut world, 1), Some(2000));
}

/// Two brokers lead a partition each of `t`; one of them starts again.
#[test]
fn every_start_of_a_broker_gives_its_partitions_new_epochs() {
    // What was before and how broker 1 starts; then leader, epoch, ISR and ELR of the partition [1, 2].
    let check = |durability: &str,
                 factor: i16,
                 clean: bool,
                 expected: (Option<i32>, i32, &[i32], &[i32])| {
        let mut world = World::new(11, 2, &[&format!("forebay.durability={durability}")]);
        let replicas: &[i32] = if factor == 1 { &[1] } else { &[1, 2] };
        world.check(create(assigned("t", &[(0, replicas)])), Ok(()));
        let epoch = world.image.brokers[&1].epoch;
        let again = registration(1, 2, clean.then_some(epoch));
        let Reply::RegisterBroker(new) = world.request(Request::RegisterBroker(again)) else {
            panic!("refused");
        };
        assert!(new > epoch, "a start has a greater epoch");
        let partition = &world.topic("t").partitions[0];
        let (leader, leader_epoch, isr, elr) = expected;
        assert_eq!(partition.leader, leader, "{durability} {factor} {clean}");
        assert_eq!(partition.leader_epoch, LeaderEpoch(leader_epoch));
        assert_eq!((&partition.isr[..], &partition.elr[..]), (isr, elr));
        assert_eq!(partition.version, 1);
    };
    // min.insync.replicas is 1, so that with another member the ELR stays empty.
    check("persisted", 2, false, (Some(2), 2, &[2], &[]));
    check("replicated", 2, true, (Some(2), 2, &[2], &[]));
    check("persisted", 1, false, (Some(1), 2, &[1], &[]));
    check("replicated", 1, true, (Some(1), 2, &[1], &[]));
    // Alone it leads even after losing its tail: no other replica could have more.
    check("replicated", 1, false, (Some(1), 2, &[1], &[]));
}

#[test]
fn a_replica_that_lost_its_tail_is_not_elected() {
    let check = |durability: &str, clean: bool, leader: Option<i32>| {
        let overrides = [
            format!("forebay.durability={durability}"),
            "min.insync.replicas=2".into(),
        ];
        let mut world = World::new(12, 2, &[&overrides[0], &overrides[1]]);
        world.check(create(assigned("t", &[(0, &[1, 2])])), Ok(()));
        // Both start again; the first to come has the other out of the ISR already.
        for id in [2, 1] {
            let epoch = world.image.brokers[&id].epoch;
            let again = registration(id, 2, clean.then_some(epoch));
            world.check(Request::RegisterBroker(again), Ok(()));
        }
        assert_eq!(
            world.topic("t").partitions[0].leader,
            leader,
            "{durability} {clean}"
        );
    };
    check("persisted", false, Some(1));
    check("replicated", true, Some(1));
    check("replicated", false, None);
}

#[test]
fn the_same_start_registers_once() {
    let mut world = World::new(13, 1, &[]);
    let entries = world.log.len();
    let first = world.image.brokers[&1].epoch;
    let reply = world.request(Request::RegisterBroker(registration(1, 1, None)));
    assert!(
        matches!(reply, Reply::RegisterBroker(epoch) if epoch == first),
        "{reply:?}"
    );
    assert_eq!(world.log.len(), entries);
}

fn random_request(random: &mut Random) -> Request {
    let names = ["a", "b", "a.b", "a_b", "..", "c", "__consumer_offsets"];
    let name = |random: &mut Random| names[random.below(7) as usize].to_owned();
    match random.below(10) {
        0..=2 => {
            let topics = (0..1 + random.below(3)).map(|_| NewTopic {
                name: name(random),
                partitions: [None, Some(1), Some(3), Some(0)][random.below(4) as usize],
                replication_factor: [None, Some(1), Some(2), Some(9)][random.below(4) as usize],
                assignments: Vec::new(),
                configs: Vec::new(),
            });
            Request::CreateTopics {
                topics: topics.collect(),
                validate_only: random.below(8) == 0,
            }
        }
        3 => create(assigned(
            &name(random),
            &[(0, &[1]), (1, &[random.below(5) as i32])],
        )),
        4 => delete(TopicRef::Name(name(random))),
        5 => grow(&name(random), random.below(6) as i32, None),
        6 | 7 => {
            let resource = match random.below(3) {
                0 => ResourceName::Broker(None),
                _ => ResourceName::Topic(name(random)),
            };
            let operations = [
                ("retention.ms", set("5")),
                (
                    "cleanup.policy",
                    AlterOperation::Append(Some("compact".into())),
                ),
                (
                    "min.insync.replicas",
                    set(["1", "2"][random.below(2) as usize]),
                ),
                ("log.retention.ms", AlterOperation::Delete),
            ];
            let chosen = &operations[random.below(4) as usize..][..1];
            alter(resource, random.below(3) == 0, chosen)
        }
        8 => {
            let clean = (random.below(2) == 0).then(|| random.below(20) as i64);
            let start = random.next_u64() as u8;
            Request::RegisterBroker(registration(1 + random.below(4) as i32, start, clean))
        }
        _ => Request::AllocateProducerIds {
            broker: random.below(3) as i32,
        },
    }
}

#[test]
fn whatever_is_asked_the_log_makes_the_same_image_again() {
    for seed in 0..60 {
        let mut world = World::new(seed, 2, &["forebay.partitions=40"]);
        let mut random = Random(seed ^ 0xf00d);
        for step in 0..80 {
            let before = world.image.clone();
            let request = random_request(&mut random);
            world.request(request.clone());
            check_invariants(
                &before,
                &world.image,
                &format!("seed {seed} step {step} {request:?}"),
            );
        }
        assert_eq!(world.replay(), world.image, "seed {seed}");
    }
}

/// What holds after any request, whatever it was.
fn check_invariants(before: &Image, after: &Image, context: &str) {
    assert!(after.partition_count() <= 40, "{context}");
    assert_eq!(after.topics.len(), after.topics_by_id.len(), "{context}");
    for (name, topic) in &after.topics {
        assert_eq!((name, &topic.name), (&topic.name, name), "{context}");
        assert!(
            std::sync::Arc::ptr_eq(topic, &after.topics_by_id[&topic.id]),
            "{context}"
        );
        let past = before.topics_by_id.get(&topic.id);
        for (index, partition) in topic.partitions.iter().enumerate() {
            assert!(partition.lane < after.lanes, "{context}");
            let Some(past) = past.and_then(|topic| topic.partitions.get(index)) else {
                continue;
            };
            assert_eq!(partition.lane, past.lane, "{context}");
            assert!(partition.leader_epoch >= past.leader_epoch, "{context}");
            if partition.leader != past.leader {
                assert!(partition.leader_epoch > past.leader_epoch, "{context}");
            }
            let changed = partition != past;
            assert_eq!(
                partition.version,
                past.version + i32::from(changed),
                "{context}"
            );
        }
    }
}
