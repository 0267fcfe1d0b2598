//! `forebay dump-log`, alias `kafka-dump-log`: prints the batches and records of segment files, and checks them.
//!
//! Reads one batch at a time, whatever the size of the file. An active segment may end in zeros, and behind them, where its file was
//! that of a deleted segment, in what that one held: both are named, not mistaken for damage.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::{Buf, Bytes, BytesMut};
use clap::Parser;
use forebay_engine::{
    TimestampType,
    batch::{BatchError, BatchHeader, HEADER_LEN, Record, Records},
    rt::buf::ALIGNMENT,
    segment::FileKind,
};

use super::outcome::CliError;

/// Larger batches are not read into memory; no broker takes them.
const BATCH_BYTES_MAX: usize = 1 << 30;
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// Prints the batches and records of segment files
#[derive(Parser, Debug)]
#[command(
    after_help = "Examples:\n  forebay dump-log /var/lib/forebay/first-0/00000000000000000000.log\n  \
kafka-dump-log --files 00000000000000000000.log --print-data-log"
)]
pub struct DumpLogArgs {
    /// Segment files (*.log).
    #[arg(value_name = "FILE", required_unless_present = "files")]
    paths: Vec<PathBuf>,
    /// The same, as Kafka's tool takes them.
    #[arg(long, value_delimiter = ',', value_name = "FILE,...")]
    files: Vec<PathBuf>,
    /// Print keys and values too.
    #[arg(long)]
    print_data_log: bool,
    /// Print every record, also without --print-data-log.
    #[arg(long)]
    deep_iteration: bool,
    /// Leave out the line of each batch.
    #[arg(long)]
    skip_record_metadata: bool,
    /// Stop after this many bytes of each file.
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
}

pub fn run(args: &DumpLogArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let mut damaged = Vec::new();
    for path in args.paths.iter().chain(&args.files) {
        writeln!(out, "Dumping {}", path.display())?;
        if let Some(what) = dump(args, path, out)? {
            writeln!(out, "{what}")?;
            damaged.push(path.display().to_string());
        }
    }
    if damaged.is_empty() {
        Ok(())
    } else {
        Err(CliError::failed(format!("damaged: {}", damaged.join(", "))))
    }
}

/// Prints one file. Returns what is wrong with it, if anything.
fn dump(args: &DumpLogArgs, path: &Path, out: &mut dyn Write) -> Result<Option<String>, CliError> {
    let fail = |error: io::Error| CliError::failed(format!("{}: {error}", path.display()));
    let base = path
        .file_stem()
        .and_then(|stem| stem.to_str()?.parse::<i64>().ok());
    if let Some(base) = base {
        writeln!(out, "Log starting offset: {base}")?;
    }
    let file = File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    // Only a file that is still written to may hold something behind its end.
    let mut active_next = base.filter(|base| !has_later_segment(path, *base));
    let length = args.max_bytes.map_or(length, |max| max.min(length));
    let mut segment = Segment {
        input: BufReader::with_capacity(1 << 20, file),
        position: 0,
        length,
    };
    let mut damage = None;
    loop {
        let position = segment.position;
        let found = segment.next_batch().map_err(fail)?;
        if let Some(next) = active_next
            && found.may_be_behind_the_end(next)
            && is_old_content(path, position, length, next).map_err(fail)?
        {
            let count = length - position;
            writeln!(
                out,
                "{count} bytes of old content behind the end at position {position}: the segment is active and its file was that of a deleted one"
            )?;
            return Ok(damage);
        }
        match found {
            Found::End => return Ok(damage),
            Found::Padding(count) => {
                writeln!(
                    out,
                    "{count} bytes of padding at position {position}: the segment is active or was not closed"
                )?;
                return Ok(damage);
            }
            Found::Tail(count) => {
                writeln!(
                    out,
                    "Found {count} invalid bytes at the end of {}",
                    file_name(path)
                )?;
                return Ok(damage);
            }
            Found::Garbage(what) => {
                return Ok(Some(format!("At position {position}: {what}")));
            }
            Found::Batch(header, bytes) => {
                let is_valid = header.check_crc(&bytes).is_ok();
                active_next = active_next.map(|_| header.next_offset().get());
                if !args.skip_record_metadata {
                    writeln!(out, "{}", batch_line(&header, position, is_valid))?;
                }
                if !is_valid {
                    damage = Some(format!("At position {position}: the CRC does not match"));
                } else if (args.print_data_log || args.deep_iteration)
                    && let Err(error) = print_records(args, &header, &bytes, out)?
                {
                    damage = Some(format!("At position {position}: {error}"));
                }
            }
        }
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

struct Segment<R> {
    input: R,
    position: u64,
    length: u64,
}

enum Found {
    Batch(BatchHeader, Bytes),
    End,
    /// Zeros up to the end.
    Padding(u64),
    /// The beginning of a batch that ends beyond the file.
    Tail(u64),
    Garbage(BatchError),
}

impl Found {
    /// Whether a log that goes on at offset `next` may end before this.
    fn may_be_behind_the_end(&self, next: i64) -> bool {
        match self {
            Found::Batch(header, bytes) => {
                let base = header.base_offset.get();
                base < next || (base > next && header.check_crc(bytes).is_err())
            }
            Found::Tail(_) | Found::Garbage(_) => true,
            Found::End | Found::Padding(_) => false,
        }
    }
}

/// Whether the log of this file goes on in another one.
fn has_later_segment(path: &Path, base: i64) -> bool {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let Ok(listed) = fs::read_dir(dir.unwrap_or(Path::new("."))) else {
        return false;
    };
    let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .map(|name| FileKind::of(&name))
        .any(|kind| matches!(kind, FileKind::Segment(other) if other.get() > base))
}

/// Whether the batches of an active segment end at `position`: zeros up to the end of a block, and behind them no whole batch of offset `next` or
/// later. What a deleted segment left there has lower offsets.
fn is_old_content(path: &Path, position: u64, length: u64, next: i64) -> io::Result<bool> {
    const CHUNK_BYTES: usize = 1 << 20;
    let file = File::open(path)?;
    let block_end = position.next_multiple_of(ALIGNMENT as u64);
    if block_end >= length {
        return Ok(false);
    }
    let mut padding = vec![0u8; (block_end - position) as usize];
    file.read_exact_at(&mut padding, position)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Ok(false);
    }
    let mut at = block_end;
    while at + HEADER_LEN as u64 <= length {
        let count = (CHUNK_BYTES as u64).min(length - at) as usize;
        let mut chunk = vec![0u8; count];
        file.read_exact_at(&mut chunk, at)?;
        for (offset, header) in chunk.windows(HEADER_LEN).enumerate() {
            let Ok(header) = BatchHeader::parse(header) else {
                continue;
            };
            let begins = at + offset as u64;
            let fits = header.total_len as u64 <= length - begins;
            if header.base_offset.get() < next || !fits || header.total_len > BATCH_BYTES_MAX {
                continue;
            }
            let mut batch = vec![0u8; header.total_len];
            file.read_exact_at(&mut batch, begins)?;
            if header.check_crc(&batch).is_ok() {
                return Ok(false);
            }
        }
        at += (count - HEADER_LEN + 1) as u64;
    }
    Ok(true)
}

impl<R: Read> Segment<R> {
    fn next_batch(&mut self) -> io::Result<Found> {
        let rest = self.length - self.position;
        if rest == 0 {
            return Ok(Found::End);
        }
        let head_len = HEADER_LEN.min(usize::try_from(rest).unwrap_or(HEADER_LEN));
        let mut bytes = BytesMut::zeroed(head_len);
        self.input.read_exact(&mut bytes)?;
        let header = match BatchHeader::parse(&bytes) {
            Ok(header) => header,
            Err(_) if bytes.iter().all(|byte| *byte == 0) && self.rest_is_zero(rest)? => {
                return Ok(Found::Padding(rest));
            }
            Err(BatchError::Truncated) => return Ok(Found::Tail(rest)),
            Err(error) => return Ok(Found::Garbage(error)),
        };
        if header.total_len as u64 > rest {
            return Ok(Found::Tail(rest));
        }
        if header.total_len > BATCH_BYTES_MAX {
            return Ok(Found::Garbage(BatchError::TooLarge {
                bytes: header.total_len,
                bytes_max: BATCH_BYTES_MAX,
            }));
        }
        bytes.resize(header.total_len, 0);
        self.input.read_exact(&mut bytes[head_len..])?;
        self.position += header.total_len as u64;
        Ok(Found::Batch(header, bytes.freeze()))
    }

    /// Whether what comes after the header just read is all zeros, too.
    fn rest_is_zero(&mut self, rest: u64) -> io::Result<bool> {
        let mut left = rest.saturating_sub(HEADER_LEN as u64);
        let mut chunk = vec![0u8; 64 << 10];
        while left > 0 {
            let count = chunk
                .len()
                .min(usize::try_from(left).unwrap_or(chunk.len()));
            self.input.read_exact(&mut chunk[..count])?;
            if chunk[..count].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            left -= count as u64;
        }
        Ok(true)
    }
}

fn batch_line(header: &BatchHeader, position: u64, is_valid: bool) -> String {
    const DELETE_HORIZON: u16 = 1 << 6;
    let (producer_id, producer_epoch) = match header.producer {
        Some((id, epoch)) => (id.0, epoch.0),
        None => (-1, -1),
    };
    // Compaction keeps the time of deletion where the first timestamp was.
    let horizon = if header.attributes & DELETE_HORIZON != 0 {
        format!("OptionalLong[{}]", header.base_timestamp)
    } else {
        "OptionalLong.empty".to_string()
    };
    let codec = match header.codec() {
        Ok(codec) => codec.name(),
        Err(_) => "unknown",
    };
    format!(
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {producer_id} \
         producerEpoch: {producer_epoch} partitionLeaderEpoch: {} isTransactional: {} isControl: {} \
         deleteHorizonMs: {horizon} position: {position} {}: {} size: {} magic: 2 compresscodec: {codec} crc: {} \
         isvalid: {is_valid}",
        header.base_offset,
        header.last_offset(),
        header.record_count,
        header.base_sequence,
        header.last_sequence(),
        header.leader_epoch,
        header.is_transactional(),
        header.is_control(),
        time_name(header),
        header.max_timestamp,
        header.total_len,
        header.crc
    )
}

fn time_name(header: &BatchHeader) -> &'static str {
    match header.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

/// The inner result is what the records say of themselves, the outer one is stdout's.
fn print_records(
    args: &DumpLogArgs,
    header: &BatchHeader,
    batch: &Bytes,
    out: &mut dyn Write,
) -> Result<Result<(), BatchError>, CliError> {
    let records = match Records::new(batch, DECOMPRESSED_BYTES_MAX) {
        Ok(records) => records,
        Err(error) => return Ok(Err(error)),
    };
    for record in records {
        match record {
            Ok(record) => print_record(args, header, &record, out)?,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

fn print_record(
    args: &DumpLogArgs,
    header: &BatchHeader,
    record: &Record,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let size = |bytes: &Option<Bytes>| bytes.as_ref().map_or(-1, |bytes| bytes.len() as i64);
    let names: Vec<_> = record
        .headers
        .iter()
        .map(|(key, _)| String::from_utf8_lossy(key))
        .collect();
    let sequence = match header.base_sequence {
        -1 => -1,
        base => (i64::from(base) + record.offset.since(header.base_offset)) & 0x7fff_ffff,
    };
    write!(
        out,
        "| offset: {} {}: {} keySize: {} valueSize: {} sequence: {sequence} headerKeys: [{}]",
        record.offset,
        time_name(header),
        record.timestamp,
        size(&record.key),
        size(&record.value),
        names.join(",")
    )?;
    if header.is_control() {
        write!(out, "{}", marker_text(record))?;
    } else if args.print_data_log {
        for (name, bytes) in [("key", &record.key), ("payload", &record.value)] {
            if let Some(bytes) = bytes {
                write!(out, " {name}: ")?;
                out.write_all(bytes)?;
            }
        }
    }
    writeln!(out)?;
    Ok(())
}

/// What a transaction marker says: its key is a version and a type, its value a version and the coordinator's epoch.
fn marker_text(record: &Record) -> String {
    let mut key = record.key.clone().unwrap_or_default();
    let mut value = record.value.clone().unwrap_or_default();
    let kind = key.try_get_i16().and_then(|_version| key.try_get_i16());
    let epoch = value.try_get_i16().and_then(|_version| value.try_get_i32());
    let epoch = epoch.map_or(String::new(), |epoch| format!(" coordinatorEpoch: {epoch}"));
    match kind {
        Ok(0) => format!(" endTxnMarker: ABORT{epoch}"),
        Ok(1) => format!(" endTxnMarker: COMMIT{epoch}"),
        Ok(other) => format!(" controlType: {other}"),
        Err(_) => " controlType: unreadable".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use forebay_engine::{
        ProducerEpoch, ProducerId, Timestamp,
        batch::{BatchBuilder, Codec},
    };

    use super::*;

    fn segment() -> Vec<u8> {
        let mut plain = BatchBuilder::new(Codec::None);
        plain.push(Timestamp(1000), None, Some(b"nokey"), &[]);
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"h1", Some(b"a")), (b"h2", None)];
        let mut zstd = BatchBuilder::new(Codec::Zstd).producer(ProducerId(9), ProducerEpoch(2), 5);
        zstd.push(Timestamp(2000), Some(b"key"), Some(b"value"), &headers);
        zstd.push(Timestamp(2001), Some(b"gone"), None, &[]);
        let mut second = zstd.build().to_vec();
        second[..8].copy_from_slice(&1i64.to_be_bytes());
        [plain.build().to_vec(), second].concat()
    }

    /// Dumps `bytes` as a file and returns what was printed (without the line of the path) and the error.
    fn dump_bytes(name: &str, bytes: &[u8], flags: &str) -> (String, Option<String>) {
        dump_file(0, name, bytes, flags)
    }

    fn dump_based(base: i64, name: &str, bytes: &[u8]) -> (String, Option<String>) {
        dump_file(base, name, bytes, "")
    }

    fn dump_file(base: i64, name: &str, bytes: &[u8], flags: &str) -> (String, Option<String>) {
        let dir = env::temp_dir().join(format!("forebay-dump-{}-{name}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(format!("{base:020}.log"));
        fs::write(&path, bytes).unwrap();
        let line = format!("dump-log {} {flags}", path.display());
        let args = DumpLogArgs::try_parse_from(line.split_whitespace()).unwrap();
        let mut out = Vec::new();
        let outcome = run(&args, &mut out);
        fs::remove_dir_all(&dir).unwrap();
        let text = String::from_utf8(out).unwrap();
        let (_, text) = text.split_once('\n').unwrap();
        (
            text.to_string(),
            outcome.err().map(|error| error.to_string()),
        )
    }

    #[test]
    fn batches_and_records_are_printed_as_kafka_prints_them() {
        let bytes = segment();
        let first = BatchHeader::parse(&bytes).unwrap();
        let second = BatchHeader::parse(&bytes[first.total_len..]).unwrap();
        let want = format!(
            "Log starting offset: 0\n\
             baseOffset: 0 lastOffset: 0 count: 1 baseSequence: -1 lastSequence: -1 producerId: -1 producerEpoch: -1 \
             partitionLeaderEpoch: -1 isTransactional: false isControl: false deleteHorizonMs: OptionalLong.empty \
             position: 0 CreateTime: 1000 size: {} magic: 2 compresscodec: none crc: {} isvalid: true\n\
             | offset: 0 CreateTime: 1000 keySize: -1 valueSize: 5 sequence: -1 headerKeys: [] payload: nokey\n\
             baseOffset: 1 lastOffset: 2 count: 2 baseSequence: 5 lastSequence: 6 producerId: 9 producerEpoch: 2 \
             partitionLeaderEpoch: -1 isTransactional: false isControl: false deleteHorizonMs: OptionalLong.empty \
             position: {} CreateTime: 2001 size: {} magic: 2 compresscodec: zstd crc: {} isvalid: true\n\
             | offset: 1 CreateTime: 2000 keySize: 3 valueSize: 5 sequence: 5 headerKeys: [h1,h2] key: key payload: value\n\
             | offset: 2 CreateTime: 2001 keySize: 4 valueSize: -1 sequence: 6 headerKeys: [] key: gone\n",
            first.total_len, first.crc, first.total_len, second.total_len, second.crc
        );
        let (text, error) = dump_bytes("whole", &bytes, "--print-data-log");
        assert_eq!(text, want);
        assert_eq!(error, None);
        let (text, _) = dump_bytes("deep", &bytes, "--deep-iteration");
        assert!(
            text.contains("| offset: 2") && !text.contains("payload"),
            "{text}"
        );
        let (text, _) = dump_bytes("shallow", &bytes, "");
        assert!(!text.contains('|'), "{text}");
    }

    #[test]
    fn the_end_of_an_active_segment_is_named() {
        let whole = segment();
        for padding in [1, 11, 17, 18, 60, 61, 62, 4096, 200_000] {
            let bytes = [&whole[..], &vec![0; padding]].concat();
            let (text, error) = dump_bytes("padded", &bytes, "");
            let want = format!("{padding} bytes of padding at position {}", whole.len());
            assert!(text.contains(&want), "{text}");
            assert_eq!(error, None);
        }
        for cut in [17, 61, 70] {
            let bytes = [&whole[..], &whole[..cut]].concat();
            let (text, error) = dump_bytes("torn", &bytes, "");
            assert!(
                text.contains(&format!("Found {cut} invalid bytes")),
                "{text}"
            );
            assert_eq!(error, None);
        }
    }

    /// The active segment's file was that of a deleted one: behind the padding, or at once where a batch ends with its block, is what that one held.
    #[test]
    fn old_content_behind_the_end_is_named() {
        let mut now = BatchBuilder::new(Codec::None);
        now.push(Timestamp(1), None, Some(&[7; 5000]), &[]);
        let mut now = now.build().to_vec();
        now[..8].copy_from_slice(&100i64.to_be_bytes());
        let mut padded = now.clone();
        padded.resize(8192, 0);
        let old = segment();
        let end = format!("at position {}: the segment is active", now.len());
        for (name, behind) in [
            ("old", old.clone()),
            ("old-middle", old[20..].to_vec()),
            ("old-noise", vec![9; 10_000]),
            ("old-then-zeros", [&old[..], &[0; 5000]].concat()),
        ] {
            let (text, error) = dump_based(100, name, &[&padded[..], &behind].concat());
            assert!(
                text.contains(&format!("bytes of old content behind the end {end}")),
                "{name}: {text}"
            );
            assert_eq!(error, None, "{name}");
            assert_eq!(text.matches("baseOffset").count(), 1, "{name}: {text}");
        }
        let (text, error) = dump_based(100, "old-only", &old);
        assert!(
            text.contains("old content behind the end at position 0"),
            "{text}"
        );
        assert_eq!(error, None);
    }

    #[test]
    fn a_batch_of_the_log_behind_zeros_is_no_old_content() {
        let mut later = segment();
        later[..8].copy_from_slice(&7i64.to_be_bytes());
        let mut bytes = segment();
        bytes.resize(4096, 0);
        let (text, error) = dump_based(0, "lost", &[&bytes[..], &[5; 300], &later].concat());
        assert!(!text.contains("old content"), "{text}");
        assert!(error.is_some());
    }

    #[test]
    fn damage_is_reported() {
        let mut bytes = segment();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let (text, error) = dump_bytes("flipped", &bytes, "--print-data-log");
        assert!(text.contains("isvalid: false"), "{text}");
        assert!(error.is_some());
        let mut bytes = segment();
        bytes[16] = 1;
        let (_, error) = dump_bytes("magic", &bytes, "");
        assert!(error.is_some(), "an old format is not ours to read");
        let bytes = [&segment()[..], &[0; 100], &[7; 100]].concat();
        let (_, error) = dump_bytes("garbage", &bytes, "");
        assert!(
            error.is_some(),
            "zeros before something else are no padding"
        );
    }
}
