//! Consuming with librdkafka from the beginning to the end of all partitions, CRC checks on.

use std::time::Duration;

use clap::Args;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use serde::Serialize;

use super::{Meter, Outcome, Target};

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    #[command(flatten)]
    target: Target,
    /// librdkafka's fetch.message.max.bytes
    #[arg(long, default_value_t = 1 << 20)]
    partition_fetch_bytes: u32,
}

impl Plan {
    pub fn target(&self) -> &Target {
        &self.target
    }
}

pub fn run(plan: &Plan) -> Result<Outcome, String> {
    let said = |error: KafkaError| error.to_string();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &plan.target.bootstrap_server)
        .set("group.id", "forebay-bench")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("queued.max.messages.kbytes", "131072")
        .set(
            "fetch.message.max.bytes",
            plan.partition_fetch_bytes.to_string(),
        )
        .create()
        .map_err(said)?;
    let metadata = consumer
        .fetch_metadata(Some(&plan.target.topic), Duration::from_secs(30))
        .map_err(|error| format!("{}: {error}", plan.target.bootstrap_server))?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    if partitions == 0 {
        return Err(format!("topic {} does not exist", plan.target.topic));
    }
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        let partition = i32::try_from(partition).map_err(|error| error.to_string())?;
        assignment
            .add_partition_offset(&plan.target.topic, partition, Offset::Beginning)
            .map_err(said)?;
    }
    let meter = Meter::start(&plan.target)?;
    consumer.assign(&assignment).map_err(said)?;
    let (mut records, mut bytes, mut ended) = (0_u64, 0_u64, 0);
    while ended < partitions {
        match consumer.poll(Duration::from_secs(30)) {
            None => return Err("nothing came for 30 seconds".to_string()),
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => return Err(said(error)),
            Some(Ok(message)) => {
                records += 1;
                bytes += message.payload_len() as u64;
            }
        }
    }
    meter.stop("consume", records, bytes)
}
