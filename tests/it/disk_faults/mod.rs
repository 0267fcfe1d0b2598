//! A disk that fails, runs full, becomes slow or rots, under the real broker and real clients: the policy of `engine/README.md`, section 7.

mod corrupt;
mod failing;
mod full;
mod ledger;
mod slow;

use forebay_tests::{
    broker::Broker,
    tools::{Ran, kcat, run},
};

/// What the broker has logged with this level and these words.
fn logged(broker: &Broker, level: &str, words: &str) -> Vec<String> {
    let level = format!("\"level\":\"{level}\"");
    let output = broker.output();
    let found = output
        .lines()
        .filter(|line| line.contains(&level) && line.contains(words));
    found.map(str::to_owned).collect()
}

/// One record by kcat, which is told what became of it and does not try again.
fn kcat_produce(broker: &Broker, topic: &str) -> Ran {
    let server = broker.bootstrap();
    let arguments = [
        "-P",
        "-b",
        &server,
        "-t",
        topic,
        "-p",
        "0",
        "-X",
        "retries=0",
        "-X",
        "acks=all",
    ];
    run(&mut kcat(&arguments), b"from kcat")
}

/// librdkafka's words for KAFKA_STORAGE_ERROR.
const DISK_ERROR: &str = "Disk error when trying to access log file on disk";
