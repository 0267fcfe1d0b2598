//! `forebay produce`, alias `kafka-console-producer`: lines from stdin become records of a topic.
//!
//! One thread reads lines, so that a batch can leave while nobody types; the main thread batches and sends.

mod reader;
mod sender;

use std::{
    io::{self, BufRead, BufReader, IsTerminal, Write},
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use clap::Parser;
use forebay_engine::batch::Codec;

use self::{
    reader::{LineParser, LineRecord, read_line},
    sender::{Acks, Producer, ProducerConfig},
};
use super::{args::ConnectArgs, outcome::CliError, properties::Properties, signal};

/// Lines read ahead of the sender.
const LINES_WAITING_MAX: usize = 256;

/// How often an idle producer looks up.
const IDLE_SLICE: Duration = Duration::from_millis(100);

/// Client properties that mean something to this command.
const CLIENT_PROPERTIES: [&str; 8] = [
    "acks",
    "batch.size",
    "compression.type",
    "enable.idempotence",
    "linger.ms",
    "max.block.ms",
    "retries",
    "retry.backoff.ms",
];

/// Produces records from lines of standard input
#[derive(Parser, Debug)]
#[command(after_help = "Examples:\n  \
forebay produce --topic first\n  \
forebay produce --topic first --reader-property parse.key=true --reader-property key.separator=:\n  \
forebay produce --topic first --compression-codec zstd < lines.txt\n\n\
Reader properties and their defaults:\n  \
parse.key=false key.separator=\\t parse.headers=false headers.delimiter=\\t\n  \
headers.separator=, headers.key.separator=: null.marker (none) ignore.error=false\n\n\
Client properties:\n  \
acks batch.size client.id compression.type enable.idempotence linger.ms\n  \
max.block.ms request.timeout.ms retries retry.backoff.ms")]
pub struct ProduceArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// The topic to produce to.
    #[arg(long)]
    topic: String,
    /// Wait for the answer to each record before the next is read.
    #[arg(long)]
    sync: bool,
    /// none, gzip, snappy, lz4 or zstd; gzip if no name follows.
    #[arg(long, num_args = 0..=1, default_missing_value = "gzip", value_name = "CODEC")]
    compression_codec: Option<String>,
    /// Bytes of records gathered per partition before they are sent [default: 16384].
    #[arg(long, alias = "max-partition-memory-bytes", value_name = "BYTES")]
    batch_size: Option<usize>,
    /// Longest wait for a batch to fill, in ms [default: 1000].
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    /// all (or -1), 1 or 0 [default: all].
    #[arg(long, allow_hyphen_values = true, value_name = "ACKS")]
    request_required_acks: Option<String>,
    /// Longest wait for an answer, in ms [default: 30000].
    #[arg(long, value_name = "MS")]
    request_timeout_ms: Option<u32>,
    /// Longest wait for the topic, in ms [default: 60000].
    #[arg(long, value_name = "MS")]
    max_block_ms: Option<u64>,
    /// Attempts after the first [default: 3].
    #[arg(long, value_name = "COUNT")]
    message_send_max_retries: Option<u32>,
    /// Pause between attempts, in ms [default: 100].
    #[arg(long, value_name = "MS")]
    retry_backoff_ms: Option<u64>,
    /// How lines are read; may be repeated.
    #[arg(long, alias = "property", value_name = "KEY=VALUE")]
    reader_property: Vec<String>,
    /// File of reader properties.
    #[arg(long, value_name = "FILE")]
    reader_config: Option<PathBuf>,

    /// Only Kafka's own LineMessageReader is known.
    #[arg(long, hide = true)]
    line_reader: Option<String>,
    // Knobs of the Java client's buffers; accepted, without effect.
    #[arg(long, hide = true)]
    metadata_expiry_ms: Option<u64>,
    #[arg(long, hide = true)]
    max_memory_bytes: Option<u64>,
    #[arg(long, hide = true)]
    socket_buffer_size: Option<u64>,
}

pub fn run(args: &ProduceArgs) -> Result<(), CliError> {
    if let Some(class) = &args.line_reader
        && !class.ends_with("LineMessageReader")
    {
        return Err(CliError::failed(format!("unknown line reader {class}")));
    }
    let parser = LineParser::new(&reader_properties(args)?)?;
    let mut properties = args.connect.properties(&CLIENT_PROPERTIES)?;
    if let Some(millis) = args.request_timeout_ms {
        properties.set("request.timeout.ms", &millis.to_string());
    }
    let config = producer_config(args, &properties)?;
    let mut client = args.connect.connect(&properties, "console-producer")?;
    // What was read before Ctrl-C is still delivered; `pump` looks at the signal.
    signal::install();
    client.ignore_interrupts();
    let mut producer = Producer::new(client, config);
    let lines = spawn_reader(parser)?;
    let read = pump(&lines, &mut producer, args.sync);
    producer.flush()?;
    read?;
    match producer.records_failed() {
        0 => Ok(()),
        count => Err(CliError::failed(format!("{count} records were not sent"))),
    }
}

/// Moves records from the reader to the producer until the input ends.
fn pump(
    lines: &Receiver<Result<LineRecord, CliError>>,
    producer: &mut Producer,
    sync: bool,
) -> Result<(), CliError> {
    while !signal::interrupted() {
        let wait = producer.due_in().unwrap_or(IDLE_SLICE).min(IDLE_SLICE);
        match lines.recv_timeout(wait) {
            Ok(record) => {
                producer.push(record?)?;
                if sync {
                    producer.flush()?;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if producer.due_in() == Some(Duration::ZERO) {
            producer.flush()?;
        }
    }
    Ok(())
}

fn spawn_reader(parser: LineParser) -> Result<Receiver<Result<LineRecord, CliError>>, CliError> {
    let (sender, receiver) = sync_channel(LINES_WAITING_MAX);
    thread::Builder::new()
        .name("reader".to_string())
        .spawn(move || {
            let interactive = io::stdin().is_terminal();
            let mut input = BufReader::new(io::stdin());
            read_lines(&parser, &mut input, interactive, &sender);
        })
        .map_err(|error| CliError::failed(format!("cannot start a thread: {error}")))?;
    Ok(receiver)
}

/// Ends at the end of the input, at the first line that cannot be read, or when nobody listens any more.
fn read_lines(
    parser: &LineParser,
    input: &mut dyn BufRead,
    interactive: bool,
    sender: &SyncSender<Result<LineRecord, CliError>>,
) {
    for number in 1.. {
        if interactive {
            print!(">");
            // A prompt that cannot be shown is no reason to stop reading.
            let _ = io::stdout().flush();
        }
        let record = match read_line(input) {
            Ok(Some(line)) => parser.parse(&line, number),
            Ok(None) => return,
            Err(error) => Err(CliError::failed(format!("cannot read the input: {error}"))),
        };
        let is_last = record.is_err();
        if sender.send(record).is_err() || is_last {
            return;
        }
    }
}

fn reader_properties(args: &ProduceArgs) -> Result<Properties, CliError> {
    let mut properties = match &args.reader_config {
        Some(path) => Properties::from_file(path)?,
        None => Properties::default(),
    };
    properties.add_all(&args.reader_property)?;
    Ok(properties)
}

/// Flags win over client properties, those over the defaults.
fn producer_config(
    args: &ProduceArgs,
    properties: &Properties,
) -> Result<ProducerConfig, CliError> {
    let pick = |flag: Option<u64>, name: &str, default: u64| -> Result<Duration, CliError> {
        let millis = flag.or(properties.parse(name)?).unwrap_or(default);
        Ok(Duration::from_millis(millis))
    };
    let acks = args.request_required_acks.as_deref();
    let acks = match acks.or(properties.get("acks")).unwrap_or("all") {
        "all" | "-1" => Acks::All,
        "1" => Acks::Leader,
        "0" => Acks::None,
        other => {
            return Err(CliError::failed(format!(
                "acks is all, 1 or 0, not {other}"
            )));
        }
    };
    let codec = args.compression_codec.as_deref();
    let codec = codec
        .or(properties.get("compression.type"))
        .unwrap_or("none");
    let codec = Codec::from_name(codec)
        .ok_or_else(|| CliError::failed(format!("unknown compression codec '{codec}'")))?;
    let batch_bytes = args.batch_size.or(properties.parse("batch.size")?);
    let retries = args.message_send_max_retries;
    Ok(ProducerConfig {
        topic: args.topic.clone(),
        acks,
        codec,
        batch_bytes: batch_bytes.unwrap_or(16 << 10),
        linger: pick(args.timeout, "linger.ms", 1000)?,
        retries: retries.or(properties.parse("retries")?).unwrap_or(3),
        retry_backoff: pick(args.retry_backoff_ms, "retry.backoff.ms", 100)?,
        max_block: pick(args.max_block_ms, "max.block.ms", 60_000)?,
        // Java switches it off as well where acks alone rules it out.
        idempotent: acks == Acks::All && properties.flag("enable.idempotence", true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &str) -> Result<ProducerConfig, CliError> {
        let line = format!("produce --topic t {flags}");
        let args = ProduceArgs::try_parse_from(line.split_whitespace()).unwrap();
        let properties = args.connect.properties(&CLIENT_PROPERTIES)?;
        producer_config(&args, &properties)
    }

    #[test]
    fn flags_win_over_properties_and_properties_over_defaults() {
        let plain = config("").unwrap();
        assert_eq!(plain.acks, Acks::All);
        assert!(plain.idempotent);
        assert_eq!(plain.batch_bytes, 16384);
        assert_eq!(plain.codec, Codec::None);
        assert_eq!(config("--compression-codec").unwrap().codec, Codec::Gzip);
        assert_eq!(
            config("--compression-codec --sync").unwrap().codec,
            Codec::Gzip
        );
        let both = config("--compression-codec lz4 --producer-property compression.type=zstd");
        assert_eq!(both.unwrap().codec, Codec::Lz4);
        let property = config("--command-property acks=1").unwrap();
        assert_eq!(property.acks, Acks::Leader);
        assert!(!property.idempotent);
        assert_eq!(
            config("--request-required-acks -1").unwrap().acks,
            Acks::All
        );
        assert!(config("--request-required-acks 2").is_err());
        assert!(config("--compression-codec brotli").is_err());
    }
}
