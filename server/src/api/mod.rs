//! Handlers, one file per API family: decode, handler and reply together.
//!
//! [`begin`] is the one place that leads from an API key to its handler. A handler is a function of the shard, the request and its
//! version; it queues its effects before its first await.

pub mod api_versions;
pub mod cluster;
pub mod configs;
mod convert;
mod coordinator;
pub mod fetch;
mod fetch_sessions;
pub mod fuzz;
pub mod groups;
pub mod list_offsets;
pub mod metadata;
pub mod offsets;
pub mod partitions;
pub mod produce;
pub mod producer_ids;
pub mod records;
pub mod topics;

#[cfg(test)]
mod tests;

use std::{fmt, future::Future, net::IpAddr, pin::Pin, rc::Rc};

use bytes::Bytes;
use forebay_engine::rt::local::Units;
use kafka_protocol::{messages::ApiKey, protocol::Encodable};

pub use fetch_sessions::Sessions;

use crate::{
    shard::Shard,
    wire::{Decode, DecodeError, HeaderError, Reader, RequestHeader, reply},
};

/// What a request comes to.
pub enum Outcome {
    /// To be sent one slice after the other.
    Reply(Vec<Bytes>),
    /// The same, with the memory it takes until it is sent.
    Fetched(Vec<Bytes>, Option<Units>),
    /// Nothing is sent: Produce with `acks=0`.
    Silent,
    /// Replies before this one are sent, then the connection ends.
    Close,
}

impl Outcome {
    /// Bytes to send.
    pub fn bytes(&self) -> usize {
        match self {
            Outcome::Reply(slices) | Outcome::Fetched(slices, _) => {
                slices.iter().map(Bytes::len).sum()
            }
            Outcome::Silent | Outcome::Close => 0,
        }
    }
}

pub type Handling = Pin<Box<dyn Future<Output = Outcome>>>;

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    pub host: IpAddr,
}

/// Decodes the body and hands the request to its handler, which runs when polled. `frame_bytes` is what a slice of the body keeps alive.
pub fn begin(
    shard: &Rc<Shard>,
    header: RequestHeader,
    body: Reader,
    host: IpAddr,
    frame_bytes: usize,
) -> Result<Handling, DecodeError> {
    let version = header.version;
    let shard = shard.clone();
    macro_rules! serve {
        ($handler:path) => {
            plain(header, body, async move |request| {
                $handler(&shard, request, version).await
            })
        };
    }
    match header.api.key {
        ApiKey::Produce => {
            let request = body.request(version)?;
            Ok(Box::pin(produce::produce(
                shard,
                request,
                header,
                frame_bytes,
            )))
        }
        ApiKey::Fetch => {
            let request = body.request(version)?;
            Ok(Box::pin(fetch::fetch(shard, request, header)))
        }
        ApiKey::ApiVersions => serve!(api_versions::api_versions),
        ApiKey::ListOffsets => serve!(list_offsets::list_offsets),
        ApiKey::DeleteRecords => serve!(records::delete_records),
        ApiKey::OffsetForLeaderEpoch => serve!(records::offset_for_leader_epoch),
        ApiKey::Metadata => serve!(metadata::metadata),
        ApiKey::CreateTopics => serve!(topics::create_topics),
        ApiKey::DeleteTopics => serve!(topics::delete_topics),
        ApiKey::CreatePartitions => serve!(topics::create_partitions),
        ApiKey::DescribeTopicPartitions => serve!(topics::describe_topic_partitions),
        ApiKey::DescribeConfigs => serve!(configs::describe_configs),
        ApiKey::AlterConfigs => serve!(configs::alter_configs),
        ApiKey::IncrementalAlterConfigs => serve!(configs::incremental_alter_configs),
        ApiKey::DescribeCluster => serve!(cluster::describe_cluster),
        ApiKey::DescribeLogDirs => serve!(cluster::describe_log_dirs),
        ApiKey::ListPartitionReassignments => serve!(cluster::list_partition_reassignments),
        ApiKey::DescribeProducers => serve!(cluster::describe_producers),
        ApiKey::InitProducerId => serve!(producer_ids::init_producer_id),
        ApiKey::FindCoordinator => serve!(groups::find_coordinator),
        ApiKey::JoinGroup => {
            let id = header.client_id.as_deref().unwrap_or_default().to_owned();
            let client = Client { id, host };
            plain(header, body, async move |request| {
                groups::join_group(&shard, request, version, client).await
            })
        }
        ApiKey::SyncGroup => serve!(groups::sync_group),
        ApiKey::Heartbeat => serve!(groups::heartbeat),
        ApiKey::LeaveGroup => serve!(groups::leave_group),
        ApiKey::ListGroups => serve!(groups::list_groups),
        ApiKey::DescribeGroups => serve!(groups::describe_groups),
        ApiKey::DeleteGroups => serve!(groups::delete_groups),
        ApiKey::OffsetCommit => serve!(offsets::offset_commit),
        ApiKey::OffsetFetch => serve!(offsets::offset_fetch),
        ApiKey::OffsetDelete => serve!(offsets::offset_delete),
        _ => unreachable!("the table lists what is served here"),
    }
}

/// A client that does not know our versions yet asks ApiVersions in one we do not have: it is told in version 0.
pub fn answer_unsupported(error: &HeaderError) -> Option<Bytes> {
    match error {
        HeaderError::UnsupportedVersion {
            key: ApiKey::ApiVersions,
            correlation_id,
            ..
        } => Some(api_versions::unsupported(*correlation_id)),
        _ => None,
    }
}

fn plain<Q, R, F>(
    header: RequestHeader,
    body: Reader,
    handler: impl FnOnce(Q) -> F + 'static,
) -> Result<Handling, DecodeError>
where
    Q: Decode + 'static,
    R: Encodable,
    F: Future<Output = R> + 'static,
{
    let request: Q = body.request(header.version)?;
    Ok(Box::pin(async move {
        let response = handler(request).await;
        reply_or_close(
            &header,
            reply::encode(&header, &response).map(|bytes| vec![bytes]),
        )
    }))
}

fn reply_or_close<E: fmt::Display>(
    header: &RequestHeader,
    encoded: Result<Vec<Bytes>, E>,
) -> Outcome {
    match encoded {
        Ok(slices) => Outcome::Reply(slices),
        Err(error) => {
            tracing::error!(api = header.api.name, %error, "reply cannot be encoded");
            Outcome::Close
        }
    }
}
