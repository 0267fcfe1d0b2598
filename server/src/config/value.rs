//! One value of one key: checking it against its definition, and the units a TOML file may use.

use super::definitions::{Definition, Kind, Unit, Valid};

/// Longest value of any key.
pub const VALUE_BYTES_MAX: usize = 32 * 1024;

/// Checks `text` and gives it back as it is stored and shown: trimmed, booleans in lower case.
pub fn check(definition: &Definition, text: &str) -> Result<String, String> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(format!("longer than {VALUE_BYTES_MAX} bytes"));
    }
    let text = text.trim();
    match definition.kind {
        Kind::Boolean => {
            let lower = text.to_ascii_lowercase();
            if lower != "true" && lower != "false" {
                return Err(format!("{text:?} is neither true nor false"));
            }
            check_word(definition.valid, &lower)?;
            return Ok(lower);
        }
        Kind::Int => {
            let number: i32 = text
                .parse()
                .map_err(|_| format!("{text:?} is not a number of 32 bits"))?;
            check_range(definition.valid, i64::from(number))?;
        }
        Kind::Long => {
            let number: i64 = text
                .parse()
                .map_err(|_| format!("{text:?} is not a number of 64 bits"))?;
            check_range(definition.valid, number)?;
        }
        Kind::Double => {
            let number: f64 = text
                .parse()
                .map_err(|_| format!("{text:?} is not a number"))?;
            let in_range = match definition.valid {
                Valid::Share => (0.0..=1.0).contains(&number),
                _ => number.is_finite(),
            };
            if !in_range {
                return Err(format!("{text} is not between 0 and 1"));
            }
        }
        Kind::List => {
            for element in elements(text) {
                check_word(definition.valid, element)?;
            }
            check_word_present(definition.valid, text)?;
        }
        Kind::String | Kind::Password => {
            check_word(definition.valid, text)?;
            check_word_present(definition.valid, text)?;
        }
    }
    Ok(text.to_owned())
}

/// The elements of a list value; an empty value has none.
pub fn elements(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// A whole number times `factor`; `None` if it is no number. Negative numbers are markers and stay, overflow saturates.
pub fn scale(text: &str, factor: i64) -> Option<String> {
    if factor == 1 {
        return Some(text.to_owned());
    }
    let number: i64 = text.parse().ok()?;
    let scaled = if number < 0 {
        number
    } else {
        number.saturating_mul(factor)
    };
    Some(scaled.to_string())
}

/// Turns "64MiB" or "7d" into the plain number the key counts in; text without a unit comes back unchanged.
pub fn without_unit(unit: Unit, text: &str) -> Result<String, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (number, suffix) = (text[..digits].replace('_', ""), text[digits..].trim());
    if number.is_empty() || suffix.is_empty() {
        return Ok(text.to_owned());
    }
    let (table, smallest): (&[(&str, u64)], u64) = match unit {
        Unit::None => return Ok(text.to_owned()),
        Unit::Bytes => (BYTE_UNITS, 1),
        Unit::Milliseconds => (TIME_UNITS, 1),
        Unit::Minutes => (TIME_UNITS, 60_000),
        Unit::Hours => (TIME_UNITS, 3_600_000),
    };
    let known = || table.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let (_, factor) = table
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(suffix))
        .ok_or_else(|| format!("unknown unit {suffix:?}, use one of {}", known().join(", ")))?;
    let total = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| format!("{text:?} is too large"))?;
    if total % smallest != 0 {
        return Err(format!(
            "{text:?} is not a whole number of what this key counts in"
        ));
    }
    Ok((total / smallest).to_string())
}

const BYTE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const TIME_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

fn check_range(valid: Valid, number: i64) -> Result<(), String> {
    match valid {
        Valid::AtLeast(min) if number < min => Err(format!("Value must be at least {min}")),
        Valid::Between(min, max) if number < min || number > max => {
            Err(format!("Value must be between {min} and {max}"))
        }
        _ => Ok(()),
    }
}

fn check_word(valid: Valid, word: &str) -> Result<(), String> {
    match valid {
        Valid::OneOf(words) | Valid::Each(words) if !words.contains(&word) => {
            Err(format!("{word:?} is not one of {}", words.join(", ")))
        }
        _ => Ok(()),
    }
}

fn check_word_present(valid: Valid, text: &str) -> Result<(), String> {
    match valid {
        Valid::NonEmpty if text.is_empty() => Err("must not be empty".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::definitions::{broker_key, topic_key};

    #[test]
    fn values_are_checked_against_their_definition() {
        let topic = |key: &str, text: &str, expected: Result<&str, &str>| {
            let got = check(topic_key(key).expect(key), text);
            match expected {
                Ok(value) => assert_eq!(got.as_deref(), Ok(value), "{key}={text}"),
                Err(part) => {
                    let message = got.expect_err(key);
                    assert!(message.contains(part), "{key}={text}: {message}");
                }
            }
        };
        topic("retention.ms", "-1", Ok("-1"));
        topic("retention.ms", " 5 ", Ok("5"));
        topic("retention.ms", "-2", Err("at least -1"));
        topic("retention.ms", "7d", Err("not a number"));
        topic("retention.ms", "", Err("not a number"));
        topic("retention.ms", "9223372036854775808", Err("64 bits"));
        topic("segment.bytes", "1048575", Err("at least 1048576"));
        topic("segment.bytes", "2147483648", Err("32 bits"));
        topic("cleanup.policy", "compact,delete", Ok("compact,delete"));
        topic("cleanup.policy", "", Ok(""));
        topic("cleanup.policy", "keep", Err("not one of"));
        topic(
            "message.timestamp.type",
            "LogAppendTime",
            Ok("LogAppendTime"),
        );
        topic("message.timestamp.type", "logappendtime", Err("not one of"));
        topic("unclean.leader.election.enable", "TRUE", Ok("true"));
        topic("unclean.leader.election.enable", "yes", Err("neither"));
        topic("remote.storage.enable", "true", Err("not one of"));
        topic("min.cleanable.dirty.ratio", "1.5", Err("between"));
        topic("min.cleanable.dirty.ratio", "NaN", Err("between"));
        topic("durability", "never", Err("not one of"));
        topic(
            "compression.type",
            &"x".repeat(VALUE_BYTES_MAX + 1),
            Err("longer"),
        );
    }

    #[test]
    fn units_become_what_the_key_counts_in() {
        let broker = |key: &str, text: &str, expected: Result<&str, ()>| {
            let got = without_unit(broker_key(key).expect(key).unit, text);
            assert_eq!(got.as_deref().map_err(|_| ()), expected, "{key}={text}");
        };
        broker("log.segment.bytes", "64MiB", Ok("67108864"));
        broker("log.segment.bytes", "64 mib", Ok("67108864"));
        broker("log.segment.bytes", "1_000kB", Ok("1000000"));
        broker("log.segment.bytes", "64", Ok("64"));
        broker("log.segment.bytes", "64m", Err(()));
        broker("log.segment.bytes", "99999999999999TiB", Err(()));
        broker("log.retention.ms", "7d", Ok("604800000"));
        broker("log.retention.ms", "-1", Ok("-1"));
        broker("log.retention.hours", "7d", Ok("168"));
        broker("log.retention.hours", "90m", Err(()));
        broker("log.retention.minutes", "2h", Ok("120"));
        // A key without a unit keeps its text; the check of its kind refuses it.
        broker("num.partitions", "4x", Ok("4x"));
    }
}
