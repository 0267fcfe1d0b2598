//! From written keys to the checked configuration, and from layers to effective values.

use std::{collections::BTreeMap, path::Path};

use forebay_engine::{Durability, ShardId, TimestampType};

use super::{
    Config, ConfigError, Host, RawConfig,
    definitions::{broker_key, topic_key},
    settings::{BrokerConfigs, Source, check_topic_value},
};

const HOST: Host = Host {
    memory_bytes: 10 << 30,
};

fn config(overrides: &[&str]) -> Result<Config, Vec<ConfigError>> {
    let mut raw = RawConfig::default();
    for argument in overrides {
        raw.add_override(argument).expect(argument);
    }
    Config::check(raw, &HOST)
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, text)| (key.to_string(), text.to_string()))
        .collect()
}

#[test]
fn defaults_make_a_configuration() {
    let config = Config::of_defaults(&HOST);
    assert_eq!(config.node_id, 1);
    assert_eq!(config.data_dir, Path::new("./forebay-data"));
    assert_eq!(config.endpoints.listener.port, 9092);
    assert_eq!(config.endpoints.advertised.host, "127.0.0.1");
    assert_eq!(config.memory.total_bytes, 4 << 30);
    assert_eq!(config.memory.tail_bytes, 512 << 20);
    assert_eq!(config.http_port, Some(9644));
    assert_eq!(config.groups.offsets_retention_ms, 7 * 86_400_000);
    let engine = config.engine_config(ShardId(1), 4);
    assert_eq!(engine.tail_bytes_max, 128 << 20);
    assert_eq!(config.ignored().count(), 0);
}

#[test]
fn mistakes_are_named_with_their_origin() {
    let check = |overrides: &[&str], expected: &[&str]| {
        let errors = config(overrides).expect_err("should be refused");
        assert_eq!(errors.len(), expected.len(), "{errors:?}");
        for (error, part) in errors.iter().zip(expected) {
            assert!(error.to_string().contains(part), "{error}");
        }
    };
    check(
        &["log.retention.mss=5"],
        &["did you mean log.retention.ms?"],
    );
    check(
        &["num.partitions=0"],
        &["--override num.partitions: num.partitions=0: Value must be"],
    );
    check(
        &["num.partitions=x", "nonsense=1"],
        &["unknown key nonsense", "num.partitions=x"],
    );
    check(&["log.dirs=/a,/b"], &["one data directory"]);
    check(
        &["listeners=SSL://:1", "log.dirs=/a,/b"],
        &["only PLAINTEXT", "one data directory"],
    );
    check(
        &["forebay.tail.cache.bytes=99999999999999"],
        &["together ask for"],
    );
    check(&["listeners="], &["must not be empty"]);
    check(
        &["forebay.journal.file.bytes=1048577"],
        &["is not a multiple of 4096"],
    );
    check(
        &[
            "forebay.journal.file.bytes=1048576",
            "forebay.bypass.bytes=1040000",
        ],
        &["does not fit"],
    );
    check(
        &[
            "group.min.session.timeout.ms=9",
            "group.max.session.timeout.ms=8",
            "log.dirs=/a,/b",
        ],
        &["is more than", "one data directory"],
    );
    check(
        &["zookeeper.connect=z:2181"],
        &["unknown key zookeeper.connect"],
    );
}

#[test]
fn a_stock_kraft_file_starts_us() {
    let text = "process.roles=broker,controller\nnode.id=5\ncontroller.quorum.voters=5@localhost:9093\n\
        listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
        advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
        controller.listener.names=CONTROLLER\n\
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT\n\
        num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
        socket.receive.buffer.bytes=102400\nsocket.request.max.bytes=104857600\nlog.dirs=/tmp/logs\n\
        num.partitions=1\nnum.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
        transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
        log.retention.hours=168\nlog.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n";
    let mut raw = RawConfig::default();
    raw.add_file(Path::new("server.properties"), text)
        .expect("syntax");
    let config = Config::check(raw, &HOST).expect("a stock file");
    assert_eq!(config.node_id, 5);
    assert_eq!(config.endpoints.advertised.host, "localhost");
    assert_eq!(config.data_dir, Path::new("/tmp/logs"));
    let ignored: Vec<_> = config.ignored().map(|(name, _)| name).collect();
    assert!(ignored.contains(&"num.io.threads"), "{ignored:?}");
    assert!(!ignored.contains(&"num.partitions"), "{ignored:?}");
}

#[test]
fn the_older_name_of_the_node_counts_alone() {
    let node_id = |overrides: &[&str]| config(overrides).expect("valid").node_id;
    assert_eq!(node_id(&["broker.id=7"]), 7);
    assert_eq!(node_id(&["broker.id=7", "node.id=8"]), 8);
    assert_eq!(node_id(&["broker.id="]), 1);
}

#[test]
fn layers_of_a_topic_key_are_in_order() {
    let config = config(&["log.retention.hours=2", "log.retention.minutes=90"]).expect("valid");
    let dynamic = BrokerConfigs::from([
        (Some(1), map(&[("log.retention.ms", "30")])),
        (None, map(&[("log.retention.ms", "40")])),
        (Some(9), map(&[("log.retention.ms", "50")])),
    ]);
    let layers = config.topic_settings(
        &dynamic,
        &map(&[("retention.ms", "20")]),
        topic_key("retention.ms").expect("known"),
    );
    let shown: Vec<_> = layers
        .iter()
        .map(|layer| {
            (
                layer.name,
                layer.value.as_deref().unwrap_or("null"),
                layer.source,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("retention.ms", "20", Source::Topic),
            ("log.retention.ms", "30", Source::DynamicBroker),
            ("log.retention.ms", "40", Source::DynamicDefaultBroker),
            ("log.retention.minutes", "5400000", Source::StaticBroker),
            ("log.retention.hours", "7200000", Source::StaticBroker),
            ("log.retention.hours", "604800000", Source::Default),
        ]
    );
    assert_eq!(layers[5].written.as_deref(), Some("168"));
}

#[test]
fn a_stronger_source_beats_a_nearer_synonym() {
    let mut raw = RawConfig::default();
    raw.add_file(Path::new("f.toml"), "log.retention.ms = 5")
        .expect("syntax");
    raw.add_override("log.retention.hours=1").expect("syntax");
    let config = Config::check(raw, &HOST).expect("valid");
    let log = config.log_config(&BrokerConfigs::new(), &BTreeMap::new());
    assert_eq!(log.retention_ms, Some(3_600_000));
}

#[test]
fn broker_layers_end_in_the_default() {
    let config = config(&["message.max.bytes=2000"]).expect("valid");
    let dynamic = BrokerConfigs::from([(None, map(&[("message.max.bytes", "3000")]))]);
    let shown = |name: &str| -> Vec<_> {
        config
            .broker_settings(&dynamic, broker_key(name).expect(name))
            .into_iter()
            .map(|layer| (layer.value.unwrap_or("null".into()), layer.source))
            .collect()
    };
    assert_eq!(
        shown("message.max.bytes"),
        [
            ("3000".to_owned(), Source::DynamicDefaultBroker),
            ("2000".to_owned(), Source::StaticBroker),
            ("1048588".to_owned(), Source::Default),
        ]
    );
    assert_eq!(
        shown("log.retention.ms"),
        [("null".to_owned(), Source::Default)]
    );
}

#[test]
fn the_engine_is_told_what_a_topic_asks_for() {
    let config = config(&["log.segment.bytes=2000000", "forebay.durability=replicated"]);
    let config = config.expect("valid");
    let none = BrokerConfigs::new();
    let plain = config.log_config(&none, &BTreeMap::new());
    assert_eq!(plain.segment_bytes, 2_000_000);
    assert_eq!(plain.durability, Durability::Replicated);
    assert_eq!(plain.retention_ms, Some(604_800_000));
    assert_eq!(plain.retention_bytes, None);
    assert!(plain.delete && !plain.rules.keys_required);
    assert_eq!(plain.rules.timestamp_before_max_ms, None);
    assert_eq!(plain.rules.timestamp_after_max_ms, Some(3_600_000));
    assert_eq!(plain.rules.codec, None);

    let set = map(&[
        ("cleanup.policy", "compact"),
        ("durability", "persisted"),
        ("retention.ms", "-1"),
        ("retention.bytes", "77"),
        ("message.timestamp.type", "LogAppendTime"),
        ("max.message.bytes", "99"),
        // Not a value of today: counts as unset.
        ("segment.bytes", "12"),
    ]);
    let log = config.log_config(&none, &set);
    assert_eq!(log.durability, Durability::Persisted);
    assert_eq!((log.retention_ms, log.retention_bytes), (None, Some(77)));
    assert!(!log.delete && log.rules.keys_required);
    assert_eq!(log.rules.timestamp_type, TimestampType::LogAppendTime);
    assert_eq!(log.rules.message_bytes_max, 99);
    assert_eq!(log.segment_bytes, 2_000_000);
}

#[test]
fn topic_values_are_checked_for_clients() {
    assert_eq!(check_topic_value("retention.ms", "5").as_deref(), Ok("5"));
    let unknown = check_topic_value("retention.mss", "5").expect_err("unknown");
    assert!(
        unknown.starts_with("Unknown topic config name: retention.mss"),
        "{unknown}"
    );
    let invalid = check_topic_value("retention.ms", "soon").expect_err("invalid");
    assert!(
        invalid.starts_with("Invalid value soon for configuration retention.ms"),
        "{invalid}"
    );
}
