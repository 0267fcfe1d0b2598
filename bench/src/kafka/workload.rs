//! `kafka e2e --workload`: a workload of OpenMessaging Benchmark as the options of a run.
//!
//! Its file says what its own tool's workload file says; what that tool reads from a driver file (linger, batches, acks, security) are
//! options here, so that the load stays a load of `kafka e2e` and compares with any other. What we cannot do is refused; what we do
//! otherwise is a line before the run, in its output and in its result.

use std::path::Path;

use serde::Serialize;

use super::E2ePlan;
use crate::{
    limits::{SECONDS_MAX, within},
    omb::{
        known,
        workload::{Imported, KEYS, Keys, Workload},
    },
};

/// The rate of the workloads whose name begins with `max-rate`.
const AS_FAST_AS_IT_GOES: u32 = 10_000_000;

/// The plan that a workload makes, and what a person must know about it.
#[derive(Clone, Debug)]
pub struct Planned {
    pub plan: E2ePlan,
    pub workload: Workload,
    /// What will not be as in the file.
    pub differences: Vec<String>,
}

/// For the result.
#[derive(Serialize)]
pub struct Details<'a> {
    pub workload: &'a Workload,
    pub differences: &'a [String],
}

/// A file when there is one, and a name otherwise.
pub fn find(workload: &str) -> Result<Imported, String> {
    let path = Path::new(workload);
    if path.exists() {
        return Workload::read(path).map_err(|error| format!("--workload {workload}: {error}"));
    }
    known::known(workload).ok_or_else(|| {
        format!(
            "--workload {workload}: neither a file nor a workload that is known by name; `forebay-bench kafka workloads` lists those"
        )
    })
}

/// One line each: the name and what it asks for.
pub fn list() -> Vec<String> {
    let heading = "name                                          topics  partitions  producers  consumers  records/s    bytes  minutes".to_string();
    let line = |name: &str| {
        let workload = known::known(name).expect("of the list").workload;
        let rate = workload
            .rate
            .map_or("highest".to_string(), |rate| rate.to_string());
        let refused = refused(&workload).map_or(String::new(), |why| format!("  refused: {why}"));
        format!(
            "{name:<44} {:>7} {:>11} {:>10} {:>10} {rate:>10} {:>8} {:>8}{refused}",
            workload.topics,
            workload.partitions(),
            workload.producers(),
            workload.consumers(),
            workload.message_bytes,
            workload.test_minutes,
        )
    };
    std::iter::once(heading)
        .chain(known::names().map(line))
        .collect()
}

/// Why it cannot be run.
fn refused(workload: &Workload) -> Option<String> {
    let counts = [
        within("topics", u64::from(workload.topics), 1..=10_000),
        within(
            "partitionsPerTopic",
            u64::from(workload.partitions_per_topic),
            1..=100_000,
        ),
        within("producers of all topics", workload.producers(), 1..=10_000),
        within(
            "testDurationMinutes",
            u64::from(workload.test_minutes),
            1..=24 * SECONDS_MAX / 60,
        ),
        within(
            "warmupDurationMinutes",
            u64::from(workload.warmup_minutes),
            0..=SECONDS_MAX / 60,
        ),
    ];
    if workload.backlog.is_some() {
        return Some("consumerBacklogSizeGB is not supported yet (see `peak`)".to_string());
    }
    if workload.consumers() == 0 {
        return Some("no consumers; see `kafka produce`".to_string());
    }
    if workload.subscriptions_per_topic > 1 {
        let subscriptions = workload.subscriptions_per_topic;
        return Some(format!(
            "subscriptionsPerTopic is {subscriptions}, and only one is supported"
        ));
    }
    if let Err(error) = within("consumers of all topics", workload.consumers(), 1..=10_000) {
        return Some(error);
    }
    // Each producer numbers its records in each partition by itself.
    if workload.producers() * workload.partitions() > u64::from(u32::MAX) {
        return Some("more than 4294967295 pairs of a producer and a partition".to_string());
    }
    counts.into_iter().find_map(Result::err)
}

impl E2ePlan {
    /// With what the workload says in place of the options that say the same.
    pub fn with_workload(&self, imported: Imported) -> Result<Planned, String> {
        let Imported {
            workload,
            warnings: mut differences,
        } = imported;
        let said = |error: String| format!("--workload {}: {error}", workload.name);
        if let Some(why) = refused(&workload) {
            return Err(said(why));
        }
        let mut plan = self.clone();
        plan.topics.topics = workload.topics;
        plan.topics.partitions = workload.partitions_per_topic;
        plan.producers.producers = u32::try_from(workload.producers()).expect("checked");
        plan.consumers.consumers = u32::try_from(workload.consumers()).expect("checked");
        let bytes = format!("fixed:{}", workload.message_bytes);
        plan.producers.record_bytes = bytes
            .parse()
            .map_err(|error| said(format!("messageSize: {error}")))?;
        let keys = match workload.keys {
            Keys::None => "none".to_string(),
            Keys::RoundRobin => format!("round-robin:{KEYS}"),
            Keys::Random => format!("uniform:{KEYS}"),
        };
        plan.producers.keys = keys.parse().map_err(said)?;
        plan.producers.compressible = workload.payload.random_ratio < 1.0;
        if let Some(schedule) = workload.schedule() {
            plan.offer.schedule = schedule;
        }
        plan.run = plan
            .run
            .lasting(u64::from(workload.test_minutes) * 60)
            .warming_up(u64::from(workload.warmup_minutes) * 60);
        differences.extend(plan.differences(&workload));
        Ok(Planned {
            plan,
            workload,
            differences,
        })
    }

    fn differences(&self, workload: &Workload) -> Vec<String> {
        let mut lines = Vec::new();
        if workload.rate.is_none() {
            let schedule = &self.offer.schedule;
            lines.push(format!(
                "producerRate 0 asks for the highest rate to be searched: it runs as {schedule} instead, as fast as the broker acknowledges"
            ));
        }
        if workload.rate.is_some_and(|rate| rate >= AS_FAST_AS_IT_GOES) {
            lines.push(
                "a rate that stands for as fast as it goes is taken as a plan here: a generator that falls behind it makes the run not valid; for throughput, use --schedule closed:N without --workload"
                    .to_string(),
            );
        }
        if workload.topics > 1 {
            lines.push(
                "several topics: each producer sends to all of them in turn, and consumers share all partitions evenly; in the workload each has one topic"
                    .to_string(),
            );
        }
        if let Some(pool) = workload.payload.pool {
            let ratio = workload.payload.random_ratio;
            let instead = match ratio < 1.0 {
                true => "codecs can shorten to about half",
                false => "is noise",
            };
            lines.push(format!(
                "randomized payloads ({pool} with a random share of {ratio}): every value is new and {instead}"
            ));
        }
        if self.run.quick {
            lines.push(format!(
                "--quick: at most 10 s measured and 2 s before it, of {} and {} minutes",
                workload.test_minutes, workload.warmup_minutes
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        plan: E2ePlan,
    }

    fn options(line: &str) -> Result<E2ePlan, String> {
        let words = ["e2e"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(line.plan)
    }

    fn planned(line: &str, name: &str) -> Result<Planned, String> {
        options(line)?.with_workload(find(name)?)
    }

    const TEXT: &str = "
name: mine
topics: 2
partitionsPerTopic: 3
messageSize: 100
subscriptionsPerTopic: 1
consumerPerSubscription: 2
producersPerTopic: 4
producerRate: 1000
testDurationMinutes: 2
";

    /// Of `TEXT` with one thing changed.
    fn from_text(field: &str, value: &str) -> Result<Planned, String> {
        let old = TEXT.lines().filter(|line| !line.starts_with(field));
        let line = format!("{field}: {value}");
        let text: Vec<&str> = old.chain([line.as_str()]).collect();
        let imported = Workload::parse(&text.join("\n"), "a file").map_err(|e| e.to_string())?;
        options("")?.with_workload(imported)
    }

    #[test]
    fn a_workload_is_a_load() {
        let found = from_text("keyDistributor", "KEY_ROUND_ROBIN").expect("a plan");
        let plan = found.plan;
        assert_eq!((plan.topics.topics, plan.topics.partitions), (2, 3));
        assert_eq!((plan.producers.producers, plan.consumers.consumers), (8, 4));
        assert_eq!(plan.producers.record_bytes.to_string(), "fixed:100");
        assert_eq!(plan.producers.keys.to_string(), "round-robin:10000");
        assert_eq!(plan.offer.schedule.to_string(), "constant:1000");
        let run = plan.run.settled().expect("times within bounds");
        assert_eq!(
            (run.measured().as_secs(), run.warm_up().as_secs()),
            (120, 60)
        );
        assert_eq!(found.differences.len(), 1, "{:?}", found.differences);
        assert!(found.differences[0].starts_with("several topics"));
    }

    #[test]
    fn all_known_ones_run_or_say_why_not() {
        let (mut run, mut refused) = (0, 0);
        for name in known::names() {
            match planned("", name) {
                Ok(planned) => {
                    planned.plan.run.settled().expect(name);
                    planned.plan.producers.check().expect(name);
                    planned.plan.consumers.check().expect(name);
                    planned.plan.topics.check().expect(name);
                    run += 1;
                }
                Err(why) => {
                    assert!(why.starts_with(&format!("--workload {name}: ")), "{why}");
                    assert_eq!(why.lines().count(), 1, "{why}");
                    refused += 1;
                }
            }
        }
        assert_eq!(run + refused, 130);
        assert!(run > refused, "{run} run, {refused} are refused");
        assert_eq!(list().len(), 131);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let check = |field: &str, value: &str, expected: &str| {
            let refused = from_text(field, value).expect_err(field);
            assert!(refused.contains(expected), "{field}: {refused}");
        };
        check("subscriptionsPerTopic", "3", "only one is supported");
        check("subscriptionsPerTopic", "0", "see `kafka produce`");
        check("consumerPerSubscription", "0", "see `kafka produce`");
        check("consumerBacklogSizeGB", "1", "not supported yet");
        check("producersPerTopic", "10000", "producers of all topics");
        check(
            "consumerPerSubscription",
            "10000",
            "consumers of all topics",
        );
        check(
            "testDurationMinutes",
            "10080",
            "testDurationMinutes must be",
        );
        check(
            "warmupDurationMinutes",
            "61",
            "warmupDurationMinutes must be",
        );
        check("messageSize", "10", "messageSize: 10 bytes");
        check("topics", "10001", "topics must be");
        check("topics", "[", "no YAML");
    }

    #[test]
    fn what_is_otherwise_is_said() {
        let check = |field: &str, value: &str, expected: &str| {
            let said = from_text(field, value).expect(field).differences;
            assert!(said.iter().any(|line| line.contains(expected)), "{said:?}");
        };
        check("producerRate", "0", "closed:10000 instead");
        check("payloadFile", "x.data", "is not read");
        check("colour", "blue", "colour is no field");
        let pool = planned("", "max-rate-10-topics-1-partition-64kb").expect("a plan");
        assert!(pool.plan.producers.compressible);
        let as_plan = |line: &String| line.contains("taken as a plan");
        assert!(pool.differences.iter().any(as_plan));
        assert!(
            pool.differences
                .iter()
                .any(|line| line.contains("about half"))
        );
        let quick = planned("--quick", "1-topic-1-partition-1kb").expect("a plan");
        assert!(
            quick
                .differences
                .iter()
                .any(|line| line.starts_with("--quick"))
        );
        let run = quick.plan.run.settled().expect("times within bounds");
        assert_eq!((run.measured().as_secs(), run.warm_up().as_secs()), (10, 2));
    }

    #[test]
    fn options_of_the_workload_are_not_taken_twice() {
        for option in super::super::OF_THE_WORKLOAD {
            let option = option.replace('_', "-");
            let value = match option.as_str() {
                "schedule" => "constant:5",
                "record-bytes" => "fixed:100",
                "keys" => "none",
                "compressible" => "",
                _ => "1",
            };
            let line = format!("--workload simple-workload --{option} {value}");
            let refused = options(&line).expect_err(&option);
            assert!(refused.contains("cannot be used with"), "{refused}");
        }
        let unknown = planned("", "simple-workloads").expect_err("no such name");
        assert!(unknown.contains("kafka workloads"), "{unknown}");
    }
}
