//! `key=value` settings, from flags and from Java's properties files.

use std::{collections::BTreeMap, fs, path::Path, str::FromStr};

use super::outcome::CliError;

/// A properties file is written by hand; anything larger is a mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Reads comments (`#`, `!`), blank lines and `key=value` or `key:value` lines.
    pub fn from_file(path: &Path) -> Result<Properties, CliError> {
        let fail = |what: String| CliError::failed(format!("{}: {what}", path.display()));
        let length = fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
        if length > FILE_BYTES_MAX {
            return Err(fail(format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        let text = fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let mut properties = Properties::default();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let at = line.find(['=', ':']);
            let (key, value) = at.map_or((line, ""), |at| (&line[..at], &line[at + 1..]));
            properties.set(key.trim(), value.trim());
        }
        Ok(properties)
    }

    /// Adds `key=value` flags; `key` alone means an empty value, as in Kafka's tools.
    pub fn add_all(&mut self, flags: &[String]) -> Result<(), CliError> {
        for flag in flags {
            let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
            if key.is_empty() {
                return Err(CliError::failed(format!("'{flag}' is not key=value")));
            }
            self.set(key, value);
        }
        Ok(())
    }

    pub fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_string(), value.to_string());
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn parse<T: FromStr>(&self, key: &str) -> Result<Option<T>, CliError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.trim().parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(CliError::failed(format!(
                "property {key} has no value of its kind: '{value}'"
            ))),
        }
    }

    /// `true` in any case is true, all else is false: Java's rule.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        let value = self.get(key).map(str::trim);
        value.map_or(default, |value| value.eq_ignore_ascii_case("true"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_keep_everything_after_the_first_equals_sign() {
        let mut properties = Properties::default();
        let flags = ["key.separator==", "a=b=c", "empty=", "alone"].map(String::from);
        properties.add_all(&flags).unwrap();
        assert_eq!(properties.get("key.separator"), Some("="));
        assert_eq!(properties.get("a"), Some("b=c"));
        assert_eq!(properties.get("empty"), Some(""));
        assert_eq!(properties.get("alone"), Some(""));
        assert!(properties.add_all(&["=x".to_string()]).is_err());
    }
}
