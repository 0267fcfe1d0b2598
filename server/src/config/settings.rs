//! The effective value of a key and everything behind it: topic override, dynamic broker values, what was written at start, default.
//!
//! DescribeConfigs shows these layers and the engine's `LogConfig` is made from the first of them, so what is shown is what works.

use std::collections::BTreeMap;

use forebay_engine::{
    Durability, LogConfig, SpaceUse, TimestampType,
    batch::{BatchRules, Codec},
};

use super::{
    Config,
    definitions::{Definition, broker_key, nearest, topic_key},
    topic_keys::TOPIC_KEYS,
    value,
};

/// Dynamic broker values by broker; `None` is the cluster-wide default.
pub type BrokerConfigs = BTreeMap<Option<i32>, BTreeMap<String, String>>;

/// Where a value came from, numbered as DescribeConfigs sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
}

/// One layer of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key that was set: the one asked for or a synonym of it.
    pub name: &'static str,
    /// As it was set, in the unit of `name`.
    pub written: Option<String>,
    /// In the unit of the key asked for.
    pub value: Option<String>,
    pub source: Source,
}

impl Config {
    /// All layers of a broker key, the effective one first; never empty.
    pub fn broker_settings(
        &self,
        dynamic: &BrokerConfigs,
        definition: &'static Definition,
    ) -> Vec<Setting> {
        let mut settings = Vec::new();
        let name = definition.name;
        let mut push = |text: &String, source| settings.push(setting(name, text, 1, source));
        if definition.is_dynamic() {
            for (broker, source) in self.dynamic_layers() {
                if let Some(text) = dynamic.get(&broker).and_then(|values| values.get(name)) {
                    push(text, source);
                }
            }
        }
        if let Some(given) = self.given(name) {
            push(&given.text, Source::StaticBroker);
        }
        if definition.default.is_some() || settings.is_empty() {
            let value = definition.default.map(str::to_owned);
            settings.push(Setting {
                name,
                written: value.clone(),
                value,
                source: Source::Default,
            });
        }
        settings
    }

    /// All layers of a topic key, the effective one first; never empty.
    pub fn topic_settings(
        &self,
        dynamic: &BrokerConfigs,
        overrides: &BTreeMap<String, String>,
        definition: &'static Definition,
    ) -> Vec<Setting> {
        let mut settings = Vec::new();
        if let Some(text) = overrides.get(definition.name) {
            settings.push(setting(definition.name, text, 1, Source::Topic));
        }
        for (broker, source) in self.dynamic_layers() {
            let Some(values) = dynamic.get(&broker) else {
                continue;
            };
            for synonym in definition.synonyms {
                if let Some(text) = values.get(synonym.name) {
                    settings.push(setting(synonym.name, text, synonym.factor, source));
                }
            }
        }
        let mut given: Vec<_> = definition
            .synonyms
            .iter()
            .filter_map(|synonym| Some((synonym, self.given(synonym.name)?)))
            .collect();
        // Stable: of equally strong ones the nearest synonym stays first.
        given.sort_by_key(|(_, given)| std::cmp::Reverse(given.origin.strength()));
        for (synonym, given) in given {
            let source = Source::StaticBroker;
            settings.push(setting(synonym.name, &given.text, synonym.factor, source));
        }
        for synonym in definition.synonyms {
            let default = broker_key(synonym.name).and_then(|key| key.default);
            if let Some(text) = default {
                settings.push(setting(synonym.name, text, synonym.factor, Source::Default));
            }
        }
        if definition.synonyms.is_empty() {
            settings.push(Setting {
                name: definition.name,
                written: definition.default.map(str::to_owned),
                value: definition.default.map(str::to_owned),
                source: Source::Default,
            });
        }
        assert!(!settings.is_empty(), "{} has no default", definition.name);
        settings
    }

    /// What the engine is told about a topic's logs. Values that do not pass today's check (written by another version) count as unset.
    pub fn log_config(
        &self,
        dynamic: &BrokerConfigs,
        overrides: &BTreeMap<String, String>,
    ) -> LogConfig {
        let topic = TopicValues {
            config: self,
            dynamic,
            overrides,
        };
        let policy = topic.text("cleanup.policy");
        let has_policy = |wanted| value::elements(&policy).any(|policy| policy == wanted);
        LogConfig {
            durability: match topic.text("durability").as_str() {
                "replicated" => Durability::Replicated,
                _ => Durability::Persisted,
            },
            segment_bytes: topic.count("segment.bytes"),
            segment_ms: topic.count("segment.ms"),
            index_interval_bytes: topic.count("index.interval.bytes"),
            retention_bytes: topic.limit("retention.bytes"),
            retention_ms: topic.limit("retention.ms"),
            file_delete_delay_ms: topic.count("file.delete.delay.ms"),
            delete: has_policy("delete"),
            space: SpaceUse::Data,
            rules: BatchRules {
                message_bytes_max: topic.count("max.message.bytes") as usize,
                timestamp_type: match topic.text("message.timestamp.type").as_str() {
                    "LogAppendTime" => TimestampType::LogAppendTime,
                    _ => TimestampType::CreateTime,
                },
                timestamp_before_max_ms: topic.bound("message.timestamp.before.max.ms"),
                timestamp_after_max_ms: topic.bound("message.timestamp.after.max.ms"),
                keys_required: has_policy("compact"),
                codec: codec(&topic.text("compression.type")),
                control_allowed: false,
            },
        }
    }

    /// Of topics that do not say otherwise, as far as it is known before the metadata is.
    pub fn durability(&self) -> Durability {
        let nothing = BTreeMap::new();
        self.log_config(&BrokerConfigs::new(), &nothing).durability
    }

    /// `min.insync.replicas` of a topic.
    pub fn min_insync_replicas(
        &self,
        dynamic: &BrokerConfigs,
        overrides: &BTreeMap<String, String>,
    ) -> u64 {
        let topic = TopicValues {
            config: self,
            dynamic,
            overrides,
        };
        topic.count("min.insync.replicas")
    }

    fn dynamic_layers(&self) -> [(Option<i32>, Source); 2] {
        [
            (Some(self.node_id), Source::DynamicBroker),
            (None, Source::DynamicDefaultBroker),
        ]
    }
}

/// Checks what a client wants to set on a topic; the message is what Kafka's clients show to their users.
pub fn check_topic_value(name: &str, text: &str) -> Result<String, String> {
    let Some(definition) = topic_key(name) else {
        let hint = nearest(TOPIC_KEYS, name)
            .map(|known| format!(", did you mean {known}?"))
            .unwrap_or_default();
        return Err(format!("Unknown topic config name: {name}{hint}"));
    };
    value::check(definition, text)
        .map_err(|why| format!("Invalid value {text} for configuration {name}: {why}"))
}

fn setting(name: &'static str, written: &str, factor: i64, source: Source) -> Setting {
    Setting {
        name,
        written: Some(written.to_owned()),
        value: value::scale(written, factor),
        source,
    }
}

fn codec(name: &str) -> Option<Codec> {
    match name {
        "uncompressed" => Some(Codec::None),
        "gzip" => Some(Codec::Gzip),
        "snappy" => Some(Codec::Snappy),
        "lz4" => Some(Codec::Lz4),
        "zstd" => Some(Codec::Zstd),
        _ => None,
    }
}

/// Typed access to one topic's effective values.
struct TopicValues<'a> {
    config: &'a Config,
    dynamic: &'a BrokerConfigs,
    overrides: &'a BTreeMap<String, String>,
}

impl TopicValues<'_> {
    fn text(&self, name: &str) -> String {
        let definition = topic_key(name).expect("only keys of the table are asked for");
        self.config
            .topic_settings(self.dynamic, self.overrides, definition)
            .into_iter()
            .filter_map(|setting| setting.value)
            .find_map(|value| value::check(definition, &value).ok())
            .expect("a topic key has a default, and every default passes its check")
    }

    fn number(&self, name: &str) -> i64 {
        let text = self.text(name);
        text.parse().expect("checked to be a number")
    }

    /// A number whose check excludes negative values.
    fn count(&self, name: &str) -> u64 {
        u64::try_from(self.number(name)).expect("checked not to be negative")
    }

    /// A limit where -1 is none.
    fn limit(&self, name: &str) -> Option<u64> {
        u64::try_from(self.number(name)).ok()
    }

    /// A limit where Kafka's Long.MAX_VALUE is none.
    fn bound(&self, name: &str) -> Option<i64> {
        Some(self.number(name)).filter(|number| *number != i64::MAX)
    }
}
