//! Which topic names are allowed. Kafka's rules, since names become directories and metrics of every tool around it.

use super::{Refusal, Refused};

/// Longest name: with "-" and five digits of a partition it is a file name of 255 bytes.
const NAME_BYTES_MAX: usize = 249;

/// Topics that belong to the broker; clients may read them.
pub const INTERNAL_TOPICS: &[&str] = &["__consumer_offsets", "__transaction_state"];

/// The metadata log's own name: no topic, though it has a directory like one.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Refuses names that Kafka refuses, with its words.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let invalid = |why: String| {
        let message = format!("Topic name is invalid: {why}");
        Err(Refusal::new(Refused::InvalidTopicName, message))
    };
    if name.is_empty() {
        return invalid("the empty string is not allowed".to_owned());
    }
    if name == "." || name == ".." {
        return invalid("'.' or '..' is not allowed".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return invalid(format!(
            "the length of '{name}' is longer than the max allowed length {NAME_BYTES_MAX}"
        ));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !name.bytes().all(allowed) {
        return invalid(format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ));
    }
    if name == METADATA_TOPIC {
        return invalid(format!("'{name}' is the metadata log"));
    }
    Ok(())
}

/// The name as metrics write it: they cannot tell `.` from `_`, so two topics must differ in more.
pub fn plain_name(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        let check = |name: &str, allowed: bool| {
            assert_eq!(check_name(name).is_ok(), allowed, "{name:?}");
        };
        check("first", true);
        check("a.b_c-D9", true);
        check("...", true);
        check("__consumer_offsets", true);
        check(&"x".repeat(249), true);
        check(&"x".repeat(250), false);
        check("", false);
        check(".", false);
        check("..", false);
        check("a b", false);
        check("a/b", false);
        check("a\0", false);
        check("\u{e4}", false);
        check("__cluster_metadata", false);
    }
}
