//! A topic of two thousand partitions: created at once, used here and there, and there again after a stop and after a kill. Neither memory
//! nor open files grow with the partitions that nobody uses.

use std::fs;

use forebay_tests::{
    broker::{Broker, Options, Scratch},
    raw_batch::RawBatch,
    tools::{ours, run},
    wire_client::{WireClient, now_ms},
};

const PARTITIONS: i32 = 2_000;

/// One in so many partitions gets a record.
const USED_STEP: usize = 100;

/// What an idle partition may take.
const BYTES_PER_PARTITION_MAX: u64 = 64 << 10;

/// Segment files, and what a broker has open besides.
const OPEN_FILES_MAX: usize = 2_500;

fn resident_bytes(broker: &Broker) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{}/statm", broker.pid())).expect("it runs");
    let pages = statm.split(' ').nth(1).expect("the second field");
    pages.parse::<u64>().expect("a number") * 4096
}

fn used() -> impl Iterator<Item = i32> {
    (0..PARTITIONS).step_by(USED_STEP)
}

#[track_caller]
fn check(broker: &Broker, empty_bytes: u64, records: i64) {
    let grown = resident_bytes(broker).saturating_sub(empty_bytes);
    let per_partition = grown / PARTITIONS as u64;
    assert!(
        per_partition < BYTES_PER_PARTITION_MAX,
        "{per_partition} bytes"
    );
    let open = fs::read_dir(format!("/proc/{}/fd", broker.pid())).expect("it runs");
    let open = open.count();
    assert!(open < OPEN_FILES_MAX, "{open} files are open");
    let mut client = WireClient::connect(&broker.bootstrap());
    for partition in used() {
        assert_eq!(client.log_end("many", partition), records);
        assert_eq!(client.log_end("many", partition + 1), 0);
        assert_eq!(client.read_all("many", partition).len() as i64, records);
    }
}

fn produce(broker: &Broker) {
    let mut client = WireClient::connect(&broker.bootstrap());
    for partition in used() {
        let batch = RawBatch::of(&[b"a record"], now_ms()).encode();
        let reply = client.produce("many", partition, &batch);
        assert_eq!(reply.error_code, 0, "{partition}");
    }
}

#[test]
fn two_thousand_partitions_come_back_after_a_stop_and_after_a_kill() {
    let scratch = Scratch::new("many-partitions");
    let broker = Broker::start(Options::new(scratch.path()));
    let empty_bytes = resident_bytes(&broker);
    let topics = |broker: &Broker, arguments: &[&str]| {
        let server = broker.bootstrap();
        let mut all = vec!["--bootstrap-server", server.as_str()];
        all.extend_from_slice(arguments);
        run(&mut ours("kafka-topics", &all), b"").ok().stdout
    };
    let count = PARTITIONS.to_string();
    topics(
        &broker,
        &["--create", "--topic", "many", "--partitions", &count],
    );
    produce(&broker);
    check(&broker, empty_bytes, 1);

    let broker = Broker::start(broker.stop());
    check(&broker, empty_bytes, 1);
    produce(&broker);
    let broker = Broker::start(broker.kill());
    check(&broker, empty_bytes, 2);
    let described = topics(&broker, &["--describe", "--topic", "many"]);
    assert_eq!(described.lines().count(), 1 + PARTITIONS as usize);

    topics(&broker, &["--delete", "--topic", "many"]);
    assert_eq!(topics(&broker, &["--list", "--exclude-internal"]), "");
    let left = fs::read_dir(scratch.path()).expect("the data directory");
    let left = left.filter_map(|entry| entry.expect("an entry").file_name().into_string().ok());
    assert_eq!(left.filter(|name| name.starts_with("many-")).count(), 0);
    broker.stop();
}
