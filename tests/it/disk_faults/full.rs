//! A disk that runs full: producing is refused ahead, everything else goes on, and producing resumes by itself when there is room. Without a
//! reserve the disk really runs full; then a log goes offline, and nothing acknowledged is lost either.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use forebay_tests::{
    broker::{Broker, Options},
    disk::{Disk, FileSystem},
    http::{Metrics, get, wait_for},
    wire_client::WireClient,
};
use kafka_protocol::ResponseError;

use super::{DISK_ERROR, kcat_produce, ledger::Ledger, logged};

const DISK_BYTES: u64 = 320 << 20;
/// More batches than fit.
const BATCHES_MAX: u64 = 2 * DISK_BYTES / BATCH_BYTES as u64;
const BATCH_BYTES: usize = 256 << 10;
const REFUSALS_IN_A_ROW: u32 = 30;
const REFUSED_PAUSE: Duration = Duration::from_millis(10);
const RESUMED_TIME_MAX: Duration = Duration::from_secs(30);
/// A log that is offline is tried at least once a minute.
const MENDED_TIME_MAX: Duration = Duration::from_secs(90);
const REFUSED_TIME_MAX: Duration = Duration::from_millis(100);

fn options(disk: &Disk) -> Options {
    Options::new(&disk.path().join("data"))
        .set("forebay.journal.file.bytes", 4 << 20)
        .set("forebay.journal.files", 2)
        .set("forebay.tail.cache.bytes", 16 << 20)
        .set("log.segment.bytes", 4 << 20)
}

/// Writes until the broker refuses everything: each shard finds out by itself, and XFS takes more at first than it keeps.
#[track_caller]
fn fill(client: &mut WireClient, ledgers: &mut [Ledger]) -> ResponseError {
    let mut refusals = 0;
    for batch in 0..BATCHES_MAX {
        let at = (batch % ledgers.len() as u64) as usize;
        match ledgers[at].try_produce(client) {
            None => refusals = 0,
            Some(refused) if refusals == REFUSALS_IN_A_ROW => return refused,
            Some(_) => {
                refusals += 1;
                thread::sleep(REFUSED_PAUSE);
            }
        }
    }
    panic!("the disk does not run full");
}

/// How long a refusal takes: the middle of several, since other tests share the machine.
#[track_caller]
fn refusal_time(client: &mut WireClient, ledgers: &mut [Ledger]) -> Duration {
    let mut times = Vec::new();
    for at in (0..ledgers.len()).cycle().take(BATCHES_MAX as usize) {
        let began = Instant::now();
        if ledgers[at].try_produce(client).is_some() {
            times.push(began.elapsed());
        }
        if times.len() == 21 {
            times.sort();
            return times[10];
        }
    }
    panic!("the broker does not refuse any more");
}

fn ready(broker: &Broker) -> String {
    get(broker.options.http_port, "/readyz").1
}

#[track_caller]
fn check_reserve(file_system: FileSystem) {
    let disk = Disk::new("full", file_system, DISK_BYTES);
    let broker = Broker::start(options(&disk));
    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("kept", 2);
    client.create_topic("gone", 1);
    let ledger = |topic, partition| Ledger::new(topic, partition, BATCH_BYTES);
    let mut ledgers = [ledger("kept", 0), ledger("kept", 1), ledger("gone", 0)];
    let refused = fill(&mut client, &mut ledgers);
    assert_eq!(refused, ResponseError::KafkaStorageError);

    let time = refusal_time(&mut client, &mut ledgers);
    assert!(time <= REFUSED_TIME_MAX, "refused after {time:?}");
    let by_kcat = kcat_produce(&broker, "kept");
    assert!(by_kcat.stderr.contains(DISK_ERROR), "{by_kcat:?}");
    assert_eq!(Metrics::scrape(&broker).get("forebay_disk_low"), 1.0);
    assert!(
        ready(&broker).contains("low on space"),
        "{}",
        ready(&broker)
    );
    for ledger in &ledgers {
        ledger.check(&mut client);
    }
    client.create_topic("made-when-full", 1);
    assert!(disk.free_bytes() > 0, "the reserve is kept");

    // Room by DeleteRecords, then by DeleteTopics. Nobody tells the broker to go on.
    for ledger in &mut ledgers {
        ledger.delete_half(&mut client);
    }
    for ledger in &mut ledgers {
        ledger.produce_again_within(&mut client, RESUMED_TIME_MAX);
    }
    wait_for(&broker, RESUMED_TIME_MAX, |metrics| {
        metrics.get("forebay_disk_low") == 0.0
    });
    assert!(
        !ready(&broker).contains("low on space"),
        "{}",
        ready(&broker)
    );
    fill(&mut client, &mut ledgers);
    client.delete_topic("gone");
    let [kept @ .., _] = &mut ledgers;
    for ledger in kept.iter_mut() {
        ledger.produce_again_within(&mut client, RESUMED_TIME_MAX);
        ledger.check(&mut client);
    }
    let errors = logged(&broker, "ERROR", "offline");
    assert!(
        errors.is_empty(),
        "no log met the end of the disk: {errors:?}"
    );

    let broker = Broker::start(broker.kill());
    let mut client = WireClient::connect(&broker.bootstrap());
    for ledger in kept {
        ledger.check(&mut client);
        ledger.produce(&mut client, 1);
    }
    broker.stop();
}

#[test]
fn a_full_ext4_is_refused_ahead_and_writing_resumes() {
    check_reserve(FileSystem::Ext4);
}

#[test]
fn a_full_xfs_is_refused_ahead_and_writing_resumes() {
    check_reserve(FileSystem::Xfs);
}

#[test]
fn without_a_reserve_a_full_disk_loses_nothing_acknowledged() {
    let disk = Disk::new("overfull", FileSystem::Ext4, DISK_BYTES);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 64 << 20]).expect("the disk has room");
    let broker = Broker::start(options(&disk).set("forebay.disk.reserve.bytes", 0));
    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("t", 2);
    let mut ledgers = [0, 1].map(|partition| Ledger::new("t", partition, BATCH_BYTES));
    let refused = fill(&mut client, &mut ledgers);
    assert_eq!(refused, ResponseError::KafkaStorageError);
    for ledger in &ledgers {
        ledger.check(&mut client);
    }
    assert!(!logged(&broker, "ERROR", "No space left").is_empty());
    assert_eq!(get(broker.options.http_port, "/livez").0, 200);

    // With room the logs come back by themselves, and a restart finds the same.
    fs::remove_file(&ballast).expect("a file can be removed from a full disk");
    for ledger in &mut ledgers {
        ledger.produce_again_within(&mut client, MENDED_TIME_MAX);
        ledger.check(&mut client);
    }
    let broker = Broker::start(broker.kill());
    let mut client = WireClient::connect(&broker.bootstrap());
    for ledger in &mut ledgers {
        ledger.check(&mut client);
        ledger.produce(&mut client, 1);
        ledger.check(&mut client);
    }
    broker.stop();
}
