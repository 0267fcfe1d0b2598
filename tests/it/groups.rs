//! Consumer groups under change: members join, leave and die; each group sees every record, each partition has one owner.

use std::{
    collections::{HashMap, HashSet},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use forebay_tests::broker::{Broker, Options, Scratch};
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{NewTopic, TopicReplication},
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    producer::{BaseRecord, Producer, ThreadedProducer},
};

use crate::clients::create_topics;

const PARTITIONS: i32 = 6;
const TOPIC: &str = "groups";

/// What all members of one group of this test know together.
#[derive(Default)]
struct Group {
    /// Who owns a partition now, told by the rebalance callbacks.
    owners: HashMap<i32, usize>,
    /// The furthest offset committed.
    committed: HashMap<i32, i64>,
    seen: HashSet<(i32, i64)>,
    handovers: usize,
}

struct Member {
    number: usize,
    group: Arc<Mutex<Group>>,
}

impl ClientContext for Member {}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, _: &BaseConsumer<Member>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(_) = rebalance {
            let mut group = self.group.lock().expect("no holder panics");
            group.owners.retain(|_, owner| *owner != self.number);
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Member>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            let mut group = self.group.lock().expect("no holder panics");
            group.handovers += 1;
            for element in partitions.elements() {
                let earlier = group.owners.insert(element.partition(), self.number);
                assert_eq!(
                    earlier,
                    None,
                    "partition {} has one owner",
                    element.partition()
                );
            }
        }
    }
}

/// One member's life: polls, notes and commits until told to stop, then leaves.
fn live(server: &str, name: &str, member: Member, stop: &AtomicBool) {
    let group = member.group.clone();
    let consumer: BaseConsumer<Member> = ClientConfig::new()
        .set("bootstrap.servers", server)
        .set("group.id", name)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "200")
        .create_with_context(member)
        .expect("the consumer's settings are right");
    consumer
        .subscribe(&[TOPIC])
        .expect("the topic can be subscribed to");
    while !stop.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else {
            continue;
        };
        // A poll that meets a rebalance may report it as an error; the next one goes on.
        let Ok(message) = message else { continue };
        let (partition, offset) = (message.partition(), message.offset());
        group
            .lock()
            .expect("no holder panics")
            .seen
            .insert((partition, offset));
        let mut position = TopicPartitionList::new();
        position
            .add_partition_offset(TOPIC, partition, Offset::Offset(offset + 1))
            .expect("an offset is an offset");
        if consumer.commit(&position, CommitMode::Sync).is_ok() {
            let mut group = group.lock().expect("no holder panics");
            let furthest = group.committed.entry(partition).or_default();
            assert!(offset <= *furthest, "{offset} skips from {furthest}");
            *furthest = (*furthest).max(offset + 1);
        }
    }
}

#[track_caller]
fn wait_until(what: &str, at_most: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + at_most;
    while !done() {
        assert!(Instant::now() < deadline, "{what} within {at_most:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_groups_see_everything_while_members_come_go_and_die() {
    let scratch = Scratch::new("groups");
    let broker = Broker::start(Options::new(scratch.path()));
    let server = broker.bootstrap();
    create_topics(
        &server,
        [NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1))],
    );
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", &server)
        .set("enable.idempotence", "true")
        .create()
        .expect("the producer's settings are right");
    let mut produced = 0_i64;
    let mut produce = |count: i64| {
        for _ in 0..count {
            for partition in 0..PARTITIONS {
                producer
                    .send(
                        BaseRecord::<[u8], _>::to(TOPIC)
                            .partition(partition)
                            .payload("record"),
                    )
                    .map_err(|(error, _)| error)
                    .expect("the queue has room");
            }
        }
        produced += count;
        producer
            .flush(Duration::from_secs(60))
            .expect("acknowledged in time");
        produced
    };

    let groups: Vec<(String, Arc<Mutex<Group>>)> = ["red", "blue"]
        .map(|name| (name.to_string(), Arc::default()))
        .into();
    let mut lives = Vec::new();
    let mut join = |name: &str, group: &Arc<Mutex<Group>>, number: usize| {
        let stop = Arc::new(AtomicBool::new(false));
        let member = Member {
            number,
            group: group.clone(),
        };
        let (server, name, stopping) = (server.clone(), name.to_string(), stop.clone());
        lives.push((
            stop.clone(),
            thread::spawn(move || live(&server, &name, member, &stopping)),
        ));
        stop
    };
    let all_seen = |group: &Arc<Mutex<Group>>, per_partition: i64| {
        let group = group.lock().expect("no holder panics");
        (0..PARTITIONS).all(|p| (0..per_partition).all(|o| group.seen.contains(&(p, o))))
    };
    let owners = |group: &Arc<Mutex<Group>>| {
        let group = group.lock().expect("no holder panics");
        let distinct: HashSet<usize> = group.owners.values().copied().collect();
        (group.owners.len(), distinct.len())
    };

    // Two members each, then a third joins and the first leaves, with records on the way all the time.
    let mut first_to_leave = Vec::new();
    for (name, group) in &groups {
        first_to_leave.push(join(name, group, 0));
        join(name, group, 1);
    }
    let per_partition = produce(50);
    for (_, group) in &groups {
        wait_until("two members share", Duration::from_secs(30), || {
            owners(group) == (6, 2)
        });
        wait_until("all is seen", Duration::from_secs(60), || {
            all_seen(group, per_partition)
        });
    }
    for (name, group) in &groups {
        join(name, group, 2);
    }
    let per_partition = produce(50).max(per_partition);
    for (_, group) in &groups {
        wait_until("three members share", Duration::from_secs(30), || {
            owners(group) == (6, 3)
        });
        wait_until("all is seen", Duration::from_secs(60), || {
            all_seen(group, per_partition)
        });
    }
    for stop in &first_to_leave {
        stop.store(true, Ordering::Relaxed);
    }
    let per_partition = produce(50).max(per_partition);
    for (_, group) in &groups {
        wait_until("two members share", Duration::from_secs(30), || {
            owners(group) == (6, 2)
        });
        wait_until("all is seen", Duration::from_secs(60), || {
            all_seen(group, per_partition)
        });
    }

    // A member of another program joins the red group and dies without a word: its partitions come back after its session.
    let mut dying = Command::new("kcat")
        .env_remove("LD_LIBRARY_PATH")
        .args([
            "-b",
            &server,
            "-q",
            "-X",
            "session.timeout.ms=6000",
            "-G",
            "red",
            TOPIC,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("kcat is installed");
    let red = &groups[0].1;
    wait_until("kcat owns a share", Duration::from_secs(30), || {
        owners(red).0 == 4
    });
    dying.kill().expect("our own child can be killed");
    dying.wait().expect("our own child can be waited for");
    wait_until(
        "the dead member's share is back",
        Duration::from_secs(30),
        || owners(red) == (6, 2),
    );
    let per_partition = produce(50).max(per_partition);
    for (_, group) in &groups {
        wait_until("all is seen", Duration::from_secs(60), || {
            all_seen(group, per_partition)
        });
    }

    for (stop, life) in lives {
        stop.store(true, Ordering::Relaxed);
        life.join().expect("the member does not panic");
    }
    for (name, group) in &groups {
        let group = group.lock().expect("no holder panics");
        assert!(
            group.handovers >= 6,
            "{name}: {} rebalances",
            group.handovers
        );
        for partition in 0..PARTITIONS {
            assert_eq!(
                group.committed.get(&partition),
                Some(&per_partition),
                "{name}"
            );
        }
    }
    broker.stop();
}
