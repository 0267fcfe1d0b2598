//! Short checks with clients of other families: kcat, kafka-python, confluent-kafka.

use std::time::Duration;

use forebay_tests::{
    broker::{Broker, Options, Scratch},
    tools::{kcat, python, run},
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic},
    client::DefaultClientContext,
};

/// Creates topics through librdkafka and waits for the answer.
pub fn create_topics<'a>(server: &str, topics: impl IntoIterator<Item = NewTopic<'a>>) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", server)
        .create()
        .expect("the admin client's settings are right");
    let topics: Vec<NewTopic<'a>> = topics.into_iter().collect();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let results = futures_executor::block_on(admin.create_topics(&topics, &options))
        .expect("the request is answered");
    for result in results {
        result.expect("the topic is created");
    }
}

#[test]
fn kcat_produces_consumes_and_lists() {
    let scratch = Scratch::new("kcat");
    let broker = Broker::start(Options::new(scratch.path()));
    let server = broker.bootstrap();
    // The topic is created by the first request for its metadata, as with Kafka's default settings.
    let lines: String = (0..5000).map(|i| format!("k{i}:value {i}\n")).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("kcat-{codec}");
        run(
            &mut kcat(&["-P", "-b", &server, "-t", &topic, "-K", ":", "-z", codec]),
            lines.as_bytes(),
        )
        .ok();
        let read = run(
            &mut kcat(&[
                "-C",
                "-b",
                &server,
                "-t",
                &topic,
                "-e",
                "-q",
                "-o",
                "beginning",
                "-K",
                ":",
            ]),
            b"",
        )
        .ok();
        assert_eq!(read.stdout, lines, "{codec}");
    }
    let listed = run(&mut kcat(&["-L", "-b", &server]), b"").ok();
    assert!(
        listed
            .stdout
            .contains("topic \"kcat-zstd\" with 1 partitions"),
        "{listed:?}"
    );
    // A group, by its balanced consumer.
    let read = run(
        &mut kcat(&[
            "-b",
            &server,
            "-q",
            "-c",
            "5000",
            "-X",
            "auto.offset.reset=earliest",
            "-G",
            "kcat-group",
            "kcat-none",
        ]),
        b"",
    )
    .ok();
    assert_eq!(read.stdout.lines().count(), 5000);
    // Offset by time: everything is newer than the first of January 2020.
    let query = run(
        &mut kcat(&["-Q", "-b", &server, "-t", "kcat-none:0:1577836800000"]),
        b"",
    )
    .ok();
    assert!(query.stdout.contains("offset 0"), "{query:?}");
    broker.stop();
}

#[test]
fn kafka_python_works() {
    check_python("kafka_python_smoke.py");
}

#[test]
fn confluent_kafka_works() {
    check_python("confluent_kafka_smoke.py");
}

fn check_python(script: &str) {
    let scratch = Scratch::new("python");
    let broker = Broker::start(Options::new(scratch.path()));
    let ran = run(&mut python(script, &[&broker.bootstrap()]), b"").ok();
    assert!(ran.stdout.trim_end().ends_with("all good"), "{ran:?}");
    broker.stop();
}
