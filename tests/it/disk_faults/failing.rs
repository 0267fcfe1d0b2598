//! Writes and syncs that fail: the logs they struck go offline, the rest goes on, nothing acknowledged is lost.

use std::{
    fs,
    time::{Duration, Instant},
};

use forebay_tests::{
    broker::{Broker, Options},
    disk::{Disk, FileSystem},
    http::{Metrics, wait_for},
    tools::{kcat, run},
    wire_client::WireClient,
};
use kafka_protocol::ResponseError;
use rdkafka::admin::{NewTopic, TopicReplication};

use super::{DISK_ERROR, kcat_produce, ledger::Ledger, logged};
use crate::clients::create_topics;

const NOTICED_TIME_MAX: Duration = Duration::from_secs(30);
/// A log that is offline is tried at least once a minute.
const MENDED_TIME_MAX: Duration = Duration::from_secs(90);
const OFFLINE: &str = "log is offline";
const ONLINE: &str = "log is online again";

/// The error of a disk that makes ext4 read-only, as it usually ends. The journals cannot be written any more, so every persisted
/// log goes offline, and stays so; what was acknowledged can be read all the while, and written on after the repair.
#[test]
fn a_failed_journal_write_takes_the_persisted_logs_offline() {
    const PARTITIONS: i32 = 4;
    let mut disk = Disk::new("read-only", FileSystem::Ext4, 320 << 20);
    let broker = Broker::start(Options::new(&disk.path().join("data")));
    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("t", PARTITIONS);
    let mut ledgers: Vec<Ledger> = (0..PARTITIONS)
        .map(|partition| Ledger::new("t", partition, 500))
        .collect();
    for ledger in &mut ledgers {
        ledger.produce(&mut client, 10);
    }

    disk.fail_all_writes();
    for ledger in &mut ledgers {
        let refused = ledger.try_produce(&mut client);
        assert_eq!(refused, Some(ResponseError::KafkaStorageError));
    }
    let refused = kcat_produce(&broker, "t");
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr.contains(DISK_ERROR), "{refused:?}");
    for ledger in &ledgers {
        ledger.check(&mut client);
    }
    let server = broker.bootstrap();
    let read = ["-C", "-b", &server, "-t", "t", "-e", "-q", "-f", "%o\n"];
    let read = run(&mut kcat(&read), b"").ok();
    assert_eq!(read.stdout.lines().count(), 10 * PARTITIONS as usize);
    // One message per shard says it all; those of the logs name them.
    let journal = logged(
        &broker,
        "ERROR",
        "all persisted logs of this shard go offline",
    );
    assert!((1..=2).contains(&journal.len()), "{journal:?}");
    assert!(
        journal[0].contains("Read-only"),
        "the reason is named: {journal:?}"
    );
    let partitions = logged(&broker, "ERROR", OFFLINE);
    let of_topic = partitions.iter().filter(|line| line.contains("\"t-"));
    assert_eq!(of_topic.count(), PARTITIONS as usize, "{partitions:?}");
    let faults = Metrics::scrape(&broker).get("forebay_faults_total");
    assert!(faults >= f64::from(PARTITIONS), "{faults}");

    let options = broker.kill();
    disk.check_and_mount();
    let broker = Broker::start(options);
    let mut client = WireClient::connect(&broker.bootstrap());
    for ledger in &mut ledgers {
        ledger.check(&mut client);
        ledger.produce(&mut client, 5);
        ledger.check(&mut client);
    }
    broker.stop();
}

/// A write past the journal meets blocks that the disk cannot write. Only its log goes offline; small appends of others go on in the
/// journal, whose blocks are good.
#[test]
fn a_failed_segment_write_takes_one_log_offline() {
    let disk = Disk::on_tmpfs("bad-blocks", FileSystem::Ext4, 192 << 20);
    let data_dir = disk.path().join("data");
    // Nothing but large appends goes to segments while the fault lasts.
    let options = Options::new(&data_dir)
        .set("forebay.journal.file.bytes", 8 << 20)
        .set("forebay.journal.files", 2)
        .set("forebay.checkpoint.interval.ms", 600_000);
    let broker = Broker::start(options);
    wait_for_journals(&data_dir, 2, 2, 8 << 20);
    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("victim", 1);
    client.create_topic("other", 3);
    let mut victim = Ledger::new("victim", 0, 500);
    let mut others: Vec<Ledger> = (0..3)
        .map(|partition| Ledger::new("other", partition, 500))
        .collect();
    victim.produce(&mut client, 10);
    for other in &mut others {
        other.produce(&mut client, 10);
    }

    disk.fail_new_blocks();
    victim.set_record_bytes(900_000);
    let refused = victim.try_produce(&mut client);
    assert_eq!(refused, Some(ResponseError::KafkaStorageError));
    for other in &mut others {
        other.produce(&mut client, 10);
    }
    victim.check(&mut client);
    let offline = logged(&broker, "ERROR", OFFLINE);
    assert_eq!(offline.len(), 1, "{offline:?}");
    assert!(offline[0].contains("\"victim-0\""), "{offline:?}");
    assert_eq!(Metrics::scrape(&broker).get("forebay_logs_offline"), 1.0);

    // The fault passes: the log comes back by itself, with all that was acknowledged.
    disk.mend();
    victim.produce_again_within(&mut client, MENDED_TIME_MAX);
    victim.check(&mut client);
    let metrics = Metrics::scrape(&broker);
    assert_eq!(metrics.get("forebay_logs_offline"), 0.0);
    assert_eq!(metrics.get("forebay_logs_reopened_total"), 1.0);
    let online = logged(&broker, "INFO", ONLINE);
    assert!(
        online.len() == 1 && online[0].contains("\"victim-0\""),
        "{online:?}"
    );
    for other in &mut others {
        other.set_record_bytes(900_000);
        other.produce(&mut client, 2);
        other.check(&mut client);
    }
    let broker = Broker::start(broker.kill());
    let mut client = WireClient::connect(&broker.bootstrap());
    victim.check(&mut client);
    victim.produce(&mut client, 2);
    victim.check(&mut client);
    for other in &others {
        other.check(&mut client);
    }
    broker.stop();
}

/// Under `replicated` records are written behind; the sync of the next checkpoint is the first to meet the fault. It fails once: no second
/// one may say that all is well.
#[test]
fn a_failed_sync_takes_the_log_offline() {
    let mut disk = Disk::new("sync", FileSystem::Ext4, 320 << 20);
    let options = Options::new(&disk.path().join("data"))
        .set("forebay.shards", 1)
        .set("forebay.checkpoint.interval.ms", 4000)
        .set("forebay.write.chunk.bytes", 64 << 10);
    let broker = Broker::start(options);
    let topic = NewTopic::new("r", 1, TopicReplication::Fixed(1));
    create_topics(&broker.bootstrap(), [topic.set("durability", "replicated")]);
    let mut client = WireClient::connect(&broker.bootstrap());
    // Each is larger than what is kept back, so all of them are written behind, and not synced.
    let mut ledger = Ledger::new("r", 0, 100_000);
    ledger.produce(&mut client, 1);
    let synced = Metrics::scrape(&broker).get("forebay_checkpoints_total");
    wait_for(&broker, NOTICED_TIME_MAX, |metrics| {
        metrics.get("forebay_checkpoints_total") > synced
    });
    ledger.produce(&mut client, 10);
    wait_for(&broker, NOTICED_TIME_MAX, |metrics| {
        metrics.get("forebay_tail_unflushed_bytes") == 0.0
    });
    disk.fail_all_writes();
    wait_for(&broker, NOTICED_TIME_MAX, |metrics| {
        metrics.get("forebay_faults_total") >= 1.0
    });
    let refused = ledger.try_produce(&mut client);
    assert_eq!(refused, Some(ResponseError::KafkaStorageError));
    let offline = logged(&broker, "ERROR", OFFLINE);
    let of_log: Vec<_> = offline
        .iter()
        .filter(|line| line.contains("\"r-0\""))
        .collect();
    assert_eq!(of_log.len(), 1, "{offline:?}");
    assert!(
        of_log[0].contains("\"fault\":\"sync "),
        "a sync was the first to fail: {of_log:?}"
    );

    let options = broker.kill();
    disk.check_and_mount();
    let broker = Broker::start(options);
    let mut client = WireClient::connect(&broker.bootstrap());
    // What the sync was for may be gone, from some record on; what an earlier one covered is there.
    let read = client.read_all("r", 0);
    assert!((1..=11).contains(&read.len()), "{} records", read.len());
    for (offset, value) in read {
        assert!(value == super::ledger::value_of(offset as u64, 100_000));
    }
    broker.stop();
}

/// The files of a journal are filled behind the start.
fn wait_for_journals(data_dir: &std::path::Path, shards: u32, files: u32, bytes: u64) {
    let deadline = Instant::now() + NOTICED_TIME_MAX;
    let is_complete = |shard: u32, file: u32| {
        let path = data_dir.join(format!("journal/{shard}/{file}.journal"));
        fs::metadata(path).is_ok_and(|found| found.len() == bytes)
    };
    let all = || (0..shards).all(|shard| (0..files).all(|file| is_complete(shard, file)));
    while !all() {
        assert!(Instant::now() < deadline, "the journals are not complete");
        std::thread::sleep(Duration::from_millis(5));
    }
}
