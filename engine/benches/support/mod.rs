//! What the benchmarks of the engine share: the batches they work on, and shards that do the work of criterion's rounds.
//!
//! Criterion measures on a thread of its own and cannot wait for a future of an executor. So it tells a shard how many iterations a
//! round has, and the shard tells how long they took: crossing to the shard and back is not part of it.

// Each benchmark is a crate of its own that uses a part of this.
#![allow(dead_code)]

use std::{sync::mpsc, time::Duration};

use bytes::BytesMut;
use forebay_engine::{
    ShardId, Timestamp, TimestampType,
    batch::{BatchBuilder, BatchRules, Codec},
    rt::{
        Rt,
        uring::{ShardHandle, ShardOptions, run_shards},
    },
};

pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub fn rules() -> BatchRules {
    BatchRules {
        message_bytes_max: 32 << 20,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: None,
        timestamp_after_max_ms: None,
        keys_required: false,
        codec: None,
        control_allowed: false,
    }
}

/// A batch of `records` records with values of `value_bytes`.
pub fn batch_of(records: usize, value_bytes: usize) -> BytesMut {
    let value: Vec<u8> = (0..value_bytes).map(|at| at as u8).collect();
    let mut builder = BatchBuilder::new(Codec::None);
    for _ in 0..records {
        builder.push(NOW, None, Some(&value), &[]);
    }
    builder.build()
}

/// Shards, one of which does the rounds.
pub struct Workers {
    rounds: Option<mpsc::Sender<u64>>,
    took: mpsc::Receiver<Duration>,
    shards: Vec<ShardHandle<()>>,
}

/// The shard's end of the rounds.
pub struct Rounds {
    asked: Option<mpsc::Receiver<u64>>,
    took: mpsc::Sender<Duration>,
}

impl Workers {
    /// Starts a shard for each of the `mains`, pinned if there are cores enough; one of them is given the rounds.
    pub fn start<Main, Running>(mains: impl FnOnce(Rounds) -> Vec<Main>) -> Workers
    where
        Main: FnOnce(Rt, ShardId) -> Running + Send + 'static,
        Running: Future<Output = ()> + 'static,
    {
        let (rounds, asked) = mpsc::channel();
        let (tell, took) = mpsc::channel();
        let mains = mains(Rounds {
            asked: Some(asked),
            took: tell,
        });
        let mut options = ShardOptions::for_this_host().expect("the host tells its cores");
        options.shards = u16::try_from(mains.len()).expect("a few shards");
        let mut mains = mains.into_iter();
        let shards = run_shards(&options, |_| mains.next().expect("one for each shard"))
            .expect("the host has io_uring");
        Workers {
            rounds: Some(rounds),
            took,
            shards,
        }
    }

    /// How long so many iterations took.
    pub fn round(&self, iterations: u64) -> Duration {
        let rounds = self.rounds.as_ref().expect("there until the end");
        rounds.send(iterations).expect("the shard waits for rounds");
        self.took.recv().expect("the shard does its round")
    }
}

impl Drop for Workers {
    /// Ends the shards, and waits for them.
    fn drop(&mut self) {
        self.rounds = None;
        for shard in self.shards.drain(..) {
            let ended = shard.join();
            if !std::thread::panicking() {
                ended.expect("the shard ends in order");
            }
        }
    }
}

impl Rounds {
    /// Waits for the next round; `None` when there is none any more.
    pub async fn next(&mut self, rt: &Rt) -> Option<u64> {
        let asked = self.asked.take().expect("taken for the wait only");
        let (asked, iterations) = rt
            .run_blocking(move || {
                let iterations = asked.recv();
                (asked, iterations)
            })
            .await;
        self.asked = Some(asked);
        iterations.ok()
    }

    pub fn took(&self, time: Duration) {
        self.took.send(time).expect("criterion waits for the round");
    }
}
