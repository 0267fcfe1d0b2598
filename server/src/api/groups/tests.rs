//! Every reply can be sent in every version we advertise, and says there what it is to say.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::*;
use crate::coord::group::{JoinedMember, ListedGroup as Listed, Synced};

/// Encodes in a version, and gives back what a client of that version reads.
fn sent<R: Encodable + Decodable + Debug>(response: &R, version: i16) -> R {
    let mut bytes = BytesMut::new();
    let encoded = response.encode(&mut bytes, version);
    assert!(encoded.is_ok(), "version {version}: {response:?}");
    let mut bytes = bytes.freeze();
    let read = R::decode(&mut bytes, version).expect("what was encoded can be decoded");
    assert!(bytes.is_empty());
    read
}

fn joined() -> Reply {
    Reply::Joined(Joined {
        member_id: "m".into(),
        generation: 4,
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        leader: "m".into(),
        members: vec![JoinedMember {
            member_id: "m".into(),
            instance_id: Some("i".into()),
            metadata: Bytes::from_static(b"meta"),
        }],
        skip_assignment: false,
    })
}

#[test]
fn join_replies_in_all_versions() {
    for version in 0..=9 {
        let read = sent(&join_response(joined(), "m", version), version);
        assert_eq!((read.error_code, read.generation_id), (0, 4));
        assert_eq!(read.protocol_name, Some(text("range")));
        assert_eq!(&*read.members[0].metadata, b"meta");

        let member_id = Reply::MemberIdRequired {
            member_id: "new".into(),
        };
        let read = sent(&join_response(member_id, "", version), version);
        assert_eq!((read.error_code, read.generation_id), (79, -1));
        assert_eq!(read.member_id, text("new"));
        assert_eq!(read.protocol_name, (version <= 6).then(|| text("")));

        let refused = Reply::Refused(GroupError::FencedInstanceId);
        let read = sent(&join_response(refused, "old", version), version);
        assert_eq!((read.error_code, read.member_id), (82, text("old")));
    }
}

#[test]
fn sync_replies_in_all_versions() {
    for version in 0..=5 {
        let synced = Reply::Synced(Synced {
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            assignment: Bytes::from_static(b"a"),
        });
        let read = sent(&sync_response(synced, version), version);
        assert_eq!((read.error_code, &*read.assignment), (0, &b"a"[..]));
        let refused = Reply::Refused(GroupError::RebalanceInProgress);
        let read = sent(&sync_response(refused, version), version);
        assert_eq!((read.error_code, read.assignment.len()), (27, 0));
    }
}

#[test]
fn leave_replies_in_all_versions() {
    for version in 0..=5 {
        let left = Reply::Left(vec![Err(GroupError::UnknownMemberId)]);
        let members = vec![MemberIdentity::default().with_member_id(text("m"))];
        let read = sent(&leave_response(left, members, version), version);
        if version <= 2 {
            assert_eq!(read.error_code, 25);
        } else {
            assert_eq!((read.error_code, read.members[0].error_code), (0, 25));
            assert_eq!(read.members[0].member_id, text("m"));
        }
        let refused = Reply::Refused(GroupError::NotCoordinator);
        let read = sent(&leave_response(refused, Vec::new(), version), version);
        assert_eq!(read.error_code, 16);
    }
}

#[test]
fn list_replies_in_all_versions() {
    let listed = |group: &str| Listed {
        group: group.into(),
        protocol_type: "consumer".into(),
        state: StateName::PreparingRebalance,
    };
    for version in 0..=5 {
        let shards = vec![
            Some(Reply::Listed(vec![listed("b")])),
            Some(Reply::Listed(vec![listed("a")])),
        ];
        let read = sent(&list_response(shards, version), version);
        let names: Vec<_> = read
            .groups
            .iter()
            .map(|it| it.group_id.to_string())
            .collect();
        assert_eq!(names, ["a", "b"]);
        let state = if version >= 4 {
            "PreparingRebalance"
        } else {
            ""
        };
        assert_eq!(read.groups[0].group_state, text(state));
        let group_type = if version >= 5 { "classic" } else { "" };
        assert_eq!(read.groups[0].group_type, text(group_type));

        let loading = Reply::Refused(GroupError::CoordinatorLoadInProgress);
        let shards = vec![Some(Reply::Listed(vec![listed("b")])), Some(loading)];
        let read = sent(&list_response(shards, version), version);
        assert_eq!((read.error_code, read.groups.len()), (14, 0));
        let read = sent(&list_response(vec![None], version), version);
        assert_eq!(read.error_code, 15);
    }
}

#[test]
fn describe_replies_in_all_versions() {
    let described = Reply::Described(Described {
        state: StateName::Stable,
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        members: vec![DescribedMember {
            member_id: "m".into(),
            instance_id: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            metadata: Bytes::from_static(b"meta"),
            assignment: Bytes::from_static(b"a"),
        }],
    });
    for version in 0..=6 {
        let response = |reply: &Reply| {
            let group = describe_response(GroupId(text("g")), reply.clone(), version);
            let response = DescribeGroupsResponse::default().with_groups(vec![group]);
            sent(&response, version).groups.remove(0)
        };
        let read = response(&described);
        assert_eq!((read.error_code, read.group_state), (0, text("Stable")));
        assert_eq!(&*read.members[0].member_assignment, b"a");

        let read = response(&Reply::Refused(GroupError::GroupIdNotFound));
        assert_eq!(read.group_state, text("Dead"));
        assert_eq!(read.error_code, if version >= 6 { 69 } else { 0 });
        let read = response(&Reply::Refused(GroupError::NotCoordinator));
        assert_eq!(read.error_code, 16);
    }
}
