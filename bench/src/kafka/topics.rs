//! The topics of a run: found or created, described for the result, and deleted again when the run made them.

use std::{
    thread,
    time::{Duration, Instant},
};

use futures_executor::block_on;
use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, ConfigEntry, ConfigSource, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::options::{Cluster, TopicOptions};
use crate::result::run::Setting;

/// How long the broker may take for what is not measured.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits between looks for a topic that was just created.
const POLL: Duration = Duration::from_millis(20);

/// One partition of one of the topics. They are numbered over all topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub topic: String,
    pub partition: i32,
}

pub struct Topics {
    admin: AdminClient<DefaultClientContext>,
    /// Connected, for metadata and offsets.
    observer: BaseConsumer,
    names: Vec<String>,
    created: Vec<String>,
    pub partitions: Vec<Partition>,
}

/// What every client of the run is configured with.
pub fn client_config(cluster: &Cluster) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &cluster.bootstrap_server);
    config.set("client.id", "forebay-bench");
    // What happens is said once, by the command, and not by every client.
    config.set("log_level", "0");
    for (name, value) in cluster.properties()? {
        config.set(name, value);
    }
    Ok(config)
}

impl Topics {
    /// Finds or creates them; `new` names those that have no name.
    pub fn prepare(cluster: &Cluster, options: &TopicOptions, new: &str) -> Result<Topics, String> {
        let mut topics = Topics::connect(cluster, options.names(new))?;
        let missing = topics.missing()?;
        topics.create(&missing, options)?;
        topics.find_partitions()?;
        Ok(topics)
    }

    /// Only those that are there.
    pub fn existing(cluster: &Cluster, options: &TopicOptions) -> Result<Topics, String> {
        options.check_named()?;
        let mut topics = Topics::connect(cluster, options.names(""))?;
        if let Some(missing) = topics.missing()?.first() {
            return Err(format!("--topic {missing}: the broker has no such topic"));
        }
        topics.find_partitions()?;
        Ok(topics)
    }

    fn connect(cluster: &Cluster, names: Vec<String>) -> Result<Topics, String> {
        let config = client_config(cluster)?;
        let said = |error: KafkaError| error.to_string();
        let topics = Topics {
            admin: config.create().map_err(said)?,
            observer: config.create().map_err(said)?,
            names,
            created: Vec::new(),
            partitions: Vec::new(),
        };
        let metadata = topics
            .observer
            .fetch_metadata(None, Duration::from_secs(10));
        metadata.map_err(|error| {
            format!(
                "--bootstrap-server {}: no answer within 10 s ({error}): is a broker running there, and are address and credentials right?",
                cluster.bootstrap_server
            )
        })?;
        Ok(topics)
    }

    fn missing(&self) -> Result<Vec<String>, String> {
        let metadata = self.observer.fetch_metadata(None, PATIENCE);
        let metadata = metadata.map_err(|error| error.to_string())?;
        let there = |name: &String| metadata.topics().iter().any(|topic| topic.name() == name);
        Ok(self
            .names
            .iter()
            .filter(|name| !there(name))
            .cloned()
            .collect())
    }

    fn create(&mut self, missing: &[String], options: &TopicOptions) -> Result<(), String> {
        let partitions = i32::try_from(options.partitions).expect("checked");
        let mut new = Vec::new();
        for name in missing {
            let replication = TopicReplication::Fixed(options.replication_factor);
            let mut topic = NewTopic::new(name, partitions, replication);
            for setting in &options.topic_config {
                let (name, value) = setting.split_once('=').ok_or_else(|| {
                    format!("--topic-config {setting}: a setting is given as NAME=VALUE")
                })?;
                topic = topic.set(name, value);
            }
            new.push(topic);
        }
        if new.is_empty() {
            return Ok(());
        }
        let outcomes = block_on(self.admin.create_topics(&new, &patient()));
        for outcome in outcomes.map_err(|error| error.to_string())? {
            match outcome {
                Ok(name) => self.created.push(name),
                Err((name, code)) => return Err(format!("topic {name} was not created: {code}")),
            }
        }
        Ok(())
    }

    /// Waits until every partition has a leader.
    fn find_partitions(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        for name in &self.names {
            loop {
                let metadata = self.observer.fetch_metadata(Some(name), PATIENCE);
                let metadata = metadata.map_err(|error| error.to_string())?;
                let topic = metadata.topics().iter().find(|topic| topic.name() == name);
                let led = topic.is_some_and(|topic| {
                    topic.error().is_none()
                        && !topic.partitions().is_empty()
                        && topic
                            .partitions()
                            .iter()
                            .all(|partition| partition.leader() >= 0)
                });
                if let (true, Some(topic)) = (led, topic) {
                    self.partitions
                        .extend(topic.partitions().iter().map(|partition| Partition {
                            topic: name.clone(),
                            partition: partition.id(),
                        }));
                    break;
                }
                if Instant::now() > deadline {
                    return Err(format!(
                        "topic {name}: not every partition has a leader after 30 s"
                    ));
                }
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// First and next offset of each partition, in their order.
    pub fn offsets(&self) -> Result<Vec<(i64, i64)>, String> {
        let deadline = Instant::now() + PATIENCE;
        let offsets = self.partitions.iter().map(|it| {
            loop {
                let marks = self
                    .observer
                    .fetch_watermarks(&it.topic, it.partition, PATIENCE);
                match marks {
                    Ok(marks) => return Ok(marks),
                    // A broker may know of a leader before the leader does.
                    Err(error) if is_passing(&error) && Instant::now() < deadline => {
                        thread::sleep(POLL)
                    }
                    Err(error) => {
                        return Err(format!("offsets of {}-{}: {error}", it.topic, it.partition));
                    }
                }
            }
        });
        offsets.collect()
    }

    /// Settings of the broker and of the first topic, as the API tells them. A broker that does not tell has none.
    pub fn settings(&self) -> (Vec<Setting>, Vec<Setting>) {
        let metadata = self.observer.fetch_metadata(None, PATIENCE);
        let broker = metadata
            .ok()
            .and_then(|it| it.brokers().first().map(|it| it.id()));
        let of_broker =
            broker.map_or_else(Vec::new, |id| self.describe(ResourceSpecifier::Broker(id)));
        let of_topic = self.describe(ResourceSpecifier::Topic(&self.names[0]));
        (of_broker, of_topic)
    }

    fn describe(&self, resource: ResourceSpecifier<'_>) -> Vec<Setting> {
        let described = block_on(self.admin.describe_configs([&resource], &patient()));
        let resources = described.unwrap_or_default();
        let entries = resources.into_iter().flatten().flat_map(|it| it.entries);
        let mut settings: Vec<Setting> = entries.map(setting_of).collect();
        settings.sort_by(|one, other| one.name.cmp(&other.name));
        settings
    }

    /// Deletes what the run created.
    pub fn remove(&mut self) -> Result<(), String> {
        let created = std::mem::take(&mut self.created);
        if created.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = created.iter().map(String::as_str).collect();
        let outcomes = block_on(self.admin.delete_topics(&names, &patient()));
        for outcome in outcomes.map_err(|error| error.to_string())? {
            if let Err((name, code)) = outcome
                && code != RDKafkaErrorCode::UnknownTopicOrPartition
            {
                return Err(format!("topic {name} was not deleted: {code}"));
            }
        }
        Ok(())
    }

    /// Those that the run created stay; their names.
    pub fn keep(&mut self) -> Vec<String> {
        std::mem::take(&mut self.created)
    }
}

/// A run that fails deletes its topics as well.
impl Drop for Topics {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("forebay-bench: {error}");
        }
    }
}

fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

fn patient() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE))
}

fn setting_of(entry: ConfigEntry) -> Setting {
    let source = match entry.source {
        ConfigSource::DynamicTopic => "DYNAMIC_TOPIC_CONFIG",
        ConfigSource::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
        ConfigSource::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        ConfigSource::StaticBroker => "STATIC_BROKER_CONFIG",
        ConfigSource::Default => "DEFAULT_CONFIG",
        _ => "UNKNOWN",
    };
    Setting {
        name: entry.name,
        // Kafka's API leaves out what is sensitive.
        value: entry.value.unwrap_or_default(),
        source: Some(source.to_string()),
    }
}
