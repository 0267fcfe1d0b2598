//! Batches: what is built is valid and comes back equal; what is damaged or contradicts itself is refused.

use bytes::{Bytes, BytesMut};

use super::{
    header::{at, compute_crc, put},
    *,
};
use crate::{
    log::TimestampType,
    testing::{Rng, for_seeds},
    types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp},
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const HOUR_MS: i64 = 3_600_000;

fn rules() -> BatchRules {
    BatchRules {
        message_bytes_max: 1_048_588,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: None,
        timestamp_after_max_ms: Some(HOUR_MS),
        keys_required: false,
        codec: None,
        control_allowed: false,
    }
}

fn random_records(rng: &mut Rng) -> Vec<Record> {
    let count_max = if rng.chance(10) { 300 } else { 8 };
    let count = 1 + rng.below(count_max);
    let optional = |rng: &mut Rng, len_max: usize| {
        let len = rng.below(len_max + 1);
        (!rng.chance(20)).then(|| Bytes::from(rng.bytes(len)))
    };
    (0..count)
        .map(|index| Record {
            offset: Offset::new(index as i64),
            timestamp: Timestamp(NOW.0 - 1000 + rng.below(2000) as i64),
            key: optional(rng, 20),
            value: optional(rng, 200),
            headers: (0..rng.below(4))
                .map(|_| {
                    let key = Bytes::from_static(if rng.chance(50) { b"same" } else { b"" });
                    (key, optional(rng, 9))
                })
                .collect(),
        })
        .collect()
}

fn build(codec: Codec, records: &[Record]) -> BytesMut {
    let mut builder = BatchBuilder::new(codec);
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| (&key[..], value.as_deref()))
            .collect();
        builder.push(
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &headers,
        );
    }
    assert_eq!(builder.record_count(), records.len());
    builder.build()
}

fn one(codec: Codec) -> BytesMut {
    let mut builder = BatchBuilder::new(codec);
    builder.push(NOW, Some(b"key"), Some(b"value"), &[(b"h", Some(b"1"))]);
    builder.push(NOW, None, Some(b"second"), &[]);
    builder.build()
}

/// Overwrites a field and makes the CRC right again.
fn with_field<const N: usize>(mut batch: BytesMut, position: usize, value: [u8; N]) -> BytesMut {
    put(&mut batch, position, value);
    let crc = compute_crc(&batch);
    put(&mut batch, at::CRC, crc.to_be_bytes());
    batch
}

fn read_all(batch: &Bytes) -> Vec<Record> {
    Records::new(batch, 1 << 24)
        .expect("readable")
        .collect::<Result<_, _>>()
        .expect("valid records")
}

#[test]
fn what_is_built_is_valid_and_comes_back_equal() {
    for_seeds(200, |seed| {
        let mut rng = Rng::new(seed);
        let mut records = random_records(&mut rng);
        let base = Offset::new(rng.next() as i64 >> 8 & i64::MAX);
        for codec in Codec::ALL {
            let bytes = build(codec, &records);
            let valid = validate(bytes, &rules(), NOW).expect("valid");
            assert_eq!(valid.header().codec(), Ok(codec));
            let (header, batch) = valid.assign(base, LeaderEpoch(7));
            assert_eq!(BatchHeader::parse(&batch), Ok(header));
            assert_eq!(header.check_crc(&batch), Ok(()));
            assert_eq!(header.leader_epoch, LeaderEpoch(7));
            assert_eq!(header.next_offset().since(base), records.len() as i64);
            for (index, record) in records.iter_mut().enumerate() {
                record.offset = base.plus(index as i64);
            }
            assert_eq!(read_all(&batch), records, "{codec}");
        }
    });
}

#[test]
fn any_flipped_bit_outside_of_offset_and_epoch_is_refused() {
    for_seeds(20, |seed| {
        let mut rng = Rng::new(seed);
        let records = random_records(&mut rng);
        let codec = Codec::ALL[rng.below(5)];
        let good = build(codec, &records);
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1 << rng.below(8);
            let assigned = (at::BASE_OFFSET..at::BATCH_LENGTH).contains(&position)
                || (at::LEADER_EPOCH..at::MAGIC).contains(&position);
            let refused = validate(bad, &rules(), NOW).is_err();
            // A base offset that became negative or absurd is refused as well.
            assert!(refused || assigned, "{codec}: byte {position}");
        }
    });
}

#[test]
fn every_truncation_and_extension_is_refused() {
    for codec in Codec::ALL {
        let good = one(codec);
        for len in 0..good.len() {
            let cut = BytesMut::from(&good[..len]);
            assert!(validate(cut, &rules(), NOW).is_err(), "{codec} {len}");
        }
        let mut twice = good.clone();
        twice.extend_from_slice(&good);
        let result = validate(twice, &rules(), NOW).map(|_| ());
        assert_eq!(result, Err(BatchError::NotOneBatch));
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    fn check<const N: usize>(position: usize, value: [u8; N], expected: BatchError) {
        let result = validate(with_field(one(Codec::None), position, value), &rules(), NOW);
        assert_eq!(result.map(|_| ()), Err(expected));
    }
    let malformed = BatchError::Malformed;
    check(at::MAGIC, [1], BatchError::Magic(1));
    check(at::BATCH_LENGTH, [0xff; 4], BatchError::Length(-1));
    check(at::BATCH_LENGTH, [0; 4], BatchError::Length(0));
    check(at::BATCH_LENGTH, [0, 0, 0, 48], BatchError::Length(48));
    check(at::BATCH_LENGTH, [0x7f; 4], BatchError::Truncated);
    check(
        at::BASE_OFFSET,
        [0xff; 8],
        malformed("negative base offset"),
    );
    check(
        at::BASE_OFFSET,
        i64::MAX.to_be_bytes(),
        malformed("offset overflow"),
    );
    let disagree = malformed("record count and last offset delta disagree");
    check(
        at::RECORD_COUNT,
        0i32.to_be_bytes(),
        malformed("no records"),
    );
    check(at::RECORD_COUNT, 1i32.to_be_bytes(), disagree.clone());
    check(at::RECORD_COUNT, i32::MAX.to_be_bytes(), disagree.clone());
    check(at::LAST_OFFSET_DELTA, 2i32.to_be_bytes(), disagree);
    check(
        at::LAST_OFFSET_DELTA,
        [0xff; 4],
        malformed("negative last offset delta"),
    );
    check(
        at::ATTRIBUTES,
        attribute::CONTROL.to_be_bytes(),
        malformed("control batch from a client"),
    );
    check(
        at::ATTRIBUTES,
        attribute::TRANSACTIONAL.to_be_bytes(),
        malformed("transactional batch without a producer"),
    );
    check(
        at::ATTRIBUTES,
        attribute::LOG_APPEND_TIME.to_be_bytes(),
        BatchError::Timestamp {
            index: -1,
            timestamp: NOW,
        },
    );
    for id in 5..=7u8 {
        check(
            at::ATTRIBUTES,
            u16::from(id).to_be_bytes(),
            BatchError::UnsupportedCodec(id),
        );
    }
    check(
        at::PRODUCER_ID,
        (-2i64).to_be_bytes(),
        malformed("negative producer id"),
    );
    check(
        at::PRODUCER_ID,
        5i64.to_be_bytes(),
        malformed("negative producer epoch"),
    );
    let mut idempotent = 5i64.to_be_bytes().to_vec();
    idempotent.extend([0, 3, 0xff, 0xff, 0xff, 0xff]);
    check::<14>(
        at::PRODUCER_ID,
        idempotent.try_into().unwrap(),
        malformed("producer without a sequence"),
    );
}

#[test]
fn reserved_bits_and_sequences_without_producer_are_tolerated() {
    let reserved = with_field(one(Codec::None), at::ATTRIBUTES, 0xff80u16.to_be_bytes());
    assert!(validate(reserved, &rules(), NOW).is_ok());
    // sarama and kafkajs send sequence 0 without a producer id.
    let sequence = with_field(one(Codec::None), at::BASE_SEQUENCE, [0; 4]);
    let valid = validate(sequence, &rules(), NOW).unwrap();
    assert_eq!(valid.header().producer, None);
    assert_eq!(valid.header().base_sequence, -1);
}

#[test]
fn counts_and_lengths_inside_records_are_bounded() {
    // One record: length, attributes, timestamp delta, offset delta, key, value, header count.
    for (records, expected) in [
        (&[12, 0, 0, 0, 1, 1, 0][..], Ok(())),
        (
            &[12, 0, 0, 2, 1, 1, 0],
            Err("offset deltas are not 0, 1, 2, ..."),
        ),
        (&[14, 0, 0, 0, 1, 1, 0], Err("length past the end")),
        (&[1, 0, 0, 0, 1, 1, 0], Err("negative record length")),
        (&[12, 0, 0, 0, 3, 1, 0], Err("negative length")),
        (&[12, 0, 0, 0, 1, 40, 0], Err("length past the end")),
        (&[12, 0, 0, 0, 1, 1, 1], Err("negative header count")),
        (&[12, 0, 0, 0, 1, 1, 2], Err("records end early")),
        (&[16, 0, 0, 0, 1, 1, 2, 1, 1], Err("header without a key")),
        (
            &[14, 0, 0, 0, 1, 1, 0, 0],
            Err("record longer than its fields"),
        ),
        (
            &[12, 0, 0, 0, 1, 1, 0, 0],
            Err("bytes after the last record"),
        ),
        (
            &[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f],
            Err("records end early"),
        ),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0], Err("varint too long")),
        (&[], Err("records end early")),
    ] {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(NOW, None, None, &[]);
        let mut batch = builder.build();
        batch.truncate(HEADER_LEN);
        batch.extend_from_slice(records);
        let length = (batch.len() - 12) as i32;
        let batch = with_field(batch, at::BATCH_LENGTH, length.to_be_bytes());
        let result = validate(batch, &rules(), NOW).map(|_| ());
        assert_eq!(
            result,
            expected.map_err(BatchError::Malformed),
            "{records:?}"
        );
    }
}

#[test]
fn size_is_limited() {
    let batch = one(Codec::None);
    let bytes = batch.len();
    let mut rules = rules();
    rules.message_bytes_max = bytes;
    assert!(validate(batch.clone(), &rules, NOW).is_ok());
    rules.message_bytes_max = bytes - 1;
    let bytes_max = bytes - 1;
    assert_eq!(
        validate(batch, &rules, NOW).map(|_| ()),
        Err(BatchError::TooLarge { bytes, bytes_max })
    );
}

#[test]
fn timestamps_keep_within_the_limits() {
    let build = |codec, timestamp| {
        let mut builder = BatchBuilder::new(codec);
        builder.push(Timestamp(timestamp), None, None, &[]);
        builder.build()
    };
    let mut rules = rules();
    rules.timestamp_before_max_ms = Some(1000);
    rules.timestamp_after_max_ms = Some(2000);
    for (timestamp, allowed) in [
        (NOW.0, true),
        (-1, true),
        (NOW.0 - 1000, true),
        (NOW.0 - 1001, false),
        (NOW.0 + 2000, true),
        (NOW.0 + 2001, false),
        (i64::MAX, false),
        (0, false),
    ] {
        for codec in [Codec::None, Codec::Lz4] {
            let result = validate(build(codec, timestamp), &rules, NOW);
            assert_eq!(result.is_ok(), allowed, "{codec} {timestamp}");
        }
    }
    rules.timestamp_type = TimestampType::LogAppendTime;
    assert!(validate(build(Codec::None, 0), &rules, NOW).is_ok());
}

#[test]
fn a_wrong_maximum_timestamp_is_corrected_as_kafka_does() {
    for wrong in [0, NOW.0 + 5, i64::MAX] {
        let batch = with_field(one(Codec::None), at::MAX_TIMESTAMP, wrong.to_be_bytes());
        let valid = validate(batch, &rules(), NOW).unwrap();
        assert_eq!(valid.header().max_timestamp, NOW);
        let (header, bytes) = valid.assign(Offset::ZERO, LeaderEpoch(0));
        assert_eq!(header.check_crc(&bytes), Ok(()));
        assert_eq!(BatchHeader::parse(&bytes), Ok(header));
    }
}

#[test]
fn log_append_time_replaces_every_timestamp() {
    for codec in Codec::ALL {
        let mut rules = rules();
        rules.timestamp_type = TimestampType::LogAppendTime;
        let later = Timestamp(NOW.0 + 12345);
        let valid = validate(one(codec), &rules, later).unwrap();
        let (header, batch) = valid.assign(Offset::new(9), LeaderEpoch(1));
        assert_eq!(header.check_crc(&batch), Ok(()));
        assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
        assert!(
            read_all(&batch)
                .iter()
                .all(|record| record.timestamp == later)
        );
    }
}

#[test]
fn compacted_topics_need_keys_whatever_the_codec() {
    let mut rules = rules();
    rules.keys_required = true;
    for codec in Codec::ALL {
        let indices = vec![1];
        let result = validate(one(codec), &rules, NOW).map(|_| ());
        assert_eq!(result, Err(BatchError::KeyMissing { indices }), "{codec}");
    }
}

#[test]
fn the_topics_codec_replaces_the_producers() {
    for_seeds(10, |seed| {
        let mut rng = Rng::new(seed);
        let records = random_records(&mut rng);
        for (from, to) in Codec::ALL
            .into_iter()
            .flat_map(|from| Codec::ALL.map(|to| (from, to)))
        {
            let mut rules = rules();
            rules.codec = Some(to);
            let mut builder = BatchBuilder::new(from)
                .attributes(attribute::TRANSACTIONAL)
                .producer(ProducerId(77), ProducerEpoch(3), 12);
            for record in &records {
                builder.push(record.timestamp, None, record.value.as_deref(), &[]);
            }
            let valid = validate(builder.build(), &rules, NOW).unwrap();
            assert_eq!(valid.header().codec(), Ok(to));
            let (header, batch) = valid.assign(Offset::ZERO, LeaderEpoch(0));
            assert_eq!(header.check_crc(&batch), Ok(()));
            assert_eq!(header.producer, Some((ProducerId(77), ProducerEpoch(3))));
            assert_eq!(header.base_sequence, 12);
            assert!(header.is_transactional());
            let values: Vec<_> = read_all(&batch).into_iter().map(|r| r.value).collect();
            let expected: Vec<_> = records.iter().map(|r| r.value.clone()).collect();
            assert_eq!(values, expected, "{from} to {to}");
        }
    });
}

#[test]
fn decompression_stops_at_its_bound() {
    let zeros = vec![0u8; 1 << 20];
    for codec in Codec::ALL {
        let compressed = codec.compress(&zeros);
        assert_eq!(codec.decompress(&compressed, 1 << 20), Ok(zeros.clone()));
        let result = codec.decompress(&compressed, (1 << 20) - 1);
        assert!(
            matches!(result, Err(BatchError::Decompression(_))),
            "{codec}"
        );
    }
    // Four bytes that claim four gigabytes.
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(Codec::Snappy.decompress(&claim, 1 << 20).is_err());
}

#[test]
fn raw_snappy_is_read_too() {
    let raw = snap::raw::Encoder::new().compress_vec(b"records").unwrap();
    let out = Codec::Snappy.decompress(&raw, 100).unwrap();
    assert_eq!(out, b"records");
    assert!(
        Codec::Snappy
            .compress(b"records")
            .starts_with(b"\x82SNAPPY\0")
    );
}

#[test]
fn a_compressed_batch_cannot_claim_more_records_than_could_fit() {
    let batch = with_field(one(Codec::Zstd), at::RECORD_COUNT, i32::MAX.to_be_bytes());
    let delta = (i32::MAX - 1).to_be_bytes();
    let batch = with_field(batch, at::LAST_OFFSET_DELTA, delta);
    assert!(validate(batch, &rules(), NOW).is_err());
}

#[test]
fn sequences_wrap_to_zero() {
    let mut builder =
        BatchBuilder::new(Codec::None).producer(ProducerId(1), ProducerEpoch(0), i32::MAX - 1);
    for _ in 0..4 {
        builder.push(NOW, None, None, &[]);
    }
    let header = BatchHeader::parse(&builder.build()).unwrap();
    assert_eq!(header.last_sequence(), 1);
}

#[test]
fn mutated_batches_are_refused_or_sound() {
    for_seeds(500, |seed| {
        let mut rng = Rng::new(seed);
        let records = random_records(&mut rng);
        let batch = build(Codec::ALL[rng.below(5)], &records);
        let mut data = vec![rng.next() as u8];
        data.extend_from_slice(&batch);
        for _ in 0..1 + rng.below(4) {
            let in_header = at::ATTRIBUTES + rng.below(60);
            let position = match rng.chance(70) {
                true => 1 + in_header,
                false => 1 + rng.below(batch.len()),
            };
            if let Some(byte) = data.get_mut(position) {
                *byte = if rng.chance(50) {
                    rng.next() as u8
                } else {
                    0xff
                };
            }
        }
        if rng.chance(20) {
            data.truncate(rng.below(data.len()));
        }
        fuzz::fuzz_batch(&data);
    });
}
