//! What every batch costs on its way into the log, and again on its way from disk: CRC-32C, and all checks of a batch.

mod support;

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay_engine::batch::{BatchHeader, validate};

use support::{NOW, batch_of, rules};

/// Batches by their name: records, and bytes of each value.
const BATCHES: [(&str, usize, usize); 5] = [
    ("1 x 1 KiB", 1, 1024),
    ("16 x 1 KiB", 16, 1024),
    ("64 x 1 KiB", 64, 1024),
    ("640 x 100 B", 640, 100),
    ("1024 x 1 KiB", 1024, 1024),
];

fn batches() -> impl Iterator<Item = (&'static str, BytesMut)> {
    BATCHES
        .into_iter()
        .map(|(name, records, value_bytes)| (name, batch_of(records, value_bytes)))
}

/// The checksum alone, as after a read from disk.
fn crc(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc32c");
    for (name, batch) in batches() {
        let header = BatchHeader::parse(&batch).expect("what was built can be parsed");
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| header.check_crc(black_box(&batch)));
        });
    }
    group.finish();
}

/// Header, checksum and every record. The bytes are those of a client: taken over, not copied.
fn validation(criterion: &mut Criterion) {
    let rules = rules();
    let mut group = criterion.benchmark_group("validate");
    for (name, batch) in batches() {
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_batched(
                || batch.clone(),
                |bytes| validate(bytes, &rules, NOW).expect("the batch is valid"),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = crc, validation
}
criterion_main!(benches);
