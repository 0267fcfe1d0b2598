//! Which topics a consumer subscribes to, read from the metadata it sends under protocol type `consumer`.
//!
//! The group coordinator is otherwise blind to member metadata. It looks here only to tell whether offsets of a topic are still
//! wanted. The layout (ConsumerProtocolSubscription, all versions): i16 version, i32 count, count times (i16 length, UTF-8 name), rest.

use bytes::{Buf, Bytes};

/// The topics, or `None` if these are not the bytes of a subscription.
pub fn topics(metadata: &Bytes) -> Option<Vec<&str>> {
    let mut rest: &[u8] = metadata;
    let version = rest.try_get_i16().ok()?;
    let count = usize::try_from(rest.try_get_i32().ok()?).ok()?;
    // Each name takes at least its two bytes of length.
    if version < 0 || count > rest.len() / 2 {
        return None;
    }
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let len = usize::try_from(rest.try_get_i16().ok()?).ok()?;
        let (name, after) = rest.split_at_checked(len)?;
        topics.push(std::str::from_utf8(name).ok()?);
        rest = after;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_topics_and_refuses_other_bytes() {
        let check = |bytes: &[u8], expected: Option<Vec<&str>>| {
            assert_eq!(
                topics(&Bytes::copy_from_slice(bytes)),
                expected,
                "{bytes:?}"
            );
        };
        check(b"\0\0\0\0\0\0", Some(vec![]));
        check(
            b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff",
            Some(vec!["a", "bc"]),
        );
        check(b"", None);
        check(b"\0\0\0\0\0", None);
        check(b"\0\0\x7f\xff\xff\xff\0\0", None);
        check(b"\0\0\xff\xff\xff\xff", None);
        check(b"\0\0\0\0\0\x01\xff\xff", None);
        check(b"\0\0\0\0\0\x01\0\x02a", None);
        check(b"\0\0\0\0\0\x01\0\x01\xff", None);
        check(b"\xff\xff\0\0\0\0", None);
    }
}
