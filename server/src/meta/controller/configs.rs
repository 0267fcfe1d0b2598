//! Configuration of topics and brokers, changed by clients.

use std::collections::{BTreeMap, BTreeSet};

use super::{Draft, Refusal, Refused, duplicates, unknown_broker};
use crate::{
    config::{
        definitions::{Definition, Kind, broker_key, topic_key},
        settings::{Setting, check_topic_value},
        value,
    },
    meta::records::{Record, Resource},
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceName {
    Topic(String),
    /// `None`: all brokers.
    Broker(Option<i32>),
}

/// One resource of AlterConfigs or IncrementalAlterConfigs.
#[derive(Clone, Debug)]
pub struct AlterConfigs {
    pub resource: ResourceName,
    /// Every key that no operation sets goes back to its default (AlterConfigs).
    pub replace: bool,
    pub operations: Vec<(String, AlterOperation)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterOperation {
    /// `None` is Kafka's null, which is refused.
    Set(Option<String>),
    Delete,
    /// Of elements of a list.
    Append(Option<String>),
    Subtract(Option<String>),
}

pub(super) fn alter(draft: &mut Draft, resources: &[AlterConfigs]) -> Vec<Result<(), Refusal>> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for AlterConfigs { resource, .. } in resources {
        if !seen.insert(resource) {
            twice.insert(resource);
        }
    }
    resources
        .iter()
        .map(|altered| {
            if twice.contains(&altered.resource) {
                return refuse("Each resource must appear at most once.");
            }
            alter_one(draft, altered)
        })
        .collect()
}

fn alter_one(draft: &mut Draft, altered: &AlterConfigs) -> Result<(), Refusal> {
    let (resource, present) = find(draft, &altered.resource)?;
    let twice = duplicates(altered.operations.iter().map(|(name, _)| name.as_str()));
    if let Some(name) = twice.first() {
        return refuse(format!("Error due to duplicate config keys: {name}"));
    }
    let mut wanted = if altered.replace {
        BTreeMap::new()
    } else {
        present.clone()
    };
    for (name, operation) in &altered.operations {
        match evaluate(draft, resource, name, operation, present.get(name))? {
            Some(value) => wanted.insert(name.clone(), value),
            None => wanted.remove(name),
        };
    }
    let names: BTreeSet<&String> = present.keys().chain(wanted.keys()).collect();
    let records = names
        .into_iter()
        .filter(|name| present.get(*name) != wanted.get(*name))
        .map(|name| Record::Config {
            resource,
            name: name.clone(),
            value: wanted.get(name).cloned(),
        })
        .collect();
    draft.push(records);
    Ok(())
}

/// The resource and what is set on it.
fn find(
    draft: &Draft,
    name: &ResourceName,
) -> Result<(Resource, BTreeMap<String, String>), Refusal> {
    match name {
        ResourceName::Topic(name) => match draft.image.topics.get(name) {
            Some(topic) => Ok((Resource::Topic(topic.id), topic.configs.clone())),
            None => Err(Refusal::new(
                Refused::UnknownTopic,
                format!("The topic '{name}' does not exist."),
            )),
        },
        ResourceName::Broker(broker) => {
            if let Some(unknown) = broker.filter(|id| !draft.image.brokers.contains_key(id)) {
                return Err(unknown_broker(unknown));
            }
            let present = draft.image.broker_configs.get(broker);
            Ok((
                Resource::Broker(*broker),
                present.cloned().unwrap_or_default(),
            ))
        }
    }
}

/// The value that an operation leaves; `None` unsets the key.
fn evaluate(
    draft: &Draft,
    resource: Resource,
    name: &str,
    operation: &AlterOperation,
    present: Option<&String>,
) -> Result<Option<String>, Refusal> {
    let text = match operation {
        // Deleting what is not set, known or not, leaves things as they are.
        AlterOperation::Delete => return Ok(None),
        AlterOperation::Set(text)
        | AlterOperation::Append(text)
        | AlterOperation::Subtract(text) => text,
    };
    let Some(text) = text else {
        return refuse(format!("Null value not supported for : {name}"));
    };
    let joined = match operation {
        AlterOperation::Append(_) => {
            let mut elements = list_elements(draft, resource, name, present)?;
            for new in value::elements(text) {
                if !elements.iter().any(|element| element == new) {
                    elements.push(new.to_owned());
                }
            }
            elements.join(",")
        }
        AlterOperation::Subtract(_) => {
            let mut elements = list_elements(draft, resource, name, present)?;
            elements.retain(|element| value::elements(text).all(|gone| gone != element));
            elements.join(",")
        }
        _ => text.clone(),
    };
    check(resource, name, &joined).map(Some)
}

fn check(resource: Resource, name: &str, text: &str) -> Result<String, Refusal> {
    let invalid = |message| Refusal::new(Refused::InvalidConfig, message);
    match (resource, broker_key(name)) {
        (Resource::Topic(_), _) => check_topic_value(name, text).map_err(invalid),
        (Resource::Broker(_), Some(definition)) if definition.is_dynamic() => {
            value::check(definition, text).map_err(|why| {
                invalid(format!(
                    "Invalid value {text} for configuration {name}: {why}"
                ))
            })
        }
        // Kafka's wording, which tools look for.
        (Resource::Broker(_), _) => refuse(format!(
            "Cannot update these configs dynamically: Set({name})"
        )),
    }
}

/// The elements that a list has now, by default if it is not set.
fn list_elements(
    draft: &Draft,
    resource: Resource,
    name: &str,
    present: Option<&String>,
) -> Result<Vec<String>, Refusal> {
    let definition: Option<&'static Definition> = match resource {
        Resource::Topic(_) => topic_key(name),
        Resource::Broker(_) => broker_key(name),
    };
    let Some(definition) = definition.filter(|definition| definition.kind == Kind::List) else {
        return Err(Refusal::new(
            Refused::InvalidConfig,
            format!("Can't APPEND or SUBTRACT to key {name} because its type is not LIST."),
        ));
    };
    let dynamic = &draft.image.broker_configs;
    let layers: Vec<Setting> = match (present, resource) {
        (Some(present), _) => {
            return Ok(value::elements(present).map(str::to_owned).collect());
        }
        (None, Resource::Topic(_)) => {
            draft
                .config
                .topic_settings(dynamic, &BTreeMap::new(), definition)
        }
        (None, Resource::Broker(_)) => draft.config.broker_settings(dynamic, definition),
    };
    let effective = layers[0].value.as_deref().unwrap_or("");
    Ok(value::elements(effective).map(str::to_owned).collect())
}

fn refuse<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(Refused::InvalidRequest, message))
}
