//! What the broker's HTTP port says: pages, and its metrics by name.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::broker::Broker;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Sends these bytes and reads until the broker closes; what it said.
#[track_caller]
pub fn exchange(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the HTTP port is open");
    let limit = Some(ANSWER_TIME_MAX);
    stream
        .set_read_timeout(limit)
        .expect("sockets have timeouts");
    // The broker may have answered and closed before it was told all of it.
    let _ = stream.write_all(request);
    let mut reply = Vec::new();
    if let Err(error) = stream.read_to_end(&mut reply) {
        let reset = error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(reset, "no end of the HTTP connection: {error}");
    }
    String::from_utf8_lossy(&reply).into_owned()
}

/// Status and body of a page.
#[track_caller]
pub fn get(port: u16, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let reply = exchange(port, request.as_bytes());
    let (head, body) = reply
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no HTTP reply to {path}: {reply:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head:?}"));
    (status, body.to_owned())
}

/// One scrape.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    #[track_caller]
    pub fn scrape(broker: &Broker) -> Metrics {
        let (status, body) = get(broker.options.http_port, "/metrics");
        assert_eq!(status, 200, "{body}");
        assert!(body.ends_with("# EOF\n"), "the scrape is whole: {body}");
        Metrics(body)
    }

    /// The value of a metric, labels written as in the scrape.
    #[track_caller]
    pub fn get(&self, name: &str) -> f64 {
        let found = self.0.lines().find_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            (key == name).then(|| value.parse().expect("a value is a number"))
        });
        found.unwrap_or_else(|| panic!("no metric {name} in:\n{}", self.0))
    }
}

/// Scrapes until `seen` is true; fails when that takes too long.
#[track_caller]
pub fn wait_for(broker: &Broker, at_most: Duration, seen: impl Fn(&Metrics) -> bool) {
    let deadline = Instant::now() + at_most;
    loop {
        let metrics = Metrics::scrape(broker);
        if seen(&metrics) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not seen in {at_most:?}:\n{}",
            metrics.0
        );
        thread::sleep(Duration::from_millis(20));
    }
}
