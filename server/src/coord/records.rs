//! Records of `__consumer_offsets`, in Kafka's own formats, so that its dump tools and formatters read our groups.
//!
//! All integers are big-endian; a string is an i16 length and UTF-8 bytes, -1 for null; bytes are an i32 length and the bytes.
//!
//! ```text
//! key   i16 version  0 or 1: offset of a partition: string group, string topic, i32 partition
//!                    2:      a group:               string group
//! value of an offset (null: deleted)
//!       i16 version  0: i64 offset, string metadata, i64 commit time
//!                    1: i64 offset, string metadata, i64 commit time, i64 expire time
//!                    2: as 0
//!                    3: i64 offset, i32 leader epoch, string metadata, i64 commit time           <- written
//! value of a group (null: deleted)
//!       i16 version  0 to 3: string protocol type, i32 generation, string? protocol, string? leader,
//!                    i64 state time (2 and later), i32 count, members:
//!                      string id, string? instance id (3 and later), string client id, string client host,
//!                      i32 rebalance timeout (1 and later), i32 session timeout, bytes subscription, bytes assignment
//!                    3                                                                          <- written
//! ```
//!
//! Decoding is bounded: a count is checked against the bytes that remain. A key of a version we do not know is skipped, as Kafka does;
//! a value we cannot read under a key that we know is an error, since to skip it would silently lose an offset.

use std::{collections::HashSet, fmt, sync::Arc};

use bytes::{Buf, BufMut, Bytes};
use forebay_engine::Timestamp;

/// Longest string a record can hold. (Requests of flexible versions can carry longer ones: the state machine refuses them.)
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
const OFFSET_VALUE_VERSION: i16 = 3;
const GROUP_VALUE_VERSION: i16 = 3;
/// What a member takes at least in a group's value (version 0): three empty strings, a timeout, two empty byte arrays.
const MEMBER_BYTES_MIN: usize = 3 * 2 + 4 + 2 * 4;

/// A change of durable group state; `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Offset {
        group: Arc<str>,
        topic: Arc<str>,
        partition: i32,
        value: Option<CommittedOffset>,
    },
    Group {
        group: Arc<str>,
        value: Option<GroupValue>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    /// -1 if unknown.
    pub leader_epoch: i32,
    pub metadata: Arc<str>,
    pub committed_at: Timestamp,
    /// Only in records of old brokers: the client chose how long the offset is kept.
    pub expires_at: Option<Timestamp>,
}

/// A group as of its last completed generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupValue {
    pub protocol_type: Arc<str>,
    pub generation: i32,
    pub protocol: Option<Arc<str>>,
    pub leader: Option<Arc<str>>,
    /// When the group came into its present state.
    pub state_since: Option<Timestamp>,
    pub members: Vec<MemberValue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberValue {
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    KeyMissing,
    Truncated,
    TrailingBytes,
    NotUtf8,
    /// A length or count that is negative, or larger than the bytes that remain.
    Length,
    ValueVersion(i16),
    /// Members, leader and protocol of a group contradict each other.
    Members,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::KeyMissing => f.write_str("a record without a key"),
            RecordError::Truncated => f.write_str("a record ends too early"),
            RecordError::TrailingBytes => f.write_str("bytes after the end of a record"),
            RecordError::NotUtf8 => f.write_str("a string is not UTF-8"),
            RecordError::Length => f.write_str("a length or count does not fit the record"),
            RecordError::Members => f.write_str("a group's members contradict each other"),
            RecordError::ValueVersion(version) => write!(f, "a value of version {version}"),
        }
    }
}

impl std::error::Error for RecordError {}

impl Record {
    /// Key and value as they go into a batch.
    pub fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut key = Vec::new();
        match self {
            Record::Offset {
                group,
                topic,
                partition,
                value,
            } => {
                key.put_i16(OFFSET_KEY_VERSION);
                put_string(&mut key, group);
                put_string(&mut key, topic);
                key.put_i32(*partition);
                (key, value.as_ref().map(encode_offset))
            }
            Record::Group { group, value } => {
                key.put_i16(GROUP_KEY_VERSION);
                put_string(&mut key, group);
                (key, value.as_ref().map(encode_group))
            }
        }
    }

    /// `Ok(None)` for a kind of record we do not know.
    pub fn decode(
        key: Option<&Bytes>,
        value: Option<&Bytes>,
    ) -> Result<Option<Record>, RecordError> {
        let mut key = Reader(key.ok_or(RecordError::KeyMissing)?);
        let record = match key.i16()? {
            0 | OFFSET_KEY_VERSION => Record::Offset {
                group: key.string()?,
                topic: key.string()?,
                partition: key.i32()?,
                value: value.map(decode_offset).transpose()?,
            },
            GROUP_KEY_VERSION => Record::Group {
                group: key.string()?,
                value: value.map(decode_group).transpose()?,
            },
            _ => return Ok(None),
        };
        key.end()?;
        Ok(Some(record))
    }

    /// At most so many bytes are taken in a batch: key, value, and the frame of the record.
    pub fn encoded_len_max(&self) -> usize {
        const FRAME: usize = 64;
        let (group, rest) = match self {
            Record::Offset {
                group,
                topic,
                value,
                ..
            } => {
                let metadata = value.as_ref().map_or(0, |value| value.metadata.len());
                (group, topic.len() + metadata)
            }
            Record::Group { group, value } => (group, value.as_ref().map_or(0, group_value_len)),
        };
        FRAME + group.len() + rest
    }
}

fn group_value_len(value: &GroupValue) -> usize {
    const FIXED: usize = 64;
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
    let members: usize = value
        .members
        .iter()
        .map(|member| {
            FIXED
                + member.member_id.len()
                + text(&member.instance_id)
                + member.client_id.len()
                + member.client_host.len()
                + member.subscription.len()
                + member.assignment.len()
        })
        .sum();
    FIXED + value.protocol_type.len() + text(&value.protocol) + text(&value.leader) + members
}

fn encode_offset(value: &CommittedOffset) -> Vec<u8> {
    let mut out = Vec::new();
    // Only version 1 has room for an expiry time: an old record that is written again keeps it.
    let version = if value.expires_at.is_some() {
        1
    } else {
        OFFSET_VALUE_VERSION
    };
    out.put_i16(version);
    out.put_i64(value.offset);
    if version >= 3 {
        out.put_i32(value.leader_epoch);
    }
    put_string(&mut out, &value.metadata);
    out.put_i64(value.committed_at.0);
    if let Some(expires_at) = value.expires_at {
        out.put_i64(expires_at.0);
    }
    out
}

fn decode_offset(value: &Bytes) -> Result<CommittedOffset, RecordError> {
    let mut value = Reader(value);
    let version = value.i16()?;
    if !(0..=OFFSET_VALUE_VERSION).contains(&version) {
        return Err(RecordError::ValueVersion(version));
    }
    let committed = CommittedOffset {
        offset: value.i64()?,
        leader_epoch: if version >= 3 { value.i32()? } else { -1 },
        metadata: value.string()?,
        committed_at: Timestamp(value.i64()?),
        expires_at: match version {
            1 => timestamp(value.i64()?),
            _ => None,
        },
    };
    value.end()?;
    Ok(committed)
}

fn encode_group(value: &GroupValue) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_i16(GROUP_VALUE_VERSION);
    put_string(&mut out, &value.protocol_type);
    out.put_i32(value.generation);
    put_nullable_string(&mut out, value.protocol.as_ref());
    put_nullable_string(&mut out, value.leader.as_ref());
    out.put_i64(value.state_since.map_or(-1, |since| since.0));
    out.put_i32(
        i32::try_from(value.members.len()).expect("a group record is bounded by its batch"),
    );
    for member in &value.members {
        put_string(&mut out, &member.member_id);
        put_nullable_string(&mut out, member.instance_id.as_ref());
        put_string(&mut out, &member.client_id);
        put_string(&mut out, &member.client_host);
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        put_bytes(&mut out, &member.subscription);
        put_bytes(&mut out, &member.assignment);
    }
    out
}

fn decode_group(value: &Bytes) -> Result<GroupValue, RecordError> {
    let mut value = Reader(value);
    let version = value.i16()?;
    if !(0..=GROUP_VALUE_VERSION).contains(&version) {
        return Err(RecordError::ValueVersion(version));
    }
    let protocol_type = value.string()?;
    let generation = value.i32()?;
    let protocol = value.nullable_string()?;
    let leader = value.nullable_string()?;
    let state_since = match version {
        2.. => timestamp(value.i64()?),
        _ => None,
    };
    let count = value.count(MEMBER_BYTES_MIN)?;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        members.push(decode_member(&mut value, version)?);
    }
    value.end()?;
    let group = GroupValue {
        protocol_type,
        generation,
        protocol,
        leader,
        state_since,
        members,
    };
    if !is_consistent(&group) {
        return Err(RecordError::Members);
    }
    Ok(group)
}

/// Ids are unique, and where there are members there is a protocol, and the leader is one of them.
fn is_consistent(group: &GroupValue) -> bool {
    let mut ids = HashSet::new();
    let mut instances = HashSet::new();
    let unique = group.members.iter().all(|member| {
        ids.insert(&member.member_id)
            && member
                .instance_id
                .as_ref()
                .is_none_or(|id| instances.insert(id))
    });
    let led = match &group.leader {
        Some(leader) => ids.contains(leader) && group.protocol.is_some(),
        None => group.members.is_empty(),
    };
    unique && led
}

fn decode_member(value: &mut Reader<'_>, version: i16) -> Result<MemberValue, RecordError> {
    let member_id = value.string()?;
    let instance_id = match version {
        3.. => value.nullable_string()?,
        _ => None,
    };
    let client_id = value.string()?;
    let client_host = value.string()?;
    let rebalance_timeout_ms = match version {
        1.. => Some(value.i32()?),
        _ => None,
    };
    let session_timeout_ms = value.i32()?;
    Ok(MemberValue {
        member_id,
        instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription: value.bytes()?,
        assignment: value.bytes()?,
    })
}

fn timestamp(wire: i64) -> Option<Timestamp> {
    (wire >= 0).then_some(Timestamp(wire))
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.put_i16(i16::try_from(text.len()).expect("groups admit no string above STRING_BYTES_MAX"));
    out.put_slice(text.as_bytes());
}

fn put_nullable_string(out: &mut Vec<u8>, text: Option<&Arc<str>>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_i16(-1),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &Bytes) {
    out.put_i32(i32::try_from(bytes.len()).expect("a group record is bounded by its batch"));
    out.put_slice(bytes);
}

/// A cursor over the bytes of one key or value.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn i16(&mut self) -> Result<i16, RecordError> {
        self.0.try_get_i16().map_err(|_| RecordError::Truncated)
    }
    fn i32(&mut self) -> Result<i32, RecordError> {
        self.0.try_get_i32().map_err(|_| RecordError::Truncated)
    }
    fn i64(&mut self) -> Result<i64, RecordError> {
        self.0.try_get_i64().map_err(|_| RecordError::Truncated)
    }
    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(RecordError::Length)?;
        self.0 = rest;
        Ok(taken)
    }
    fn nullable_string(&mut self) -> Result<Option<Arc<str>>, RecordError> {
        let len = self.i16()?;
        if len == -1 {
            return Ok(None);
        }
        let bytes = self.take(usize::try_from(len).map_err(|_| RecordError::Length)?)?;
        let text = std::str::from_utf8(bytes).map_err(|_| RecordError::NotUtf8)?;
        Ok(Some(text.into()))
    }
    fn string(&mut self) -> Result<Arc<str>, RecordError> {
        self.nullable_string()?.ok_or(RecordError::Length)
    }
    /// Copied: what a group keeps must not hold on to the batch it was read from.
    fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let len = usize::try_from(self.i32()?).map_err(|_| RecordError::Length)?;
        Ok(Bytes::copy_from_slice(self.take(len)?))
    }
    fn count(&mut self, element_bytes_min: usize) -> Result<usize, RecordError> {
        let count = usize::try_from(self.i32()?).map_err(|_| RecordError::Length)?;
        if count > self.0.len() / element_bytes_min {
            return Err(RecordError::Length);
        }
        Ok(count)
    }
    fn end(&self) -> Result<(), RecordError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(RecordError::TrailingBytes)
        }
    }
}

#[cfg(test)]
mod tests;
