//! What only the real back end has: threads, cores, and errors of the host.

use std::time::Duration;

use super::{ShardOptions, run_shards};
use crate::{
    rt::{Class, Rt, channel},
    types::ShardId,
};

/// Every shard sends its number to the next one and returns what it received.
fn ring_of(options: &ShardOptions) -> Vec<u16> {
    let count = usize::from(options.shards);
    let (mut senders, mut receivers): (Vec<_>, Vec<_>) =
        (0..count).map(|_| channel::between_threads(1)).unzip();
    receivers.rotate_right(1);
    let handles = run_shards(options, |_| {
        let (sender, receiver) = (senders.pop().unwrap(), receivers.pop().unwrap());
        move |rt: Rt, shard: ShardId| async move {
            let sending = rt.spawn(Class::Foreground, async move {
                sender.connect().await.send(shard.0).await
            });
            let received = receiver.connect().await.recv().await.unwrap();
            sending.await.unwrap();
            received
        }
    })
    .unwrap();
    let mut received: Vec<_> = handles
        .into_iter()
        .map(|handle| handle.join().unwrap())
        .collect();
    received.sort();
    received
}

#[test]
fn shards_start_pinned_and_talk() {
    let options = ShardOptions::for_this_host().unwrap();
    assert!(options.is_pinned());
    let all: Vec<_> = (0..options.shards).collect();
    assert_eq!(ring_of(&options), all);
}

#[test]
fn more_shards_than_cores_run_unpinned() {
    let mut options = ShardOptions::for_this_host().unwrap();
    options.shards += 2;
    options.spin = Duration::from_micros(50);
    assert!(!options.is_pinned());
    let all: Vec<_> = (0..options.shards).collect();
    assert_eq!(ring_of(&options), all);
}

#[test]
fn one_shard_that_cannot_start_stops_all() {
    let mut options = ShardOptions::unpinned(2);
    options.cores = vec![super::usable_cores().unwrap()[0], 100_000];
    let outcome = run_shards(&options, |_| {
        |_: Rt, _: ShardId| async { panic!("must not run") }
    });
    let error = match outcome {
        Ok(_) => panic!("there is no core 100000"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("shard 1"), "{error}");
}

#[test]
fn a_panic_of_a_shard_comes_back_from_join() {
    let options = ShardOptions::unpinned(1);
    let handles = run_shards(&options, |_| {
        |_: Rt, _: ShardId| async {
            assert!(std::hint::black_box(false), "on purpose");
        }
    })
    .unwrap();
    for handle in handles {
        assert!(handle.join().is_err());
    }
}
