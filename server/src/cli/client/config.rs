//! Settings of topics and brokers.

use std::collections::BTreeMap;

use kafka_protocol::{
    messages::{
        DescribeConfigsRequest, IncrementalAlterConfigsRequest,
        describe_configs_request::DescribeConfigsResource,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
    protocol::StrBytes,
};

use super::{Client, ClientError, Target, str_bytes};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    Topic,
    Broker,
    Group,
}

impl ResourceKind {
    fn wire(self) -> i8 {
        match self {
            ResourceKind::Topic => 2,
            ResourceKind::Broker => 4,
            ResourceKind::Group => 32,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            ResourceKind::Topic => "topic",
            ResourceKind::Broker => "broker",
            ResourceKind::Group => "group",
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    Topic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    Group,
    Other(i8),
}

impl ConfigSource {
    fn from_wire(value: i8) -> ConfigSource {
        match value {
            1 => ConfigSource::Topic,
            2 => ConfigSource::DynamicBroker,
            3 => ConfigSource::DynamicDefaultBroker,
            4 => ConfigSource::StaticBroker,
            5 => ConfigSource::Default,
            8 => ConfigSource::Group,
            other => ConfigSource::Other(other),
        }
    }

    /// Kafka's name, as its tool prints it.
    pub fn name(self) -> &'static str {
        match self {
            ConfigSource::Topic => "DYNAMIC_TOPIC_CONFIG",
            ConfigSource::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            ConfigSource::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            ConfigSource::StaticBroker => "STATIC_BROKER_CONFIG",
            ConfigSource::Default => "DEFAULT_CONFIG",
            ConfigSource::Group => "DYNAMIC_GROUP_CONFIG",
            ConfigSource::Other(_) => "UNKNOWN",
        }
    }
}

#[derive(Clone, Debug)]
pub struct ConfigEntry {
    pub name: String,
    pub value: Option<String>,
    pub source: ConfigSource,
    pub is_sensitive: bool,
    /// The chain of places the value was looked for in, the winner first.
    pub synonyms: Vec<(ConfigSource, String, Option<String>)>,
}

/// One change: a new value, or back to the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    Set(String, String),
    Delete(String),
}

impl Client {
    /// All settings of the named resources, sorted by name.
    pub fn describe_configs(
        &mut self,
        kind: ResourceKind,
        names: &[String],
    ) -> Result<BTreeMap<String, Vec<ConfigEntry>>, ClientError> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let resources = names.iter().map(|name| {
            DescribeConfigsResource::default()
                .with_resource_type(kind.wire())
                .with_resource_name(str_bytes(name))
                .with_configuration_keys(None)
        });
        let request = DescribeConfigsRequest::default()
            .with_resources(resources.collect())
            .with_include_synonyms(true);
        let target = config_target(kind, names);
        let response = self.call(target, 4, |_| request)?;
        let mut found = BTreeMap::new();
        for result in response.results {
            let message = result.error_message.as_deref().map(AsRef::as_ref);
            ClientError::check_with(result.error_code, message, || {
                format!("{} '{}'", kind.name(), &*result.resource_name)
            })?;
            let text = |value: &Option<StrBytes>| value.as_deref().map(str::to_string);
            let mut entries: Vec<ConfigEntry> = result
                .configs
                .iter()
                .map(|config| ConfigEntry {
                    name: config.name.to_string(),
                    value: text(&config.value),
                    source: ConfigSource::from_wire(config.config_source),
                    is_sensitive: config.is_sensitive,
                    synonyms: config
                        .synonyms
                        .iter()
                        .map(|synonym| {
                            let source = ConfigSource::from_wire(synonym.source);
                            (source, synonym.name.to_string(), text(&synonym.value))
                        })
                        .collect(),
                })
                .collect();
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            found.insert(result.resource_name.to_string(), entries);
        }
        Ok(found)
    }

    pub fn alter_configs(
        &mut self,
        kind: ResourceKind,
        name: &str,
        changes: &[ConfigChange],
    ) -> Result<(), ClientError> {
        const SET: i8 = 0;
        const DELETE: i8 = 1;
        let configs = changes.iter().map(|change| {
            let entry = AlterableConfig::default();
            match change {
                ConfigChange::Set(key, value) => entry
                    .with_name(str_bytes(key))
                    .with_config_operation(SET)
                    .with_value(Some(str_bytes(value))),
                ConfigChange::Delete(key) => entry
                    .with_name(str_bytes(key))
                    .with_config_operation(DELETE)
                    .with_value(None),
            }
        });
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind.wire())
            .with_resource_name(str_bytes(name))
            .with_configs(configs.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let target = config_target(kind, std::slice::from_ref(&name.to_string()));
        let response = self.call(target, 1, |_| request)?;
        for result in &response.responses {
            let message = result.error_message.as_deref().map(AsRef::as_ref);
            ClientError::check_with(result.error_code, message, || {
                format!("{} '{name}'", kind.name())
            })?;
        }
        Ok(())
    }
}

/// Only a broker itself knows its own settings; everything else is known everywhere.
fn config_target(kind: ResourceKind, names: &[String]) -> Target {
    match (kind, names) {
        (ResourceKind::Broker, [name]) => name.parse().map_or(Target::Any, Target::Broker),
        _ => Target::Any,
    }
}
