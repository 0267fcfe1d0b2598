//! Two shards with real engines on a simulated disk, asked through the handlers as a connection would.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf};

use forebay_engine::{
    Engine, LeaderEpoch, ShardId, TopicId,
    rt::{
        Rt, durable,
        sim::{self, Disk, Faults},
    },
};
use futures_util::future::{join, join_all};
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
    join_group_request::JoinGroupRequestProtocol,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    sync_group_request::SyncGroupRequestAssignment,
};
use kafka_protocol::protocol::StrBytes;

use super::*;
use crate::{
    api::{Client, groups, offsets},
    config::Host,
    meta::{PartitionState, Topic},
    shard::mesh::{Between, seeds},
    wire::ErrorCode,
};

const SHARDS: u16 = 2;

/// A broker's shards, in one simulator.
#[derive(Clone)]
struct Broker {
    rt: Rt,
    shards: Vec<Rc<Shard>>,
}

fn config() -> Config {
    let mut config = Config::of_defaults(&Host {
        memory_bytes: 1 << 30,
    });
    config.data_dir = PathBuf::from("/data");
    config.groups.initial_rebalance_delay_ms = 0;
    config.storage.journal_file_bytes = 1 << 20;
    config
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic(name: &str, id: u8, partitions: u16) -> Arc<Topic> {
    let node = config().node_id;
    let partition = |lane| PartitionState {
        lane,
        leader: Some(node),
        leader_epoch: LeaderEpoch(0),
        version: 0,
        replicas: vec![node],
        isr: vec![node],
        elr: Vec::new(),
    };
    Arc::new(Topic {
        id: TopicId([id; 16]),
        name: name.to_owned(),
        internal: name == OFFSETS_TOPIC,
        partitions: (0..partitions).map(partition).collect(),
        configs: BTreeMap::new(),
    })
}

fn image(end: i64, topics: &[Arc<Topic>]) -> Arc<Image> {
    let by_name = topics.iter().map(|it| (it.name.clone(), it.clone()));
    Arc::new(Image {
        end: Some(Offset::new(end)),
        topics: by_name.collect(),
        topics_by_id: topics.iter().map(|it| (it.id, it.clone())).collect(),
        ..Image::default()
    })
}

impl Broker {
    async fn start(rt: Rt) -> Broker {
        Broker::start_with(rt, config()).await
    }

    async fn start_with(rt: Rt, config: Config) -> Broker {
        // As the broker makes its data directory, durably, before anything else.
        rt.create_dir_all(&config.data_dir).await.unwrap();
        rt.sync_dir("/".as_ref()).await.unwrap();
        let started = seeds(SHARDS, Between::Simulated)
            .into_iter()
            .enumerate()
            .map(async |(index, seeds)| {
                let id = ShardId(index as u16);
                let engine_config = config.engine_config(id, SHARDS);
                let engine = Engine::open(rt.clone(), engine_config).await.unwrap();
                Shard::start(rt.clone(), id, seeds, engine, Rc::new(config.clone())).await
            });
        let shards = join_all(started).await;
        let broker = Broker {
            rt: rt.clone(),
            shards,
        };
        let topics = [topic(OFFSETS_TOPIC, 1, 4), topic("t", 2, 3)];
        broker.publish(image(1, &topics)).await;
        for shard in &broker.shards {
            shard.engine.sync_recovered().await.unwrap();
        }
        for shard in &broker.shards {
            shard.engine.start_journal().await.unwrap();
            Coordinators::start(shard);
        }
        broker
    }

    async fn publish(&self, image: Arc<Image>) {
        for id in self.shards[0].shards() {
            self.shards[0].publish(id, image.clone()).await.unwrap();
        }
    }

    /// Some shard: every other request comes in at the other one.
    fn shard(&self) -> &Rc<Shard> {
        &self.shards[(self.rt.random_u64() % u64::from(SHARDS)) as usize]
    }

    async fn commit(&self, group: &str, offset: i64) -> ErrorCode {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text("t")))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let response = offsets::offset_commit(self.shard(), request, 9).await;
        ErrorCode::from_code(response.topics[0].partitions[0].error_code).unwrap()
    }

    fn loaded(&self) -> Vec<Rc<Coordinator>> {
        let of_shard = |shard: &Rc<Shard>| {
            let coordinators = shard.coordinators.coordinators.borrow();
            coordinators.values().cloned().collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    /// One that was dropped and loaded again is another one.
    fn has_still(&self, coordinators: &[Rc<Coordinator>]) -> bool {
        let now = self.loaded();
        let same = |(one, other)| Rc::ptr_eq(one, other);
        now.len() == coordinators.len() && now.iter().zip(coordinators).all(same)
    }

    /// All offsets of the group; waits until the coordinator has loaded.
    async fn fetch(&self, group: &str) -> BTreeMap<String, i64> {
        let group = GroupId(text(group));
        loop {
            let request = OffsetFetchRequest::default()
                .with_group_id(group.clone())
                .with_topics(None);
            let response = offsets::offset_fetch(self.shard(), request, 7).await;
            if response.error_code == ErrorCode::CoordinatorLoadInProgress.code() {
                self.rt.sleep(Duration::from_millis(5)).await;
                continue;
            }
            assert_eq!(response.error_code, 0);
            let partitions = response.topics.iter().flat_map(|topic| {
                let name = topic.name.as_str();
                topic.partitions.iter().map(move |partition| {
                    let key = format!("{name}-{}", partition.partition_index);
                    (key, partition.committed_offset)
                })
            });
            return partitions.collect();
        }
    }

    /// Joins as the only member and takes all; gives the member's id.
    async fn join(&self, group: &str) -> StrBytes {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(10_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let client = Client {
            id: "client".to_owned(),
            host: [127, 0, 0, 1].into(),
        };
        let joined = groups::join_group(self.shard(), request, 3, client).await;
        assert_eq!((joined.error_code, joined.generation_id), (0, 1));
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment("all".into());
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id(1)
            .with_member_id(joined.member_id.clone())
            .with_assignments(vec![assignment]);
        let synced = groups::sync_group(self.shard(), request, 3).await;
        assert_eq!((synced.error_code, &*synced.assignment), (0, &b"all"[..]));
        joined.member_id
    }

    async fn beat(&self, group: &str, member: &StrBytes) -> ErrorCode {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id(1)
            .with_member_id(member.clone());
        let response = groups::heartbeat(self.shard(), request, 3).await;
        ErrorCode::from_code(response.error_code).unwrap()
    }

    async fn state(&self, group: &str) -> String {
        let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
        let response = groups::describe_groups(self.shard(), request, 5).await;
        response.groups[0].group_state.to_string()
    }
}

#[test]
fn groups_survive_a_crash() {
    for seed in 0..5 {
        let (member, disk) = sim::run(seed, Disk::default(), |rt| async move {
            let broker = Broker::start(rt).await;
            let member = broker.join("members").await;
            assert_eq!(broker.commit("simple", 5).await, ErrorCode::None);
            assert_eq!(broker.commit("simple", 6).await, ErrorCode::None);
            member
        });
        sim::run(seed, disk.crash(seed), |rt| async move {
            let broker = Broker::start(rt).await;
            assert_eq!(broker.fetch("simple").await["t-0"], 6);
            assert!(broker.fetch("members").await.is_empty());
            assert_eq!(broker.beat("members", &member).await, ErrorCode::None);
            assert_eq!(broker.state("members").await, "Stable");
            assert_eq!(broker.state("unknown").await, "Dead");
            let listed = ListGroupsRequest::default();
            let listed = groups::list_groups(broker.shard(), listed, 4).await;
            let names: Vec<_> = listed
                .groups
                .iter()
                .map(|it| it.group_id.to_string())
                .collect();
            assert_eq!(names, ["members", "simple"]);
        });
    }
}

/// Power is lost at any moment while many groups commit: whatever was acked is there, and nothing that was never sent.
#[test]
fn acked_offsets_survive_power_loss_at_any_moment() {
    const GROUPS: usize = 8;
    for seed in 0..20 {
        let acked = Rc::new(RefCell::new(vec![0i64; GROUPS]));
        let sent = Rc::new(RefCell::new(vec![0i64; GROUPS]));
        let (seen_acked, seen_sent) = (acked.clone(), sent.clone());
        let (_, disk) = sim::run(seed, Disk::default(), |rt| async move {
            let broker = Broker::start(rt.clone()).await;
            for group in 0..GROUPS {
                let (broker, acked, sent) = (broker.clone(), acked.clone(), sent.clone());
                let committing = async move {
                    for offset in 1.. {
                        sent.borrow_mut()[group] = offset;
                        let error = broker.commit(&format!("g{group}"), offset).await;
                        assert_eq!(error, ErrorCode::None);
                        acked.borrow_mut()[group] = offset;
                    }
                };
                rt.spawn(Class::Foreground, committing).detach();
            }
            let micros = 1_000 + rt.random_u64() % 40_000;
            rt.sleep(Duration::from_micros(micros)).await;
        });
        let (acked, sent) = (seen_acked.take(), seen_sent.take());
        assert!(
            acked.iter().sum::<i64>() > 0,
            "seed {seed}: nothing was acked"
        );
        sim::run(seed, disk.crash(seed), |rt| async move {
            let broker = Broker::start(rt).await;
            for group in 0..GROUPS {
                let found = broker.fetch(&format!("g{group}")).await;
                let found = found.get("t-0").copied().unwrap_or(0);
                let possible = acked[group]..=sent[group];
                assert!(
                    possible.contains(&found),
                    "seed {seed}: {found}, expected {possible:?}"
                );
            }
        });
    }
}

#[test]
fn sessions_end_and_deleted_topics_take_their_offsets_with_them() {
    sim::run(7, Disk::default(), |rt| async move {
        let broker = Broker::start(rt.clone()).await;
        let member = broker.join("g").await;
        rt.sleep(Duration::from_millis(9_900)).await;
        assert_eq!(broker.beat("g", &member).await, ErrorCode::None);
        rt.sleep(Duration::from_millis(9_900)).await;
        assert_eq!(broker.state("g").await, "Stable");
        rt.sleep(Duration::from_millis(200)).await;
        assert_eq!(broker.state("g").await, "Empty");

        assert_eq!(broker.commit("h", 3).await, ErrorCode::None);
        // The topic is made anew under its old name.
        let topics = [topic(OFFSETS_TOPIC, 1, 4), topic("t", 3, 3)];
        broker.publish(image(2, &topics)).await;
        rt.sleep(Duration::from_millis(10)).await;
        assert!(broker.fetch("h").await.is_empty());
        assert_eq!(broker.commit("h", 4).await, ErrorCode::None);
        assert_eq!(broker.fetch("h").await["t-0"], 4);

        // Seven days without members.
        rt.sleep(Duration::from_secs(7 * 86_400 + 700)).await;
        assert!(broker.fetch("h").await.is_empty());
        assert_eq!(broker.state("h").await, "Dead");
        assert_eq!(broker.state("g").await, "Dead");
    });
}

#[test]
fn a_failing_disk_refuses_and_does_not_hang() {
    sim::run(3, Disk::default(), |rt| async move {
        let broker = Broker::start(rt.clone()).await;
        assert_eq!(broker.commit("g", 1).await, ErrorCode::None);
        let Rt::Sim(sim) = &rt else {
            unreachable!("started in the simulator");
        };
        sim.set_faults(Faults {
            write_error: 1.0,
            ..Faults::default()
        });
        let (first, second) = join(broker.commit("g", 2), broker.commit("g", 3)).await;
        for error in [first, second, broker.commit("g", 4).await] {
            let expected = [
                ErrorCode::CoordinatorNotAvailable,
                ErrorCode::NotCoordinator,
            ];
            assert!(expected.contains(&error), "{error}");
        }
    });
}

/// A disk that fails while groups are loaded costs them no restart.
#[test]
fn groups_that_could_not_be_read_are_read_again() {
    const GROUPS: usize = 16;
    for seed in 0..4 {
        let (_, disk) = sim::run(seed, Disk::default(), |rt| async move {
            let broker = Broker::start(rt).await;
            for group in 0..GROUPS {
                assert_eq!(
                    broker.commit(&format!("g{group}"), 5).await,
                    ErrorCode::None
                );
            }
            // What is restored from the journal would be in memory.
            for shard in &broker.shards {
                shard.engine.close().await.unwrap();
            }
        });
        sim::run(seed, disk.crash(seed), |rt| async move {
            let broker = Broker::start(rt.clone()).await;
            let Rt::Sim(sim) = &rt else {
                unreachable!("started in the simulator");
            };
            sim.set_faults(Faults {
                read_error: 1.0,
                ..Faults::default()
            });
            rt.sleep(Duration::from_secs(2)).await;
            let mut refused = 0;
            for group in 0..GROUPS {
                let error = broker.commit(&format!("g{group}"), 6).await;
                refused += usize::from(error == ErrorCode::CoordinatorNotAvailable);
            }
            assert!(
                refused > 0,
                "seed {seed}: the test must come to a failed load"
            );
            sim.set_faults(Faults::default());
            rt.sleep(LOAD_PAUSE).await;
            for group in 0..GROUPS {
                let found = broker.fetch(&format!("g{group}")).await["t-0"];
                assert!([5, 6].contains(&found), "seed {seed}: {found}");
            }
        });
    }
}

/// Somebody else fills the disk: commits and joins are refused in time, members and what was committed stay, and all goes on by itself.
#[test]
fn a_disk_that_is_nearly_full_refuses_commits_and_drops_nothing() {
    const MIB: u64 = 1 << 20;
    for seed in 0..4 {
        sim::run(seed, Disk::empty(64 * MIB), |rt| async move {
            let mut small = config();
            small.storage.disk_reserve_bytes = Some(8 * MIB);
            small.storage.journal_files = 2;
            let data_dir = small.data_dir.clone();
            let broker = Broker::start_with(rt.clone(), small).await;
            let member = broker.join("members").await;
            let leaver = broker.join("leavers").await;
            assert_eq!(broker.commit("g", 1).await, ErrorCode::None);
            // The journal is written once in advance.
            rt.sleep(Duration::from_secs(1)).await;
            let theirs = data_dir.join("not ours");
            let available = rt.disk_space(&data_dir).await.unwrap().available_bytes;
            let left = 2 * MIB - 100_000;
            let content = vec![1; (available - left) as usize];
            durable::replace_file(&rt, &theirs, &content).await.unwrap();
            let loaded = broker.loaded();
            // While somebody asks the disk is looked at often.
            while broker.commit("g", 1).await == ErrorCode::None {
                rt.sleep(Duration::from_millis(10)).await;
            }
            for offset in 2..200 {
                let before = rt.now();
                let error = broker.commit("g", offset).await;
                assert_eq!(error, ErrorCode::CoordinatorNotAvailable);
                assert!(rt.now().since(before) < Duration::from_millis(100));
                rt.sleep(Duration::from_millis(20)).await;
                assert_eq!(broker.beat("members", &member).await, ErrorCode::None);
            }
            assert_eq!(broker.fetch("g").await["t-0"], 1);
            // The end of a session is written all the same.
            rt.sleep(Duration::from_secs(7)).await;
            assert_eq!(broker.beat("members", &member).await, ErrorCode::None);
            assert_eq!(broker.state("leavers").await, "Empty");
            let gone = broker.beat("leavers", &leaver).await;
            assert_eq!(gone, ErrorCode::UnknownMemberId);
            assert!(broker.has_still(&loaded), "no coordinator was dropped");
            rt.remove_file(&theirs).await.unwrap();
            rt.sleep(Duration::from_secs(1)).await;
            assert_eq!(broker.commit("g", 7).await, ErrorCode::None);
            assert_eq!(broker.fetch("g").await["t-0"], 7);
            assert!(broker.has_still(&loaded));
        });
    }
}

/// With little memory before the disk, appends wait in line for room: slower, in order, and none lost.
#[test]
fn commits_wait_in_line_when_the_disk_is_behind() {
    const GROUPS: usize = 40;
    sim::run(11, Disk::default(), |rt| async move {
        let mut small = config();
        small.memory.tail_bytes = 2 * 4096;
        let broker = Broker::start_with(rt.clone(), small).await;
        let names: Vec<String> = (0..GROUPS).map(|group| format!("g{group}")).collect();
        let commits = join_all(names.iter().map(async |group| {
            for offset in 1..=10 {
                assert_eq!(broker.commit(group, offset).await, ErrorCode::None);
            }
        }));
        let longest_line = async {
            let mut longest = 0;
            for _ in 0..2_000 {
                for shard in &broker.shards {
                    for coordinator in shard.coordinators.coordinators.borrow().values() {
                        longest = longest.max(coordinator.batches_in_line());
                    }
                }
                rt.sleep(Duration::from_micros(5)).await;
            }
            longest
        };
        let (_, longest) = join(commits, longest_line).await;
        assert!(longest > 0, "the test must come to a line");
        for group in &names {
            assert_eq!(broker.fetch(group).await["t-0"], 10);
        }
    });
}

/// Whoever is parked when the broker stops is told so at once.
#[test]
fn stopping_releases_parked_members() {
    sim::run(5, Disk::default(), |rt| async move {
        let broker = Broker::start(rt.clone()).await;
        let _leader = broker.join("g").await;
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(10_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![
                JoinGroupRequestProtocol::default().with_name(text("range")),
            ]);
        let client = Client {
            id: "second".to_owned(),
            host: [127, 0, 0, 1].into(),
        };
        let parked = groups::join_group(broker.shard(), request, 3, client);
        let stop = async {
            rt.sleep(Duration::from_millis(1)).await;
            for shard in &broker.shards {
                shard.coordinators.close();
            }
            rt.now()
        };
        let (joined, stopped) = join(parked, stop).await;
        assert_eq!(joined.error_code, ErrorCode::NotCoordinator.code());
        assert!(rt.now().0 - stopped.0 < NANOS_PER_MS);
        assert_eq!(broker.commit("g", 1).await, ErrorCode::NotCoordinator);
    });
}
