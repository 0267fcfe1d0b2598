//! How a record is written to stdout: Kafka's default formatter.

use std::io::{self, Write};

use bytes::Bytes;
use forebay_engine::{TimestampType, batch::Record};

use crate::cli::{outcome::CliError, properties::Properties};

/// The names of `--formatter-property`.
const PROPERTIES: [&str; 14] = [
    "print.timestamp",
    "print.key",
    "print.offset",
    "print.epoch",
    "print.partition",
    "print.headers",
    "print.value",
    "key.separator",
    "line.separator",
    "headers.separator",
    "null.literal",
    "key.deserializer",
    "value.deserializer",
    "headers.deserializer",
];

/// Where a record was, beside what is in it.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub partition: i32,
    pub leader_epoch: i32,
    pub timestamp_type: TimestampType,
}

#[derive(Clone, Debug)]
pub struct Formatter {
    timestamp: bool,
    key: bool,
    offset: bool,
    epoch: bool,
    partition: bool,
    headers: bool,
    value: bool,
    key_separator: Vec<u8>,
    line_separator: Vec<u8>,
    headers_separator: Vec<u8>,
    null_literal: Vec<u8>,
    key_deserializer: Deserializer,
    value_deserializer: Deserializer,
    headers_deserializer: Deserializer,
}

impl Formatter {
    pub fn new(properties: &Properties) -> Result<Formatter, CliError> {
        for name in properties.names().filter(|name| !PROPERTIES.contains(name)) {
            eprintln!("formatter property {name} has no effect and is ignored");
        }
        let bytes = |name: &str, default: &str| {
            let text = properties.get(name).unwrap_or(default);
            text.as_bytes().to_vec()
        };
        let deserializer = |name: &str| match properties.get(name) {
            Some(class) => Deserializer::from_class(class),
            None => Ok(Deserializer::Bytes),
        };
        Ok(Formatter {
            timestamp: properties.flag("print.timestamp", false),
            key: properties.flag("print.key", false),
            offset: properties.flag("print.offset", false),
            epoch: properties.flag("print.epoch", false),
            partition: properties.flag("print.partition", false),
            headers: properties.flag("print.headers", false),
            value: properties.flag("print.value", true),
            key_separator: bytes("key.separator", "\t"),
            line_separator: bytes("line.separator", "\n"),
            headers_separator: bytes("headers.separator", ","),
            null_literal: bytes("null.literal", "null"),
            key_deserializer: deserializer("key.deserializer")?,
            value_deserializer: deserializer("value.deserializer")?,
            headers_deserializer: deserializer("headers.deserializer")?,
        })
    }

    /// One line per record. Either the whole line is written or, where a field cannot be read, nothing.
    pub fn write(
        &self,
        out: &mut dyn Write,
        origin: Origin,
        record: &Record,
    ) -> Result<(), FormatError> {
        let mut fields: Vec<Vec<u8>> = Vec::new();
        if self.timestamp {
            let name = match origin.timestamp_type {
                TimestampType::CreateTime => "CreateTime",
                TimestampType::LogAppendTime => "LogAppendTime",
            };
            fields.push(format!("{name}:{}", record.timestamp).into_bytes());
        }
        if self.partition {
            fields.push(format!("Partition:{}", origin.partition).into_bytes());
        }
        if self.offset {
            fields.push(format!("Offset:{}", record.offset).into_bytes());
        }
        if self.epoch {
            fields.push(format!("Epoch:{}", origin.leader_epoch).into_bytes());
        }
        if self.headers {
            fields.push(self.headers_text(record)?);
        }
        if self.key {
            fields.push(self.text(self.key_deserializer, record.key.as_ref())?);
        }
        if self.value {
            fields.push(self.text(self.value_deserializer, record.value.as_ref())?);
        }
        if !fields.is_empty() {
            let mut line = fields.join(&self.key_separator[..]);
            line.extend_from_slice(&self.line_separator);
            out.write_all(&line)?;
        }
        Ok(())
    }

    fn headers_text(&self, record: &Record) -> Result<Vec<u8>, FormatError> {
        if record.headers.is_empty() {
            return Ok(b"NO_HEADERS".to_vec());
        }
        let mut headers = Vec::with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            let mut text = key.to_vec();
            text.push(b':');
            text.extend(self.text(self.headers_deserializer, value.as_ref())?);
            headers.push(text);
        }
        Ok(headers.join(&self.headers_separator[..]))
    }

    fn text(&self, kind: Deserializer, bytes: Option<&Bytes>) -> Result<Vec<u8>, FormatError> {
        match bytes {
            Some(bytes) => kind.text(bytes).map_err(FormatError::Field),
            None => Ok(self.null_literal.clone()),
        }
    }
}

#[derive(Debug)]
pub enum FormatError {
    /// The bytes are not what the deserializer expects.
    Field(String),
    Output(io::Error),
}

impl From<io::Error> for FormatError {
    fn from(error: io::Error) -> FormatError {
        FormatError::Output(error)
    }
}

/// Kafka's deserializers that have a text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deserializer {
    /// As they are; text stays text.
    Bytes,
    Short,
    Integer,
    Long,
    Float,
    Double,
    Boolean,
}

impl Deserializer {
    fn from_class(class: &str) -> Result<Deserializer, CliError> {
        let name = class.rsplit('.').next().unwrap_or(class);
        match name {
            "StringDeserializer" | "ByteArrayDeserializer" | "BytesDeserializer" => {
                Ok(Deserializer::Bytes)
            }
            "ShortDeserializer" => Ok(Deserializer::Short),
            "IntegerDeserializer" => Ok(Deserializer::Integer),
            "LongDeserializer" => Ok(Deserializer::Long),
            "FloatDeserializer" => Ok(Deserializer::Float),
            "DoubleDeserializer" => Ok(Deserializer::Double),
            "BooleanDeserializer" => Ok(Deserializer::Boolean),
            _ => Err(CliError::failed(format!("unknown deserializer {class}"))),
        }
    }

    fn text(self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        fn sized<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
            bytes
                .try_into()
                .map_err(|_| format!("{} bytes where {N} are expected", bytes.len()))
        }
        let text = match self {
            Deserializer::Bytes => return Ok(bytes.to_vec()),
            Deserializer::Short => i16::from_be_bytes(sized(bytes)?).to_string(),
            Deserializer::Integer => i32::from_be_bytes(sized(bytes)?).to_string(),
            Deserializer::Long => i64::from_be_bytes(sized(bytes)?).to_string(),
            Deserializer::Float => format!("{:?}", f32::from_be_bytes(sized(bytes)?)),
            Deserializer::Double => format!("{:?}", f64::from_be_bytes(sized(bytes)?)),
            Deserializer::Boolean => match sized::<1>(bytes)? {
                [0] => "false".to_string(),
                [1] => "true".to_string(),
                [other] => return Err(format!("byte {other} is no boolean")),
            },
        };
        Ok(text.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use forebay_engine::{Offset, Timestamp};

    use super::*;

    fn check(flags: &[&str], record: &Record, want: Option<&str>) {
        let mut properties = Properties::default();
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        properties.add_all(&flags).unwrap();
        let origin = Origin {
            partition: 3,
            leader_epoch: 7,
            timestamp_type: TimestampType::CreateTime,
        };
        let mut out = Vec::new();
        let formatter = Formatter::new(&properties).unwrap();
        let written = formatter.write(&mut out, origin, record);
        let got = written.ok().map(|()| String::from_utf8(out).unwrap());
        assert_eq!(got.as_deref(), want, "{flags:?}");
    }

    #[test]
    fn records_are_written_as_kafka_writes_them() {
        let full = Record {
            offset: Offset::new(5),
            timestamp: Timestamp(1000),
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"v")),
            headers: vec![
                (Bytes::from_static(b"a"), Some(Bytes::from_static(b"1"))),
                (Bytes::from_static(b"a"), None),
            ],
        };
        let bare = Record {
            key: None,
            value: None,
            headers: Vec::new(),
            ..full.clone()
        };
        let all = [
            "print.timestamp=true",
            "print.partition=true",
            "print.offset=true",
            "print.epoch=true",
            "print.headers=true",
            "print.key=true",
        ];
        check(&[], &full, Some("v\n"));
        check(&["print.key=true"], &full, Some("k\tv\n"));
        check(
            &["print.key=true", "key.separator=-", "line.separator=;"],
            &full,
            Some("k-v;"),
        );
        check(&["print.key=true", "print.value=false"], &full, Some("k\n"));
        check(&["print.value=false"], &full, Some(""));
        check(
            &all,
            &full,
            Some("CreateTime:1000\tPartition:3\tOffset:5\tEpoch:7\ta:1,a:null\tk\tv\n"),
        );
        check(
            &all,
            &bare,
            Some("CreateTime:1000\tPartition:3\tOffset:5\tEpoch:7\tNO_HEADERS\tnull\tnull\n"),
        );
        check(&["null.literal=<none>"], &bare, Some("<none>\n"));
    }

    #[test]
    fn numbers_are_read_by_their_deserializers() {
        let record = |value: &[u8]| Record {
            offset: Offset::ZERO,
            timestamp: Timestamp(0),
            key: None,
            value: Some(Bytes::copy_from_slice(value)),
            headers: Vec::new(),
        };
        let class = |name: &str| {
            format!("value.deserializer=org.apache.kafka.common.serialization.{name}Deserializer")
        };
        check(&[&class("Long")], &record(&7i64.to_be_bytes()), Some("7\n"));
        check(
            &[&class("Integer")],
            &record(&(-2i32).to_be_bytes()),
            Some("-2\n"),
        );
        check(
            &[&class("Double")],
            &record(&1.5f64.to_be_bytes()),
            Some("1.5\n"),
        );
        check(&[&class("String")], &record(b"text"), Some("text\n"));
        check(&[&class("Long")], &record(b"text"), None);
    }
}
