//! Compression of the records section. Off the hot path: only to convert, to look up timestamps, and in clients.
//!
//! Decompression is bounded by the caller and grows with what comes out, not with what a header claims.

use std::{fmt, io, io::Read};

use flate2::{read::MultiGzDecoder, write::GzEncoder};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::BatchError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub const ALL: [Codec; 5] = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];

    /// The number in a batch's attributes.
    pub fn id(self) -> u8 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }

    pub fn from_id(id: u8) -> Result<Codec, BatchError> {
        Codec::ALL
            .into_iter()
            .find(|codec| codec.id() == id)
            .ok_or(BatchError::UnsupportedCodec(id))
    }

    /// Kafka's name, as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    pub fn from_name(name: &str) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Compresses a records section.
    pub fn compress(self, records: &[u8]) -> Vec<u8> {
        let compressed = match self {
            Codec::None => Ok(records.to_vec()),
            Codec::Gzip => gzip(records),
            Codec::Snappy => Ok(snappy::compress(records)),
            Codec::Lz4 => lz4(records),
            Codec::Zstd => zstd::bulk::compress(records, zstd::DEFAULT_COMPRESSION_LEVEL),
        };
        compressed.expect("compression into memory does not fail")
    }

    /// Undoes [`Codec::compress`] on bytes of any origin; refuses to produce more than `bytes_max`.
    pub fn decompress(self, compressed: &[u8], bytes_max: usize) -> Result<Vec<u8>, BatchError> {
        match self {
            Codec::None if compressed.len() <= bytes_max => Ok(compressed.to_vec()),
            Codec::None => Err(too_large(bytes_max)),
            Codec::Gzip => read_bounded(MultiGzDecoder::new(compressed), bytes_max),
            Codec::Snappy => snappy::decompress(compressed, bytes_max),
            Codec::Lz4 => read_bounded(FrameDecoder::new(compressed), bytes_max),
            Codec::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(compressed);
                read_bounded(decoder.map_err(|error| failed(&error))?, bytes_max)
            }
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn gzip(records: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    io::Write::write_all(&mut encoder, records)?;
    encoder.finish()
}

/// Kafka's Java reader takes independent blocks only.
fn lz4(records: &[u8]) -> io::Result<Vec<u8>> {
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    io::Write::write_all(&mut encoder, records)?;
    encoder.finish().map_err(io::Error::from)
}

fn read_bounded(decoder: impl Read, bytes_max: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    decoder
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|error| failed(&error))?;
    if out.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    Ok(out)
}

fn failed(error: &dyn fmt::Display) -> BatchError {
    BatchError::Decompression(error.to_string())
}

fn too_large(bytes_max: usize) -> BatchError {
    BatchError::Decompression(format!("more than {bytes_max} bytes"))
}

/// Snappy as Java's snappy-java frames it; raw Snappy, which some clients send, is read too.
///
/// ```text
/// 0                   8           12          16
/// +-------------------+-----------+-----------+-- repeated --------------------------+
/// | 82 'SNAPPY' 00    | version 1 | compat. 1 | length u32 | raw Snappy of <= 32 KiB |
/// +-------------------+-----------+-----------+--------------------------------------+
/// ```
mod snappy {
    use super::{BatchError, failed, too_large};

    const MAGIC: [u8; 8] = *b"\x82SNAPPY\x00";
    const HEADER: [u8; 16] = *b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";
    const BLOCK_BYTES: usize = 32 * 1024;
    /// No element of a Snappy stream gives more than 64 bytes for at least 2.
    const EXPANSION_MAX: usize = 32;

    pub fn compress(records: &[u8]) -> Vec<u8> {
        let mut encoder = snap::raw::Encoder::new();
        let mut out = HEADER.to_vec();
        for block in records.chunks(BLOCK_BYTES) {
            let compressed = encoder
                .compress_vec(block)
                .expect("a block is far below the limit of Snappy");
            out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
            out.extend_from_slice(&compressed);
        }
        out
    }

    pub fn decompress(compressed: &[u8], bytes_max: usize) -> Result<Vec<u8>, BatchError> {
        let mut out = Vec::new();
        if !compressed.starts_with(&MAGIC) {
            append_raw(compressed, bytes_max, &mut out)?;
            return Ok(out);
        }
        // Version and compatible version are not checked, as in Kafka's clients: there is only one.
        let mut rest = compressed
            .get(HEADER.len()..)
            .ok_or_else(|| failed(&"snappy header cut short"))?;
        while !rest.is_empty() {
            let (length, after) = rest
                .split_first_chunk::<4>()
                .ok_or_else(|| failed(&"snappy block length cut short"))?;
            let (block, after) = after
                .split_at_checked(u32::from_be_bytes(*length) as usize)
                .ok_or_else(|| failed(&"snappy block cut short"))?;
            append_raw(block, bytes_max, &mut out)?;
            rest = after;
        }
        Ok(out)
    }

    fn append_raw(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
        let claimed = snap::raw::decompress_len(block).map_err(|error| failed(&error))?;
        if claimed > block.len().saturating_mul(EXPANSION_MAX) {
            return Err(failed(&"snappy length cannot be true"));
        }
        if claimed > bytes_max - out.len() {
            return Err(too_large(bytes_max));
        }
        let start = out.len();
        out.resize(start + claimed, 0);
        let written = snap::raw::Decoder::new()
            .decompress(block, &mut out[start..])
            .map_err(|error| failed(&error))?;
        assert!(written == claimed);
        Ok(())
    }
}
