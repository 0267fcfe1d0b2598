//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

use std::{collections::BTreeMap, rc::Rc};

use kafka_protocol::{
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, alter_configs_request,
        alter_configs_response,
        create_topics_response::CreatableTopicConfigs,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{
            DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
        },
        incremental_alter_configs_request, incremental_alter_configs_response,
    },
    protocol::StrBytes,
};

use super::convert::{outcome, text};
use crate::{
    config::{
        BROKER_KEYS, TOPIC_KEYS,
        definitions::Definition,
        settings::{Setting, Source},
    },
    meta::{
        Image,
        controller::{
            AlterConfigs, AlterOperation, Refusal, Refused, Reply, Request, ResourceName,
            check_name,
        },
        refusal_of,
    },
    shard::Shard,
    wire::{Decode, DecodeError, Reader},
};

/// Kafka's numbers of what has a configuration.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

impl Decode for DescribeConfigsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DescribeConfigsRequest::default();
        request.resources = reader.structures(version)?;
        request.include_synonyms = reader.bool()?;
        if version >= 3 {
            request.include_documentation = reader.bool()?;
        }
        Ok(request)
    }
}

impl Decode for DescribeConfigsResource {
    const BYTES_MIN: usize = 3;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut resource = DescribeConfigsResource::default();
        resource.resource_type = reader.i8()?;
        resource.resource_name = reader.string()?;
        resource.configuration_keys = reader.nullable_array(1, Reader::string)?;
        Ok(resource)
    }
}

impl Decode for AlterConfigsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = AlterConfigsRequest::default();
        request.resources = reader.structures(version)?;
        request.validate_only = reader.bool()?;
        Ok(request)
    }
}

impl Decode for alter_configs_request::AlterConfigsResource {
    const BYTES_MIN: usize = 3;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut resource = alter_configs_request::AlterConfigsResource::default();
        resource.resource_type = reader.i8()?;
        resource.resource_name = reader.string()?;
        resource.configs = reader.structures(version)?;
        Ok(resource)
    }
}

impl Decode for alter_configs_request::AlterableConfig {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut config = alter_configs_request::AlterableConfig::default();
        config.name = reader.string()?;
        config.value = reader.nullable_string()?;
        Ok(config)
    }
}

impl Decode for IncrementalAlterConfigsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = IncrementalAlterConfigsRequest::default();
        request.resources = reader.structures(version)?;
        request.validate_only = reader.bool()?;
        Ok(request)
    }
}

impl Decode for incremental_alter_configs_request::AlterConfigsResource {
    const BYTES_MIN: usize = 3;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut resource = incremental_alter_configs_request::AlterConfigsResource::default();
        resource.resource_type = reader.i8()?;
        resource.resource_name = reader.string()?;
        resource.configs = reader.structures(version)?;
        Ok(resource)
    }
}

impl Decode for incremental_alter_configs_request::AlterableConfig {
    const BYTES_MIN: usize = 3;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut config = incremental_alter_configs_request::AlterableConfig::default();
        config.name = reader.string()?;
        config.config_operation = reader.i8()?;
        config.value = reader.nullable_string()?;
        Ok(config)
    }
}

pub async fn describe_configs(
    shard: &Rc<Shard>,
    request: DescribeConfigsRequest,
    _version: i16,
) -> DescribeConfigsResponse {
    let image = shard.image();
    let results = request.resources.iter().map(|resource| {
        let described = describe(shard, &image, resource);
        let (code, message) = outcome(&described);
        let configs = described
            .unwrap_or_default()
            .into_iter()
            .map(|entry| entry.reply(request.include_synonyms, request.include_documentation));
        DescribeConfigsResult::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_configs(configs.collect())
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// One key with all its layers.
struct Entry {
    definition: &'static Definition,
    settings: Vec<Setting>,
    read_only: bool,
}

fn describe(
    shard: &Shard,
    image: &Image,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Entry>, Refusal> {
    let name = resource.resource_name.as_str();
    // Null asks for all keys, and so does an empty list.
    let wanted = |definition: &&'static Definition| match &resource.configuration_keys {
        Some(keys) if !keys.is_empty() => keys.iter().any(|key| **key == *definition.name),
        _ => true,
    };
    match resource.resource_type {
        TOPIC => {
            check_name(name)?;
            let Some(topic) = image.topics.get(name) else {
                return Err(Refusal::new(
                    Refused::UnknownTopic,
                    format!("The topic '{name}' does not exist."),
                ));
            };
            let keys = TOPIC_KEYS.iter().filter(wanted);
            Ok(keys
                .map(|definition| topic_entry(shard, image, &topic.configs, definition))
                .collect())
        }
        BROKER => {
            let keys = BROKER_KEYS.iter().filter(wanted);
            let entries = keys.map(|definition| Entry {
                definition,
                settings: shard
                    .config
                    .broker_settings(&image.broker_configs, definition),
                read_only: !definition.is_dynamic(),
            });
            match broker_of(shard, name)? {
                Some(_) => Ok(entries.collect()),
                // The cluster-wide defaults: only what was set for all brokers.
                None => Ok(entries.filter_map(only_cluster_wide).collect()),
            }
        }
        // What has no configuration here has none that is set.
        BROKER_LOGGER | GROUP => Ok(Vec::new()),
        CLIENT_METRICS if !name.is_empty() => Ok(Vec::new()),
        CLIENT_METRICS => invalid("Empty resource name"),
        other => invalid(format!("Unsupported resource type: {other}")),
    }
}

fn topic_entry(
    shard: &Shard,
    image: &Image,
    overrides: &BTreeMap<String, String>,
    definition: &'static Definition,
) -> Entry {
    let config = &shard.config;
    Entry {
        definition,
        settings: config.topic_settings(&image.broker_configs, overrides, definition),
        read_only: false,
    }
}

fn only_cluster_wide(mut entry: Entry) -> Option<Entry> {
    entry
        .settings
        .retain(|setting| setting.source == Source::DynamicDefaultBroker);
    (!entry.settings.is_empty()).then_some(entry)
}

/// This broker, or `None` for the cluster-wide default.
fn broker_of(shard: &Shard, name: &str) -> Result<Option<i32>, Refusal> {
    let own = shard.config.node_id;
    match name.parse::<i32>() {
        _ if name.is_empty() => Ok(None),
        Ok(id) if id == own => Ok(Some(id)),
        Ok(_) => invalid(format!(
            "Unexpected broker id, expected {own} or empty string, but received {name}"
        )),
        Err(_) => invalid(format!("Broker id must be an integer, but it is: {name}")),
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(Refused::InvalidRequest, message))
}

impl Entry {
    fn effective(&self) -> &Setting {
        self.settings.first().expect("every key has a layer")
    }

    fn shown(&self, value: &Option<String>) -> Option<StrBytes> {
        value
            .as_deref()
            .filter(|_| !self.definition.is_sensitive())
            .map(text)
    }

    fn reply(&self, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
        let effective = self.effective();
        let layers = self.settings.iter().filter(|_| synonyms).map(|setting| {
            DescribeConfigsSynonym::default()
                .with_name(StrBytes::from_static_str(setting.name))
                .with_value(self.shown(&setting.written))
                .with_source(setting.source as i8)
        });
        let doc = StrBytes::from_static_str(self.definition.doc);
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(self.definition.name))
            .with_value(self.shown(&effective.value))
            .with_read_only(self.read_only)
            .with_config_source(effective.source as i8)
            .with_is_sensitive(self.definition.is_sensitive())
            .with_synonyms(layers.collect())
            .with_config_type(self.definition.kind as i8)
            .with_documentation(documentation.then_some(doc))
    }
}

/// What CreateTopics tells about the configuration of a new topic.
pub fn created_configs(
    shard: &Shard,
    overrides: &BTreeMap<String, String>,
) -> Vec<CreatableTopicConfigs> {
    let image = shard.image();
    let told = TOPIC_KEYS.iter().map(|definition| {
        let entry = topic_entry(shard, &image, overrides, definition);
        let effective = entry.effective();
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(definition.name))
            .with_value(entry.shown(&effective.value))
            .with_read_only(entry.read_only)
            .with_config_source(effective.source as i8)
            .with_is_sensitive(definition.is_sensitive())
    });
    told.collect()
}

pub async fn alter_configs(
    shard: &Rc<Shard>,
    request: AlterConfigsRequest,
    _version: i16,
) -> AlterConfigsResponse {
    let altered = request.resources.iter().map(|resource| {
        let operations = resource.configs.iter().map(|config| {
            let value = config.value.as_ref().map(StrBytes::to_string);
            (config.name.to_string(), AlterOperation::Set(value))
        });
        Ok(AlterConfigs {
            resource: resource_name(resource.resource_type, &resource.resource_name)?,
            replace: true,
            operations: operations.collect(),
        })
    });
    let results = alter(shard, altered.collect(), request.validate_only).await;
    let responses = request.resources.iter().zip(results);
    let responses = responses.map(|(resource, result)| {
        let (code, message) = outcome(&result);
        alter_configs_response::AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

pub async fn incremental_alter_configs(
    shard: &Rc<Shard>,
    request: IncrementalAlterConfigsRequest,
    _version: i16,
) -> IncrementalAlterConfigsResponse {
    let altered = request.resources.iter().map(|resource| {
        let operations = resource.configs.iter().map(operation);
        Ok(AlterConfigs {
            resource: resource_name(resource.resource_type, &resource.resource_name)?,
            replace: false,
            operations: operations.collect::<Result<_, _>>()?,
        })
    });
    let results = alter(shard, altered.collect(), request.validate_only).await;
    let responses = request.resources.iter().zip(results);
    let responses = responses.map(|(resource, result)| {
        let (code, message) = outcome(&result);
        incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn operation(
    config: &incremental_alter_configs_request::AlterableConfig,
) -> Result<(String, AlterOperation), Refusal> {
    let value = config.value.as_ref().map(StrBytes::to_string);
    let operation = match config.config_operation {
        0 => AlterOperation::Set(value),
        1 => AlterOperation::Delete,
        2 => AlterOperation::Append(value),
        3 => AlterOperation::Subtract(value),
        unknown => return invalid(format!("Unknown config operation {unknown}")),
    };
    Ok((config.name.to_string(), operation))
}

fn resource_name(kind: i8, name: &str) -> Result<ResourceName, Refusal> {
    match kind {
        TOPIC => {
            check_name(name)?;
            Ok(ResourceName::Topic(name.to_owned()))
        }
        BROKER if name.is_empty() => Ok(ResourceName::Broker(None)),
        BROKER => match name.parse() {
            Ok(id) => Ok(ResourceName::Broker(Some(id))),
            Err(_) => invalid(format!("Broker id must be an integer, but it is: {name}")),
        },
        other => invalid(format!("Resource type {other} cannot be altered here.")),
    }
}

/// Sends what could be read to the controller; results come in the order of the request.
async fn alter(
    shard: &Rc<Shard>,
    altered: Vec<Result<AlterConfigs, Refusal>>,
    validate_only: bool,
) -> Vec<Result<(), Refusal>> {
    let resources: Vec<AlterConfigs> = altered.iter().flatten().cloned().collect();
    let count = resources.len();
    let request = Request::AlterConfigs {
        resources,
        validate_only,
    };
    let results = match shard.control(request).await {
        Some(Reply::AlterConfigs(results)) => results,
        other => vec![Err(refusal_of(other)); count],
    };
    let mut results = results.into_iter();
    let in_order = altered.into_iter().map(|altered| match altered {
        Ok(_) => results.next().expect("one result per resource"),
        Err(refusal) => Err(refusal),
    });
    in_order.collect()
}
