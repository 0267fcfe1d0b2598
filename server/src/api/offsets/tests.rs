//! OffsetFetch replies in every version we advertise.

use bytes::BytesMut;
use forebay_engine::Timestamp;
use kafka_protocol::{
    messages::GroupId,
    protocol::{Decodable, Encodable},
};

use super::*;
use crate::coord::records::CommittedOffset;

fn sent(response: &OffsetFetchResponse, version: i16) -> OffsetFetchResponse {
    let mut bytes = BytesMut::new();
    let encoded = response.encode(&mut bytes, version);
    assert!(encoded.is_ok(), "version {version}: {response:?}");
    OffsetFetchResponse::decode(&mut bytes.freeze(), version).expect("just encoded")
}

fn offsets() -> Vec<FetchedOffset> {
    let offset = |topic: &str, partition, offset: Option<i64>| FetchedOffset {
        topic: topic.into(),
        partition,
        committed: offset.map(|offset| CommittedOffset {
            offset,
            leader_epoch: 2,
            metadata: "note".into(),
            committed_at: Timestamp(0),
            expires_at: None,
        }),
    };
    vec![
        offset("t", 0, Some(5)),
        offset("u", 1, None),
        offset("t", 3, None),
    ]
}

#[test]
fn one_group_up_to_version_7() {
    let asked = || {
        vec![
            OffsetFetchRequestTopic::default()
                .with_name(TopicName(text("t")))
                .with_partition_indexes(vec![0]),
        ]
    };
    for version in 1..=7 {
        let read = sent(&fetched(asked(), Ok(offsets()), version), version);
        assert_eq!((read.error_code, read.topics.len()), (0, 2));
        let [first, second] = &read.topics[0].partitions[..] else {
            panic!("{read:?}");
        };
        assert_eq!((first.partition_index, first.committed_offset), (0, 5));
        assert_eq!(first.metadata, Some(text("note")));
        let epoch = if version >= 5 { 2 } else { -1 };
        assert_eq!(first.committed_leader_epoch, epoch);
        assert_eq!((second.partition_index, second.committed_offset), (3, -1));
        assert_eq!((second.error_code, &second.metadata), (0, &Some(text(""))));

        let error = GroupError::CoordinatorLoadInProgress;
        let read = sent(&fetched(asked(), Err(error), version), version);
        if version >= 2 {
            assert_eq!((read.error_code, read.topics.len()), (14, 0));
        } else {
            assert_eq!(read.topics[0].partitions[0].error_code, 14);
        }
    }
}

#[test]
fn several_groups_from_version_8_on() {
    for version in 8..=9 {
        let group = |id: &str| OffsetFetchRequestGroup::default().with_group_id(GroupId(text(id)));
        let groups = vec![
            group_fetched(group("g"), Ok(offsets())),
            group_fetched(group("h"), Err(GroupError::NotCoordinator)),
        ];
        let response = OffsetFetchResponse::default().with_groups(groups);
        let read = sent(&response, version);
        assert_eq!(read.groups[0].topics[0].partitions[0].committed_offset, 5);
        assert_eq!(read.groups[0].error_code, 0);
        assert_eq!(read.groups[1].error_code, 16);
    }
}
