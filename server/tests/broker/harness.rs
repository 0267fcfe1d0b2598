//! A broker inside the test: two shards, a data directory of its own, a free port.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use forebay_server::{
    boot::{Broker, StartFailure},
    config::{Config, Host, Origin, RawConfig},
};

use crate::client::Client;

pub struct TestBroker {
    broker: Option<Broker>,
    dir: PathBuf,
    settings: Vec<(String, String)>,
}

impl TestBroker {
    pub fn start() -> TestBroker {
        TestBroker::with(&[])
    }

    pub fn with(settings: &[(&str, &str)]) -> TestBroker {
        let name = format!("forebay-broker-{}", uuid::Uuid::new_v4());
        let settings = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut broker = TestBroker {
            broker: None,
            dir: std::env::temp_dir().join(name),
            settings: settings.collect(),
        };
        broker.run();
        broker
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// From the next start on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    pub fn run(&mut self) {
        self.broker = Some(self.try_run().expect("the broker starts"));
    }

    pub fn try_run(&self) -> Result<Broker, StartFailure> {
        let mut raw = RawConfig::default();
        let mut set = |key: &str, text: &str| {
            let origin = Origin::Flag("test".to_owned());
            raw.set(key.to_owned(), text.to_owned(), origin);
        };
        set("log.dirs", &self.dir.to_string_lossy());
        set("listeners", "PLAINTEXT://127.0.0.1:0");
        set("forebay.shards", "2");
        set("forebay.http.port", "0");
        set("forebay.memory.bytes", "268435456");
        set("forebay.journal.file.bytes", "4194304");
        for (key, value) in &self.settings {
            set(key, value);
        }
        let host = Host {
            memory_bytes: 1 << 30,
        };
        let config = Config::check(raw, &host).expect("the settings of the test are valid");
        let stop = Arc::new(AtomicBool::new(false));
        Broker::start(config, stop)
    }

    pub fn client(&self) -> Client {
        let broker = self.broker.as_ref().expect("the broker runs");
        Client::connect(broker.address)
    }

    /// Status and body.
    pub fn http(&self, path: &str) -> (u16, String) {
        let broker = self.broker.as_ref().expect("the broker runs");
        let address = broker.http_address.expect("the HTTP port is on");
        let mut stream = TcpStream::connect(address).expect("the HTTP port listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").expect("head and body");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// A clean stop.
    pub fn stop(&mut self) {
        let broker = self.broker.take().expect("the broker runs");
        broker.stop();
        broker.join().expect("the broker stops cleanly");
    }

    /// A clean stop and another start on the same data.
    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.stop();
            let stopped = broker.join();
            if !std::thread::panicking() {
                stopped.expect("the broker stops cleanly");
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
