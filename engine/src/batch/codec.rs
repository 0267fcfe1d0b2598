//! Compression of the records section. Off the hot path: only to convert, to look up timestamps, and in clients.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}
