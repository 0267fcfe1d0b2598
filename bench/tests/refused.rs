//! What a user sees of a run that cannot be done: one line that says why, and an exit code that is not zero, before anything is measured.

use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-bench"));
    let ran = command.args(args).output();
    ran.expect("the program can be started")
}

/// Runs `storage` with these arguments, in a directory with room unless they name another.
fn check(args: &str, why: &str) {
    let dir = std::env::temp_dir();
    let dir = dir.to_str().expect("a path of text");
    let mut all = vec!["storage"];
    all.extend(args.split(' '));
    if !args.contains("--dir") {
        all.extend(["--dir", dir]);
    }
    refused(&all, why);
}

fn refused(args: &[&str], why: &str) {
    let output = bench(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert_eq!(said, format!("forebay-bench: {why}\n"), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
}

const COMMANDS: [&str; 6] = [
    "append",
    "fan-in",
    "mixed",
    "partitions",
    "read",
    "recovery",
];

#[test]
fn a_plan_that_makes_no_sense() {
    let batch = "--size-bytes must be between 256 and 16777216, and is";
    check("append --size-bytes 0", &format!("{batch} 0"));
    check("mixed --size-bytes 0", &format!("{batch} 0"));
    check("partitions --size-bytes 255", &format!("{batch} 255"));
    check(
        "fan-in --size-bytes 0",
        "--size-bytes must be between 256 and 1048576, and is 0",
    );
    check(
        "read --sizes 4096,0",
        "--sizes must be between 4096 and 16777216, and is 0",
    );
    check(
        "read --piece-bytes 5000",
        "--piece-bytes must be a multiple of 4096, and is 5000",
    );
    check(
        "read --batch-bytes 0",
        "--batch-bytes must be between 256 and 1048576, and is 0",
    );
    check(
        "recovery --log-mib 1",
        "--log-mib must be between 16 and 18446744073709551615, and is 1",
    );
    check(
        "fan-in --partitions 16,0",
        "--partitions must be between 1 and 1000000, and is 0",
    );
    // What the engine would stop at with a panic.
    check(
        "append --bypass-bytes 100000000",
        "--bypass-bytes must be between 0 and 33554432, and is 100000000",
    );
    check(
        "append --partitions 1000 --depth 1001",
        "--depth must be between 1 and 1000, and is 1001",
    );
    check(
        "mixed --batches-per-sec 18446744073709551615",
        "--batches-per-sec must be between 1 and 1000000, and is 18446744073709551615",
    );
}

#[test]
fn no_rounds_and_no_time() {
    for command in COMMANDS {
        check(
            &format!("{command} --rounds 0"),
            "--rounds must be between 1 and 10000, and is 0",
        );
        if !["partitions", "recovery"].contains(&command) {
            check(
                &format!("{command} --seconds 18446744073709551615"),
                "--seconds must be between 1 and 3600, and is 18446744073709551615",
            );
        }
    }
}

#[test]
fn a_directory_that_is_not_there() {
    for command in COMMANDS {
        check(
            &format!("{command} --dir /nonexistent/forebay"),
            "--dir /nonexistent/forebay: no such directory",
        );
    }
}

#[test]
fn no_place_for_the_result() {
    for command in COMMANDS {
        check(
            &format!("{command} --out /dev/null/result"),
            "--out /dev/null/result: Not a directory (os error 20)",
        );
    }
}

/// /proc is a file system on which nothing is free.
#[test]
fn not_enough_room() {
    let check = |args: &str, mib: u64| {
        let why = format!("--dir /proc: the run needs about {mib} MiB free, and 0 MiB are");
        check(&format!("{args} --dir /proc"), &why);
    };
    check("append", 1024);
    check("fan-in", 1024);
    check(
        "mixed --backlog-mib 300 --batches-per-sec 1 --seconds 1",
        1324,
    );
    check("partitions --load-mib 7", 1031);
    check("read --backlog-mib 256", 1280);
    check("recovery --log-mib 100 --dirty-mib 3,4 --rounds 2", 1138);
    // More than can be counted is not taken for little.
    let most = u64::MAX;
    check(&format!("read --backlog-mib {most}"), most >> 20);
    check(&format!("mixed --backlog-mib {most}"), most >> 20);
    check(&format!("partitions --load-mib {most}"), most >> 20);
    check(&format!("recovery --dirty-mib {most}"), most >> 20);
}

#[test]
fn what_is_not_of_storage() {
    refused(
        &["network", "--size-bytes", "0"],
        "--size-bytes must be between 1 and 67108864, and is 0",
    );
    let nobody = "127.0.0.1:9";
    let away = "--bootstrap-server 127.0.0.1:9: no answer within 10 s (Meta data fetch error: BrokerTransportFailure (Local: Broker transport failure)): is a broker running there, and are address and credentials right?";
    refused(&["kafka", "produce", "--bootstrap-server", nobody], away);
    refused(&["kafka", "consume"], "--topic: which topic is to be read?");
    refused(
        &["kafka", "produce", "--producers", "0"],
        "--producers must be between 1 and 10000, and is 0",
    );
    refused(
        &["peak", "--base-rate", "0"],
        "--base-rate must be between 1 and 100000000, and is 0",
    );
}

/// Clap says what is wrong with a value that cannot be read.
#[test]
fn what_cannot_be_read() {
    let check = |args: &[&str], why: &str| {
        let output = bench(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
    };
    check(
        &["kafka", "produce", "--record-bytes", "0"],
        "0 bytes: a value has 40 to 1000000000",
    );
    check(&["kafka", "produce", "--schedule", "fast"], "fast");
    check(
        &["kafka", "produce", "--keys", "zipf:0,1"],
        "not a number of keys",
    );
    check(&["kafka", "produce", "--acks", "7"], "possible values");
}
