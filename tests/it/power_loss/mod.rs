//! Power loss under load, on ext4 and XFS: what was acknowledged is there, at its offset, once; every restart succeeds.
//!
//! `FOREBAY_CYCLES` power losses over both file systems together (20 if not said otherwise), `FOREBAY_SEED` replays their timing:
//!
//!     FOREBAY_CYCLES=1000 cargo test --profile testrelease -p forebay-tests --test it -- power_loss --nocapture
//!
//! The same run shows what `durability=replicated` promises and what not: a power loss takes the newest records of a partition and nothing
//! else. That something is lost there also shows that the power really goes. What such a power loss can and cannot
//! show is said in `forebay_tests::disk`.

mod load;
mod model;

use std::{
    thread,
    time::{Duration, Instant},
};

use forebay_tests::{
    broker::{Broker, Options},
    disk::{Disk, FileSystem, PowerLoss},
    raw_batch::RawBatch,
    wire_client::{WireClient, error, now_ms},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rdkafka::admin::{NewTopic, TopicReplication};

use crate::clients::create_topics;
use load::{Persisted, Replicated};
use model::Model;

const CYCLES: u64 = 20;
const DISK_BYTES: u64 = 512 << 20;
/// Records are deleted so often that reading all of a log after every restart stays cheap.
const CYCLES_BETWEEN_DELETIONS: u64 = 8;
/// Topics that are there for a few cycles each.
const PASSING_TOPICS: u64 = 3;

const PERSISTED: &str = "persisted";
const REPLICATED: &str = "replicated";
const PARTITIONS: i32 = 4;

/// How a broker comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The power goes while it works, whatever its disk is doing.
    Sudden,
    /// The same, but the file system's own journal gets to the disk.
    AfterJournalFlush,
    /// It is stopped in order, and then the power goes.
    Stopped,
    /// The power goes, comes back, and goes again during recovery.
    Twice,
}

#[test]
fn ext4_power_loss_takes_nothing_acknowledged() {
    check_power_loss(FileSystem::Ext4);
}

#[test]
fn xfs_power_loss_takes_nothing_acknowledged() {
    check_power_loss(FileSystem::Xfs);
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

fn check_power_loss(file_system: FileSystem) {
    let cycles = number_from_environment("FOREBAY_CYCLES")
        .unwrap_or(CYCLES)
        .div_ceil(2);
    let seed =
        number_from_environment("FOREBAY_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    let name = file_system.name();
    eprintln!("{name}: FOREBAY_SEED={seed} replays the timing of the power losses");
    let mut run = Run::new(file_system, seed);
    let began = Instant::now();
    for cycle in 1..=cycles {
        run.cycle(cycle);
        if cycle.is_multiple_of(50) || cycle == cycles {
            eprintln!(
                "{name}: {cycle} power losses in {} s; persisted: {} acknowledged ({} without offset), 0 lost; replicated: {} acknowledged, {} lost; slowest start {:?}",
                began.elapsed().as_secs(),
                run.model.acknowledged(),
                run.model.acknowledged_without_offset(),
                run.replicated.acknowledged,
                run.replicated.lost,
                run.slowest_start,
            );
        }
    }
    run.finish();
}

struct Run {
    // The broker goes before the disk it is on.
    broker: Option<Broker>,
    disk: Disk,
    options: Options,
    persisted: Persisted,
    replicated: Replicated,
    model: Model,
    random: StdRng,
    slowest_start: Duration,
    /// Numbers of the passing topics that must exist.
    passing: Vec<u64>,
}

impl Run {
    fn new(file_system: FileSystem, seed: u64) -> Run {
        let disk = Disk::new("power-loss", file_system, DISK_BYTES);
        let data_dir = disk.path().join("data");
        // Small and frequent everything: rolls, checkpoints, turns of the journal, writes past it.
        let options = Options::new(&data_dir)
            .set("forebay.journal.file.bytes", 1 << 20)
            .set("forebay.journal.files", 3)
            .set("forebay.checkpoint.interval.ms", 30)
            .set("forebay.bypass.bytes", 64 << 10)
            .set("forebay.write.chunk.bytes", 64 << 10)
            .set("forebay.tail.cache.bytes", 8 << 20)
            .set("log.segment.bytes", 1 << 20)
            .set("log.segment.delete.delay.ms", 100);
        let broker = Broker::start(options.clone());
        let server = broker.bootstrap();
        let topic = |name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1));
        create_topics(
            &server,
            [
                topic(PERSISTED),
                topic(REPLICATED).set("durability", "replicated"),
            ],
        );
        let model = Model::new(PARTITIONS);
        let persisted = Persisted::start(&server, &model);
        Run {
            broker: Some(broker),
            disk,
            options,
            persisted,
            replicated: Replicated::new(PARTITIONS),
            model,
            random: StdRng::seed_from_u64(seed),
            slowest_start: Duration::ZERO,
            passing: Vec::new(),
        }
    }

    fn cycle(&mut self, cycle: u64) {
        let broker = self.broker.take().expect("it runs between cycles");
        let mut client = WireClient::connect(&broker.bootstrap());
        self.change_topics(cycle, &mut client);
        self.replicated.start(&broker.bootstrap());
        // At least one acknowledgement between two power losses, so that each of them can lose something.
        self.model.wait_for_acknowledgement();
        thread::sleep(Duration::from_millis(self.random.random_range(0..120)));
        let end = match self.random.random_range(0..10) {
            0..7 => End::Sudden,
            7 => End::AfterJournalFlush,
            8 => End::Stopped,
            _ => End::Twice,
        };
        assert_no_error_in(&broker, "while the disk was well");
        self.end(broker, end);
        self.disk.restore_power();

        let began = Instant::now();
        let broker = Broker::start(self.options.clone());
        self.slowest_start = self.slowest_start.max(began.elapsed());
        assert_no_error_in(&broker, "at the start");
        let mut client = WireClient::connect(&broker.bootstrap());
        self.replicated.check(&mut client, end == End::Stopped);
        self.persisted.pause(true);
        self.model.check(&mut client);
        self.check_topics(&mut client);
        if cycle.is_multiple_of(CYCLES_BETWEEN_DELETIONS) {
            self.model.delete_some(&mut client);
            self.replicated.delete_some(&mut client);
        }
        self.persisted.pause(false);
        self.broker = Some(broker);
    }

    fn end(&mut self, broker: Broker, end: End) {
        match end {
            End::Sudden => self.cut(broker, PowerLoss::Sudden),
            End::AfterJournalFlush => self.cut(broker, PowerLoss::AfterJournalFlush),
            End::Stopped => {
                broker.stop();
                self.disk.lose_power(PowerLoss::Sudden);
            }
            End::Twice => {
                self.cut(broker, PowerLoss::Sudden);
                self.disk.restore_power();
                let broker = Broker::spawn(self.options.clone());
                thread::sleep(Duration::from_millis(self.random.random_range(0..60)));
                self.cut(broker, PowerLoss::Sudden);
            }
        }
    }

    /// Whoever loses power can say nothing afterwards, so the broker stops first. (One run on XFS in which
    /// it went on ended with an acknowledged record missing: perhaps a sync that raced with the shutdown; that was not shown.)
    fn cut(&self, broker: Broker, how: PowerLoss) {
        broker.suspend();
        self.disk.lose_power(how);
        broker.kill();
    }

    /// Topics that come and go: what was created is there after the power loss, with its record; what was deleted is not.
    fn change_topics(&mut self, cycle: u64, client: &mut WireClient) {
        let name = passing(cycle);
        client.create_topic(&name, 1);
        let batch = RawBatch::of(&[name.as_bytes()], now_ms()).encode();
        let produced = client.produce(&name, 0, &batch);
        assert_eq!(error(produced.error_code), None);
        self.passing.push(cycle);
        if let Some(old) = cycle.checked_sub(PASSING_TOPICS)
            && old > 0
        {
            client.delete_topic(&passing(old));
            self.passing.retain(|number| *number != old);
        }
    }

    fn check_topics(&self, client: &mut WireClient) {
        let mut found = client.topics();
        found.retain(|name| name.starts_with("passing-"));
        found.sort();
        let mut expected: Vec<String> =
            self.passing.iter().map(|number| passing(*number)).collect();
        expected.sort();
        assert_eq!(found, expected, "topics created and not deleted");
        for name in expected {
            let read = client.read_all(&name, 0);
            assert_eq!(read, [(0, name.clone().into_bytes())]);
        }
    }

    fn finish(mut self) {
        let broker = self.broker.take().expect("it runs between cycles");
        self.persisted.finish();
        let mut client = WireClient::connect(&broker.bootstrap());
        self.model.check(&mut client);
        self.model.check_all_acknowledged();
        assert!(
            self.replicated.lost > 0,
            "no record was lost under {REPLICATED}: the power was never really gone"
        );
        broker.stop();
    }
}

fn passing(number: u64) -> String {
    format!("passing-{number}")
}

fn assert_no_error_in(broker: &Broker, when: &str) {
    let output = broker.output();
    let is_bad = |line: &str| line.contains("ERROR") || line.contains("panicked");
    assert!(!output.lines().any(is_bad), "{when}:\n{output}");
}
