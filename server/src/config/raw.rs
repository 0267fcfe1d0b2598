//! What the operator wrote, under Kafka's names and with where it came from; nothing is checked here but the syntax.
//!
//! Sources, strongest first: command line, environment, file. A file is TOML (Kafka's dotted names quoted or as tables) or a Java
//! `server.properties`. The environment follows Kafka's official image: `KAFKA_` and the name with `.` as `_`, `_` as `__`, `-` as `___`.

use std::{collections::BTreeMap, fmt, path::Path};

use super::{definitions::broker_key, value};

/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    File(String),
    /// The name of the variable.
    Environment(String),
    /// The flag as typed.
    Flag(String),
}

impl Origin {
    /// A greater strength wins.
    pub fn strength(&self) -> u8 {
        match self {
            Origin::File(_) => 0,
            Origin::Environment(_) => 1,
            Origin::Flag(_) => 2,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => f.write_str(path),
            Origin::Environment(variable) => write!(f, "environment variable {variable}"),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawValue {
    pub text: String,
    pub origin: Origin,
}

/// One thing wrong with the configuration, worded for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Per key the strongest value. Within one source the last one wins, as in Kafka.
#[derive(Clone, Debug, Default)]
pub struct RawConfig {
    pub values: BTreeMap<String, RawValue>,
}

impl RawConfig {
    /// Reads a configuration file. Runs before any executor exists, so it may block.
    pub fn load_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let shown = path.display();
        let error = |error| ConfigError(format!("cannot read {shown}: {error}"));
        let length = std::fs::metadata(path).map_err(error)?.len();
        if length > FILE_BYTES_MAX {
            return Err(ConfigError(format!(
                "{shown} is larger than {FILE_BYTES_MAX} bytes"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(error)?;
        self.add_file(path, &text)
    }

    /// Takes the content of a file; `.properties` is Java's format, anything else TOML.
    pub fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let shown = path.display().to_string();
        let pairs = if path
            .extension()
            .is_some_and(|ending| ending == "properties")
        {
            parse_properties(text)
        } else {
            parse_toml(text)
        }
        .map_err(|message| ConfigError(format!("{shown}: {message}")))?;
        for (key, text) in pairs {
            self.set(key, text, Origin::File(shown.clone()));
        }
        Ok(())
    }

    /// Takes what concerns us of the environment.
    pub fn add_environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        for (variable, text) in variables {
            if let Some(key) = key_of_variable(&variable) {
                self.set(key, text, Origin::Environment(variable));
            }
        }
    }

    /// Takes the argument of `--override key=value`.
    pub fn add_override(&mut self, argument: &str) -> Result<(), ConfigError> {
        let (key, text) = argument
            .split_once('=')
            .ok_or_else(|| ConfigError(format!("--override {argument}: expected key=value")))?;
        let origin = Origin::Flag(format!("--override {}", key.trim()));
        self.set(key.trim().to_owned(), text.to_owned(), origin);
        Ok(())
    }

    /// Takes one value, such as that of a flag of its own (`--data-dir` sets `log.dirs`).
    pub fn set(&mut self, key: String, text: String, origin: Origin) {
        let weaker = self
            .values
            .get(&key)
            .is_none_or(|present| present.origin.strength() <= origin.strength());
        if weaker {
            self.values.insert(key, RawValue { text, origin });
        }
    }
}

/// The key that a variable stands for. Variables of Kafka's start scripts, and those that Kubernetes adds for a service called
/// `kafka`, are none of ours.
fn key_of_variable(variable: &str) -> Option<String> {
    const SCRIPTS: &[&str] = &[
        "HEAP_OPTS",
        "OPTS",
        "JMX_OPTS",
        "JMX_PORT",
        "JMX_HOSTNAME",
        "JVM_PERFORMANCE_OPTS",
        "GC_LOG_OPTS",
        "LOG4J_OPTS",
        "LOG4J_ROOT_LOGLEVEL",
        "LOG4J_LOGGERS",
        "DEBUG",
        "MODE",
        "TOOLS_LOG4J_LOGLEVEL",
        "VERSION",
        "HOME",
        "CLASSPATH",
        "PORT",
    ];
    let rest = variable.strip_prefix("KAFKA_")?;
    let kubernetes = rest.starts_with("SERVICE_") || rest.starts_with("PORT_");
    if SCRIPTS.contains(&rest) || kubernetes {
        return None;
    }
    let lower = rest.to_ascii_lowercase();
    // Longest escape first, through a character that no key has.
    let key = lower.replace("___", "-").replace("__", "\u{1}");
    Some(key.replace('_', ".").replace('\u{1}', "_"))
}

fn parse_toml(text: &str) -> Result<Vec<(String, String)>, String> {
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| error.to_string())?;
    let mut pairs = Vec::new();
    for (key, value) in &table {
        // Kafka's keys may be gathered in a table [kafka].
        let prefix = if key == "kafka" && value.is_table() {
            ""
        } else {
            key
        };
        flatten(prefix, value, &mut pairs)?;
    }
    Ok(pairs)
}

fn flatten(
    key: &str,
    value: &toml::Value,
    pairs: &mut Vec<(String, String)>,
) -> Result<(), String> {
    if let toml::Value::Table(table) = value {
        for (name, inner) in table {
            let separator = if key.is_empty() { "" } else { "." };
            flatten(&format!("{key}{separator}{name}"), inner, pairs)?;
        }
        return Ok(());
    }
    let text = match value {
        toml::Value::Array(elements) => elements
            .iter()
            .map(scalar)
            .collect::<Option<Vec<_>>>()
            .map(|elements| elements.join(",")),
        single => scalar(single),
    }
    .ok_or_else(|| format!("{key}: expected text, a number, true, false, or a list of them"))?;
    let text = match broker_key(key) {
        Some(definition) => value::without_unit(definition.unit, &text)
            .map_err(|message| format!("{key}: {message}"))?,
        None => text,
    };
    pairs.push((key.to_owned(), text));
    Ok(())
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Java's properties: `#` and `!` comments, `=`, `:` or blanks after the key, `\` at the end of a line goes on in the next one.
fn parse_properties(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut lines = text.lines().map(str::trim_start);
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        while ends_in_odd_backslashes(&logical) {
            logical.pop();
            logical.push_str(lines.next().unwrap_or(""));
        }
        let end = end_of_key(&logical);
        let rest = logical[end..].trim_start();
        let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start();
        pairs.push((unescape(&logical[..end])?, unescape(rest)?));
    }
    Ok(pairs)
}

fn ends_in_odd_backslashes(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn end_of_key(line: &str) -> usize {
    let mut escaped = false;
    for (position, character) in line.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '=' | ':' | ' ' | '\t' | '\u{c}' => return position,
            _ => {}
        }
    }
    line.len()
}

fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        plain.push(match characters.next() {
            Some('t') => '\t',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('f') => '\u{c}',
            Some('u') => {
                let digits: String = characters.by_ref().take(4).collect();
                u32::from_str_radix(&digits, 16)
                    .ok()
                    .filter(|_| digits.len() == 4)
                    .and_then(char::from_u32)
                    .ok_or_else(|| format!("\\u{digits} is no character"))?
            }
            Some(other) => other,
            None => break,
        });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|(key, text)| (key.to_string(), text.to_string()))
            .collect()
    }

    #[test]
    fn properties_are_read_as_java_reads_them() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            assert_eq!(parse_properties(text), Ok(pairs(expected)), "{text:?}");
        };
        check("", &[]);
        check("# note\n! note\n\n", &[]);
        check("a.b=c", &[("a.b", "c")]);
        check("  a.b = c d ", &[("a.b", "c d ")]);
        check("a.b: c", &[("a.b", "c")]);
        check("a.b c", &[("a.b", "c")]);
        check("a.b=", &[("a.b", "")]);
        check("a.b", &[("a.b", "")]);
        check("a=b=c", &[("a", "b=c")]);
        check("a=b,\\\n   c", &[("a", "b,c")]);
        check("a=b\\\\\nc=d", &[("a", "b\\"), ("c", "d")]);
        check("a\\=b=\\u0041\\t", &[("a=b", "A\t")]);
        check("a=b\\", &[("a", "b")]);
        assert!(parse_properties("a=\\u00zz").is_err());
        assert!(parse_properties("a=\\u0").is_err());
    }

    #[test]
    fn toml_takes_quoted_names_tables_and_units() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let mut got = parse_toml(text).expect(text);
            got.sort();
            assert_eq!(got, pairs(expected), "{text}");
        };
        check(
            "\"log.segment.bytes\" = \"64MiB\"",
            &[("log.segment.bytes", "67108864")],
        );
        check(
            "log.retention.ms = \"7d\"",
            &[("log.retention.ms", "604800000")],
        );
        check(
            "[kafka]\n\"num.partitions\" = 4",
            &[("num.partitions", "4")],
        );
        check(
            "[forebay]\nshards = 2\njournal.files = 8",
            &[("forebay.journal.files", "8"), ("forebay.shards", "2")],
        );
        check(
            "listeners = [\"PLAINTEXT://:1\", \"CONTROLLER://:2\"]",
            &[("listeners", "PLAINTEXT://:1,CONTROLLER://:2")],
        );
        check(
            "auto.create.topics.enable = false",
            &[("auto.create.topics.enable", "false")],
        );
        // Unknown keys pass here; the check names them.
        check("nonsense = \"7d\"", &[("nonsense", "7d")]);
        assert!(parse_toml("log.segment.bytes = \"64 furlongs\"").is_err());
        assert!(parse_toml("a = [[1]]").is_err());
        assert!(parse_toml("a = ").is_err());
    }

    #[test]
    fn variables_follow_kafkas_image() {
        let check = |variable: &str, expected: Option<&str>| {
            assert_eq!(key_of_variable(variable).as_deref(), expected, "{variable}");
        };
        check("KAFKA_LOG_RETENTION_MS", Some("log.retention.ms"));
        check("KAFKA_A__B___C_D", Some("a_b-c.d"));
        check("KAFKA_FOREBAY_SHARDS", Some("forebay.shards"));
        check("KAFKA_HEAP_OPTS", None);
        check("KAFKA_SERVICE_HOST", None);
        check("KAFKA_PORT_9092_TCP", None);
        check("PATH", None);
    }

    #[test]
    fn the_strongest_source_wins_whatever_the_order() {
        let sources: [fn(&mut RawConfig); 3] = [
            |raw| {
                raw.add_file(Path::new("x.properties"), "num.partitions=1\nnode.id=7")
                    .expect("file");
            },
            |raw| {
                let variable = ("KAFKA_NUM_PARTITIONS".to_owned(), "2".to_owned());
                raw.add_environment([variable].into_iter());
            },
            |raw| raw.add_override("num.partitions=3").expect("flag"),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut raw = RawConfig::default();
            for source in order {
                sources[source](&mut raw);
            }
            assert_eq!(raw.values["num.partitions"].text, "3");
            assert_eq!(raw.values["node.id"].text, "7");
            assert_eq!(
                raw.values["node.id"].origin,
                Origin::File("x.properties".into())
            );
        }
        assert!(RawConfig::default().add_override("novalue").is_err());
    }
}
