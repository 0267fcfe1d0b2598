//! The one table of the APIs we serve: what ApiVersions lists is what is here, and every version of it works.

use kafka_protocol::messages::ApiKey;

use super::reader::DECODED_BYTES_MAX;

#[derive(Debug)]
pub struct Api {
    pub key: ApiKey,
    pub name: &'static str,
    /// The lowest version told to clients.
    pub advertised_min: i16,
    /// The lowest version served. Differs from `advertised_min` for Produce only.
    pub min: i16,
    /// The highest version, told and served.
    pub max: i16,
    /// From this version on: compact lengths and tagged fields, in header, request and reply.
    pub flexible_from: Option<i16>,
    pub memory: Memory,
}

/// What a request costs beside its frame until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Next to nothing: records stay where they are in the frame.
    Records,
    /// Structures decoded from the frame.
    Structures,
    /// A reply of up to the `max_bytes` of the request, which is known once it is decoded.
    Fetched,
}

/// Decoded structures are larger than their encoding, typically by about this factor.
const DECODED_BYTES_PER_FRAME_BYTE: usize = 8;

impl Api {
    pub fn accepts(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    pub fn is_flexible(&self, version: i16) -> bool {
        self.flexible_from.is_some_and(|from| version >= from)
    }

    /// Version of the header of requests.
    pub fn request_header_version(&self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the header of replies. ApiVersions answers clients that do not know yet what we speak, and so
    /// never has a flexible header.
    pub fn response_header_version(&self, version: i16) -> i16 {
        let flexible = self.is_flexible(version) && self.key != ApiKey::ApiVersions;
        i16::from(flexible)
    }

    /// A rough estimate of the memory a request needs while it is served, its frame included, its reply not.
    pub fn request_memory_bytes(&self, frame_bytes: usize) -> usize {
        let decoded_bytes = match self.memory {
            Memory::Records => 0,
            Memory::Structures | Memory::Fetched => frame_bytes
                .saturating_mul(DECODED_BYTES_PER_FRAME_BYTE)
                .min(DECODED_BYTES_MAX),
        };
        frame_bytes + decoded_bytes
    }
}

/// Sorted by key.
pub static APIS: &[Api] = &[
    // Old librdkafka stops compressing, without a word, when the range does not begin with 0; versions 0 to 2 carry
    // message formats that are gone.
    Api {
        advertised_min: 0,
        memory: Memory::Records,
        ..api(ApiKey::Produce, "Produce", 3, 11, Some(9))
    },
    // Versions from 13 on name topics by id.
    Api {
        memory: Memory::Fetched,
        ..api(ApiKey::Fetch, "Fetch", 4, 12, Some(12))
    },
    api(ApiKey::ListOffsets, "ListOffsets", 1, 10, Some(6)),
    api(ApiKey::Metadata, "Metadata", 0, 12, Some(9)),
    api(ApiKey::OffsetCommit, "OffsetCommit", 2, 9, Some(8)),
    api(ApiKey::OffsetFetch, "OffsetFetch", 1, 9, Some(6)),
    api(ApiKey::FindCoordinator, "FindCoordinator", 0, 6, Some(3)),
    api(ApiKey::JoinGroup, "JoinGroup", 0, 9, Some(6)),
    api(ApiKey::Heartbeat, "Heartbeat", 0, 4, Some(4)),
    api(ApiKey::LeaveGroup, "LeaveGroup", 0, 5, Some(4)),
    api(ApiKey::SyncGroup, "SyncGroup", 0, 5, Some(4)),
    api(ApiKey::DescribeGroups, "DescribeGroups", 0, 6, Some(5)),
    api(ApiKey::ListGroups, "ListGroups", 0, 5, Some(3)),
    api(ApiKey::ApiVersions, "ApiVersions", 0, 4, Some(3)),
    api(ApiKey::CreateTopics, "CreateTopics", 2, 7, Some(5)),
    api(ApiKey::DeleteTopics, "DeleteTopics", 1, 6, Some(4)),
    api(ApiKey::DeleteRecords, "DeleteRecords", 0, 2, Some(2)),
    api(ApiKey::InitProducerId, "InitProducerId", 0, 5, Some(2)),
    api(
        ApiKey::OffsetForLeaderEpoch,
        "OffsetForLeaderEpoch",
        2,
        4,
        Some(4),
    ),
    api(ApiKey::DescribeConfigs, "DescribeConfigs", 1, 4, Some(4)),
    api(ApiKey::AlterConfigs, "AlterConfigs", 0, 2, Some(2)),
    api(ApiKey::DescribeLogDirs, "DescribeLogDirs", 1, 4, Some(2)),
    api(ApiKey::CreatePartitions, "CreatePartitions", 0, 3, Some(2)),
    api(ApiKey::DeleteGroups, "DeleteGroups", 0, 2, Some(2)),
    api(
        ApiKey::IncrementalAlterConfigs,
        "IncrementalAlterConfigs",
        0,
        1,
        Some(1),
    ),
    api(
        ApiKey::ListPartitionReassignments,
        "ListPartitionReassignments",
        0,
        0,
        Some(0),
    ),
    api(ApiKey::OffsetDelete, "OffsetDelete", 0, 0, None),
    api(ApiKey::DescribeCluster, "DescribeCluster", 0, 2, Some(0)),
    api(
        ApiKey::DescribeProducers,
        "DescribeProducers",
        0,
        0,
        Some(0),
    ),
    api(
        ApiKey::DescribeTopicPartitions,
        "DescribeTopicPartitions",
        0,
        0,
        Some(0),
    ),
];

/// The API with this key, if we serve it.
pub fn find(key: i16) -> Option<&'static Api> {
    let index = APIS.binary_search_by_key(&key, |api| api.key as i16).ok()?;
    Some(&APIS[index])
}

const fn api(
    key: ApiKey,
    name: &'static str,
    min: i16,
    max: i16,
    flexible_from: Option<i16>,
) -> Api {
    Api {
        key,
        name,
        advertised_min: min,
        min,
        max,
        flexible_from,
        memory: Memory::Structures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_schemas() {
        for api in APIS {
            let name = api.name;
            assert_eq!(name, format!("{:?}", api.key));
            let known = api.key.valid_versions();
            assert!(
                known.min <= api.min && api.min <= api.max && api.max <= known.max,
                "{name} {known}"
            );
            for version in api.min..=api.max {
                assert_eq!(
                    api.request_header_version(version),
                    api.key.request_header_version(version),
                    "{name} {version}"
                );
                assert_eq!(
                    api.response_header_version(version),
                    api.key.response_header_version(version),
                    "{name} {version}"
                );
            }
        }
    }

    #[test]
    fn is_sorted_so_that_every_api_is_found() {
        assert!(APIS.is_sorted_by(|a, b| (a.key as i16) < (b.key as i16)));
        for api in APIS {
            assert!(std::ptr::eq(find(api.key as i16).unwrap(), api));
        }
        assert!(find(-1).is_none());
        assert!(find(4).is_none());
        assert!(find(i16::MAX).is_none());
    }

    #[test]
    fn produce_lists_versions_it_refuses() {
        let produce = find(0).unwrap();
        assert_eq!((produce.advertised_min, produce.min), (0, 3));
        assert!(!produce.accepts(2));
        for api in APIS.iter().filter(|api| api.key != ApiKey::Produce) {
            assert_eq!(api.advertised_min, api.min, "{}", api.name);
        }
    }
}
