//! Record batches written field by field, so that a test can get any of them wrong, and read back.
//!
//! Shares no code with the engine: what writes the bytes here must not be what checks them there. Slow, which tests do not mind.
//! Reads uncompressed batches only.

/// Bytes of a batch that its length field does not count.
pub const LENGTH_PREFIX_LEN: usize = 12;
pub const HEADER_LEN: usize = 61;

/// The fields of a batch of magic 2. `RawBatch::of` fills them as an honest producer would.
#[derive(Clone, Debug)]
pub struct RawBatch {
    pub base_offset: i64,
    /// Added to the true length.
    pub length_error: i32,
    pub leader_epoch: i32,
    pub magic: i8,
    /// Flips bits of the true checksum.
    pub crc_error: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
    pub records: Vec<u8>,
}

impl RawBatch {
    /// One record per value, without keys, all with this timestamp.
    pub fn of(values: &[&[u8]], timestamp: i64) -> RawBatch {
        let mut records = Vec::new();
        for (delta, value) in values.iter().enumerate() {
            put_record(&mut records, delta as i64, None, Some(value));
        }
        let count = i32::try_from(values.len()).expect("a test batch is small");
        RawBatch {
            base_offset: 0,
            length_error: 0,
            leader_epoch: -1,
            magic: 2,
            crc_error: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: count,
            records,
        }
    }

    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> RawBatch {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Changes whatever the test is about.
    pub fn with(mut self, change: impl FnOnce(&mut RawBatch)) -> RawBatch {
        change(&mut self);
        self
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut covered = Vec::with_capacity(HEADER_LEN + self.records.len());
        covered.extend(self.attributes.to_be_bytes());
        covered.extend(self.last_offset_delta.to_be_bytes());
        covered.extend(self.base_timestamp.to_be_bytes());
        covered.extend(self.max_timestamp.to_be_bytes());
        covered.extend(self.producer_id.to_be_bytes());
        covered.extend(self.producer_epoch.to_be_bytes());
        covered.extend(self.base_sequence.to_be_bytes());
        covered.extend(self.record_count.to_be_bytes());
        covered.extend(&self.records);
        let crc = crc32c(&covered) ^ self.crc_error;
        let true_length = 4 + 1 + 4 + covered.len();
        let length = i32::try_from(true_length).expect("a test batch is small");

        let mut batch = Vec::with_capacity(LENGTH_PREFIX_LEN + true_length);
        batch.extend(self.base_offset.to_be_bytes());
        batch.extend(length.wrapping_add(self.length_error).to_be_bytes());
        batch.extend(self.leader_epoch.to_be_bytes());
        batch.extend(self.magic.to_be_bytes());
        batch.extend(crc.to_be_bytes());
        batch.extend(covered);
        batch
    }
}

/// Appends a record without headers, stamped with the batch's base timestamp.
pub fn put_record(out: &mut Vec<u8>, offset_delta: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
    let mut body = vec![0];
    put_varint(&mut body, 0);
    put_varint(&mut body, offset_delta);
    for field in [key, value] {
        match field {
            None => put_varint(&mut body, -1),
            Some(bytes) => {
                put_varint(&mut body, bytes.len() as i64);
                body.extend(bytes);
            }
        }
    }
    put_varint(&mut body, 0);
    put_varint(out, body.len() as i64);
    out.extend(body);
}

/// Zigzag, seven bits a byte, as Kafka's varints and varlongs.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Offset and value of every record of a fetched section; a batch that is cut short ends it, as Kafka allows.
pub fn read_values(mut section: &[u8]) -> Vec<(i64, Vec<u8>)> {
    let mut found = Vec::new();
    while section.len() >= HEADER_LEN {
        let base_offset = i64::from_be_bytes(bytes_at(section, 0));
        let length = i32::from_be_bytes(bytes_at(section, 8));
        let total = LENGTH_PREFIX_LEN + usize::try_from(length).expect("a length is positive");
        if section.len() < total {
            break;
        }
        let (batch, rest) = section.split_at(total);
        let crc = u32::from_be_bytes(bytes_at(batch, 17));
        assert_eq!(crc, crc32c(&batch[21..]), "the checksum of a served batch");
        assert_eq!(batch[16], 2, "the magic of a served batch");
        assert_eq!(batch[22] & 7, 0, "this reader does not decompress");
        let count = i32::from_be_bytes(bytes_at(batch, 57));
        let mut records = &batch[HEADER_LEN..];
        for _ in 0..count {
            let len = usize::try_from(take_varint(&mut records)).expect("a length is positive");
            let (record, after) = records.split_at(len);
            records = after;
            let mut record = &record[1..];
            take_varint(&mut record);
            let offset = base_offset + take_varint(&mut record);
            take_bytes(&mut record);
            found.push((offset, take_bytes(&mut record).to_vec()));
        }
        assert!(records.is_empty(), "bytes after the last record");
        section = rest;
    }
    found
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> &'a [u8] {
    let len = usize::try_from(take_varint(from)).unwrap_or(0);
    let (bytes, rest) = from.split_at(len);
    *from = rest;
    bytes
}

fn take_varint(from: &mut &[u8]) -> i64 {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = from[0];
        *from = &from[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn bytes_at<const N: usize>(bytes: &[u8], position: usize) -> [u8; N] {
    bytes[position..position + N]
        .try_into()
        .expect("the slice has this length")
}

/// CRC-32C (Castagnoli), byte by byte: long runs read gigabytes through it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc32c_of_bytes();
    let crc = bytes.iter().fold(!0u32, |crc, byte| {
        (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)]
    });
    !crc
}

const fn crc32c_of_bytes() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn what_is_written_is_read() {
        let batch = RawBatch::of(&[b"one", b"", &[7; 300]], 1_700_000_000_000);
        let mut section = batch.encode();
        section.extend(batch.with(|batch| batch.base_offset = 3).encode());
        section.extend([0; 70]);
        let cut = section.len() - 75;
        let expected = [(0, b"one".to_vec()), (1, Vec::new()), (2, vec![7; 300])];
        assert_eq!(read_values(&section[..cut]), expected);
    }
}
