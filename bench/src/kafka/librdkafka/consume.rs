//! Consumers that share the partitions evenly, each with partitions assigned to it for the whole run.
//!
//! Every record is looked at: who sent it, in which order, whether it is whole, and how long it took from its planned time.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use super::super::{
    load::{Consumed, Shared, count_error},
    options::ConsumerOptions,
};
use crate::{
    payload::{self, Ledger},
    run::{Direction, Recorder, recorder::Times},
};

/// Longest wait for a record before the end is looked for.
const POLL: Duration = Duration::from_millis(20);

/// A consumer with a rate is one that is busy: it has no idle time to make up for.
const CATCH_UP: Duration = Duration::from_millis(20);

pub fn start(
    cluster: &ClientConfig,
    options: &ConsumerOptions,
    starts: &[i64],
    shared: &Shared,
) -> Result<Vec<JoinHandle<Result<Consumed, String>>>, String> {
    let partitions = shared.partitions.len();
    let of = partitions.min(options.consumers as usize);
    let rate = options.consume_rate.map(|rate| rate / of as f64);
    let mut threads = Vec::new();
    for index in 0..of {
        let mine: Vec<usize> = (index..partitions).step_by(of).collect();
        let consumer = connect(cluster, options, &mine, starts, shared)?;
        let worker = Worker {
            consumer,
            mine,
            rate,
            taken: None,
            due: Instant::now(),
            recorder: Recorder::new(
                Direction::Consume,
                shared.clock,
                &shared.phases,
                shared.told.clone(),
            ),
            ledger: if shared.producing {
                Ledger::of_run(shared.run_id)
            } else {
                Ledger::of_all()
            },
            errors: Vec::new(),
            shared: shared.clone(),
        };
        let name = format!("consumer-{index}");
        let spawned = thread::Builder::new()
            .name(name)
            .spawn(move || worker.run());
        threads.push(spawned.map_err(|error| format!("a thread for a consumer: {error}"))?);
    }
    Ok(threads)
}

fn connect(
    cluster: &ClientConfig,
    options: &ConsumerOptions,
    mine: &[usize],
    starts: &[i64],
    shared: &Shared,
) -> Result<BaseConsumer, String> {
    let mut config = ClientConfig::new();
    config
        .set("group.id", "forebay-bench")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("auto.offset.reset", "error")
        .set("fetch.message.max.bytes", options.fetch_bytes.to_string())
        .set("fetch.wait.max.ms", options.fetch_wait_ms.to_string());
    for (name, value) in cluster.config_map() {
        config.set(name, value);
    }
    let said = |error: rdkafka::error::KafkaError| error.to_string();
    let consumer: BaseConsumer = config.create().map_err(said)?;
    let mut assignment = TopicPartitionList::new();
    for index in mine {
        let it = &shared.partitions[*index];
        let from = Offset::Offset(starts[*index]);
        assignment
            .add_partition_offset(&it.topic, it.partition, from)
            .map_err(said)?;
    }
    consumer.assign(&assignment).map_err(said)?;
    Ok(consumer)
}

struct Worker {
    consumer: BaseConsumer,
    /// Numbers of the partitions.
    mine: Vec<usize>,
    rate: Option<f64>,
    /// When the last record was taken, until it has been counted.
    taken: Option<Instant>,
    /// When the next may be.
    due: Instant,
    recorder: Recorder,
    ledger: Ledger,
    errors: Vec<(String, u64)>,
    shared: Shared,
}

impl Worker {
    fn run(mut self) -> Result<Consumed, String> {
        while !self.shared.stop.is_asked() && !self.has_all() && !self.shared.must_give_up() {
            if self.keep_to_rate() {
                continue;
            }
            // Borrowed from the consumer, so that no record is copied; the rest of the worker is needed beside it.
            let Worker {
                consumer,
                recorder,
                ledger,
                errors,
                shared,
                mine,
                taken,
                ..
            } = &mut self;
            match consumer.poll(POLL) {
                None => recorder.tick(),
                Some(Err(error)) => count_error(errors, &error.to_string(), 1),
                Some(Ok(message)) => {
                    *taken = Some(Instant::now());
                    let index = mine.iter().copied().find(|index| {
                        let it = &shared.partitions[*index];
                        it.partition == message.partition() && it.topic == message.topic()
                    });
                    let index = index.ok_or("a record of a partition that was not asked for")?;
                    let bytes = (message.payload_len() + message.key_len()) as u64;
                    let stamp = payload::read(message.payload().unwrap_or_default());
                    ledger.receive(&stamp);
                    // What was sent before this run has no place on its clock.
                    let stamp = stamp.ok().filter(|stamp| stamp.run_id == shared.run_id);
                    let times = stamp.map(|stamp| Times {
                        planned: shared.clock.at_host_nanos(stamp.planned),
                        sent: shared.clock.at_host_nanos(stamp.sent),
                    });
                    match times {
                        Some(times) => recorder.completed(times, 1, bytes),
                        None => recorder.received(1, bytes),
                    }
                    let planned = times.map(|times| times.planned);
                    shared.progress[index].advance(message.offset() + 1, planned);
                }
            }
        }
        Ok(Consumed {
            totals: self.recorder.finish(),
            ledger: self.ledger,
            errors: self.errors,
        })
    }

    fn has_all(&self) -> bool {
        let Some(ends) = self.shared.ends.get() else {
            return false;
        };
        let position = |index: usize| self.shared.progress[index].position();
        self.mine
            .iter()
            .all(|index| position(*index) >= ends[*index])
    }

    /// True when the next record is not due yet, after a sleep. What was not there to be taken may be made up for `CATCH_UP` long, no longer.
    fn keep_to_rate(&mut self) -> bool {
        let Some(rate) = self.rate else {
            return false;
        };
        if let Some(taken) = self.taken.take() {
            let earliest = taken.checked_sub(CATCH_UP).unwrap_or(taken);
            self.due = self.due.max(earliest) + Duration::from_secs_f64(1.0 / rate);
        }
        let ahead = self.due.saturating_duration_since(Instant::now());
        // Shorter waits are made up for in the next longer one.
        let waits = ahead > Duration::from_millis(1);
        if waits {
            thread::sleep(ahead.min(POLL));
            self.recorder.tick();
        }
        waits
    }
}
