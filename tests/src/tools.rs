//! Other people's clients: Apache Kafka's Java tools, kcat, Python. `tests/run` installs them; the paths come from there.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const RUN_MAX: Duration = Duration::from_secs(300);

/// What a program printed, after it ended well.
#[derive(Debug)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert_eq!(
            self.code,
            Some(0),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

/// Runs a program to its end, with `input` on its standard input. Killed, and the test fails, when it takes too long.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Ran {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_vec();
    let writer = thread::spawn(move || {
        // A program that does not read its input is not a failure by itself.
        let _ = stdin.write_all(&input);
    });
    let pid = child.id();
    let waiter = thread::spawn(move || child.wait_with_output());
    let deadline = Instant::now() + RUN_MAX;
    while !waiter.is_finished() {
        if Instant::now() > deadline {
            let _ = Command::new("kill").arg("-9").arg(pid.to_string()).status();
            panic!("{what} did not end within {RUN_MAX:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    writer.join().expect("the writer does not panic");
    let Output {
        status,
        stdout,
        stderr,
    } = waiter
        .join()
        .expect("the waiter does not panic")
        .expect("the output can be read");
    Ran {
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        code: status.code(),
    }
}

/// Where `tests/run` put the clients: `target/clients`.
pub fn clients() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace");
    let path = root.join("target").join("clients");
    assert!(
        path.exists(),
        "{} is missing: tests/run installs the clients",
        path.display()
    );
    path
}

/// Apache Kafka's tools, by class name, and our own test programs.
pub fn java(class: &str, arguments: &[&str]) -> Command {
    let clients = clients();
    let mut command = Command::new("java");
    command
        .args([
            "-Xmx512m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-cp",
        ])
        .arg(format!(
            "{}/java/lib/*:{}/java/classes",
            clients.display(),
            clients.display()
        ))
        .arg(class)
        .args(arguments);
    command
}

pub const TOPIC_COMMAND: &str = "org.apache.kafka.tools.TopicCommand";
pub const CONSOLE_PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
pub const CONSOLE_CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
pub const CONSUMER_GROUP_COMMAND: &str =
    "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
pub const CONFIG_COMMAND: &str = "kafka.admin.ConfigCommand";
pub const GET_OFFSET_SHELL: &str = "org.apache.kafka.tools.GetOffsetShell";
pub const PRODUCER_PERFORMANCE: &str = "org.apache.kafka.tools.ProducerPerformance";
pub const CONSUMER_PERFORMANCE: &str = "org.apache.kafka.tools.ConsumerPerformance";
pub const DUMP_LOG_SEGMENTS: &str = "org.apache.kafka.tools.DumpLogSegments";

/// A script of `tests/python` in the virtual environment with the Python clients.
pub fn python(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(clients().join("python").join("bin").join("python"));
    command
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("python")
                .join(script),
        )
        .args(arguments);
    command
}

pub fn kcat(arguments: &[&str]) -> Command {
    let mut command = Command::new("kcat");
    // With the librdkafka of its own package, not the one that cargo puts in the way for the rdkafka crate.
    command.args(arguments).env_remove("LD_LIBRARY_PATH");
    command
}

/// Our binary under one of the names of Kafka's tools.
pub fn ours(name: &str, arguments: &[&str]) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(crate::broker::forebay());
    command.arg0(name).args(arguments);
    command
}
