//! What records carry, so that every one can be accounted for.
//!
//! A value begins with a header: which run wrote it, in which stream (one producer's records in one partition), its number there, when it was
//! planned and when it was sent, and a check over all of it. What follows is noise that no codec can shorten, or text that one can. `ledger`
//! holds what was received against what was acknowledged; `distribution` says how large values are and which keys they have.
//!
//! | bytes | field |
//! |---|---|
//! | 0 to 3 | `FBY1` |
//! | 4 to 7 | run |
//! | 8 to 11 | stream |
//! | 12 to 19 | sequence, from 0 |
//! | 20 to 27 | planned, nanoseconds of `CLOCK_MONOTONIC` |
//! | 28 to 35 | sent, likewise |
//! | 36 to 39 | check: CRC-32C of the fields before it, combined with the CRC-32C of the body |
//! | 40 on | body |
//!
//! Numbers are big-endian. The two CRCs are apart so that a body which does not change need not be summed again for each record.

mod distribution;
mod intervals;
mod ledger;

pub use distribution::{KeyDistribution, Keys, SizeDistribution, Sizes};
pub use ledger::{Acknowledged, Ledger};

use crate::noise::Noise;

const MAGIC: [u8; 4] = *b"FBY1";

/// Of the fields that the check covers.
const CHECKED_LEN: usize = 36;

/// A value holds at least this.
pub const HEADER_LEN: usize = 40;

/// Bodies are windows of this much noise, at one of so many places.
const WINDOWS: usize = 4096;

/// What a record says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub run_id: u32,
    pub stream: u32,
    pub sequence: u64,
    pub planned: i64,
    pub sent: i64,
}

/// Why a value is not one of ours, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Another program wrote it.
    Foreign,
    /// It begins as one of ours and its check does not agree.
    Corrupt,
}

impl Stamp {
    fn write(&self, header: &mut [u8]) {
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&self.run_id.to_be_bytes());
        header[8..12].copy_from_slice(&self.stream.to_be_bytes());
        header[12..20].copy_from_slice(&self.sequence.to_be_bytes());
        header[20..28].copy_from_slice(&self.planned.to_be_bytes());
        header[28..36].copy_from_slice(&self.sent.to_be_bytes());
    }

    /// Panics on less than a header: the caller has looked.
    fn read(header: &[u8]) -> Stamp {
        fn field<const N: usize>(header: &[u8], from: usize) -> [u8; N] {
            header[from..from + N].try_into().expect("of that length")
        }
        Stamp {
            run_id: u32::from_be_bytes(field(header, 4)),
            stream: u32::from_be_bytes(field(header, 8)),
            sequence: u64::from_be_bytes(field(header, 12)),
            planned: i64::from_be_bytes(field(header, 20)),
            sent: i64::from_be_bytes(field(header, 28)),
        }
    }
}

/// Of a body, to be kept with it when it is used again.
pub fn body_check(body: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(body)
}

/// Writes a header over the beginning of a value whose body is in place.
///
/// Panics on a value without room for a header.
pub fn stamp(value: &mut [u8], stamp: &Stamp, body_check: u32) {
    stamp.write(value);
    let check = crc_fast::crc32_iscsi(&value[..CHECKED_LEN]) ^ body_check.rotate_left(1);
    value[CHECKED_LEN..HEADER_LEN].copy_from_slice(&check.to_be_bytes());
}

/// What a received value says of itself, if it is one of ours and whole.
pub fn read(value: &[u8]) -> Result<Stamp, Damage> {
    if value.len() < HEADER_LEN || value[..4] != MAGIC {
        return Err(Damage::Foreign);
    }
    let (header, body) = value.split_at(HEADER_LEN);
    let check = crc_fast::crc32_iscsi(&header[..CHECKED_LEN]) ^ body_check(body).rotate_left(1);
    if header[CHECKED_LEN..] != check.to_be_bytes() {
        return Err(Damage::Corrupt);
    }
    Ok(Stamp::read(header))
}

/// Makes values of any size.
pub struct PayloadWriter {
    body: Vec<u8>,
    window: usize,
    compressible: bool,
}

impl PayloadWriter {
    pub fn new(compressible: bool) -> PayloadWriter {
        PayloadWriter {
            body: Vec::new(),
            window: 0,
            compressible,
        }
    }

    /// A value of `bytes` in `value`, in place of what it held.
    pub fn write(&mut self, value: &mut Vec<u8>, bytes: usize, of: &Stamp) {
        let body_len = bytes
            .checked_sub(HEADER_LEN)
            .expect("sizes have room for a header");
        if self.body.len() < body_len + WINDOWS {
            self.body = body(body_len + WINDOWS, self.compressible);
        }
        // No two neighbours are alike.
        self.window = (self.window + 1) % WINDOWS;
        let body = &self.body[self.window..self.window + body_len];
        value.clear();
        value.resize(HEADER_LEN, 0);
        value.extend_from_slice(body);
        stamp(value, of, body_check(body));
    }
}

/// Noise; when it may be shortened, each second half of 64 bytes is spaces.
fn body(len: usize, compressible: bool) -> Vec<u8> {
    let mut body = Noise::new().bytes(len);
    if compressible {
        for piece in body.chunks_mut(64) {
            let half = piece.len() / 2;
            piece[half..].fill(b' ');
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        run_id: 7,
        stream: 3,
        sequence: 41,
        planned: 1_000_000_007,
        sent: -5,
    };

    fn value(bytes: usize) -> Vec<u8> {
        let mut value = vec![1, 2, 3];
        PayloadWriter::new(false).write(&mut value, bytes, &STAMP);
        value
    }

    #[test]
    fn a_value_has_its_size_and_says_who_wrote_it() {
        for bytes in [HEADER_LEN, HEADER_LEN + 1, 100, 1024, 100_000] {
            let value = value(bytes);
            assert_eq!(value.len(), bytes);
            assert_eq!(read(&value), Ok(STAMP));
        }
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let whole = value(200);
        for bit in 32..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&flipped), Err(Damage::Corrupt), "bit {bit}");
        }
        assert_eq!(read(&whole[..199]), Err(Damage::Corrupt));
        assert_eq!(read(&whole[..HEADER_LEN - 1]), Err(Damage::Foreign));
        assert_eq!(read(b""), Err(Damage::Foreign));
        assert_eq!(read(&[b'x'; 100]), Err(Damage::Foreign));
    }

    #[test]
    fn text_can_be_shortened_and_noise_cannot() {
        let spaces = |compressible| {
            let mut value = Vec::new();
            PayloadWriter::new(compressible).write(&mut value, 10_000, &STAMP);
            value.iter().filter(|byte| **byte == b' ').count()
        };
        assert!(spaces(true) > 4_900);
        assert!(spaces(false) < 100);
    }
}
