//! Look-ups in the sparse index of a full segment of 1 GiB, and reading that index from its side file.

use std::{hint::black_box, path::Path};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay_engine::{
    LeaderEpoch, Offset, Timestamp,
    batch::BatchHeader,
    segment::{Index, index::INTERVAL_BYTES_MIN},
};

const SEGMENT_BYTES: u64 = 1 << 30;
const BATCH_BYTES: u64 = 16 * 1024;
const BATCH_RECORDS: i64 = 16;
const BATCHES: i64 = (SEGMENT_BYTES / BATCH_BYTES) as i64;

/// Visits all of a power of two in an order that no cache foresees.
const STRIDE: i64 = 40_503;

fn full() -> Index {
    let mut index = Index::new(Offset::new(0), INTERVAL_BYTES_MIN, Timestamp(0));
    for batch in 0..BATCHES {
        let header = BatchHeader {
            base_offset: Offset::new(batch * BATCH_RECORDS),
            total_len: BATCH_BYTES as usize,
            leader_epoch: LeaderEpoch(0),
            crc: 0,
            attributes: 0,
            last_offset_delta: BATCH_RECORDS as i32 - 1,
            base_timestamp: Timestamp(batch),
            max_timestamp: Timestamp(batch),
            producer: None,
            base_sequence: -1,
            record_count: BATCH_RECORDS as i32,
        };
        index.push(&header, index.len());
    }
    index
}

fn look_up(criterion: &mut Criterion) {
    let index = full();
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(1));
    let mut batch = 0;
    let mut next = || {
        batch = (batch + STRIDE) % BATCHES;
        batch
    };
    group.bench_function("find offset", |bencher| {
        bencher.iter(|| index.find_offset(black_box(Offset::new(next() * BATCH_RECORDS))));
    });
    group.bench_function("find timestamp", |bencher| {
        bencher.iter(|| index.find_timestamp(black_box(Timestamp(next()))));
    });

    let file = index.encode();
    group.throughput(Throughput::Bytes(file.len() as u64));
    group.bench_function("decode side file", |bencher| {
        bencher.iter(|| {
            Index::decode(
                black_box(&file),
                Offset::new(0),
                INTERVAL_BYTES_MIN,
                Path::new("0.fbi"),
            )
            .expect("what was encoded can be decoded")
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = look_up
}
criterion_main!(benches);
