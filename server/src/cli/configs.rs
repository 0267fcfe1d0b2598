//! `forebay configs`, alias `kafka-configs`: settings of topics, brokers and groups.

use std::{io::Write, path::PathBuf};

use clap::{ArgGroup, Parser, ValueEnum};

use super::{
    args::ConnectArgs,
    client::{
        AutoCreate, Client,
        config::{ConfigChange, ConfigEntry, ConfigSource, ResourceKind},
    },
    outcome::CliError,
    properties::Properties,
};

/// Shows and changes the settings of topics, brokers and groups
#[derive(Parser, Debug)]
#[command(
    group = ArgGroup::new("action").required(true),
    after_help = "Examples:\n  \
forebay configs --describe --topic first --all\n  \
forebay configs --alter --entity-type topics --entity-name first --add-config retention.ms=3600000\n  \
forebay configs --alter --entity-type topics --entity-name first --add-config cleanup.policy=[compact,delete]\n  \
forebay configs --alter --entity-type topics --entity-name first --delete-config retention.ms"
)]
pub struct ConfigsArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// Show settings.
    #[arg(long, group = "action")]
    describe: bool,
    /// Change settings.
    #[arg(long, group = "action")]
    alter: bool,

    /// What the settings belong to.
    #[arg(long, value_enum, required_unless_present_any = ["topic", "broker", "group"])]
    entity_type: Option<EntityType>,
    /// Its name (of a broker: its id).
    #[arg(long, requires = "entity_type")]
    entity_name: Option<String>,
    /// The defaults of all brokers.
    #[arg(long, requires = "entity_type", conflicts_with = "entity_name")]
    entity_default: bool,
    /// Short for --entity-type topics --entity-name.
    #[arg(long, conflicts_with_all = ["entity_type", "broker", "group"])]
    topic: Option<String>,
    /// Short for --entity-type brokers --entity-name.
    #[arg(long, conflicts_with_all = ["entity_type", "group"])]
    broker: Option<String>,
    /// Short for --entity-type groups --entity-name.
    #[arg(long, conflicts_with = "entity_type")]
    group: Option<String>,

    /// With --describe: defaults too, not only what was set.
    #[arg(long)]
    all: bool,
    /// Settings to change; a value with commas stands in square brackets.
    #[arg(long, requires = "alter", value_name = "KEY=VALUE,...")]
    add_config: Option<String>,
    /// File of settings to change.
    #[arg(
        long,
        requires = "alter",
        conflicts_with = "add_config",
        value_name = "FILE"
    )]
    add_config_file: Option<PathBuf>,
    /// Settings that go back to their default.
    #[arg(long, requires = "alter", value_name = "KEY,...")]
    delete_config: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EntityType {
    Topics,
    Brokers,
    Groups,
}

/// What the flags name; without a name, all of the kind.
struct Entity {
    kind: ResourceKind,
    name: Option<String>,
}

pub fn run(args: &ConfigsArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let entity = entity(args)?;
    let changes = changes(args)?;
    let mut client = args.connect.connect_plainly("forebay-configs")?;
    if args.alter {
        alter(&entity, &changes, &mut client, out)
    } else {
        describe(&entity, args.all, &mut client, out)
    }
}

fn entity(args: &ConfigsArgs) -> Result<Entity, CliError> {
    let short = [
        (ResourceKind::Topic, &args.topic),
        (ResourceKind::Broker, &args.broker),
        (ResourceKind::Group, &args.group),
    ];
    for (kind, name) in short {
        if let Some(name) = name {
            let name = Some(name.clone());
            return Ok(Entity { kind, name });
        }
    }
    let kind = match args.entity_type {
        Some(EntityType::Topics) | None => ResourceKind::Topic,
        Some(EntityType::Brokers) => ResourceKind::Broker,
        Some(EntityType::Groups) => ResourceKind::Group,
    };
    let name = match (args.entity_default, kind) {
        // The default of all brokers is the broker without a name.
        (true, ResourceKind::Broker) => Some(String::new()),
        (true, _) => {
            return Err(CliError::failed("only brokers have --entity-default"));
        }
        (false, _) => args.entity_name.clone(),
    };
    Ok(Entity { kind, name })
}

fn changes(args: &ConfigsArgs) -> Result<Vec<ConfigChange>, CliError> {
    let mut changes = Vec::new();
    if let Some(path) = &args.add_config_file {
        let properties = Properties::from_file(path)?;
        for name in properties.names() {
            let value = properties.get(name).unwrap_or_default();
            changes.push(ConfigChange::Set(name.to_string(), value.to_string()));
        }
    }
    if let Some(text) = &args.add_config {
        for (key, value) in parse_settings(text)? {
            changes.push(ConfigChange::Set(key, value));
        }
    }
    let deleted = args.delete_config.iter().flat_map(|text| text.split(','));
    for key in deleted.map(str::trim).filter(|key| !key.is_empty()) {
        changes.push(ConfigChange::Delete(key.to_string()));
    }
    if args.alter && changes.is_empty() {
        return Err(CliError::failed(
            "At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter",
        ));
    }
    Ok(changes)
}

/// Splits `a=1,b=[x,y]`: commas inside square brackets belong to the value.
fn parse_settings(text: &str) -> Result<Vec<(String, String)>, CliError> {
    let mut parts = Vec::new();
    let mut depth = 0usize;
    let mut begin = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    let mut settings = Vec::new();
    for part in parts.into_iter().map(str::trim).filter(|p| !p.is_empty()) {
        let (key, value) = part
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| CliError::failed(format!("'{part}' is not key=value")))?;
        let value = value.trim();
        let inner = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
        let value = inner.unwrap_or(value);
        settings.push((key.trim().to_string(), value.to_string()));
    }
    Ok(settings)
}

fn alter(
    entity: &Entity,
    changes: &[ConfigChange],
    client: &mut Client,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let kind = entity.kind;
    let Some(name) = &entity.name else {
        return Err(CliError::failed(format!(
            "--alter needs the name of the {}",
            kind.name()
        )));
    };
    if kind == ResourceKind::Broker {
        // Node ids become addresses only by metadata.
        client.metadata(Some(&[]), AutoCreate::Forbid)?;
    }
    client.alter_configs(kind, name, changes)?;
    if name.is_empty() {
        writeln!(
            out,
            "Completed updating default config for {}s in the cluster.",
            kind.name()
        )?;
    } else {
        writeln!(out, "Completed updating config for {} {name}.", kind.name())?;
    }
    Ok(())
}

fn describe(
    entity: &Entity,
    all: bool,
    client: &mut Client,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let kind = entity.kind;
    let names = match &entity.name {
        Some(name) => {
            client.metadata(Some(&[]), AutoCreate::Forbid)?;
            vec![name.clone()]
        }
        None => all_of(kind, client)?,
    };
    for name in names {
        let found = client.describe_configs(kind, std::slice::from_ref(&name))?;
        let (which, subject) = match (all, name.is_empty()) {
            (true, _) => ("All", format!("{} {name}", kind.name())),
            (false, true) => ("Default", format!("{}s in the cluster", kind.name())),
            (false, false) => ("Dynamic", format!("{} {name}", kind.name())),
        };
        writeln!(out, "{which} configs for {subject} are:")?;
        for entry in found.values().flatten() {
            if all || is_own(kind, name.is_empty(), entry.source) {
                writeln!(out, "  {}", line(entry))?;
            }
        }
    }
    Ok(())
}

fn all_of(kind: ResourceKind, client: &mut Client) -> Result<Vec<String>, CliError> {
    match kind {
        ResourceKind::Topic => {
            let metadata = client.metadata(None, AutoCreate::Forbid)?;
            Ok(metadata.topics.into_keys().collect())
        }
        ResourceKind::Broker => {
            client.metadata(Some(&[]), AutoCreate::Forbid)?;
            let mut names: Vec<String> = client.brokers().map(|id| id.to_string()).collect();
            names.push(String::new());
            Ok(names)
        }
        ResourceKind::Group => Err(CliError::failed("--describe of groups needs a name")),
    }
}

/// Whether a value was set on the entity itself.
fn is_own(kind: ResourceKind, is_default_entity: bool, source: ConfigSource) -> bool {
    match kind {
        ResourceKind::Topic => source == ConfigSource::Topic,
        ResourceKind::Broker if is_default_entity => source == ConfigSource::DynamicDefaultBroker,
        ResourceKind::Broker => source == ConfigSource::DynamicBroker,
        ResourceKind::Group => source == ConfigSource::Group,
    }
}

/// `retention.ms=5 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=5}`
fn line(entry: &ConfigEntry) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_string());
    let synonyms: Vec<String> = entry
        .synonyms
        .iter()
        .map(|(source, name, value)| format!("{}:{name}={}", source.name(), text(value)))
        .collect();
    format!(
        "{}={} sensitive={} synonyms={{{}}}",
        entry.name,
        text(&entry.value),
        entry.is_sensitive,
        synonyms.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_protect_commas() {
        let check = |text: &str, want: &[(&str, &str)]| {
            let want: Vec<(String, String)> = want
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect();
            assert_eq!(parse_settings(text).unwrap(), want, "{text}");
        };
        check("a=1", &[("a", "1")]);
        check("a=1,b=[x,y],c=", &[("a", "1"), ("b", "x,y"), ("c", "")]);
        check(" a = 1 , ", &[("a", "1")]);
        check("a=b=c", &[("a", "b=c")]);
        assert!(parse_settings("novalue").is_err());
        assert!(parse_settings("=1").is_err());
    }

    #[test]
    fn altering_needs_a_change() {
        let parse = |line: &str| ConfigsArgs::try_parse_from(line.split_whitespace());
        let args = parse("configs --alter --topic t").unwrap();
        assert!(changes(&args).is_err());
        let args = parse("configs --alter --topic t --add-config a=1 --delete-config b,c");
        let want = [
            ConfigChange::Set("a".to_string(), "1".to_string()),
            ConfigChange::Delete("b".to_string()),
            ConfigChange::Delete("c".to_string()),
        ];
        assert_eq!(changes(&args.unwrap()).unwrap(), want);
        assert!(parse("configs --describe").is_err(), "of what?");
    }

    #[test]
    fn a_setting_is_printed_with_its_sources() {
        let entry = ConfigEntry {
            name: "cleanup.policy".to_string(),
            value: Some("compact".to_string()),
            source: ConfigSource::Topic,
            is_sensitive: false,
            synonyms: vec![
                (
                    ConfigSource::Topic,
                    "cleanup.policy".to_string(),
                    Some("compact".to_string()),
                ),
                (
                    ConfigSource::Default,
                    "log.cleanup.policy".to_string(),
                    Some("delete".to_string()),
                ),
            ],
        };
        assert_eq!(
            line(&entry),
            "cleanup.policy=compact sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact, \
             DEFAULT_CONFIG:log.cleanup.policy=delete}"
        );
    }
}
