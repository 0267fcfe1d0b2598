//! Configuration in two stages: what the operator wrote, under Kafka's names ([`RawConfig`]), then what was checked ([`Config`]).
//!
//! A `Config` is plain data, made once per process and given to every shard. Values that can change while the broker runs
//! (topic configuration, dynamic broker configuration) live in the metadata; [`settings`] lays them over these.

mod broker_keys;
pub mod definitions;
mod host;
mod listeners;
mod raw;
pub mod settings;
#[cfg(test)]
mod tests;
mod topic_keys;
pub mod value;

use std::{collections::BTreeMap, path::PathBuf};

use forebay_engine::{
    EngineConfig, SYNCS_TOGETHER_MIN, ShardId, SpaceAlarm, SpaceConfig, rt::buf::ALIGNMENT,
};

pub use broker_keys::BROKER_KEYS;
pub use host::Host;
pub use listeners::{Endpoints, Listener};
pub use raw::{ConfigError, Origin, RawConfig, RawValue};
pub use topic_keys::TOPIC_KEYS;

use definitions::{Handling, broker_key, nearest};

/// Checked broker configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_id: i32,
    pub rack: Option<String>,
    pub endpoints: Endpoints,
    pub data_dir: PathBuf,
    /// `None`: one on every core this process may use.
    pub shards: Option<u16>,
    pub lanes: u16,
    /// `None`: no HTTP.
    pub http_port: Option<u16>,
    pub network: Network,
    pub memory: Memory,
    pub storage: Storage,
    pub fetch: Fetch,
    pub topics: Topics,
    pub groups: Groups,
    /// What was written, checked, by key.
    given: BTreeMap<&'static str, RawValue>,
}

#[derive(Clone, Debug)]
pub struct Network {
    pub request_bytes_max: usize,
    /// Of the whole broker.
    pub connections_max: usize,
    pub connections_per_ip_max: usize,
    pub connection_idle_ms: u64,
    pub connection_requests_max: usize,
    pub connection_reply_bytes_max: usize,
}

/// All shards together; [`Config::engine_config`] and [`Memory::requests_per_shard_bytes`] divide it.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub total_bytes: u64,
    pub tail_bytes: u64,
    pub readahead_bytes: u64,
    pub request_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct Storage {
    pub journal_file_bytes: u64,
    pub journal_files: usize,
    pub bypass_bytes: usize,
    pub write_chunk_bytes_max: usize,
    pub checkpoint_interval_ms: u64,
    pub retention_check_interval_ms: u64,
    pub spare_segments_max: usize,
    pub producer_id_expiration_ms: u64,
    /// `None`: what fits the disk.
    pub disk_reserve_bytes: Option<u64>,
    /// Of all shards together; 0: no scrub.
    pub scrub_bytes_per_sec: u64,
    /// Of this process: a copy of the configuration shares it.
    pub space_alarm: SpaceAlarm,
}

#[derive(Clone, Debug)]
pub struct Fetch {
    pub bytes_max: usize,
    pub session_slots_max: usize,
}

#[derive(Clone, Debug)]
pub struct Topics {
    pub auto_create: bool,
    pub delete_enabled: bool,
    pub partitions_default: i32,
    pub replication_factor_default: i16,
    /// Of the whole cluster.
    pub partitions_max: usize,
}

#[derive(Clone, Debug)]
pub struct Groups {
    pub session_timeout_min_ms: u64,
    pub session_timeout_max_ms: u64,
    pub initial_rebalance_delay_ms: u64,
    pub size_max: usize,
    pub offset_metadata_bytes_max: usize,
    pub commit_timeout_ms: u64,
    pub offsets_retention_ms: u64,
    pub offsets_retention_check_interval_ms: u64,
    pub offsets_load_bytes: usize,
    pub offsets_topic_partitions: i32,
    pub offsets_topic_replication_factor: i16,
    pub offsets_topic_segment_bytes: u64,
}

impl Memory {
    pub fn requests_per_shard_bytes(&self, shards: u16) -> u64 {
        self.request_bytes / u64::from(shards.max(1))
    }
}

/// A tail cache that keeps growing is memory that the kernel must clear, and the host of a virtual machine must find, while producers
/// wait: with 4.8 GB, produce took four times the CPU of one with 256 MiB (bench/notes/2026-11-22-first-figures.md). Consumers that are
/// further behind than this read from the disk.
const TAIL_BYTES_DEFAULT_MAX: u64 = 512 << 20;

impl Config {
    /// Checks everything and reports everything that is wrong, not only the first.
    pub fn check(raw: RawConfig, host: &Host) -> Result<Config, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut given = BTreeMap::new();
        for (key, value) in raw.values {
            match check_value(&key, &value) {
                Ok((name, text)) => {
                    let origin = value.origin;
                    given.insert(name, RawValue { text, origin });
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let values = Values { given: &given };
        errors.extend(values.contradictions().into_iter().map(ConfigError));
        let endpoints = Endpoints::parse(
            &values.text("listeners"),
            values.optional("advertised.listeners").as_deref(),
            &values.text("listener.security.protocol.map"),
            &values.text("controller.listener.names"),
        );
        let built = (endpoints, values.data_dir(), values.memory(host));
        let (endpoints, data_dir, memory) = match built {
            (Ok(endpoints), Ok(data_dir), Ok(memory)) if errors.is_empty() => {
                (endpoints, data_dir, memory)
            }
            (endpoints, data_dir, memory) => {
                let wrong = [endpoints.err(), data_dir.err(), memory.err()];
                errors.extend(wrong.into_iter().flatten().map(ConfigError));
                return Err(errors);
            }
        };
        Ok(Config {
            node_id: values.node_id(),
            rack: values.optional("broker.rack"),
            endpoints,
            data_dir,
            shards: values
                .optional("forebay.shards")
                .map(|text| text.parse().expect("checked range")),
            lanes: values.number("forebay.lanes"),
            http_port: values.port("forebay.http.port"),
            network: values.network(),
            memory,
            storage: values.storage(),
            fetch: Fetch {
                bytes_max: values.number("fetch.max.bytes"),
                session_slots_max: values.number("max.incremental.fetch.session.cache.slots"),
            },
            topics: values.topics(),
            groups: values.groups(),
            given,
        })
    }

    /// The configuration of a broker started without any.
    pub fn of_defaults(host: &Host) -> Config {
        Config::check(RawConfig::default(), host).expect("the defaults pass the check (tested)")
    }

    /// What was written for a key, if anything.
    pub fn given(&self, name: &str) -> Option<&RawValue> {
        self.given.get(name)
    }

    /// Keys that were written but have no effect, each with the reason: said once at start.
    pub fn ignored(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.given.keys().filter_map(|name| {
            match broker_key(name).map(|definition| definition.handling) {
                Some(Handling::Ignored(why)) => Some((*name, why)),
                _ => None,
            }
        })
    }

    /// The engine of one of `shards` shards.
    pub fn engine_config(&self, shard: ShardId, shards: u16) -> EngineConfig {
        assert!(shard.0 < shards, "shard {shard} of {shards}");
        let share = |bytes: u64| (bytes / u64::from(shards)) as usize;
        EngineConfig {
            data_dir: self.data_dir.clone(),
            shard,
            journal_file_bytes: self.storage.journal_file_bytes,
            journal_files: self.storage.journal_files,
            bypass_bytes: self.storage.bypass_bytes,
            write_chunk_bytes_max: self.storage.write_chunk_bytes_max,
            tail_bytes_max: share(self.memory.tail_bytes),
            readahead_bytes_max: share(self.memory.readahead_bytes),
            checkpoint_interval_ms: self.storage.checkpoint_interval_ms,
            retention_check_interval_ms: self.storage.retention_check_interval_ms,
            spare_segments_max: self.storage.spare_segments_max,
            producer_id_expiration_ms: self.storage.producer_id_expiration_ms,
            syncs_together_min: SYNCS_TOGETHER_MIN,
            space: SpaceConfig {
                reserve_bytes: self.storage.disk_reserve_bytes,
                shards,
                alarm: self.storage.space_alarm.clone(),
            },
        }
    }
}

fn check_value(key: &str, value: &RawValue) -> Result<(&'static str, String), ConfigError> {
    let origin = &value.origin;
    let Some(definition) = broker_key(key) else {
        let hint = nearest(BROKER_KEYS, key)
            .map(|known| format!(", did you mean {known}?"))
            .unwrap_or_default();
        return Err(ConfigError(format!("{origin}: unknown key {key}{hint}")));
    };
    // An empty text for a key that is null by default means what an absent line means.
    if value.text.trim().is_empty() && definition.default.is_none() {
        return Ok((definition.name, String::new()));
    }
    match value::check(definition, &value.text) {
        Ok(text) => Ok((definition.name, text)),
        Err(why) => Err(ConfigError(format!(
            "{origin}: {key}={}: {why}",
            value.text
        ))),
    }
}

/// Typed access to checked values; every key named here is in the table.
struct Values<'a> {
    given: &'a BTreeMap<&'static str, RawValue>,
}

impl Values<'_> {
    fn optional(&self, name: &str) -> Option<String> {
        let definition = broker_key(name).expect("only keys of the table are asked for");
        let given = self.given.get(name).map(|given| given.text.as_str());
        given
            .or(definition.default)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    fn text(&self, name: &str) -> String {
        self.optional(name).unwrap_or_default()
    }

    /// A number that fits `T`, by its range in the table. Not for keys that may be -1.
    fn number<T: TryFrom<i64>>(&self, name: &str) -> T {
        let number: i64 = self.text(name).parse().expect("checked to be a number");
        T::try_from(number)
            .ok()
            .expect("the table's range fits the type")
    }

    fn truth(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    fn port(&self, name: &str) -> Option<u16> {
        self.text(name).parse().ok()
    }

    /// `broker.id` counts where it is written and `node.id` is not.
    fn node_id(&self) -> i32 {
        let older = self.given.contains_key("broker.id") && !self.given.contains_key("node.id");
        match older.then(|| self.optional("broker.id")).flatten() {
            Some(text) => text.parse().expect("checked to be a number"),
            None => self.number("node.id"),
        }
    }

    /// Values that are right by themselves but not together.
    fn contradictions(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let file_bytes: u64 = self.number("forebay.journal.file.bytes");
        let bypass_bytes: u64 = self.number("forebay.bypass.bytes");
        if !file_bytes.is_multiple_of(ALIGNMENT as u64) {
            wrong.push(format!(
                "forebay.journal.file.bytes={file_bytes} is not a multiple of {ALIGNMENT}"
            ));
        }
        // The engine asserts this: what may go to the journal fits one of its files, with headers around it.
        if bypass_bytes + 4 * ALIGNMENT as u64 > file_bytes {
            wrong.push(format!(
                "forebay.bypass.bytes={bypass_bytes} does not fit forebay.journal.file.bytes={file_bytes}"
            ));
        }
        let Groups {
            session_timeout_min_ms: min,
            session_timeout_max_ms: max,
            ..
        } = self.groups();
        if min > max {
            wrong.push(format!(
                "group.min.session.timeout.ms={min} is more than group.max.session.timeout.ms={max}"
            ));
        }
        wrong
    }

    fn data_dir(&self) -> Result<PathBuf, String> {
        let written = self
            .optional("log.dirs")
            .unwrap_or_else(|| self.text("log.dir"));
        let mut directories = value::elements(&written);
        match (directories.next(), directories.next()) {
            (Some(one), None) => Ok(PathBuf::from(one)),
            (None, _) => Err("log.dir: no data directory".to_owned()),
            (Some(_), Some(_)) => Err("log.dirs: one data directory is supported".to_owned()),
        }
    }

    fn memory(&self, host: &Host) -> Result<Memory, String> {
        let or_share = |name: &str, share: u64| match self.optional(name) {
            Some(text) if text != "-1" => text.parse().expect("checked to be a number"),
            _ => share,
        };
        let total_bytes = or_share(
            "forebay.memory.bytes",
            (host.memory_bytes / 5 * 2).max(64 << 20),
        );
        let memory = Memory {
            total_bytes,
            tail_bytes: or_share(
                "forebay.tail.cache.bytes",
                (total_bytes / 2).min(TAIL_BYTES_DEFAULT_MAX),
            ),
            readahead_bytes: or_share("forebay.readahead.bytes", total_bytes / 8),
            request_bytes: or_share("queued.max.request.bytes", total_bytes / 8),
        };
        let parts = [
            memory.tail_bytes,
            memory.readahead_bytes,
            memory.request_bytes,
        ];
        let sum = parts.into_iter().fold(0u64, u64::saturating_add);
        if sum > total_bytes {
            return Err(format!(
                "forebay.memory.bytes is {total_bytes}, but tail cache, read-ahead and requests together ask for {sum}"
            ));
        }
        Ok(memory)
    }

    fn network(&self) -> Network {
        Network {
            request_bytes_max: self.number("socket.request.max.bytes"),
            connections_max: self.number("max.connections"),
            connections_per_ip_max: self.number("max.connections.per.ip"),
            connection_idle_ms: self.number("connections.max.idle.ms"),
            connection_requests_max: self.number("forebay.connection.requests"),
            connection_reply_bytes_max: self.number("forebay.connection.reply.bytes"),
        }
    }

    fn storage(&self) -> Storage {
        Storage {
            journal_file_bytes: self.number("forebay.journal.file.bytes"),
            journal_files: self.number("forebay.journal.files"),
            bypass_bytes: self.number("forebay.bypass.bytes"),
            write_chunk_bytes_max: self.number("forebay.write.chunk.bytes"),
            checkpoint_interval_ms: self.number("forebay.checkpoint.interval.ms"),
            retention_check_interval_ms: self.number("log.retention.check.interval.ms"),
            spare_segments_max: self.number("forebay.spare.segments.max"),
            producer_id_expiration_ms: self.number("producer.id.expiration.ms"),
            disk_reserve_bytes: self
                .optional("forebay.disk.reserve.bytes")
                .map(|text| text.parse().expect("checked range")),
            scrub_bytes_per_sec: self.number("forebay.scrub.bytes.per.sec"),
            space_alarm: SpaceAlarm::default(),
        }
    }

    fn topics(&self) -> Topics {
        Topics {
            auto_create: self.truth("auto.create.topics.enable"),
            delete_enabled: self.truth("delete.topic.enable"),
            partitions_default: self.number("num.partitions"),
            replication_factor_default: self.number("default.replication.factor"),
            partitions_max: self.number("forebay.partitions"),
        }
    }

    fn groups(&self) -> Groups {
        let minutes: u64 = self.number("offsets.retention.minutes");
        Groups {
            session_timeout_min_ms: self.number("group.min.session.timeout.ms"),
            session_timeout_max_ms: self.number("group.max.session.timeout.ms"),
            initial_rebalance_delay_ms: self.number("group.initial.rebalance.delay.ms"),
            size_max: self.number("group.max.size"),
            offset_metadata_bytes_max: self.number("offset.metadata.max.bytes"),
            commit_timeout_ms: self.number("offsets.commit.timeout.ms"),
            offsets_retention_ms: minutes * 60_000,
            offsets_retention_check_interval_ms: self.number("offsets.retention.check.interval.ms"),
            offsets_load_bytes: self.number("offsets.load.buffer.size"),
            offsets_topic_partitions: self.number("offsets.topic.num.partitions"),
            offsets_topic_replication_factor: self.number("offsets.topic.replication.factor"),
            offsets_topic_segment_bytes: self.number("offsets.topic.segment.bytes"),
        }
    }
}
