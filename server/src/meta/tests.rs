//! Whole shards in the simulator: what the controller answered is there after a clean stop, a kill and a power failure.

use std::{path::Path, rc::Rc};

use forebay_engine::{
    Engine, LeaderEpoch, PartitionIndex, ShardId,
    rt::{
        Rt,
        sim::{self, Disk, Faults},
    },
};
use futures_util::future::{join, join_all};
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DescribeClusterRequest,
        DescribeConfigsRequest, DescribeConfigsResponse, DescribeLogDirsRequest,
        DescribeProducersRequest, DescribeTopicPartitionsRequest, IncrementalAlterConfigsRequest,
        ListPartitionReassignmentsRequest, MetadataRequest, MetadataResponse, TopicName,
        create_topics_request::CreatableTopic,
        describe_configs_request::DescribeConfigsResource,
        describe_producers_request::TopicRequest,
        describe_topic_partitions_request::Cursor,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        metadata_request::MetadataRequestTopic,
    },
    protocol::{Decodable, Encodable, StrBytes},
};

use super::*;
use crate::{
    api::{cluster, configs, metadata, topics},
    config::{Host, RawConfig},
    meta::controller::Registration,
    shard::{
        mesh::{self, Between},
        msg::Step,
    },
    wire::{ErrorCode, api::APIS},
};

const SHARDS: u16 = 2;

/// One broker of two shards, as boot starts it, but for sockets.
struct Broker {
    shards: Vec<Rc<Shard>>,
    controller: Rc<Controller>,
}

impl Broker {
    /// `incarnation` differs from start to start.
    async fn start(rt: Rt, incarnation: u8, overrides: &[&str]) -> Broker {
        let mut raw = RawConfig::default();
        let fixed = ["log.dirs=/data", "forebay.journal.file.bytes=1048576"];
        for argument in fixed.iter().chain(overrides) {
            raw.add_override(argument).expect(argument);
        }
        let host = Host {
            memory_bytes: 1 << 30,
        };
        let config = Config::check(raw, &host).expect("valid");
        // The directory itself is boot's.
        rt.create_dir_all(&config.data_dir).await.expect("created");
        rt.sync_dir(Path::new("/")).await.expect("synced");
        let starting = mesh::seeds(SHARDS, Between::Simulated)
            .into_iter()
            .enumerate()
            .map(|(id, seeds)| {
                let (rt, config) = (rt.clone(), Rc::new(config.clone()));
                async move {
                    let id = ShardId(id as u16);
                    let engine = Engine::open(rt.clone(), config.engine_config(id, SHARDS));
                    let engine = engine.await.expect("opens");
                    Shard::start(rt, id, seeds, engine, config).await
                }
            });
        let shards = join_all(starting).await;
        let controller = Broker::load(&shards[0], incarnation).await;
        Broker { shards, controller }
    }

    async fn load(shard: &Rc<Shard>, incarnation: u8) -> Rc<Controller> {
        let log = shard
            .engine
            .open_log(METADATA_LOG, log_name(), log_config());
        let partition = shard.adopt(log.await.expect("opens"), LeaderEpoch(0));
        let (rt, engine, config) = (&shard.rt, &shard.engine, &shard.config);
        let controller =
            Controller::load(rt.clone(), engine.clone(), config.clone(), partition).await;
        let controller = controller.expect("replays");
        shard.install_controller(controller.clone());
        publish::publish(shard, controller.image()).await;
        for step in [Step::SyncRecovered, Step::StartJournal] {
            for done in join_all(shard.shards().map(|to| shard.step(to, step))).await {
                done.expect("not stopping").expect("no fault");
            }
        }
        controller.start(shard, "cluster").await.expect("starts");
        let registration = Registration {
            id: config.node_id,
            incarnation: [incarnation; 16],
            storage_id: [7; 16],
            clean_epoch: None,
            host: "127.0.0.1".to_owned(),
            port: 9092,
            rack: None,
        };
        let reply = shard.control(Request::RegisterBroker(registration)).await;
        assert!(matches!(reply, Some(Reply::RegisterBroker(_))), "{reply:?}");
        controller
    }

    fn shard(&self, at: usize) -> &Rc<Shard> {
        &self.shards[at]
    }

    async fn create(&self, at: usize, name: &str, partitions: i32) -> CreateTopicsResponse {
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(-1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        topics::create_topics(self.shard(at), request, 7).await
    }

    async fn metadata(&self, at: usize, name: &str, may_create: bool) -> MetadataResponse {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(may_create);
        metadata::metadata(self.shard(at), request, 12).await
    }

    async fn close(self) {
        self.controller.stop();
        let shard = self.shard(0);
        for done in join_all(shard.shards().map(|to| shard.step(to, Step::CloseEngine))).await {
            done.expect("not stopping").expect("no fault");
        }
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// A reply can be encoded in every version that we list, and reads back as it can be said in that version.
fn check_encodes<R: Encodable + Decodable>(api: &str, reply: &R) {
    let api = APIS.iter().find(|known| known.name == api).expect(api);
    for version in api.min..=api.max {
        let mut bytes = bytes::BytesMut::new();
        let encoded = reply.encode(&mut bytes, version);
        assert!(encoded.is_ok(), "{} {version}: {encoded:?}", api.name);
        let decoded = R::decode(&mut bytes, version);
        assert!(
            decoded.is_ok() && bytes.is_empty(),
            "{} {version}",
            api.name
        );
    }
}

#[test]
fn a_topic_can_be_used_on_every_shard_once_it_was_created() {
    sim::run(1, Disk::default(), |rt| async move {
        let broker = Broker::start(rt, 1, &[]).await;
        let reply = broker.create(1, "first", 4).await;
        check_encodes("CreateTopics", &reply);
        let created = &reply.topics[0];
        assert_eq!((created.error_code, created.num_partitions), (0, 4));
        for shard in &broker.shards {
            let image = shard.image();
            let topic = &image.topics["first"];
            assert_eq!(topic.id.0, created.topic_id.into_bytes());
            let here = (0..4).filter(|index| {
                let partition = shard.partition(topic.id, PartitionIndex(*index));
                partition.is_some_and(|partition| partition.leader_epoch() == LeaderEpoch(0))
            });
            assert_eq!(
                here.count(),
                2,
                "two of four partitions on each of two shards"
            );
        }
        let again = broker.create(0, "first", 4).await;
        assert_eq!(
            again.topics[0].error_code,
            ErrorCode::TopicAlreadyExists.code()
        );
    });
}

#[test]
fn missing_topics_are_created_when_somebody_asks() {
    sim::run(2, Disk::default(), |rt| async move {
        let broker = Broker::start(rt, 1, &["num.partitions=3"]).await;
        let error = |reply: &MetadataResponse| reply.topics[0].error_code;
        let absent = broker.metadata(0, "auto", false).await;
        assert_eq!(error(&absent), ErrorCode::UnknownTopicOrPartition.code());
        let bad = broker.metadata(0, "not/allowed", true).await;
        assert_eq!(error(&bad), ErrorCode::InvalidTopicException.code());
        // Two at once: one creates, the other finds it.
        let both = join(
            broker.metadata(0, "auto", true),
            broker.metadata(1, "auto", true),
        )
        .await;
        for reply in [&both.0, &both.1] {
            assert_eq!((error(reply), reply.topics[0].partitions.len()), (0, 3));
            check_encodes("Metadata", reply);
        }
        assert_eq!(both.0.topics[0].topic_id, both.1.topics[0].topic_id);
        assert_eq!(both.0.controller_id.0, 1);
        assert_eq!(both.0.brokers[0].port, 9092);
        check_encodes("Metadata", &absent);

        let offsets = broker
            .shard(1)
            .ensure_internal_topic("__consumer_offsets")
            .await;
        let offsets = offsets.expect("created");
        assert!(offsets.internal && offsets.partitions.len() == 50);
        assert_eq!(offsets.configs["cleanup.policy"], "compact");

        // No topics asked for: none; null: all.
        let none = MetadataRequest::default().with_topics(Some(Vec::new()));
        let shard = broker.shard(0);
        assert!(
            metadata::metadata(shard, none.clone(), 1)
                .await
                .topics
                .is_empty()
        );
        assert_eq!(metadata::metadata(shard, none, 0).await.topics.len(), 2);
        let all = MetadataRequest::default().with_topics(None);
        assert_eq!(metadata::metadata(shard, all, 12).await.topics.len(), 2);
    });
}

#[test]
fn configuration_is_shown_with_its_layers_and_takes_effect() {
    sim::run(3, Disk::default(), |rt| async move {
        let broker = Broker::start(rt, 1, &["log.retention.hours=2"]).await;
        broker.create(0, "t", 1).await;
        let alter = |name: &'static str, value: Option<&'static str>, operation| {
            let config = AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(operation)
                .with_value(value.map(text));
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t"))
                .with_configs(vec![config]);
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
        };
        let shard = broker.shard(1);
        let set = alter("segment.bytes", Some("2097152"), 0);
        let reply = configs::incremental_alter_configs(shard, set, 1).await;
        assert_eq!(reply.responses[0].error_code, 0);
        check_encodes("IncrementalAlterConfigs", &reply);
        let wrong = alter("segment.bytes", Some("1"), 0);
        let reply = configs::incremental_alter_configs(shard, wrong, 1).await;
        assert_eq!(
            reply.responses[0].error_code,
            ErrorCode::InvalidConfig.code()
        );
        let unknown = configs::incremental_alter_configs(shard, alter("a", None, 9), 1).await;
        assert_eq!(
            unknown.responses[0].error_code,
            ErrorCode::InvalidRequest.code()
        );

        // The log follows.
        let topic = shard.image().topics["t"].clone();
        let open = broker
            .shards
            .iter()
            .find_map(|shard| shard.partition(topic.id, PartitionIndex(0)));
        assert_eq!(open.expect("somewhere").log.config().segment_bytes, 2 << 20);

        let reply = describe(shard, 2, "t").await;
        check_encodes("DescribeConfigs", &reply);
        let shown = &reply.results[0].configs;
        assert_eq!(shown.len(), crate::config::TOPIC_KEYS.len());
        let entry = |name: &str| {
            shown
                .iter()
                .find(|entry| *entry.name == *name)
                .expect("known")
        };
        let bytes = entry("segment.bytes");
        assert_eq!(
            (bytes.value.as_deref(), bytes.config_source),
            (Some("2097152"), 1)
        );
        assert_eq!(bytes.synonyms.len(), 2);
        let retention = entry("retention.ms");
        assert_eq!(
            (retention.value.as_deref(), retention.config_source),
            (Some("7200000"), 4)
        );
        assert_eq!(retention.synonyms[0].value.as_deref(), Some("2"));

        let reply = describe(shard, 4, "1").await;
        assert_eq!(
            reply.results[0].configs.len(),
            crate::config::BROKER_KEYS.len()
        );
        let error = |reply: &DescribeConfigsResponse| reply.results[0].error_code;
        assert_eq!(error(&describe(shard, 4, "").await), 0);
        assert_eq!(
            error(&describe(shard, 4, "9").await),
            ErrorCode::InvalidRequest.code()
        );
        let absent = describe(shard, 2, "nope").await;
        assert_eq!(error(&absent), ErrorCode::UnknownTopicOrPartition.code());
    });
}

async fn describe(shard: &Rc<Shard>, kind: i8, name: &'static str) -> DescribeConfigsResponse {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    configs::describe_configs(shard, request, 4).await
}

#[test]
fn the_cluster_describes_itself() {
    sim::run(4, Disk::default(), |rt| async move {
        let broker = Broker::start(rt, 1, &[]).await;
        let shard = broker.shard(1);
        broker.create(0, "b", 3).await;
        broker.create(0, "a", 2).await;

        let request = DescribeClusterRequest::default().with_endpoint_type(1);
        let reply = cluster::describe_cluster(shard, request.clone(), 1).await;
        check_encodes("DescribeCluster", &reply);
        assert_eq!((&*reply.cluster_id, reply.brokers.len()), ("cluster", 1));
        let controllers = request.with_endpoint_type(2);
        let reply = cluster::describe_cluster(shard, controllers, 1).await;
        assert_eq!(reply.error_code, ErrorCode::MismatchedEndpointType.code());

        let reply = cluster::describe_log_dirs(
            shard,
            DescribeLogDirsRequest::default().with_topics(None),
            4,
        );
        let reply = reply.await;
        check_encodes("DescribeLogDirs", &reply);
        let sizes: Vec<_> = reply.results[0]
            .topics
            .iter()
            .map(|t| t.partitions.len())
            .collect();
        assert_eq!(sizes, [2, 3]);

        let request = ListPartitionReassignmentsRequest::default();
        let reply = cluster::list_partition_reassignments(shard, request, 0).await;
        check_encodes("ListPartitionReassignments", &reply);

        let asked = TopicRequest::default()
            .with_name(topic_name("a"))
            .with_partition_indexes(vec![0, 1, 2]);
        let request = DescribeProducersRequest::default().with_topics(vec![asked]);
        let reply = cluster::describe_producers(shard, request, 0).await;
        check_encodes("DescribeProducers", &reply);
        let partitions = reply.topics[0].partitions.iter();
        let codes: Vec<_> = partitions.map(|partition| partition.error_code).collect();
        assert_eq!(codes, [0, 0, ErrorCode::UnknownTopicOrPartition.code()]);
    });
}

#[test]
fn partitions_are_described_page_by_page() {
    sim::run(5, Disk::default(), |rt| async move {
        let broker = Broker::start(rt, 1, &[]).await;
        for (name, partitions) in [("c", 2), ("a", 3), ("b", 1)] {
            broker.create(0, name, partitions).await;
        }
        let mut pages = Vec::new();
        let mut request =
            DescribeTopicPartitionsRequest::default().with_response_partition_limit(2);
        loop {
            let reply = topics::describe_topic_partitions(broker.shard(1), request.clone(), 0);
            let reply = reply.await;
            check_encodes("DescribeTopicPartitions", &reply);
            for topic in &reply.topics {
                let name = topic.name.clone().expect("named");
                let indexes = topic
                    .partitions
                    .iter()
                    .map(|partition| partition.partition_index);
                pages.push((name.to_string(), indexes.collect::<Vec<_>>()));
            }
            let Some(next) = reply.next_cursor else {
                break;
            };
            let cursor = Cursor::default()
                .with_topic_name(next.topic_name)
                .with_partition_index(next.partition_index);
            request.cursor = Some(cursor);
        }
        let expected = [
            ("a", vec![0, 1]),
            ("a", vec![2]),
            ("b", vec![0]),
            ("c", vec![0, 1]),
        ];
        assert_eq!(
            pages,
            expected.map(|(name, indexes)| (name.to_owned(), indexes))
        );
    });
}

/// How a run of the broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    Killed,
    PowerFailure,
}

#[test]
fn what_was_answered_is_there_after_every_restart() {
    for seed in 0..12 {
        let mut disk = Disk::default();
        let mut expected: Vec<String> = Vec::new();
        let (mut epochs, mut blocks) = (Vec::new(), Vec::new());
        for start in 0..4u8 {
            let end = [End::Clean, End::Killed, End::PowerFailure]
                [(seed as usize + usize::from(start)) % 3];
            let context = format!("seed {seed} start {start}");
            let before = expected.clone();
            let (told, left) = sim::run(seed * 10 + u64::from(start), disk, move |rt| {
                run_once(rt, start, end, before, context)
            });
            expected = told.topics;
            epochs.push(told.epoch);
            blocks.push(told.producer_ids);
            disk = match end {
                End::PowerFailure => left.crash(seed),
                End::Clean | End::Killed => left,
            };
        }
        assert!(epochs.is_sorted_by(|a, b| a < b), "seed {seed}: {epochs:?}");
        assert_eq!(blocks, [0, 1000, 2000, 3000], "seed {seed}");
    }
}

/// What a client was told in one run.
struct Told {
    topics: Vec<String>,
    epoch: i64,
    producer_ids: i64,
}

async fn run_once(rt: Rt, start: u8, end: End, before: Vec<String>, context: String) -> Told {
    let broker = Broker::start(rt, start + 1, &[]).await;
    let image = broker.shard(1).image();
    let found: Vec<_> = image.topics.keys().cloned().collect();
    assert_eq!(found, before, "{context}");
    for topic in image.topics.values() {
        let partition = &topic.partitions[0];
        assert_eq!((partition.leader, &partition.isr[..]), (Some(1), &[1][..]));
        assert!(
            partition.leader_epoch > LeaderEpoch(0),
            "epochs grow with a start"
        );
    }
    let mut topics = before;
    for (shard, name) in [(1, format!("t{start}a")), (0, format!("t{start}b"))] {
        let reply = broker.create(shard, &name, 2).await;
        assert_eq!(reply.topics[0].error_code, 0, "{context}");
        topics.push(name);
    }
    if start == 2 {
        let gone = vec![topic_name("t0a")];
        let delete = DeleteTopicsRequest::default().with_topic_names(gone);
        let reply = topics::delete_topics(broker.shard(1), delete, 5).await;
        assert_eq!(reply.responses[0].error_code, 0, "{context}");
        check_encodes("DeleteTopics", &reply);
        topics.retain(|name| name != "t0a");
    }
    topics.sort();
    // The last answer before the end: no partition is opened for it, so that only the metadata log can have kept it.
    let block = Request::AllocateProducerIds { broker: 1 };
    let Some(Reply::AllocateProducerIds(producer_ids)) = broker.shard(1).control(block).await
    else {
        panic!("{context}: no producer ids");
    };
    let epoch = broker.shard(0).image().brokers[&1].epoch;
    if end == End::Clean {
        broker.close().await;
    }
    Told {
        topics,
        epoch,
        producer_ids,
    }
}

/// What was asked for while the log was offline may have been done or not; from its mending on everything goes on, without a restart.
#[test]
fn the_controller_comes_back_with_its_log() {
    for seed in 0..10 {
        let (known, disk) = sim::run(seed, Disk::default(), move |rt| async move {
            let Rt::Sim(sim) = rt.clone() else {
                unreachable!("started in the simulator");
            };
            let broker = Broker::start(rt.clone(), 1, &[]).await;
            let error = async |name| broker.create(1, name, 2).await.topics[0].error_code;
            assert_eq!(error("before").await, 0);
            for (round, names) in [["first", "second"], ["third", "fourth"]]
                .iter()
                .enumerate()
            {
                sim.set_faults(Faults {
                    write_error: 1.0,
                    ..Faults::default()
                });
                assert_ne!(error(names[0]).await, 0, "seed {seed} round {round}");
                assert_eq!(error(names[0]).await, ErrorCode::KafkaStorageError.code());
                sim.set_faults(Faults::default());
                // The log is mended within two seconds, at first.
                rt.sleep(Duration::from_secs(5)).await;
                let again = error(names[0]).await;
                let expected = [0, ErrorCode::TopicAlreadyExists.code()];
                assert!(
                    expected.contains(&again),
                    "seed {seed} round {round}: {again}"
                );
                assert_eq!(error(names[1]).await, 0, "seed {seed} round {round}");
            }
            let images = broker.shards.iter().map(|shard| shard.image());
            let known: Vec<_> = images
                .map(|image| image.topics.keys().cloned().collect::<Vec<_>>())
                .collect();
            assert_eq!(known[0], ["before", "first", "fourth", "second", "third"]);
            assert_eq!(known[0], known[1]);
            known.into_iter().next().expect("two shards")
        });
        sim::run(seed, disk.crash(seed), move |rt| async move {
            let broker = Broker::start(rt, 2, &[]).await;
            let image = broker.shard(0).image();
            assert!(image.topics.keys().eq(&known), "seed {seed}");
        });
    }
}

/// A broker that is told to stop while its controller waits for the log stops.
#[test]
fn a_controller_without_its_log_stops_when_it_is_told_to() {
    sim::run(1, Disk::default(), |rt| async move {
        let Rt::Sim(sim) = rt.clone() else {
            unreachable!("started in the simulator");
        };
        let broker = Broker::start(rt.clone(), 1, &[]).await;
        sim.set_faults(Faults {
            write_error: 1.0,
            ..Faults::default()
        });
        assert_ne!(broker.create(1, "t", 2).await.topics[0].error_code, 0);
        broker.controller.stop();
        rt.sleep(Duration::from_secs(1)).await;
        sim.set_faults(Faults::default());
        rt.sleep(Duration::from_secs(10)).await;
        assert_eq!(broker.controller.stage.get(), Stage::Stopping);
        let reply = broker.create(1, "t", 2).await.topics[0].error_code;
        assert_ne!(reply, 0);
    });
}

#[test]
fn a_directory_of_another_kind_of_cluster_is_refused() {
    let (_, mut disk) = sim::run(6, Disk::default(), |rt| async move {
        Broker::start(rt, 1, &["forebay.lanes=7"])
            .await
            .close()
            .await;
    });
    for (cluster_id, lanes, expected) in [
        ("cluster", "7", "started"),
        ("other", "7", "belongs to cluster cluster"),
        ("cluster", "8", "forebay.lanes=7"),
    ] {
        (_, disk) = sim::run(7, disk, move |rt| async move {
            let mut raw = RawConfig::default();
            raw.add_override("log.dirs=/data").expect("syntax");
            raw.add_override(&format!("forebay.lanes={lanes}"))
                .expect("syntax");
            let host = Host {
                memory_bytes: 1 << 30,
            };
            let config = Rc::new(Config::check(raw, &host).expect("valid"));
            let engine = Engine::open(rt.clone(), config.engine_config(ShardId(0), 1)).await;
            let engine = engine.expect("opens");
            let seeds = mesh::seeds(1, Between::Simulated).remove(0);
            let shard = Shard::start(
                rt.clone(),
                ShardId(0),
                seeds,
                engine.clone(),
                config.clone(),
            );
            let shard = shard.await;
            let log = engine.open_log(METADATA_LOG, log_name(), log_config());
            let partition = shard.adopt(log.await.expect("opens"), LeaderEpoch(0));
            let controller = Controller::load(rt, engine, config, partition).await;
            let controller = controller.expect("replays");
            for step in [Step::SyncRecovered, Step::StartJournal] {
                let done = shard.step(ShardId(0), step).await;
                done.expect("not stopping").expect("no fault");
            }
            let started = controller.start(&shard, cluster_id).await;
            let told = started.map_or_else(|error| error.to_string(), |()| "started".to_owned());
            assert!(told.contains(expected), "{cluster_id} {lanes}: {told}");
        });
    }
}
