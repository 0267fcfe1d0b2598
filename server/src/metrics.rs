//! Plain counters per shard, merged when scraped. No atomics: each shard counts for itself, and a scrape asks every shard through
//! the mesh.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use forebay_engine::EngineStats;
use prometheus_client::{
    encoding::text,
    metrics::{counter::ConstCounter, family::Family, gauge::ConstGauge},
    registry::Registry,
};

use crate::shard::Shard;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident, $help:literal;)*) => {
        /// What one shard counts.
        #[derive(Default)]
        pub struct Counters {
            requests: RefCell<BTreeMap<&'static str, u64>>,
            /// Entries of the data directory that belonged to nothing at the start; shard 0 counts them.
            pub strays: Cell<u64>,
            $($(#[$doc])* pub $name: Count,)*
        }

        /// The counters of one shard, or the sum of several.
        #[derive(Clone, Debug, Default)]
        pub struct Snapshot {
            pub shards: u64,
            /// By the name of the API.
            pub requests: BTreeMap<&'static str, u64>,
            pub connections: u64,
            pub request_memory_bytes: u64,
            pub partitions: u64,
            pub strays: u64,
            pub engine: EngineStats,
            $(pub $name: u64,)*
        }

        impl Counters {
            pub fn snapshot(&self, shard: &Shard) -> Snapshot {
                Snapshot {
                    shards: 1,
                    requests: self.requests.borrow().clone(),
                    connections: shard.front.connections() as u64,
                    request_memory_bytes: shard.front.memory_in_use(),
                    partitions: shard.partitions().len() as u64,
                    strays: self.strays.get(),
                    engine: shard.engine.stats(),
                    $($name: self.$name.get(),)*
                }
            }
        }

        impl Snapshot {
            /// Adds the counters of another shard.
            pub fn merge(&mut self, other: &Snapshot) {
                self.shards += other.shards;
                for (api, count) in &other.requests {
                    *self.requests.entry(api).or_default() += count;
                }
                self.connections += other.connections;
                self.request_memory_bytes += other.request_memory_bytes;
                self.partitions += other.partitions;
                self.strays += other.strays;
                merge_engine(&mut self.engine, &other.engine);
                $(self.$name += other.$name;)*
            }

            fn register_counters(&self, registry: &mut Registry) {
                $(registry.register(stringify!($name), $help, ConstCounter::new(self.$name));)*
            }
        }
    };
}

counters! {
    connections_accepted, "Connections accepted";
    connections_refused, "Connections closed at once because of a limit";
    connections_broken, "Connections closed because of a malformed or unsupported request";
    request_bytes, "Bytes of requests read";
    reply_bytes, "Bytes of replies written";
    produced_batches, "Record batches taken from producers";
    produced_records, "Records taken from producers";
    produced_bytes, "Bytes of record batches taken from producers";
    fetched_bytes, "Bytes of record batches given to consumers";
}

/// One plain counter.
#[derive(Default)]
pub struct Count(Cell<u64>);

impl Count {
    pub fn add(&self, more: usize) {
        self.0.set(self.0.get() + more as u64);
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Counters {
    pub fn request(&self, api: &'static str) {
        *self.requests.borrow_mut().entry(api).or_default() += 1;
    }
}

/// The text a scrape gets.
pub fn encode(total: &Snapshot) -> String {
    let mut registry = Registry::with_prefix("forebay");
    total.register_counters(&mut registry);
    let requests = Family::<Vec<(&'static str, &'static str)>, _>::default();
    for (api, count) in &total.requests {
        let counter: &prometheus_client::metrics::counter::Counter =
            &requests.get_or_create_owned(&vec![("api", *api)]);
        counter.inc_by(*count);
    }
    registry.register("requests", "Requests by API", requests);
    for (name, help, value) in gauges(total) {
        registry.register(name, help, ConstGauge::new(value as i64));
    }
    for (name, help, value) in engine_counters(&total.engine) {
        registry.register(name, help, ConstCounter::new(value));
    }
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("writing into a string cannot fail");
    out
}

fn gauges(total: &Snapshot) -> [(&'static str, &'static str, u64); 13] {
    let engine = &total.engine;
    [
        ("shards", "Shards of this broker", total.shards),
        ("connections", "Open connections", total.connections),
        (
            "request_memory_bytes",
            "Memory of requests in flight",
            total.request_memory_bytes,
        ),
        ("partitions", "Partitions on this broker", total.partitions),
        (
            "stray_entries",
            "Entries of the data directory that belonged to nothing at the start",
            total.strays,
        ),
        ("tail_bytes", "Bytes in the tail caches", engine.tail_bytes),
        (
            "tail_unflushed_bytes",
            "Bytes not yet written to segments",
            engine.tail_unflushed_bytes,
        ),
        (
            "readahead_bytes",
            "Bytes read ahead for cold readers",
            engine.readahead_bytes,
        ),
        (
            "spare_bytes",
            "In files of deleted segments that are kept for new ones",
            engine.spare_bytes,
        ),
        (
            "disk_available_bytes",
            "Free space of the disk when it was last looked at",
            engine.disk_available_bytes,
        ),
        (
            "disk_reserve_bytes",
            "Free space below which produce is refused",
            engine.disk_reserve_bytes,
        ),
        (
            "logs_offline",
            "Partitions that a fault of the disk keeps offline",
            engine.logs_offline,
        ),
        (
            "disk_low",
            "1 while produce is refused since the disk is low on space",
            u64::from(engine.disk_low),
        ),
    ]
}

fn engine_counters(engine: &EngineStats) -> [(&'static str, &'static str, u64); 30] {
    [
        (
            "appended_batches",
            "Batches appended to logs",
            engine.appended_batches,
        ),
        (
            "appended_bytes",
            "Bytes appended to logs",
            engine.appended_bytes,
        ),
        (
            "journal_commits",
            "Commits of the journals",
            engine.journal_commits,
        ),
        (
            "journal_bytes",
            "Bytes written to journals",
            engine.journal_bytes,
        ),
        (
            "segment_writes",
            "Writes to segments",
            engine.segment_writes,
        ),
        (
            "segment_bytes",
            "Bytes written to segments",
            engine.segment_bytes,
        ),
        ("segment_syncs", "Syncs of segments", engine.segment_syncs),
        (
            "file_system_syncs",
            "Syncs of the file system for many logs at once",
            engine.file_system_syncs,
        ),
        (
            "bypass_writes",
            "Appends written past the journal",
            engine.bypass_writes,
        ),
        (
            "bypass_bytes",
            "Bytes written past the journal",
            engine.bypass_bytes,
        ),
        (
            "appends_refused_busy",
            "Appends refused since too much waited for the disk",
            engine.appends_refused_busy,
        ),
        (
            "appends_refused_disk_low",
            "Appends refused since the disk was low on space",
            engine.appends_refused_disk_low,
        ),
        (
            "segments_sealed",
            "Segments completed",
            engine.segments_sealed,
        ),
        (
            "segments_deleted",
            "Segments deleted by retention",
            engine.segments_deleted,
        ),
        (
            "segments_recycled",
            "Segments that began in the file of a deleted one",
            engine.segments_recycled,
        ),
        ("truncations", "Logs cut at their end", engine.truncations),
        ("checkpoints", "Checkpoints", engine.checkpoints),
        (
            "cached_reads",
            "Reads served from the tail cache",
            engine.cached_reads,
        ),
        ("cold_reads", "Reads served from disk", engine.cold_reads),
        (
            "cold_read_bytes",
            "Bytes read from disk",
            engine.cold_read_bytes,
        ),
        ("faults", "Logs that went offline", engine.faults),
        (
            "logs_reopened",
            "Logs that came online again",
            engine.logs_reopened,
        ),
        (
            "scrubbed_bytes",
            "Bytes of sealed segments read by the background scrub",
            engine.scrubbed_bytes,
        ),
        (
            "scrub_rounds",
            "Rounds of the background scrub, counted by each shard",
            engine.scrub_rounds,
        ),
        (
            "scrub_errors",
            "Wrong indexes and unreadable segments found by the scrub",
            engine.scrub_errors,
        ),
        (
            "corrupt_batches",
            "Damaged places found in segments",
            engine.corrupt_batches,
        ),
        (
            "recovered_logs",
            "Logs that the start found on disk",
            engine.recovered_logs,
        ),
        (
            "recovery_segment_bytes",
            "Bytes of segments and indexes that the start read",
            engine.recovery_segment_bytes,
        ),
        (
            "recovery_journal_bytes",
            "Bytes of journals that the start read",
            engine.recovery_journal_bytes,
        ),
        (
            "recovery_checkpoint_bytes",
            "Bytes of checkpoints that the start read",
            engine.recovery_checkpoint_bytes,
        ),
    ]
}

fn merge_engine(total: &mut EngineStats, other: &EngineStats) {
    let EngineStats {
        logs,
        appended_batches,
        appended_bytes,
        appends_refused_busy,
        appends_refused_disk_low,
        journal_commits,
        journal_bytes,
        segment_writes,
        segment_bytes,
        segment_syncs,
        file_system_syncs,
        segments_sealed,
        segments_deleted,
        segments_recycled,
        spare_bytes,
        bypass_writes,
        bypass_bytes,
        checkpoints,
        tail_bytes,
        tail_unflushed_bytes,
        readahead_bytes,
        cached_reads,
        cold_reads,
        cold_read_bytes,
        truncations,
        faults,
        logs_reopened,
        scrubbed_bytes,
        scrub_rounds,
        scrub_errors,
        logs_offline,
        corrupt_batches,
        disk_available_bytes,
        disk_reserve_bytes,
        disk_low,
        recovered_logs,
        recovery_segment_bytes,
        recovery_journal_bytes,
        recovery_checkpoint_bytes,
    } = other;
    // All shards are on one disk; the look that found least counts, of those that looked at all.
    total.disk_available_bytes = match total.disk_available_bytes {
        0 => *disk_available_bytes,
        known => known.min(*disk_available_bytes),
    };
    total.disk_reserve_bytes = total.disk_reserve_bytes.max(*disk_reserve_bytes);
    total.disk_low |= disk_low;
    for (sum, more) in [
        (&mut total.logs, logs),
        (&mut total.appended_batches, appended_batches),
        (&mut total.appended_bytes, appended_bytes),
        (&mut total.journal_commits, journal_commits),
        (&mut total.journal_bytes, journal_bytes),
        (&mut total.segment_writes, segment_writes),
        (&mut total.segment_bytes, segment_bytes),
        (&mut total.segment_syncs, segment_syncs),
        (&mut total.file_system_syncs, file_system_syncs),
        (&mut total.bypass_writes, bypass_writes),
        (&mut total.bypass_bytes, bypass_bytes),
        (&mut total.checkpoints, checkpoints),
        (&mut total.tail_bytes, tail_bytes),
        (&mut total.tail_unflushed_bytes, tail_unflushed_bytes),
        (&mut total.cached_reads, cached_reads),
        (&mut total.cold_reads, cold_reads),
        (&mut total.cold_read_bytes, cold_read_bytes),
        (&mut total.appends_refused_busy, appends_refused_busy),
        (
            &mut total.appends_refused_disk_low,
            appends_refused_disk_low,
        ),
        (&mut total.segments_sealed, segments_sealed),
        (&mut total.segments_deleted, segments_deleted),
        (&mut total.segments_recycled, segments_recycled),
        (&mut total.spare_bytes, spare_bytes),
        (&mut total.readahead_bytes, readahead_bytes),
        (&mut total.truncations, truncations),
        (&mut total.faults, faults),
        (&mut total.logs_reopened, logs_reopened),
        (&mut total.scrubbed_bytes, scrubbed_bytes),
        (&mut total.scrub_rounds, scrub_rounds),
        (&mut total.scrub_errors, scrub_errors),
        (&mut total.logs_offline, logs_offline),
        (&mut total.corrupt_batches, corrupt_batches),
        (&mut total.recovered_logs, recovered_logs),
        (&mut total.recovery_segment_bytes, recovery_segment_bytes),
        (&mut total.recovery_journal_bytes, recovery_journal_bytes),
        (
            &mut total.recovery_checkpoint_bytes,
            recovery_checkpoint_bytes,
        ),
    ] {
        *sum += more;
    }
}
