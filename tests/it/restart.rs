//! What must outlive the process: topics, configurations, committed offsets, and the identity of the cluster.

use forebay_tests::{
    broker::{Broker, Options, Scratch},
    tools::{kcat, ours, run},
};

#[track_caller]
fn check_survives(stop: impl Fn(Broker) -> Options) {
    let scratch = Scratch::new("restart");
    let broker = Broker::start(Options::new(scratch.path()));
    let server = broker.bootstrap();
    let call = |name: &str, arguments: &[&str], input: &str| {
        let mut all = vec!["--bootstrap-server", server.as_str()];
        all.extend_from_slice(arguments);
        run(&mut ours(name, &all), input.as_bytes()).ok().stdout
    };
    call(
        "kafka-topics",
        &[
            "--create",
            "--topic",
            "kept",
            "--partitions",
            "3",
            "--config",
            "retention.ms=77777",
        ],
        "",
    );
    call("kafka-topics", &["--create", "--topic", "gone"], "");
    call("kafka-topics", &["--delete", "--topic", "gone"], "");
    call("kafka-console-producer", &["--topic", "kept"], "one\ntwo\n");
    let consumed = |max: &str| {
        call(
            "kafka-console-consumer",
            &[
                "--topic",
                "kept",
                "--group",
                "g",
                "--from-beginning",
                "--max-messages",
                max,
                "--timeout-ms",
                "30000",
            ],
            "",
        )
    };
    assert_eq!(consumed("2").lines().count(), 2);
    let described = call("kafka-topics", &["--describe", "--topic", "kept"], "");
    // From the brokers on: what comes before tells which connection happened to answer.
    let identity = || {
        let listed = run(&mut kcat(&["-L", "-J", "-b", &server]), b"")
            .ok()
            .stdout;
        let (_, identity) = listed
            .split_once("\"brokers\"")
            .expect("brokers are listed");
        identity.to_string()
    };
    let before = identity();

    let broker = Broker::start(stop(broker));
    assert_eq!(
        call("kafka-topics", &["--list", "--exclude-internal"], "").trim(),
        "kept"
    );
    assert_eq!(
        call("kafka-topics", &["--describe", "--topic", "kept"], ""),
        described
    );
    assert!(described.contains("retention.ms=77777"), "{described}");
    assert_eq!(identity(), before);
    // The group goes on where it was: only what is new is seen.
    call("kafka-console-producer", &["--topic", "kept"], "three\n");
    assert_eq!(consumed("1"), "three\n");
    broker.stop();
}

#[test]
fn everything_survives_a_clean_stop() {
    check_survives(Broker::stop);
}

#[test]
fn everything_survives_a_kill() {
    check_survives(Broker::kill);
}
