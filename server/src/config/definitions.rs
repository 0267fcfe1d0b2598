//! What a configuration key is: the shape of the two tables in [`super::broker_keys`] and [`super::topic_keys`], and look-ups in them.
//!
//! The tables are the only list of keys. Checking, DescribeConfigs, `--help` and the start-up report all read them, so a key
//! cannot be known in one place and unknown in another.

use super::{broker_keys::BROKER_KEYS, topic_keys::TOPIC_KEYS};

/// Kafka's types of configuration values, numbered as DescribeConfigs sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
    Password = 9,
}

/// Which values of the kind are allowed.
#[derive(Clone, Copy, Debug)]
pub enum Valid {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// Of a double.
    Share,
    NonEmpty,
    OneOf(&'static [&'static str]),
    /// Every element of the list.
    Each(&'static [&'static str]),
}

/// What a number counts; lets a TOML file say "64MiB" or "7d".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    None,
    Bytes,
    Milliseconds,
    Minutes,
    Hours,
}

/// What we do with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    Honoured,
    /// Accepted, so that existing files work, and reported once at start with this reason.
    Ignored(&'static str),
}

/// When a broker key may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    AtStart,
    /// By AlterConfigs, for one broker or for all of them.
    Dynamic,
}

/// A broker key that gives a topic key its default; `factor` turns its unit into the topic key's.
#[derive(Clone, Copy, Debug)]
pub struct Synonym {
    pub name: &'static str,
    pub factor: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct Definition {
    pub name: &'static str,
    pub kind: Kind,
    /// `None` is Kafka's null: not set.
    pub default: Option<&'static str>,
    pub valid: Valid,
    pub unit: Unit,
    pub update: Update,
    pub handling: Handling,
    /// For topic keys: where the default comes from, nearest first.
    pub synonyms: &'static [Synonym],
    pub doc: &'static str,
}

/// Builders for the tables; each line there reads as name, kind, default, then what is special about it.
impl Definition {
    const fn new(
        name: &'static str,
        kind: Kind,
        default: Option<&'static str>,
        doc: &'static str,
    ) -> Definition {
        Definition {
            name,
            kind,
            default,
            valid: Valid::Any,
            unit: Unit::None,
            update: Update::AtStart,
            handling: Handling::Honoured,
            synonyms: &[],
            doc,
        }
    }
    pub const fn boolean(
        name: &'static str,
        default: &'static str,
        doc: &'static str,
    ) -> Definition {
        Definition::new(name, Kind::Boolean, Some(default), doc)
    }
    pub const fn int(name: &'static str, default: &'static str, doc: &'static str) -> Definition {
        Definition::new(name, Kind::Int, Some(default), doc)
    }
    pub const fn long(name: &'static str, default: &'static str, doc: &'static str) -> Definition {
        Definition::new(name, Kind::Long, Some(default), doc)
    }
    /// A number that is null unless set.
    pub const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Definition {
        Definition::new(name, kind, None, doc)
    }
    pub const fn share(name: &'static str, default: &'static str, doc: &'static str) -> Definition {
        Definition::new(name, Kind::Double, Some(default), doc).valid(Valid::Share)
    }
    pub const fn text(name: &'static str, default: &'static str, doc: &'static str) -> Definition {
        Definition::new(name, Kind::String, Some(default), doc)
    }
    pub const fn list(name: &'static str, default: &'static str, doc: &'static str) -> Definition {
        Definition::new(name, Kind::List, Some(default), doc)
    }

    pub const fn valid(mut self, valid: Valid) -> Definition {
        self.valid = valid;
        self
    }
    pub const fn at_least(self, min: i64) -> Definition {
        self.valid(Valid::AtLeast(min))
    }
    pub const fn bytes(mut self) -> Definition {
        self.unit = Unit::Bytes;
        self
    }
    pub const fn milliseconds(mut self) -> Definition {
        self.unit = Unit::Milliseconds;
        self
    }
    pub const fn unit(mut self, unit: Unit) -> Definition {
        self.unit = unit;
        self
    }
    pub const fn dynamic(mut self) -> Definition {
        self.update = Update::Dynamic;
        self
    }
    pub const fn ignored(mut self, why: &'static str) -> Definition {
        self.handling = Handling::Ignored(why);
        self
    }
    pub const fn defaults_from(mut self, synonyms: &'static [Synonym]) -> Definition {
        self.synonyms = synonyms;
        self
    }

    pub fn is_dynamic(&self) -> bool {
        self.update == Update::Dynamic
    }
    /// Never shown to anyone, not even to those who may read the configuration.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }
}

/// The broker key of this name.
pub fn broker_key(name: &str) -> Option<&'static Definition> {
    BROKER_KEYS
        .iter()
        .find(|definition| definition.name == name)
}

/// The topic key of this name.
pub fn topic_key(name: &str) -> Option<&'static Definition> {
    TOPIC_KEYS.iter().find(|definition| definition.name == name)
}

/// The key of `table` that `name` was most probably meant to be, if any is near.
pub fn nearest(table: &'static [Definition], name: &str) -> Option<&'static str> {
    table
        .iter()
        .map(|definition| (edit_distance(definition.name, name), definition.name))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 5)
        .map(|(_, known)| known)
}

/// Single-character insertions, deletions and substitutions (Levenshtein) between two strings.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(256).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (column, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value;

    #[test]
    fn every_default_passes_its_own_check() {
        for definition in BROKER_KEYS.iter().chain(TOPIC_KEYS) {
            if let Some(default) = definition.default {
                let checked = value::check(definition, default);
                assert!(
                    checked.is_ok(),
                    "{}={default}: {checked:?}",
                    definition.name
                );
            }
        }
    }

    #[test]
    fn names_are_unique_and_synonyms_exist_with_equal_defaults() {
        for table in [BROKER_KEYS, TOPIC_KEYS] {
            let mut names: Vec<_> = table.iter().map(|definition| definition.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), table.len());
        }
        for topic in TOPIC_KEYS {
            let mut inherited = None;
            for synonym in topic.synonyms {
                let broker = broker_key(synonym.name).expect(synonym.name);
                let scaled = broker
                    .default
                    .map(|text| value::scale(text, synonym.factor).expect(broker.name));
                inherited = inherited.or(scaled);
            }
            if !topic.synonyms.is_empty() {
                assert_eq!(inherited.as_deref(), topic.default, "{}", topic.name);
            }
        }
    }

    #[test]
    fn a_misspelt_key_finds_its_neighbour() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(nearest(BROKER_KEYS, name), expected, "{name}");
        };
        check("log.retention.mss", Some("log.retention.ms"));
        check("listener", Some("listeners"));
        check("log.segment.byte", Some("log.segment.bytes"));
        check("completely.different", None);
        check("", None);
    }

    #[test]
    fn edit_distance_counts_single_edits() {
        let check = |left: &str, right: &str, expected: usize| {
            assert_eq!(edit_distance(left, right), expected, "{left} {right}");
            assert_eq!(edit_distance(right, left), expected, "{right} {left}");
        };
        check("", "", 0);
        check("", "abc", 3);
        check("kitten", "sitting", 3);
        check("same", "same", 0);
        check("ab", "ba", 2);
    }
}
