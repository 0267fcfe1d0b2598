//! Metadata records: what the metadata log is made of.
//!
//! A request becomes one *group* of records, and a group is one entry of the log, so that it is applied whole or not at all:
//!
//! ```text
//! group   0  u8  format, 0
//!         1  u32 record count
//!         5  records, back to back
//! record  0  u8  type (the number at the variant)
//!         1  u8  version of this type's body, 0
//!         2  body: the variant's fields in order; see `codec` for strings, lists and options
//! ```
//!
//! A reader refuses what it does not know: applying a part of a newer group would be worse than stopping.

use forebay_engine::{LeaderEpoch, TopicId};

use super::codec::{CodecError, Reader, Writer};

/// Largest encoded group; a request that needs more is refused.
pub const GROUP_BYTES_MAX: usize = 16 << 20;

const FORMAT: u8 = 0;
const VERSION: u8 = 0;
/// Of the shortest record, a removed topic, without its body.
const RECORD_BYTES_MIN: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// 1. The first record of a cluster: what never changes.
    Cluster { id: String, lanes: u16 },
    /// 2. What this log may contain; a broker that knows less does not start.
    FeatureLevel { name: String, level: u16 },
    /// 3. One start of a broker. Its epoch is the offset of the group.
    RegisterBroker {
        id: i32,
        /// Random, of one process start.
        incarnation: [u8; 16],
        /// Random, written into the data directory when it was made.
        storage_id: [u8; 16],
        host: String,
        port: u16,
        rack: Option<String>,
        fenced: bool,
    },
    /// 4. A new topic; its partitions follow in the same group.
    Topic {
        id: TopicId,
        name: String,
        internal: bool,
    },
    /// 5. A new partition, the next one of its topic.
    Partition {
        topic: TopicId,
        index: i32,
        lane: u16,
        state: Assignment,
    },
    /// 6. A partition's new state. Its version grows by one.
    PartitionChange {
        topic: TopicId,
        index: i32,
        version: i32,
        state: Assignment,
    },
    /// 7.
    RemoveTopic { id: TopicId },
    /// 8. A configuration value; `None` unsets it.
    Config {
        resource: Resource,
        name: String,
        value: Option<String>,
    },
    /// 9. Producer ids below `next` are given away.
    ProducerIds { next: i64 },
}

/// Who keeps a partition and who leads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Vec<i32>,
    pub leader: Option<i32>,
    pub leader_epoch: LeaderEpoch,
}

/// What has a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Topic(TopicId),
    /// `None` stands for all brokers.
    Broker(Option<i32>),
}

/// One group as bytes.
pub fn encode(group: &[Record]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u8(FORMAT);
    writer.u32(u32::try_from(group.len()).expect("a group is bounded by its bytes"));
    for record in group {
        record.encode(&mut writer);
    }
    writer.into_bytes()
}

/// One group from bytes of any origin.
pub fn decode(bytes: &[u8]) -> Result<Vec<Record>, CodecError> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        FORMAT => {}
        _ => return Err(CodecError::Value("group format")),
    }
    let count = reader.u32()? as usize;
    if count > reader.remaining() / RECORD_BYTES_MIN {
        return Err(CodecError::Truncated);
    }
    let mut group = Vec::new();
    for _ in 0..count {
        group.push(Record::decode(&mut reader)?);
    }
    reader.end()?;
    Ok(group)
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Record::Cluster { .. } => 1,
            Record::FeatureLevel { .. } => 2,
            Record::RegisterBroker { .. } => 3,
            Record::Topic { .. } => 4,
            Record::Partition { .. } => 5,
            Record::PartitionChange { .. } => 6,
            Record::RemoveTopic { .. } => 7,
            Record::Config { .. } => 8,
            Record::ProducerIds { .. } => 9,
        }
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.kind());
        writer.u8(VERSION);
        match self {
            Record::Cluster { id, lanes } => {
                writer.string(id);
                writer.u16(*lanes);
            }
            Record::FeatureLevel { name, level } => {
                writer.string(name);
                writer.u16(*level);
            }
            Record::RegisterBroker {
                id,
                incarnation,
                storage_id,
                host,
                port,
                rack,
                fenced,
            } => {
                writer.i32(*id);
                writer.id(*incarnation);
                writer.id(*storage_id);
                writer.string(host);
                writer.u16(*port);
                writer.option(rack.as_deref(), Writer::string);
                writer.bool(*fenced);
            }
            Record::Topic { id, name, internal } => {
                writer.id(id.0);
                writer.string(name);
                writer.bool(*internal);
            }
            Record::Partition {
                topic,
                index,
                lane,
                state,
            } => {
                writer.id(topic.0);
                writer.i32(*index);
                writer.u16(*lane);
                state.encode(writer);
            }
            Record::PartitionChange {
                topic,
                index,
                version,
                state,
            } => {
                writer.id(topic.0);
                writer.i32(*index);
                writer.i32(*version);
                state.encode(writer);
            }
            Record::RemoveTopic { id } => writer.id(id.0),
            Record::Config {
                resource,
                name,
                value,
            } => {
                resource.encode(writer);
                writer.string(name);
                writer.option(value.as_deref(), Writer::string);
            }
            Record::ProducerIds { next } => writer.i64(*next),
        }
    }

    fn decode(reader: &mut Reader) -> Result<Record, CodecError> {
        let (record, version) = (reader.u8()?, reader.u8()?);
        if version != VERSION {
            return Err(CodecError::UnknownVersion { record, version });
        }
        Ok(match record {
            1 => Record::Cluster {
                id: reader.string()?,
                lanes: reader.u16()?,
            },
            2 => Record::FeatureLevel {
                name: reader.string()?,
                level: reader.u16()?,
            },
            3 => Record::RegisterBroker {
                id: reader.i32()?,
                incarnation: reader.id()?,
                storage_id: reader.id()?,
                host: reader.string()?,
                port: reader.u16()?,
                rack: reader.option(Reader::string)?,
                fenced: reader.bool()?,
            },
            4 => Record::Topic {
                id: reader.topic_id()?,
                name: reader.string()?,
                internal: reader.bool()?,
            },
            5 => Record::Partition {
                topic: reader.topic_id()?,
                index: reader.i32()?,
                lane: reader.u16()?,
                state: Assignment::decode(reader)?,
            },
            6 => Record::PartitionChange {
                topic: reader.topic_id()?,
                index: reader.i32()?,
                version: reader.i32()?,
                state: Assignment::decode(reader)?,
            },
            7 => Record::RemoveTopic {
                id: reader.topic_id()?,
            },
            8 => Record::Config {
                resource: Resource::decode(reader)?,
                name: reader.string()?,
                value: reader.option(Reader::string)?,
            },
            9 => Record::ProducerIds {
                next: reader.i64()?,
            },
            unknown => return Err(CodecError::UnknownType(unknown)),
        })
    }
}

impl Assignment {
    fn encode(&self, writer: &mut Writer) {
        writer.brokers(&self.replicas);
        writer.brokers(&self.isr);
        writer.brokers(&self.elr);
        writer.option(self.leader, Writer::i32);
        writer.i32(self.leader_epoch.0);
    }

    fn decode(reader: &mut Reader) -> Result<Assignment, CodecError> {
        Ok(Assignment {
            replicas: reader.brokers()?,
            isr: reader.brokers()?,
            elr: reader.brokers()?,
            leader: reader.option(Reader::i32)?,
            leader_epoch: LeaderEpoch(reader.i32()?),
        })
    }
}

impl Resource {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Resource::Topic(id) => {
                writer.u8(0);
                writer.id(id.0);
            }
            Resource::Broker(broker) => {
                writer.u8(1);
                writer.option(*broker, Writer::i32);
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Resource, CodecError> {
        match reader.u8()? {
            0 => Ok(Resource::Topic(reader.topic_id()?)),
            1 => Ok(Resource::Broker(reader.option(Reader::i32)?)),
            _ => Err(CodecError::Value("resource type")),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A small generator (splitmix64), so that a seed replays.
    pub struct Random(pub u64);

    impl Random {
        pub fn next_u64(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
        pub fn below(&mut self, bound: u64) -> u64 {
            self.next_u64() % bound
        }
        fn id(&mut self) -> [u8; 16] {
            let (high, low) = (self.next_u64(), self.next_u64());
            ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
        }
        fn string(&mut self) -> String {
            let length = [0, 1, 7, 249, STRING_BYTES_MAX / 4][self.below(5) as usize];
            ["a", "\u{e4}", "\u{1f300}"][self.below(3) as usize].repeat(length)
        }
        fn brokers(&mut self) -> Vec<i32> {
            (0..self.below(4)).map(|_| self.next_u64() as i32).collect()
        }
        fn assignment(&mut self) -> Assignment {
            Assignment {
                replicas: self.brokers(),
                isr: self.brokers(),
                elr: self.brokers(),
                leader: (self.below(2) == 0).then(|| self.next_u64() as i32),
                leader_epoch: LeaderEpoch(self.next_u64() as i32),
            }
        }
        fn option(&mut self) -> Option<String> {
            (self.below(2) == 0).then(|| self.string())
        }
        fn record(&mut self) -> Record {
            let topic = TopicId(self.id());
            match self.below(9) {
                0 => Record::Cluster {
                    id: self.string(),
                    lanes: self.next_u64() as u16,
                },
                1 => Record::FeatureLevel {
                    name: self.string(),
                    level: self.next_u64() as u16,
                },
                2 => Record::RegisterBroker {
                    id: self.next_u64() as i32,
                    incarnation: self.id(),
                    storage_id: self.id(),
                    host: self.string(),
                    port: self.next_u64() as u16,
                    rack: self.option(),
                    fenced: self.below(2) == 0,
                },
                3 => Record::Topic {
                    id: topic,
                    name: self.string(),
                    internal: self.below(2) == 0,
                },
                4 => Record::Partition {
                    topic,
                    index: self.next_u64() as i32,
                    lane: self.next_u64() as u16,
                    state: self.assignment(),
                },
                5 => Record::PartitionChange {
                    topic,
                    index: self.next_u64() as i32,
                    version: self.next_u64() as i32,
                    state: self.assignment(),
                },
                6 => Record::RemoveTopic { id: topic },
                7 => Record::Config {
                    resource: match self.below(3) {
                        0 => Resource::Topic(topic),
                        1 => Resource::Broker(None),
                        _ => Resource::Broker(Some(self.next_u64() as i32)),
                    },
                    name: self.string(),
                    value: self.option(),
                },
                _ => Record::ProducerIds {
                    next: self.next_u64() as i64,
                },
            }
        }
    }

    use super::super::codec::STRING_BYTES_MAX;

    #[test]
    fn groups_round_trip_and_every_cut_is_refused() {
        for seed in 0..200 {
            let mut random = Random(seed);
            let group: Vec<_> = (0..random.below(6)).map(|_| random.record()).collect();
            let bytes = encode(&group);
            assert_eq!(decode(&bytes), Ok(group), "seed {seed}");
            for _ in 0..20 {
                let cut = random.below(bytes.len() as u64) as usize;
                assert!(decode(&bytes[..cut]).is_err(), "seed {seed} cut {cut}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(decode(&longer), Err(CodecError::Trailing(1)), "seed {seed}");
        }
    }

    #[test]
    fn damaged_groups_never_panic_and_what_decodes_is_canonical() {
        let mut refused = 0;
        for seed in 0..2_000 {
            let mut random = Random(seed);
            let group: Vec<_> = (0..1 + random.below(3)).map(|_| random.record()).collect();
            let mut bytes = encode(&group);
            for _ in 0..1 + random.below(4) {
                let position = random.below(bytes.len() as u64) as usize;
                bytes[position] = random.next_u64() as u8;
            }
            match decode(&bytes) {
                Ok(group) => assert_eq!(encode(&group), bytes, "seed {seed}"),
                Err(_) => refused += 1,
            }
        }
        assert!(
            refused > 100,
            "the mutations do reach the checks: {refused}"
        );
    }

    #[test]
    fn impossible_counts_are_refused_before_anything_is_allocated() {
        let check = |bytes: &[u8], expected: CodecError| assert_eq!(decode(bytes), Err(expected));
        check(&[], CodecError::Truncated);
        check(&[9, 0, 0, 0, 0], CodecError::Value("group format"));
        check(&[0, 0xff, 0xff, 0xff, 0xff, 1, 0], CodecError::Truncated);
        check(&[0, 0, 0, 0, 1, 77, 0], CodecError::UnknownType(77));
        let version = CodecError::UnknownVersion {
            record: 7,
            version: 5,
        };
        check(&[0, 0, 0, 0, 1, 7, 5], version);
        check(
            &[0, 0, 0, 0, 1, 1, 0, 0xff, 0xff],
            CodecError::Length(0xffff),
        );
        // Replicas of a partition: 65535 of them in no bytes.
        let mut partition = vec![0, 0, 0, 0, 1, 5, 0];
        partition.extend([0; 16 + 4 + 2]);
        partition.extend([0xff, 0xff]);
        check(&partition, CodecError::Truncated);
    }

    /// The bytes of one group, so that a change of the format cannot go unnoticed.
    #[test]
    fn the_format_is_fixed() {
        let group = [
            Record::Cluster {
                id: "c".into(),
                lanes: 64,
            },
            Record::Config {
                resource: Resource::Broker(None),
                name: "k".into(),
                value: None,
            },
        ];
        let expected = [
            0, 0, 0, 0, 2, 1, 0, 0, 1, b'c', 0, 64, 8, 0, 1, 0, 0, 1, b'k', 0,
        ];
        assert_eq!(encode(&group), expected);
    }
}
