//! A real broker process on a free loopback port, with a data directory on a real file system.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(60);

/// The directory of the binaries built together with the running test.
pub fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let deps = test.parent().expect("a test lies in target/<profile>/deps");
    deps.parent()
        .expect("a test lies in target/<profile>/deps")
        .to_path_buf()
}

pub fn forebay() -> PathBuf {
    let path = binaries().join("forebay");
    assert!(
        path.exists(),
        "{} is missing: build it first with the profile of this test (cargo build -p forebay-server)",
        path.display()
    );
    path
}

/// A directory of this test alone, removed when dropped unless the test failed.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        // Next to the binaries: on a real disk, where the system's temporary directory may be in memory.
        let path = binaries()
            .join("scratch")
            .join(format!("{name}-{}-{unique}", std::process::id()));
        fs::create_dir_all(&path).expect("the scratch directory can be created");
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("kept for a look: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// How to start a broker. The same options start it again on the same data and port.
#[derive(Clone, Debug)]
pub struct Options {
    pub data_dir: PathBuf,
    pub port: u16,
    pub http_port: u16,
    pub shards: u16,
    pub overrides: Vec<(String, String)>,
}

impl Options {
    pub fn new(data_dir: &Path) -> Options {
        Options {
            data_dir: data_dir.to_path_buf(),
            port: free_port(),
            http_port: free_port(),
            shards: 2,
            overrides: Vec::new(),
        }
    }

    pub fn set(mut self, key: &str, value: impl ToString) -> Options {
        self.overrides.push((key.to_string(), value.to_string()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(forebay());
        command.arg("start");
        let mut setting = |key: &str, value: &str| {
            command.arg("--override").arg(format!("{key}={value}"));
        };
        setting("listeners", &format!("PLAINTEXT://127.0.0.1:{}", self.port));
        setting(
            "advertised.listeners",
            &format!("PLAINTEXT://127.0.0.1:{}", self.port),
        );
        setting("log.dirs", &self.data_dir.display().to_string());
        setting("forebay.http.port", &self.http_port.to_string());
        setting("forebay.shards", &self.shards.to_string());
        // Small rings keep many brokers of a test run cheap; still large enough to go around under load.
        setting("forebay.journal.file.bytes", &(16 << 20).to_string());
        setting("group.initial.rebalance.delay.ms", "0");
        for (key, value) in &self.overrides {
            setting(key, value);
        }
        command
    }
}

/// A port that was free a moment ago. Never given twice by one process.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    loop {
        let probe = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = probe
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let mut given = GIVEN
            .lock()
            .expect("no test panics while it holds the lock");
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}

/// A running broker. Killed when dropped.
pub struct Broker {
    pub options: Options,
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Broker {
    pub fn start(options: Options) -> Broker {
        let mut broker = Broker::spawn(options);
        broker.wait_ready();
        broker
    }

    /// Starts the process without waiting for it.
    pub fn spawn(options: Options) -> Broker {
        let mut child = options
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker's binary can be run");
        let output = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let readers = vec![
            collect(BufReader::new(stdout), output.clone()),
            collect(BufReader::new(stderr), output.clone()),
        ];
        Broker {
            options,
            child,
            output,
            readers,
        }
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + START_MAX;
        loop {
            // A line of its own: "Address already in use" is something else.
            if self
                .output()
                .lines()
                .any(|line| line.starts_with("ready in "))
            {
                return;
            }
            if let Some(status) = self
                .child
                .try_wait()
                .expect("our own child can be waited for")
            {
                panic!("the broker ended with {status}:\n{}", self.output());
            }
            assert!(
                Instant::now() < deadline,
                "the broker is not ready:\n{}",
                self.output()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.options.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything the broker printed so far.
    pub fn output(&self) -> String {
        self.output.lock().expect("readers do not panic").join("\n")
    }

    /// SIGKILL, at once.
    pub fn kill(mut self) -> Options {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be waited for");
        self.options.clone()
    }

    /// SIGSTOP; when this returns none of the broker's threads runs any more, so nothing more is acknowledged. Disks still finish
    /// what they were asked for.
    pub fn suspend(&self) {
        self.signal(libc::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.pid());
        let deadline = Instant::now() + STOP_MAX;
        while !fs::read_dir(&tasks)
            .expect("our own child, not waited for")
            .flatten()
            .all(|task| is_stopped(&task.path()))
        {
            assert!(Instant::now() < deadline, "the broker does not stop");
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// SIGTERM; the broker must end by itself with exit code 0.
    pub fn stop(mut self) -> Options {
        let status = self.terminate();
        assert!(
            status.success(),
            "SIGTERM ended the broker with {status}:\n{}",
            self.output()
        );
        self.options.clone()
    }

    fn terminate(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait(STOP_MAX)
    }

    #[allow(unsafe_code)]
    fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a pid fits");
        // SAFETY: a signal to our own child, which has not been waited for, so the pid is still its own.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "our own child takes a signal");
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self
                .child
                .try_wait()
                .expect("our own child can be waited for")
            {
                for reader in self.readers.drain(..) {
                    reader.join().expect("readers do not panic");
                }
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the broker does not end:\n{}",
                self.output()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the broker said:\n{}", self.output());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stopped, or ended. The state follows the name, which is in parentheses.
fn is_stopped(task: &Path) -> bool {
    let Ok(line) = fs::read_to_string(task.join("stat")) else {
        return true;
    };
    let state = line
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 'Z' | 'X'))
}

fn collect(
    reader: impl BufRead + Send + 'static,
    into: Arc<Mutex<Vec<String>>>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            into.lock().expect("readers do not panic").push(line);
        }
    })
}
