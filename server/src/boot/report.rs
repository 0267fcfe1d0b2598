//! What the operator is told when the broker is ready.

use std::{fmt, time::Instant};

use forebay_engine::{Durability, rt::uring::ShardOptions};
use forebay_tune::probe::{self, DirectIo};

use super::{Ready, directory::DataDir};
use crate::config::Config;

pub struct Report {
    began: Instant,
    lines: Vec<(&'static str, String)>,
    ready_ms: u128,
}

impl Report {
    pub(super) fn new(
        config: &Config,
        data_dir: &DataDir,
        options: &ShardOptions,
        began: Instant,
    ) -> Report {
        let mut report = Report {
            began,
            lines: Vec::new(),
            ready_ms: 0,
        };
        report.line(
            "node",
            format!(
                "{} of cluster {}",
                config.node_id, data_dir.identity.cluster_id
            ),
        );
        let state = match (data_dir.is_new, data_dir.clean_epoch) {
            (true, _) => "new",
            (false, Some(_)) => "stopped cleanly",
            (false, None) => "not stopped cleanly, recovered",
        };
        report.line("data", format!("{} ({state})", data_dir.path.display()));
        report.line("disk", disk(data_dir));
        report.line("shards", shards(options));
        report.line("memory", memory(config));
        let durability = match config.durability() {
            Durability::Persisted => "persisted unless a topic says otherwise: acked is on disk",
            Durability::Replicated => {
                "replicated unless a topic says otherwise: acked is in memory, a crash of this host may lose the newest records"
            }
        };
        report.line("durability", durability.to_owned());
        report
    }

    pub(super) fn ready(&mut self, ready: &Ready) {
        self.lines.insert(0, ("address", ready.address.to_string()));
        if let Some(http) = ready.http {
            self.line("http", format!("{http} (/metrics /livez /readyz)"));
        }
        self.line("partitions", ready.partitions.to_string());
        self.ready_ms = self.began.elapsed().as_millis();
    }

    fn line(&mut self, name: &'static str, text: String) {
        self.lines.push((name, text));
    }
}

fn disk(data_dir: &DataDir) -> String {
    let kind = probe::file_system(&data_dir.path)
        .map_or_else(|_| "unknown file system".to_owned(), |found| found.kind);
    let alignment = match probe::direct_io(&data_dir.path) {
        Ok(DirectIo::Stated { offset_align, .. }) => {
            format!("direct I/O aligned to {offset_align} bytes")
        }
        _ => "direct I/O, alignment not stated by the kernel".to_owned(),
    };
    format!("{kind}, {alignment}")
}

fn shards(options: &ShardOptions) -> String {
    let count = options.shards;
    if options.is_pinned() {
        let cores: Vec<String> = options
            .cores
            .iter()
            .take(usize::from(count))
            .map(ToString::to_string)
            .collect();
        format!("{count}, pinned to cores {}", cores.join(" "))
    } else {
        format!("{count}, not pinned: there are fewer cores than shards")
    }
}

fn memory(config: &Config) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let memory = &config.memory;
    format!(
        "{} MiB: tail cache {}, read-ahead {}, requests {}",
        mib(memory.total_bytes),
        mib(memory.tail_bytes),
        mib(memory.readahead_bytes),
        mib(memory.request_bytes)
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Forebay {}", env!("CARGO_PKG_VERSION"))?;
        for (name, text) in &self.lines {
            writeln!(f, "  {name:<11}{text}")?;
        }
        write!(f, "ready in {} ms", self.ready_ms)
    }
}
