//! The hop between two shards: the queue that the mesh of the broker sends its batches of messages through.
//!
//! Both shards have a core of their own where there are two. A shard that waits sleeps, as in the broker, so a round trip is two
//! wake-ups; one way, a shard sends without waiting and the other is awake. The cost of a batch of messages does not depend on its size:
//! what crosses is a `Vec`.

mod support;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay_engine::rt::{
    Rt,
    channel::{self, ReceiverSeed, SenderSeed},
};
use futures_util::future::join;

use support::{Rounds, Workers};

/// As many batches as the mesh lets be on their way between two shards.
const QUEUE_BATCHES_MAX: usize = 16;

struct Batch {
    messages: Vec<u64>,
    /// The sender waits for it to come back.
    awaited: bool,
}

#[derive(Clone, Copy)]
enum Load {
    RoundTrip,
    /// Only the last batch of a round comes back.
    OneWay,
}

struct Ends {
    sender: SenderSeed<Batch>,
    receiver: ReceiverSeed<Batch>,
    /// Of the shard that begins.
    rounds: Option<Rounds>,
}

fn hop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("channel");
    group.throughput(Throughput::Elements(1));
    for (name, load) in [("round trip", Load::RoundTrip), ("one way", Load::OneWay)] {
        let mut workers = None;
        group.bench_function(name, |bencher| {
            let workers = workers.get_or_insert_with(|| start(load));
            bencher.iter_custom(|iterations| workers.round(iterations));
        });
    }
    group.finish();
}

fn start(load: Load) -> Workers {
    let (to_second, at_second) = channel::between_threads(QUEUE_BATCHES_MAX);
    let (to_first, at_first) = channel::between_threads(QUEUE_BATCHES_MAX);
    Workers::start(|rounds| {
        let first = Ends {
            sender: to_second,
            receiver: at_first,
            rounds: Some(rounds),
        };
        let second = Ends {
            sender: to_first,
            receiver: at_second,
            rounds: None,
        };
        [first, second]
            .into_iter()
            .map(|ends| move |rt: Rt, _| run(rt, ends, load))
            .collect()
    })
}

async fn run(rt: Rt, ends: Ends, load: Load) {
    let (sender, receiver) = join(ends.sender.connect(), ends.receiver.connect()).await;
    let Some(mut rounds) = ends.rounds else {
        while let Some(batch) = receiver.recv().await {
            // Here the messages of a batch would be acted upon.
            if batch.awaited && sender.send(batch).await.is_err() {
                return;
            }
        }
        return;
    };
    while let Some(iterations) = rounds.next(&rt).await {
        let took = time(&rt, iterations, async |at| {
            let batch = Batch {
                messages: vec![at],
                awaited: matches!(load, Load::RoundTrip) || at + 1 == iterations,
            };
            let awaited = batch.awaited;
            let sent = sender.send(batch).await;
            assert!(sent.is_ok(), "the second shard outlives the first");
            if awaited {
                let back = receiver.recv().await.expect("the batch comes back");
                assert_eq!(back.messages, [at]);
            }
        })
        .await;
        rounds.took(took);
    }
}

async fn time(rt: &Rt, iterations: u64, mut once: impl AsyncFnMut(u64)) -> Duration {
    let began = rt.now();
    for at in 0..iterations {
        once(at).await;
    }
    rt.now().since(began)
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = hop
}
criterion_main!(benches);
