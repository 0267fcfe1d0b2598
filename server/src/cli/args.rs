//! Flags that all commands share, and the pieces to read their values.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use regex::Regex;

use super::{
    client::{Address, Client, ClientConfig, ClientError},
    outcome::CliError,
    properties::Properties,
};

/// How to reach the cluster. Kafka's older spellings are accepted beside the current ones.
#[derive(Args, Clone, Debug)]
pub struct ConnectArgs {
    /// Brokers to ask first.
    #[arg(
        long,
        alias = "broker-list",
        value_name = "HOST:PORT,...",
        default_value = "localhost:9092",
        env = "FOREBAY_BOOTSTRAP_SERVER"
    )]
    pub bootstrap_server: String,

    /// File of client properties (key=value lines).
    #[arg(long, aliases = ["producer.config", "consumer.config"], value_name = "FILE")]
    command_config: Option<PathBuf>,

    /// One client property; may be repeated, and wins over the file.
    #[arg(long, aliases = ["producer-property", "consumer-property"], value_name = "KEY=VALUE")]
    command_property: Vec<String>,
}

/// Client properties that the connection itself understands.
const CONNECTION_PROPERTIES: [&str; 4] = [
    "bootstrap.servers",
    "client.id",
    "security.protocol",
    "request.timeout.ms",
];

impl ConnectArgs {
    /// The client properties from file and flags. Names that nobody here knows are reported once, on stderr.
    pub fn properties(&self, known: &[&str]) -> Result<Properties, CliError> {
        let mut properties = match &self.command_config {
            Some(path) => Properties::from_file(path)?,
            None => Properties::default(),
        };
        properties.add_all(&self.command_property)?;
        let is_known = |name: &str| known.contains(&name) || CONNECTION_PROPERTIES.contains(&name);
        for name in properties.names().filter(|name| !is_known(name)) {
            eprintln!("client property {name} has no effect here and is ignored");
        }
        Ok(properties)
    }

    /// Connects, with what the properties say about it.
    pub fn connect(&self, properties: &Properties, client_id: &str) -> Result<Client, CliError> {
        if let Some(protocol) = properties.get("security.protocol")
            && !protocol.eq_ignore_ascii_case("plaintext")
        {
            return Err(ClientError::UnsupportedSecurity(protocol.to_string()).into());
        }
        let bootstrap = Address::parse_list(&self.bootstrap_server)?;
        let client_id = properties.get("client.id").unwrap_or(client_id);
        let mut config = ClientConfig::new(bootstrap, client_id);
        if let Some(millis) = properties.parse::<u32>("request.timeout.ms")? {
            config.request_timeout = Duration::from_millis(millis.max(1).into());
        }
        Ok(Client::connect(config)?)
    }

    /// For commands that know no properties of their own.
    pub fn connect_plainly(&self, client_id: &str) -> Result<Client, CliError> {
        let properties = self.properties(&[])?;
        self.connect(&properties, client_id)
    }
}

/// Topic names as Kafka's tools match them: a regular expression for the whole name, commas as alternatives.
pub struct TopicFilter(Regex);

impl TopicFilter {
    pub fn new(pattern: &str) -> Result<TopicFilter, CliError> {
        let alternatives: Vec<&str> = pattern.trim().split(',').map(str::trim).collect();
        let pattern = format!("^(?:{})$", alternatives.join("|"));
        match Regex::new(&pattern) {
            Ok(regex) => Ok(TopicFilter(regex)),
            Err(error) => Err(CliError::failed(format!("no regular expression: {error}"))),
        }
    }

    pub fn matches(&self, topic: &str) -> bool {
        self.0.is_match(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_filter_matches_whole_names() {
        let check = |pattern: &str, topic: &str, want: bool| {
            let filter = TopicFilter::new(pattern).unwrap();
            assert_eq!(filter.matches(topic), want, "{pattern} on {topic}");
        };
        check("first", "first", true);
        check("first", "first2", false);
        check("fir.*", "first", true);
        check("a,b", "b", true);
        check("a, b", "b", true);
        check("a,b", "ab", false);
        assert!(TopicFilter::new("(").is_err());
    }
}
