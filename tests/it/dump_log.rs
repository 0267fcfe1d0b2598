//! Kafka's own DumpLogSegments reads what we write, and our `dump-log` says the same.

use std::{
    fs,
    path::{Path, PathBuf},
};

use forebay_tests::{
    broker::{Broker, Options, Scratch},
    tools::{self, java, kcat, ours, run},
};

/// Batches of a segment file as DumpLogSegments prints them: how many, and how many records they hold.
#[derive(Debug, PartialEq, Eq)]
struct Dumped {
    batches: usize,
    records: i64,
}

fn parse(output: &str) -> Dumped {
    let mut dumped = Dumped {
        batches: 0,
        records: 0,
    };
    for line in output
        .lines()
        .filter(|line| line.starts_with("baseOffset: "))
    {
        assert!(line.contains("isvalid: true"), "{line}");
        let count = line
            .split("count: ")
            .nth(1)
            .expect("a batch line tells its count");
        let count = count
            .split(' ')
            .next()
            .expect("split gives at least one part");
        dumped.records += count.parse::<i64>().expect("a count is a number");
        dumped.batches += 1;
    }
    dumped
}

fn dump_with_kafkas(path: &Path, bytes_max: Option<u64>) -> Dumped {
    let path = path.display().to_string();
    let limit = bytes_max.map(|bytes| bytes.to_string());
    let mut arguments = vec!["--files", &path, "--deep-iteration", "--print-data-log"];
    if let Some(limit) = &limit {
        arguments.extend_from_slice(&["--max-bytes", limit]);
    }
    let ran = run(&mut java(tools::DUMP_LOG_SEGMENTS, &arguments), b"").ok();
    // It reports damage on standard output and still ends with 0.
    for word in ["Found", "invalid", "Exception"] {
        assert!(
            !ran.stdout.contains(word) && !ran.stderr.contains(word),
            "{ran:?}"
        );
    }
    parse(&ran.stdout)
}

fn dump_with_ours(path: &Path) -> Dumped {
    let path = path.display().to_string();
    parse(
        &run(&mut ours("kafka-dump-log", &["--files", &path]), b"")
            .ok()
            .stdout,
    )
}

/// Where the batches of a segment end, told by their lengths alone.
fn valid_len(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("the segment can be read");
    let mut at = 0;
    while at + 12 <= bytes.len() {
        let length = i32::from_be_bytes(bytes[at + 8..at + 12].try_into().expect("four bytes"));
        if length <= 0 {
            break;
        }
        at += 12 + usize::try_from(length).expect("positive");
    }
    assert!(
        at <= bytes.len(),
        "{}: the last batch is cut",
        path.display()
    );
    assert!(
        bytes[at..].iter().all(|byte| *byte == 0),
        "{}: not zeros",
        path.display()
    );
    at as u64
}

fn segments(data: &Path, partition: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(data.join(partition))
        .expect("the partition has its directory")
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn kafkas_dump_log_verifies_sealed_active_and_stopped_segments() {
    let scratch = Scratch::new("dump");
    let broker = Broker::start(Options::new(scratch.path()).set("log.segment.bytes", 1 << 20));
    let server = broker.bootstrap();
    let mut records = 0;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let lines: String = (0..20_000_u64)
            .map(|i| {
                format!(
                    "{:x} {i} some text to compress\n",
                    forebay_tests::payload::mix(i)
                )
            })
            .collect();
        records += 20_000;
        run(
            &mut kcat(&["-P", "-b", &server, "-t", "dump", "-p", "0", "-z", codec]),
            lines.as_bytes(),
        )
        .ok();
    }
    let running = segments(scratch.path(), "dump-0");
    assert!(running.len() >= 3, "the log has rolled: {running:?}");
    let (active, sealed) = running.split_last().expect("there is an active segment");
    let mut seen = 0;
    for path in sealed {
        let len = fs::metadata(path).expect("the file is there").len();
        assert_eq!(
            valid_len(path),
            len,
            "{}: sealed to its exact length",
            path.display()
        );
        let dumped = dump_with_kafkas(path, None);
        assert_eq!(dumped, dump_with_ours(path));
        seen += dumped.records;
    }
    let valid = valid_len(active);
    if valid > 0 {
        let dumped = dump_with_kafkas(active, Some(valid));
        assert_eq!(dumped, dump_with_ours(active));
    }

    broker.stop();
    let stopped = segments(scratch.path(), "dump-0");
    let active = stopped.last().expect("there is a last segment");
    assert_eq!(
        valid_len(active),
        fs::metadata(active).expect("the file is there").len()
    );
    for path in stopped.iter().skip(sealed.len()) {
        let dumped = dump_with_kafkas(path, None);
        assert_eq!(dumped, dump_with_ours(path));
        seen += dumped.records;
    }
    assert_eq!(seen, records);
}
