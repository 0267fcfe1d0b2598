//! Starting and stopping the real binary: every start that must fail says why and what to do, with an exit code of its own; a stop is
//! clean and the next start knows it; the HTTP port tells how the broker is.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    time::Duration,
};

use forebay_tests::{
    broker::{Broker, Options, Scratch, forebay, free_port},
    http::{Metrics, exchange, get, wait_for},
    raw_batch::RawBatch,
    tools::{Ran, run},
    wire_client::{WireClient, error, now_ms},
};

/// `forebay start` on free ports and this directory.
fn start(data_dir: &Path) -> Command {
    let mut command = Command::new(forebay());
    command
        .arg("start")
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--listen", &format!("127.0.0.1:{}", free_port())])
        .args(["--override", &format!("forebay.http.port={}", free_port())]);
    command
}

/// Runs a start that must fail: with this exit code, saying all of these, and what to do about it.
#[track_caller]
fn check_fails(command: &mut Command, code: i32, said: &[&str]) {
    let Ran {
        code: found,
        stdout,
        stderr,
    } = run(command, b"");
    assert_eq!(found, Some(code), "{command:?}\n{stdout}\n{stderr}");
    for words in said {
        assert!(stderr.contains(words), "{words:?} is missing in:\n{stderr}");
    }
    assert!(stderr.contains("remedy: "), "no remedy in:\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(!stdout.contains("ready in"), "{stdout}");
}

/// What a supervisor tells apart.
mod code {
    pub const CONFIG: i32 = 3;
    pub const DATA_DIR: i32 = 4;
    pub const FOREIGN_DATA_DIR: i32 = 5;
    pub const OTHER_NODE: i32 = 6;
    pub const IN_USE: i32 = 7;
    pub const LISTEN: i32 = 8;
    pub const IO_URING: i32 = 12;
    pub const MEMLOCK: i32 = 13;
    pub const HOST: i32 = 15;
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let scratch = Scratch::new("startup");
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("a bound socket has an address");
    let mut on_taken = Command::new(forebay());
    on_taken
        .arg("start")
        .arg("--data-dir")
        .arg(scratch.path())
        .args(["--listen", &address.to_string()])
        .args(["--override", &format!("forebay.http.port={}", free_port())]);
    check_fails(
        &mut on_taken,
        code::LISTEN,
        &["cannot listen", &address.to_string(), "--listen"],
    );

    let mut http_taken = start(scratch.path());
    http_taken.args([
        "--override",
        &format!("forebay.http.port={}", address.port()),
    ]);
    check_fails(
        &mut http_taken,
        code::LISTEN,
        &["cannot listen", "forebay.http.port"],
    );

    let mut elsewhere = Command::new(forebay());
    elsewhere
        .arg("start")
        .arg("--data-dir")
        .arg(scratch.path())
        .args(["--listen", "192.0.2.1:9092"]);
    check_fails(
        &mut elsewhere,
        code::LISTEN,
        &["cannot listen", "192.0.2.1:9092"],
    );
}

/// The shards share their port, and so could two brokers of one user.
#[test]
fn the_port_of_another_broker_is_refused() {
    let scratch = Scratch::new("startup");
    let broker = Broker::start(Options::new(&scratch.path().join("first")));
    let mut second = Command::new(forebay());
    second
        .arg("start")
        .arg("--data-dir")
        .arg(scratch.path().join("second"))
        .args(["--listen", &broker.bootstrap()])
        .args(["--override", &format!("forebay.http.port={}", free_port())]);
    check_fails(
        &mut second,
        code::LISTEN,
        &["cannot listen", &broker.bootstrap()],
    );
    broker.stop();
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let scratch = Scratch::new("startup");
    let broker = Broker::start(Options::new(scratch.path()));
    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("kept", 1);
    let shown = scratch.path().display().to_string();
    let said = ["in use by another broker", shown.as_str()];
    check_fails(&mut start(scratch.path()), code::IN_USE, &said);
    // The first one goes on, and its directory was not touched.
    let batch = RawBatch::of(&[b"x"], now_ms()).encode();
    assert_eq!(error(client.produce("kept", 0, &batch).error_code), None);
    drop(client);
    let broker = Broker::start(broker.stop());
    let mut client = WireClient::connect(&broker.bootstrap());
    assert_eq!(client.log_end("kept", 0), 1);
    drop(client);
    broker.stop();
}

#[test]
fn a_directory_of_something_else_is_refused_and_not_touched() {
    let scratch = Scratch::new("startup");
    let holding = |name: &str, text: &str| {
        let dir = scratch.path().join(name.replace('/', "-"));
        fs::create_dir_all(&dir).expect("a scratch directory can be filled");
        fs::write(dir.join(name), text).expect("a scratch directory can be filled");
        dir
    };
    let kafka = "version=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qg\nnode.id=1\ndirectory.id=MkU3OEVBNTcwNTJENDM2Qw\n";
    let newer = format!("{kafka}forebay.format=999\n");
    for (name, text, said) in [
        ("thesis.tex", "\\documentclass", "thesis.tex"),
        ("meta.properties", kafka, "Apache Kafka"),
        ("meta.properties", newer.as_str(), "999"),
        ("meta.properties", "", "meta.properties"),
        (
            "meta.properties",
            "forebay.format=1\nnode.id=1\n",
            "incomplete",
        ),
    ] {
        let dir = holding(name, text);
        let said = ["belongs to something else", said];
        check_fails(&mut start(&dir), code::FOREIGN_DATA_DIR, &said);
        let left = fs::read_to_string(dir.join(name)).expect("the file is still there");
        assert_eq!(left, text);
    }
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let scratch = Scratch::new("startup");
    Broker::start(Options::new(scratch.path())).stop();
    let mut command = start(scratch.path());
    command.args(["--override", "node.id=7"]);
    check_fails(
        &mut command,
        code::OTHER_NODE,
        &["belongs to node 1", "node.id"],
    );
}

#[test]
fn a_directory_that_cannot_be_is_refused() {
    let scratch = Scratch::new("startup");
    let file = scratch.path().join("file");
    fs::write(&file, "").expect("a scratch directory can be filled");
    for path in [file.clone(), file.join("below"), "/proc/forebay".into()] {
        let shown = path.display().to_string();
        check_fails(
            &mut start(&path),
            code::DATA_DIR,
            &["data directory", &shown],
        );
    }
}

/// This kernel's tmpfs takes O_DIRECT, so that what is refused is the file system.
#[test]
fn a_directory_in_memory_is_refused() {
    let dir = Path::new("/dev/shm").join(format!("forebay-tests-{}", std::process::id()));
    fs::create_dir(&dir).expect("/dev/shm can be written");
    let caught = std::panic::catch_unwind(|| {
        check_fails(
            &mut start(&dir),
            code::HOST,
            &["tmpfs", "/dev/shm", "xfs or ext4"],
        );
    });
    fs::remove_dir_all(&dir).expect("our own directory can be removed");
    if let Err(panic) = caught {
        std::panic::resume_unwind(panic);
    }
}

#[test]
#[allow(unsafe_code)]
fn too_little_locked_memory_is_refused() {
    let scratch = Scratch::new("startup");
    let mut command = start(scratch.path());
    // SAFETY: setrlimit is async-signal-safe, and the closure touches nothing else.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit {
                rlim_cur: 64 << 10,
                rlim_max: 64 << 10,
            };
            match libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    check_fails(&mut command, code::MEMLOCK, &["memlock", "LimitMEMLOCK"]);
}

/// A seccomp filter refuses the three calls of io_uring, as container run times do.
#[test]
#[allow(unsafe_code)]
fn a_host_without_io_uring_is_refused() {
    let scratch = Scratch::new("startup");
    let mut command = start(scratch.path());
    // SAFETY: the filter is made of constants, and both calls are plain system calls, which a child may make before exec.
    unsafe {
        command.pre_exec(|| {
            let mut filter = without_io_uring();
            let program = libc::sock_fprog {
                len: filter.len() as u16,
                filter: filter.as_mut_ptr(),
            };
            let mode = libc::SECCOMP_MODE_FILTER;
            let set = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) == 0;
            match set {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        });
    }
    check_fails(&mut command, code::IO_URING, &["io_uring", "seccomp"]);
}

/// Loads the number of the call; from io_uring_setup to io_uring_register it fails with EPERM.
fn without_io_uring() -> [libc::sock_filter; 5] {
    let instruction = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let first = libc::SYS_io_uring_setup as u32;
    let last = libc::SYS_io_uring_register as u32;
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let give = libc::BPF_RET | libc::BPF_K;
    [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(at_least, first, 0, 1),
        instruction(at_least, last + 1, 0, 1),
        instruction(give, libc::SECCOMP_RET_ALLOW, 0, 0),
        instruction(give, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
    ]
}

#[test]
fn a_wrong_configuration_is_refused() {
    let scratch = Scratch::new("startup");
    let data_dir = scratch.path().join("data");
    let missing = scratch.path().join("missing.toml");
    let file = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        fs::write(&path, text).expect("a scratch directory can be filled");
        path
    };
    let not_toml = file("broken.toml", "num.partitions = = 4\n");
    let unknown = file("unknown.toml", "\"num.partitons\" = 4\n");
    let properties = file("server.properties", "log.retention.hrs=1\n");
    let binary = scratch.path().join("binary.toml");
    fs::write(&binary, [0xff, 0xfe, 0]).expect("a scratch directory can be filled");
    for (path, said) in [
        (&missing, vec!["cannot read", "missing.toml"]),
        (&scratch.path().to_path_buf(), vec!["cannot read"]),
        (&binary, vec!["binary.toml"]),
        (&not_toml, vec!["broken.toml"]),
        (
            &unknown,
            vec![
                "unknown key num.partitons",
                "did you mean num.partitions?",
                "unknown.toml",
            ],
        ),
        (
            &properties,
            vec![
                "unknown key log.retention.hrs",
                "did you mean log.retention.hours?",
            ],
        ),
    ] {
        check_fails(
            start(&data_dir).arg("--config").arg(path),
            code::CONFIG,
            &said,
        );
    }
    for (setting, said) in [
        ("num.partitions=many", "num.partitions=many"),
        ("num.partitions=0", "num.partitions=0"),
        (
            "log.segment.bytes=99999999999999999999",
            "log.segment.bytes",
        ),
        (
            "auto.create.topics.enable=perhaps",
            "auto.create.topics.enable",
        ),
        ("compression.type=rar", "compression.type"),
        ("listeners=SSL://:9093", "SSL"),
        ("log.dirs=/a,/b", "log.dirs"),
        ("no.such.key=1", "unknown key no.such.key"),
        ("nothing", "expected key=value"),
    ] {
        check_fails(
            start(&data_dir).args(["--override", setting]),
            code::CONFIG,
            &[said],
        );
    }
    // All that is wrong is said at once.
    let both = ["--override", "num.partitions=0", "--override", "node.id=-5"];
    let said = ["num.partitions=0", "node.id=-5"];
    check_fails(start(&data_dir).args(both), code::CONFIG, &said);
    let mut environment = start(&data_dir);
    environment.env("KAFKA_NUM_PARTITONS", "4");
    check_fails(
        &mut environment,
        code::CONFIG,
        &["KAFKA_NUM_PARTITONS", "num.partitions"],
    );
    assert!(
        !data_dir.exists(),
        "nothing was made before the configuration was read"
    );
}

/// What the start says of the data directory.
fn state_of_data(broker: &Broker) -> String {
    let said = broker.output();
    let line = said
        .lines()
        .find(|line| line.trim_start().starts_with("data "));
    line.unwrap_or_else(|| panic!("no word on the data directory:\n{said}"))
        .to_owned()
}

#[test]
fn a_stop_is_clean_and_the_next_start_knows() {
    let scratch = Scratch::new("startup");
    let broker = Broker::start(Options::new(scratch.path()));
    let said = broker.output();
    for words in [
        "address",
        "disk",
        "shards",
        "memory",
        "durability",
        "ready in",
    ] {
        assert!(said.contains(words), "{words} is missing in:\n{said}");
    }
    assert!(state_of_data(&broker).contains("(new)"), "{said}");
    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("kept", 4);
    let batch = RawBatch::of(&[b"x"], now_ms()).encode();
    for partition in 0..4 {
        assert_eq!(client.produce("kept", partition, &batch).base_offset, 0);
    }
    // `stop` asks for exit code 0, with a client connected. A start that fails in between changes nothing.
    let options = broker.stop();
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("a bound socket has an address");
    let mut failing = Command::new(forebay());
    failing
        .arg("start")
        .arg("--data-dir")
        .arg(scratch.path())
        .args(["--listen", &address.to_string()]);
    check_fails(&mut failing, code::LISTEN, &["cannot listen"]);
    let broker = Broker::start(options);
    assert!(
        state_of_data(&broker).contains("(stopped cleanly)"),
        "{}",
        broker.output()
    );
    let broker = Broker::start(broker.kill());
    assert!(
        state_of_data(&broker).contains("not stopped cleanly"),
        "{}",
        broker.output()
    );
    let mut client = WireClient::connect(&broker.bootstrap());
    for partition in 0..4 {
        assert_eq!(client.log_end("kept", partition), 1);
    }
    broker.stop();
}

#[test]
fn http_tells_how_the_broker_is() {
    let scratch = Scratch::new("startup");
    let broker = Broker::start(Options::new(scratch.path()));
    let port = broker.options.http_port;
    assert_eq!(get(port, "/livez").0, 200);
    assert_eq!(get(port, "/readyz").0, 200);
    assert_eq!(get(port, "/nothing").0, 404);
    let metrics = Metrics::scrape(&broker);
    assert_eq!(metrics.get("forebay_shards"), 2.0);
    assert_eq!(metrics.get("forebay_produced_records_total"), 0.0);

    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("counted", 3);
    let batch = RawBatch::of(&[b"one", b"two"], now_ms()).encode();
    for partition in 0..3 {
        let reply = client.produce("counted", partition, &batch);
        assert_eq!(error(reply.error_code), None);
        client.fetch("counted", partition, 0);
    }
    let metrics = Metrics::scrape(&broker);
    let bytes = 3.0 * batch.len() as f64;
    for (name, expected) in [
        ("forebay_produced_batches_total", 3.0),
        ("forebay_produced_records_total", 6.0),
        ("forebay_produced_bytes_total", bytes),
        ("forebay_fetched_bytes_total", bytes),
        ("forebay_connections", 1.0),
        ("forebay_requests_total{api=\"Produce\"}", 3.0),
        ("forebay_requests_total{api=\"Fetch\"}", 3.0),
        ("forebay_request_memory_bytes", 0.0),
        ("forebay_faults_total", 0.0),
    ] {
        assert_eq!(metrics.get(name), expected, "{name}");
    }
    assert!(metrics.get("forebay_journal_commits_total") >= 1.0);
    assert!(metrics.get("forebay_partitions") >= 3.0);
    drop(client);
    wait_for(&broker, Duration::from_secs(10), |metrics| {
        metrics.get("forebay_connections") == 0.0
    });
    broker.stop();
}

#[test]
fn hostile_http_does_no_harm() {
    let scratch = Scratch::new("startup");
    let broker = Broker::start(Options::new(scratch.path()));
    let port = broker.options.http_port;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    let statuses: BTreeMap<&str, &[u8]> = BTreeMap::from([
        (
            "405",
            b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".as_slice(),
        ),
        ("404", b"GET /../../etc/passwd HTTP/1.1\r\n\r\n"),
        (
            "400",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ),
        ("400 ", b"GET /metrics\0 HTTP/1.1\r\n\r\n"),
    ]);
    for (status, request) in statuses {
        let reply = exchange(port, request);
        let expected = format!("HTTP/1.1 {}", status.trim());
        assert!(reply.starts_with(&expected), "{status}: {reply:?}");
    }
    // Too long for an answer that is sure to arrive: the broker closes while we still send.
    for request in [long.as_bytes(), many.as_bytes()] {
        let reply = exchange(port, request);
        assert!(
            reply.is_empty() || reply.starts_with("HTTP/1.1 4"),
            "{reply:?}"
        );
    }
    // More connections than are served at a time, which say nothing, or half of something: none of Kafka's clients notices, and when
    // they are gone HTTP answers again.
    let mut silent: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).expect("the HTTP port is open"))
        .collect();
    for stream in silent.iter_mut().step_by(2) {
        stream
            .write_all(b"GET /metrics HT")
            .expect("the broker reads");
    }
    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("healthy", 1);
    let batch = RawBatch::of(&[b"x"], now_ms()).encode();
    assert_eq!(client.produce("healthy", 0, &batch).base_offset, 0);
    drop(silent);
    assert_eq!(get(port, "/readyz").0, 200);
    drop(client);
    broker.stop();
}
