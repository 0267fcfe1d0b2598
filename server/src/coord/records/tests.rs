//! Records round trip, are Kafka's byte for byte, and survive damage without a panic.

use super::*;

fn samples() -> Vec<Record> {
    let group: Arc<str> = "g".into();
    let offset = CommittedOffset {
        offset: 42,
        leader_epoch: 7,
        metadata: "note".into(),
        committed_at: Timestamp(1_000),
        expires_at: None,
    };
    let old = CommittedOffset {
        leader_epoch: -1,
        expires_at: Some(Timestamp(2_000)),
        ..offset.clone()
    };
    let member = MemberValue {
        member_id: "m-1".into(),
        instance_id: Some("i".into()),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 300_000,
        session_timeout_ms: 45_000,
        subscription: Bytes::from_static(b"sub"),
        assignment: Bytes::from_static(b"assign"),
    };
    let value = GroupValue {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: Some("m-1".into()),
        state_since: Some(Timestamp(5)),
        members: vec![
            member.clone(),
            MemberValue {
                member_id: "m-2".into(),
                instance_id: None,
                ..member
            },
        ],
    };
    let empty = GroupValue {
        protocol: None,
        leader: None,
        state_since: None,
        members: vec![],
        ..value.clone()
    };
    let offset_record = |value| Record::Offset {
        group: "g".into(),
        topic: "t".into(),
        partition: 5,
        value,
    };
    vec![
        offset_record(Some(offset)),
        offset_record(Some(old)),
        offset_record(None),
        Record::Group {
            group: group.clone(),
            value: Some(value),
        },
        Record::Group {
            group: group.clone(),
            value: Some(empty),
        },
        Record::Group { group, value: None },
    ]
}

fn encoded(record: &Record) -> (Bytes, Option<Bytes>) {
    let (key, value) = record.encode();
    (key.into(), value.map(Bytes::from))
}

#[test]
fn round_trips() {
    for record in samples() {
        let (key, value) = encoded(&record);
        let len = key.len() + value.as_ref().map_or(0, |value| value.len());
        assert!(len <= record.encoded_len_max(), "{record:?}");
        assert_eq!(
            Record::decode(Some(&key), value.as_ref()),
            Ok(Some(record.clone()))
        );
    }
}

/// Kafka's bytes, written out by hand from its schemas.
#[test]
fn bytes_are_kafkas() {
    let (key, value) = samples()[0].encode();
    assert_eq!(key, b"\0\x01\0\x01g\0\x01t\0\0\0\x05");
    let expected: &[u8] = b"\0\x03\0\0\0\0\0\0\0\x2a\0\0\0\x07\0\x04note\0\0\0\0\0\0\x03\xe8";
    assert_eq!(value.as_deref(), Some(expected));
    let (key, value) = samples()[4].encode();
    assert_eq!(key, b"\0\x02\0\x01g");
    let expected: &[u8] =
        b"\0\x03\0\x08consumer\0\0\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0";
    assert_eq!(value.as_deref(), Some(expected));
}

#[test]
fn reads_old_versions() {
    let key = Bytes::from_static(b"\0\0\0\x01g\0\x01t\0\0\0\x05");
    let value = Bytes::from_static(b"\0\0\0\0\0\0\0\0\0\x2a\0\0\0\0\0\0\0\0\x03\xe8");
    let Ok(Some(Record::Offset {
        value: Some(read), ..
    })) = Record::decode(Some(&key), Some(&value))
    else {
        panic!("version 0 must be read");
    };
    assert_eq!(
        (read.offset, read.leader_epoch, read.expires_at),
        (42, -1, None)
    );

    let key = Bytes::from_static(b"\0\x02\0\x01g");
    let value = Bytes::from_static(
        b"\0\0\0\x01c\0\0\0\x01\0\x01p\0\x01m\0\0\0\x01\0\x01m\0\0\0\0\0\0\x27\x10\0\0\0\0\0\0\0\x01a",
    );
    let Ok(Some(Record::Group {
        value: Some(read), ..
    })) = Record::decode(Some(&key), Some(&value))
    else {
        panic!("version 0 must be read");
    };
    assert_eq!(read.members[0].rebalance_timeout_ms, 10_000);
    assert_eq!(read.members[0].assignment, Bytes::from_static(b"a"));
}

#[test]
fn unknown_keys_are_skipped_and_unknown_values_refused() {
    let key = Bytes::from_static(b"\0\x63anything");
    assert_eq!(Record::decode(Some(&key), None), Ok(None));
    assert_eq!(Record::decode(None, None), Err(RecordError::KeyMissing));
    let (key, _) = encoded(&samples()[0]);
    let value = Bytes::from_static(b"\0\x09\0\0");
    assert_eq!(
        Record::decode(Some(&key), Some(&value)),
        Err(RecordError::ValueVersion(9))
    );
    let huge = Bytes::from_static(
        b"\0\x03\0\x08consumer\0\0\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff",
    );
    let (key, _) = encoded(&samples()[4]);
    assert_eq!(
        Record::decode(Some(&key), Some(&huge)),
        Err(RecordError::Length)
    );
}

/// Every prefix is an error, every single-byte change is an error or a record: never a panic.
#[test]
fn survives_mutations() {
    for record in samples() {
        let (key, value) = encoded(&record);
        for cut in 0..key.len() {
            assert!(Record::decode(Some(&key.slice(..cut)), value.as_ref()).is_err());
        }
        let Some(value) = value else { continue };
        for cut in 0..value.len() {
            assert!(Record::decode(Some(&key), Some(&value.slice(..cut))).is_err());
        }
        for position in 0..value.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = value.to_vec();
                changed[position] ^= flip;
                let _ = Record::decode(Some(&key), Some(&changed.into()));
            }
        }
    }
}
