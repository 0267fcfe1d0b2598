//! Small runs of every `storage` command: what they leave behind when they end by themselves, and when a signal ends them.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Each as small as it can be.
const COMMANDS: [&str; 6] = [
    "append --rounds 1 --seconds 1 --warm-up-seconds 0 --size-bytes 65536",
    "fan-in --rounds 1 --seconds 1 --partitions 3",
    "mixed --rounds 1 --seconds 1 --backlog-mib 256 --batches-per-sec 20",
    "partitions --rounds 1 --many 7 --few 2 --load-mib 4",
    "read --rounds 1 --seconds 1 --backlog-mib 256 --sizes 65536",
    "recovery --rounds 1 --log-mib 16 --dirty-mib 0,1",
];

/// Of one test, with a place for data and one for results; removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("forebay-bench-test-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(dir.join("data")).expect("a new folder");
        Folder(dir)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.0.join("out").join(name)
    }

    fn command(&self, args: &str, out: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-bench"));
        command.arg("storage").args(args.split(' '));
        command.arg("--dir").arg(self.0.join("data"));
        command.arg("--out").arg(self.out(out));
        command
    }

    /// What a run has there.
    fn data(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join("data")).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.collect()
    }

    fn check_nothing_is_left(&self) {
        assert_eq!(self.data(), Vec::<PathBuf>::new());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn name(args: &str) -> &str {
    args.split(' ').next().expect("a word")
}

fn result_of(out: &Path) -> Value {
    let text = fs::read_to_string(out.join("result.json")).expect("a result");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    let schema: Value =
        serde_json::from_str(include_str!("../result.schema.json")).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator
        .iter_errors(&result)
        .map(|it| it.to_string())
        .collect();
    assert_eq!(errors, Vec::<String>::new());
    result
}

fn done(command: &mut Command) -> Output {
    let output = command.output().expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{command:?}: {said}");
    output
}

#[test]
fn a_run_leaves_a_whole_result_and_nothing_else() {
    for args in COMMANDS {
        let folder = Folder::new(&format!("whole-{}", name(args)));
        done(&mut folder.command(args, "run"));
        folder.check_nothing_is_left();
        let out = folder.out("run");
        let result = result_of(&out);
        assert_eq!(result["verdict"]["valid"], true, "{args}");
        assert_eq!(result["command"], format!("storage {}", name(args)));
        let some = |value: &Value| value.as_array().is_some_and(|it| !it.is_empty());
        let rounds = &result["rounds"];
        for part in [
            &rounds["engine_config"],
            &rounds["sides"],
            &rounds["figures"],
        ] {
            assert!(some(part), "{args}: {rounds}");
        }
        for part in ["phases", "metrics", "series"] {
            assert!(some(&result[part]), "{args}: {part}");
        }
        let decides = |metric: &Value| metric["headline"] == true;
        let metrics = result["metrics"].as_array().expect("metrics");
        assert!(metrics.iter().any(decides), "{args}");
        let report = fs::read_to_string(out.join("report.html")).expect("a report");
        assert!(
            report.contains("Figures over all rounds") && report.contains("<circle"),
            "{args}"
        );
        let names = fs::read_dir(&out).expect("a folder");
        let names: Vec<String> = names
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        for ending in ["series.csv", ".hlog", ".hgrm"] {
            assert!(
                names.iter().any(|it| it.ends_with(ending)),
                "{args}: {names:?}"
            );
        }
        assert!(
            !names.iter().any(|it| it.ends_with(".partial")),
            "{names:?}"
        );
    }
}

#[test]
fn a_signal_ends_a_run_in_order() {
    for args in COMMANDS {
        let folder = Folder::new(&format!("signal-{}", name(args)));
        // Long enough that it does not end by itself.
        let args = args.replace("--rounds 1", "--rounds 500");
        let mut child = folder
            .command(&args, "run")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let first = lines.find(|line| line.as_ref().is_ok_and(|it| it.starts_with("round 1 ")));
        assert!(first.is_some(), "{args}: no turn");
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::INT).expect("it runs");
        for line in lines {
            line.expect("text");
        }
        let status = child.wait().expect("it ends");
        assert_eq!(status.code(), Some(130), "{args}");
        folder.check_nothing_is_left();
        let result = result_of(&folder.out("run"));
        let verdict = &result["verdict"];
        assert_eq!(
            (&verdict["interrupted"], &verdict["valid"]),
            (&true.into(), &false.into())
        );
        let sides = result["rounds"]["sides"].as_array().expect("sides");
        assert!(!sides.is_empty(), "{args}: what was measured is kept");
    }
}

/// While logs are still filled there is nothing to report, and nothing stays all the same.
#[test]
fn a_signal_before_the_first_turn() {
    for args in [COMMANDS[4], COMMANDS[5]] {
        let folder = Folder::new(&format!("early-{}", name(args)));
        let args = args
            .replace("--backlog-mib 256", "--backlog-mib 4096")
            .replace("--log-mib 16", "--log-mib 4096");
        let mut child = folder
            .command(&args, "run")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program can be started");
        let began = Instant::now();
        while folder.data().is_empty() && began.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
        let status = child.wait().expect("it ends");
        assert_eq!(status.code(), Some(130), "{args}");
        folder.check_nothing_is_left();
        let result = result_of(&folder.out("run"));
        assert_eq!(result["verdict"]["interrupted"], true, "{args}");
        assert_eq!(result["metrics"], Value::Array(Vec::new()), "{args}");
    }
}

#[test]
fn storage_runs_compare() {
    let folder = Folder::new("compare");
    let small = COMMANDS[3];
    for run in 0..5 {
        done(&mut folder.command(small, &format!("a/{run}")));
    }
    done(&mut folder.command(&small.replace("--few 2", "--few 3"), "b/0"));
    let compare = |a: &str, b: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-bench"));
        command.arg("compare").arg(folder.out(a)).arg(folder.out(b));
        command.output().expect("the program can be started")
    };
    // The same runs are no better and no worse than themselves.
    let same = compare("a", "a");
    let said = String::from_utf8_lossy(&same.stdout).into_owned();
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    assert!(
        said.contains("many_to_few") && said.contains("no change"),
        "{said}"
    );
    let other_plan = compare("a", "b");
    let said = String::from_utf8_lossy(&other_plan.stderr).into_owned();
    assert_eq!(other_plan.status.code(), Some(7), "{other_plan:?}");
    assert!(said.contains("the plans differ: plan.few"), "{said}");
}

#[test]
fn a_result_is_not_overwritten() {
    let folder = Folder::new("twice");
    done(&mut folder.command(COMMANDS[3], "run"));
    let again = folder.command(COMMANDS[3], "run").output();
    let again = again.expect("the program can be started");
    let said = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{said}");
    assert!(
        said.contains("there is a result.json of another run"),
        "{said}"
    );
    folder.check_nothing_is_left();
}
