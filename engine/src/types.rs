//! Small types for every kind of number in the log, so that an offset is never taken for an epoch.

use std::fmt;

/// Position of a record in a partition. Never negative; Kafka's -1 is `None` on our side of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(i64);

impl Offset {
    pub const ZERO: Offset = Offset(0);

    /// Panics on a negative value: parse untrusted numbers with [`Offset::from_wire`].
    pub const fn new(value: i64) -> Offset {
        assert!(value >= 0, "an offset is never negative");
        Offset(value)
    }

    /// `None` for any negative value (Kafka uses several of them as markers).
    pub const fn from_wire(value: i64) -> Option<Offset> {
        if value < 0 { None } else { Some(Offset(value)) }
    }

    pub const fn get(self) -> i64 {
        self.0
    }

    /// The offset `count` records further on. Panics past `i64::MAX`, which no log reaches.
    pub const fn plus(self, count: i64) -> Offset {
        match self.0.checked_add(count) {
            Some(value) => Offset::new(value),
            None => panic!("offset overflow"),
        }
    }

    /// Records from `earlier` up to `self`; negative if `self` is before `earlier`.
    pub const fn since(self, earlier: Offset) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! plain_number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

plain_number!(
    /// Grows with every change of leader of a partition; written into each batch.
    LeaderEpoch(i32)
);
plain_number!(
    /// Identity of an idempotent or transactional producer.
    ProducerId(i64)
);
plain_number!(
    /// Fences older instances of one producer id.
    ProducerEpoch(i16)
);
plain_number!(
    /// Milliseconds since the Unix epoch; -1 in a batch means "no timestamp".
    Timestamp(i64)
);
plain_number!(
    /// Index of a partition within its topic, from 0.
    PartitionIndex(i32)
);
plain_number!(
    /// One executor, pinned to one core.
    ShardId(u16)
);

/// The identity of one incarnation of a topic: a deleted and re-created topic gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TopicId {
    /// Kafka's notation: 22 characters of URL-safe base64 without padding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for chunk in self.0.chunks(3) {
            let mut group = [0u8; 3];
            group[..chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
            for position in 0..=chunk.len() {
                let index = (bits >> (18 - 6 * position)) & 63;
                write!(f, "{}", ALPHABET[index as usize] as char)?;
            }
        }
        Ok(())
    }
}

impl TopicId {
    /// Reads Kafka's 22-character notation.
    pub fn parse(text: &str) -> Option<TopicId> {
        if text.len() != 22 {
            return None;
        }
        let mut bits: u128 = 0;
        for (position, byte) in text.bytes().enumerate() {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            // 22 characters carry 132 bits; the last four are padding.
            bits = if position < 21 {
                (bits << 6) | u128::from(value)
            } else {
                (bits << 2) | u128::from(value >> 4)
            };
        }
        let id = TopicId(bits.to_be_bytes());
        (id.to_string() == text).then_some(id)
    }
}

/// What a log is, whatever its directory is called: the key of journal entries and checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    pub topic_id: TopicId,
    pub partition: PartitionIndex,
}

/// `<topic>-<partition>`, the directory of a log under the data directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName {
    pub topic: String,
    pub partition: PartitionIndex,
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_id_round_trips_through_kafkas_notation() {
        let samples = [
            [0u8; 16],
            [255u8; 16],
            *b"forebay-topic-id",
            [0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
            [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        ];
        for bytes in samples {
            let id = TopicId(bytes);
            let text = id.to_string();
            assert_eq!(text.len(), 22);
            assert_eq!(TopicId::parse(&text), Some(id), "{text}");
        }
        assert_eq!(TopicId([0; 16]).to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(
            TopicId::parse("AAAAAAAAAAAAAAAAAAAAAB"),
            None,
            "padding bits must be zero"
        );
        assert_eq!(TopicId::parse("short"), None);
    }
}
