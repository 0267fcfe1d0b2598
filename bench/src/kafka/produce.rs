//! Producing with librdkafka, acknowledged by all replicas.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use clap::Args;
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use serde::Serialize;

use super::{Meter, Outcome, Target};
use crate::{limits::within, noise::Noise};

/// Largest message that librdkafka can be told to send.
const RECORD_BYTES_MAX: usize = 1_000_000_000;

/// A petabyte.
const MEGABYTES_MAX: u64 = 1_000_000_000;

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// How much to produce
    #[arg(long, default_value_t = 1000)]
    megabytes: u64,
    /// librdkafka's batch.size
    #[arg(long, default_value_t = 1_000_000)]
    batch_bytes: u32,
    /// librdkafka's linger.ms
    #[arg(long, default_value_t = 5)]
    linger_ms: u32,
    #[arg(long, default_value = "none")]
    compression_codec: String,
    #[arg(long, default_value = "all")]
    acks: String,
    /// librdkafka's enable.idempotence
    #[arg(long)]
    idempotent: bool,
    /// More librdkafka settings, as name=value
    #[arg(long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
}

impl Plan {
    pub fn target(&self) -> &Target {
        &self.target
    }
}

#[derive(Default)]
struct Counts {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

struct Deliveries(Arc<Counts>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = match result {
            Ok(_) => &self.0.acknowledged,
            Err(_) => &self.0.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

pub fn run(plan: &Plan) -> Result<Outcome, String> {
    within("--record-bytes", plan.record_bytes, 1..=RECORD_BYTES_MAX)?;
    within("--megabytes", plan.megabytes, 1..=MEGABYTES_MAX)?;
    let counts = Arc::new(Counts::default());
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &plan.target.bootstrap_server)
        .set("batch.size", plan.batch_bytes.to_string())
        .set("batch.num.messages", "1000000")
        .set("linger.ms", plan.linger_ms.to_string())
        .set("queue.buffering.max.kbytes", "262144")
        .set("queue.buffering.max.messages", "1000000")
        .set("compression.codec", &plan.compression_codec)
        .set("acks", &plan.acks)
        .set("enable.idempotence", plan.idempotent.to_string());
    for property in &plan.properties {
        let (name, value) = property
            .split_once('=')
            .ok_or_else(|| format!("{property} is not NAME=VALUE"))?;
        config.set(name, value);
    }
    let producer: ThreadedProducer<Deliveries> = config
        .create_with_context(Deliveries(counts.clone()))
        .map_err(|error| error.to_string())?;
    let records = (plan.megabytes * 1_000_000 / plan.record_bytes as u64).max(1);
    let payload = Noise::new().bytes(plan.record_bytes + 4096);
    // Metadata is fetched before the clock starts: a broker that creates the topic on the way is not what is measured.
    producer
        .client()
        .fetch_metadata(Some(&plan.target.topic), Duration::from_secs(30))
        .map_err(|error| format!("{}: {error}", plan.target.bootstrap_server))?;
    let meter = Meter::start(&plan.target)?;
    for index in 0..records {
        // Another window of the same noise, so that no two neighbours are equal.
        let from = usize::try_from(index % 4096).expect("below 4096");
        let payload = &payload[from..from + plan.record_bytes];
        send(
            &producer,
            BaseRecord::<[u8], [u8]>::to(&plan.target.topic).payload(payload),
        )?;
    }
    producer
        .flush(Duration::from_secs(120))
        .map_err(|error| error.to_string())?;
    let failed = counts.failed.load(Ordering::Relaxed);
    if failed > 0 {
        return Err(format!(
            "{failed} of {records} records were not acknowledged"
        ));
    }
    let acknowledged = counts.acknowledged.load(Ordering::Relaxed);
    assert_eq!(
        acknowledged, records,
        "a flushed producer has heard of every record"
    );
    meter.stop("produce", records, records * plan.record_bytes as u64)
}

fn send(
    producer: &ThreadedProducer<Deliveries>,
    mut record: BaseRecord<'_, [u8], [u8]>,
) -> Result<(), String> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                thread::sleep(Duration::from_micros(200));
            }
            Err((error, _)) => return Err(error.to_string()),
        }
    }
}
