//! Reads and writes the variable-length numbers of records: zigzag, seven bits a byte, least significant first.
//!
//! The reader never looks past the slice it was given, and no number can be longer than its type needs.

use super::BatchError;

/// What is left of a section of records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub fn len(&self) -> usize {
        self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], BatchError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(BatchError::Malformed("length past the end"));
        };
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, BatchError> {
        let Some((&first, rest)) = self.rest.split_first() else {
            return Err(BatchError::Malformed("records end early"));
        };
        self.rest = rest;
        Ok(first)
    }

    #[inline]
    pub fn varint(&mut self) -> Result<i32, BatchError> {
        let value = self.unsigned(5)?;
        let value = u32::try_from(value).map_err(|_| BatchError::Malformed("varint too large"))?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    #[inline]
    pub fn varlong(&mut self) -> Result<i64, BatchError> {
        let value = self.unsigned(10)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A length and so many bytes; `None` for length -1.
    #[inline]
    pub fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, BatchError> {
        match self.varint()? {
            -1 => Ok(None),
            len => match usize::try_from(len) {
                Ok(len) => self.take(len).map(Some),
                Err(_) => Err(BatchError::Malformed("negative length")),
            },
        }
    }

    #[inline]
    fn unsigned(&mut self, bytes_max: u32) -> Result<u64, BatchError> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        self.unsigned_rest(first, bytes_max)
    }

    fn unsigned_rest(&mut self, first: u8, bytes_max: u32) -> Result<u64, BatchError> {
        let mut value = u64::from(first & 0x7f);
        for index in 1..bytes_max {
            let byte = self.byte()?;
            // The tenth byte of a 64-bit number has room for one bit.
            if index == 9 && byte > 1 {
                return Err(BatchError::Malformed("varint too large"));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(BatchError::Malformed("varint too long"))
    }
}

pub(super) fn put_varlong(out: &mut impl bytes::BufMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// The zigzag code of a 32-bit number is that of the same number in 64 bits.
pub(super) fn put_varint(out: &mut impl bytes::BufMut, value: i32) {
    put_varlong(out, i64::from(value));
}

pub(super) fn varlong_len(value: i64) -> usize {
    let code = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (code | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_in_the_length_announced() {
        let mut samples = vec![
            0,
            i64::MAX,
            i64::MIN,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
        ];
        for shift in 0..63 {
            samples.extend([1 << shift, -(1 << shift), (1 << shift) - 1]);
        }
        for value in samples {
            let mut bytes = Vec::new();
            put_varlong(&mut bytes, value);
            assert_eq!(bytes.len(), varlong_len(value), "{value}");
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varlong(), Ok(value));
            assert!(reader.is_empty());
            let narrow = Reader::new(&bytes).varint();
            assert_eq!(narrow.ok(), i32::try_from(value).ok(), "{value}");
        }
    }

    #[test]
    fn numbers_longer_than_their_type_are_refused() {
        for (bytes, wide_ok) in [
            (&[0x80u8, 0x80, 0x80, 0x80, 0x80, 0x01][..], true),
            (&[0xff; 11][..], false),
            (&[0x80; 9][..], false),
            (&[][..], false),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..],
                false,
            ),
        ] {
            assert!(Reader::new(bytes).varint().is_err(), "{bytes:?}");
            assert_eq!(Reader::new(bytes).varlong().is_ok(), wide_ok, "{bytes:?}");
        }
        assert!(
            Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x10])
                .varint()
                .is_err()
        );
    }
}
