//! The commands of a first tutorial, as people type them: with our binary under Kafka's names, and with Kafka's own tools.

use std::process::Command;

use forebay_tests::{
    broker::{Broker, Options, Scratch},
    tools::{self, Ran, java, ours, run},
};

/// One of Kafka's tools, as ours and as theirs.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Ours,
    Kafkas,
}

fn tool(whose: Whose, name: &str, arguments: &[&str]) -> Command {
    let class = match name {
        "kafka-topics" => tools::TOPIC_COMMAND,
        "kafka-console-producer" => tools::CONSOLE_PRODUCER,
        "kafka-console-consumer" => tools::CONSOLE_CONSUMER,
        "kafka-consumer-groups" => tools::CONSUMER_GROUP_COMMAND,
        "kafka-configs" => tools::CONFIG_COMMAND,
        "kafka-get-offsets" => tools::GET_OFFSET_SHELL,
        _ => panic!("no class is known for {name}"),
    };
    match whose {
        Whose::Ours => ours(name, arguments),
        Whose::Kafkas => java(class, arguments),
    }
}

#[track_caller]
fn check_tutorial(whose: Whose) {
    let scratch = Scratch::new("tutorial");
    let broker = Broker::start(Options::new(scratch.path()));
    let server = broker.bootstrap();
    let call = |name: &str, arguments: &[&str], input: &str| -> Ran {
        let mut all = vec!["--bootstrap-server", server.as_str()];
        all.extend_from_slice(arguments);
        run(&mut tool(whose, name, &all), input.as_bytes()).ok()
    };

    let created = call(
        "kafka-topics",
        &[
            "--topic",
            "first",
            "--create",
            "--partitions",
            "1",
            "--replication-factor",
            "1",
        ],
        "",
    );
    assert!(
        created.stdout.contains("Created topic first."),
        "{created:?}"
    );

    let listed = call("kafka-topics", &["--list"], "");
    assert_eq!(listed.stdout.trim(), "first");

    let described = call("kafka-topics", &["--topic", "first", "--describe"], "");
    assert!(
        described.stdout.contains("PartitionCount: 1"),
        "{described:?}"
    );
    assert!(
        described.stdout.contains("ReplicationFactor: 1"),
        "{described:?}"
    );
    assert!(
        described.stdout.contains("Partition: 0\tLeader: "),
        "{described:?}"
    );

    call(
        "kafka-console-producer",
        &["--topic", "first"],
        "one\ntwo\nthree\n",
    );
    let consumed = call(
        "kafka-console-consumer",
        &[
            "--topic",
            "first",
            "--from-beginning",
            "--max-messages",
            "3",
            "--timeout-ms",
            "30000",
        ],
        "",
    );
    assert_eq!(consumed.stdout, "one\ntwo\nthree\n");
    assert!(
        consumed.stderr.contains("Processed a total of 3 messages"),
        "{consumed:?}"
    );

    // Without --from-beginning only new records are shown: there are none, so the time limit ends it.
    let consumed = run(
        &mut tool(
            whose,
            "kafka-console-consumer",
            &[
                "--bootstrap-server",
                &server,
                "--topic",
                "first",
                "--timeout-ms",
                "3000",
            ],
        ),
        b"",
    );
    assert_eq!(consumed.stdout, "");
    assert!(
        consumed.stderr.contains("Processed a total of 0 messages"),
        "{consumed:?}"
    );

    broker.stop();
}

#[test]
fn the_tutorial_works_with_our_tools() {
    check_tutorial(Whose::Ours);
}

#[test]
fn the_tutorial_works_with_kafkas_tools() {
    check_tutorial(Whose::Kafkas);
}

#[track_caller]
fn check_groups_and_configs(whose: Whose) {
    let scratch = Scratch::new("admin");
    let broker = Broker::start(Options::new(scratch.path()));
    let server = broker.bootstrap();
    let call = |name: &str, arguments: &[&str], input: &str| -> Ran {
        let mut all = vec!["--bootstrap-server", server.as_str()];
        all.extend_from_slice(arguments);
        run(&mut tool(whose, name, &all), input.as_bytes()).ok()
    };
    call(
        "kafka-topics",
        &["--create", "--topic", "t", "--partitions", "2"],
        "",
    );
    call("kafka-console-producer", &["--topic", "t"], "a\nb\nc\nd\n");
    call(
        "kafka-console-consumer",
        &[
            "--topic",
            "t",
            "--from-beginning",
            "--group",
            "g",
            "--max-messages",
            "4",
            "--timeout-ms",
            "30000",
        ],
        "",
    );
    let listed = call("kafka-consumer-groups", &["--list"], "");
    assert_eq!(listed.stdout.trim(), "g");
    let described = call("kafka-consumer-groups", &["--describe", "--group", "g"], "");
    let lags: Vec<&str> = described
        .stdout
        .lines()
        .filter(|line| line.starts_with("g "))
        .map(|line| {
            line.split_whitespace()
                .nth(5)
                .expect("LAG is the sixth column")
        })
        .collect();
    assert_eq!(lags, ["0", "0"], "{described:?}");

    call(
        "kafka-consumer-groups",
        &[
            "--group",
            "g",
            "--reset-offsets",
            "--to-earliest",
            "--topic",
            "t",
            "--execute",
        ],
        "",
    );
    let again = call(
        "kafka-console-consumer",
        &[
            "--topic",
            "t",
            "--group",
            "g",
            "--max-messages",
            "4",
            "--timeout-ms",
            "30000",
        ],
        "",
    );
    let mut lines: Vec<&str> = again.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a", "b", "c", "d"]);

    call(
        "kafka-configs",
        &[
            "--alter",
            "--entity-type",
            "topics",
            "--entity-name",
            "t",
            "--add-config",
            "retention.ms=123456,segment.bytes=2097152",
        ],
        "",
    );
    let configs = call(
        "kafka-configs",
        &[
            "--describe",
            "--entity-type",
            "topics",
            "--entity-name",
            "t",
        ],
        "",
    );
    assert!(
        configs.stdout.contains("retention.ms=123456"),
        "{configs:?}"
    );
    call(
        "kafka-configs",
        &[
            "--alter",
            "--entity-type",
            "topics",
            "--entity-name",
            "t",
            "--delete-config",
            "retention.ms",
        ],
        "",
    );
    let configs = call(
        "kafka-configs",
        &[
            "--describe",
            "--entity-type",
            "topics",
            "--entity-name",
            "t",
        ],
        "",
    );
    assert!(
        !configs.stdout.contains("retention.ms=123456"),
        "{configs:?}"
    );
    assert!(
        configs.stdout.contains("segment.bytes=2097152"),
        "{configs:?}"
    );

    call(
        "kafka-topics",
        &["--alter", "--topic", "t", "--partitions", "5"],
        "",
    );
    let described = call("kafka-topics", &["--topic", "t", "--describe"], "");
    assert!(
        described.stdout.contains("PartitionCount: 5"),
        "{described:?}"
    );
    call("kafka-consumer-groups", &["--delete", "--group", "g"], "");
    assert_eq!(
        call("kafka-consumer-groups", &["--list"], "").stdout.trim(),
        ""
    );
    call("kafka-topics", &["--delete", "--topic", "t"], "");
    let listed = call("kafka-topics", &["--list", "--exclude-internal"], "");
    assert_eq!(listed.stdout.trim(), "");
    broker.stop();
}

#[test]
fn groups_and_configs_with_our_tools() {
    check_groups_and_configs(Whose::Ours);
}

#[test]
fn groups_and_configs_with_kafkas_tools() {
    check_groups_and_configs(Whose::Kafkas);
}

#[test]
fn kafkas_perf_tools_and_get_offsets() {
    let scratch = Scratch::new("perf");
    let broker = Broker::start(Options::new(scratch.path()));
    let server = broker.bootstrap();
    run(
        &mut tool(
            Whose::Kafkas,
            "kafka-topics",
            &[
                "--bootstrap-server",
                &server,
                "--create",
                "--topic",
                "perf",
                "--partitions",
                "3",
            ],
        ),
        b"",
    )
    .ok();
    let produced = run(
        &mut java(
            tools::PRODUCER_PERFORMANCE,
            &[
                "--topic",
                "perf",
                "--num-records",
                "50000",
                "--record-size",
                "500",
                "--throughput",
                "-1",
                "--bootstrap-server",
                &server,
            ],
        ),
        b"",
    )
    .ok();
    assert!(
        produced.stdout.contains("50000 records sent"),
        "{produced:?}"
    );
    let consumed = run(
        &mut java(
            tools::CONSUMER_PERFORMANCE,
            &[
                "--topic",
                "perf",
                "--num-records",
                "50000",
                "--bootstrap-server",
                &server,
                "--timeout",
                "60000",
            ],
        ),
        b"",
    )
    .ok();
    assert!(consumed.stdout.contains(", 50000, "), "{consumed:?}");
    for whose in [Whose::Kafkas, Whose::Ours] {
        let offsets = run(
            &mut tool(
                whose,
                "kafka-get-offsets",
                &["--bootstrap-server", &server, "--topic", "perf"],
            ),
            b"",
        )
        .ok();
        let total: i64 = offsets
            .stdout
            .lines()
            .map(|line| line.rsplit(':').next().expect("topic:partition:offset"))
            .map(|offset| offset.parse::<i64>().expect("an offset is a number"))
            .sum();
        assert_eq!(total, 50_000, "{whose:?}: {offsets:?}");
    }
    broker.stop();
}
