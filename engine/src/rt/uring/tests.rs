//! What only the real back end has: threads, cores, and errors of the host.

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use super::{InFlight, ShardOptions, host, run_alone, run_shards, shards::RING_WORKERS_MAX};
use crate::{
    rt::{Class, OpenMode, Rt, channel},
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

/// Both sides sleep between messages, so that a lost wake-up would stop them for good.
#[test]
fn round_trips_between_threads_never_stall() {
    const ROUND_TRIPS: u32 = 2000;
    let (ask, asked) = channel::between_threads::<u32>(1);
    let (answer, answered) = channel::between_threads::<u32>(1);
    let (mut client, mut server) = (Some((ask, answered)), Some((asked, answer)));
    let handles = run_shards(&ShardOptions::unpinned(2), |shard| {
        let client = (shard.0 == 0).then(|| client.take().unwrap());
        let server = (shard.0 == 1).then(|| server.take().unwrap());
        move |_: Rt, _: ShardId| async move {
            if let Some((ask, answered)) = client {
                let (ask, answered) = (ask.connect().await, answered.connect().await);
                for number in 0..ROUND_TRIPS {
                    ask.send(number).await.unwrap();
                    assert_eq!(answered.recv().await, Some(number + 1));
                }
            }
            if let Some((asked, answer)) = server {
                let (asked, answer) = (asked.connect().await, answer.connect().await);
                while let Some(number) = asked.recv().await {
                    answer.send(number + 1).await.unwrap();
                }
            }
        }
    })
    .unwrap();
    for handle in handles {
        handle.join().unwrap();
    }
}

#[test]
fn bytes_in_flight_of_a_class_are_bounded() {
    const READ: usize = 3 << 19;
    let path = std::env::temp_dir().join(format!("forebay-in-flight-{}", std::process::id()));
    let name = path.clone();
    let peaks = run_alone(|rt| async move {
        let Rt::Uring(uring) = &rt else {
            panic!("run_alone runs on glommio");
        };
        let file = rt.open(&name, OpenMode::Create).await.unwrap();
        file.write_at(rt.alloc(READ), 0).await.unwrap();
        let mut peaks = Vec::new();
        for class in [Class::Foreground, Class::ColdRead, Class::Housekeeping] {
            let reads: Vec<_> = (0..6)
                .map(|_| {
                    let (inner, name) = (rt.clone(), name.clone());
                    rt.spawn(class, async move {
                        let file = inner.open(&name, OpenMode::Read).await.unwrap();
                        assert_eq!(file.read_at(0, READ).await.unwrap().len(), READ);
                        let Rt::Uring(uring) = &inner else {
                            panic!("run_alone runs on glommio");
                        };
                        uring.bytes_in_flight()
                    })
                })
                .collect();
            let mut peak = 0;
            for read in reads {
                peak = peak.max(read.await);
            }
            peaks.push(peak);
            assert_eq!(uring.bytes_in_flight(), 0);
        }
        rt.remove_file(&name).await.unwrap();
        peaks
    })
    .unwrap();
    let bounds = InFlight::default();
    assert_eq!(peaks[0], 0, "the foreground has no such bound");
    let bounds = [bounds.cold_read_bytes_max, bounds.housekeeping_bytes_max];
    for (peak, bound) in peaks[1..].iter().zip(bounds) {
        assert!(*peak > 0 && *peak <= bound, "{peaks:?}");
    }
}

struct Counted;

impl std::task::Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_sleep_that_is_polled_often_leaves_nothing_behind() {
    run_alone(|rt| async move {
        let counted = Arc::new(Counted);
        let waker = Waker::from(counted.clone());
        let mut long = Box::pin(rt.sleep(Duration::from_secs(3600)));
        let mut for_ever = Box::pin(rt.sleep(Duration::MAX));
        for _ in 0..100 {
            let mut context = Context::from_waker(&waker);
            assert!(long.as_mut().poll(&mut context).is_pending());
            assert!(for_ever.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(Arc::strong_count(&counted), 3, "one waker for one sleep");
        // The timer serves those who come later and wake earlier.
        rt.sleep(Duration::from_millis(2)).await;
        rt.sleep(Duration::from_millis(1)).await;
        drop((long, for_ever));
        assert_eq!(Arc::strong_count(&counted), 2, "it went with its sleep");
    })
    .unwrap();
}

#[test]
fn each_shard_may_have_more_workers_than_the_kernel_gives() {
    let handles = run_shards(&ShardOptions::unpinned(3), |_| {
        |_rt: Rt, _shard: ShardId| async { host::set_ring_workers(RING_WORKERS_MAX) }
    })
    .unwrap();
    for handle in handles {
        let before = handle.join().unwrap().unwrap();
        assert_eq!(before, RING_WORKERS_MAX);
    }
}
