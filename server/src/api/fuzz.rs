//! The entry for fuzzers: any bytes at all, taken for a request.
//!
//! Promises to panic if decoding is wrong in a way that can be told without knowing what the bytes should mean: arrays
//! larger than the frame warrants, or a request that changes when it is encoded and decoded again.

use std::fmt::Debug;

use bytes::BytesMut;
use kafka_protocol::{
    messages::{self, ApiKey},
    protocol::Encodable,
};

use super::{fetch, produce};
use crate::wire::{Decode, DecodeError, HeaderError, Reader, RequestHeader, header};

/// No structure is larger in memory than this many times its smallest encoding.
const DECODED_BYTES_PER_FRAME_BYTE_MAX: usize = 64;

/// Decodes `data`, a frame without its size prefix, as the broker would.
pub fn fuzz_request(data: &[u8]) {
    // The outcome does not matter, as long as there is one.
    let _ = decode_any(data);
}

/// Runs `$body` with `$Request` standing for the crate's request of the API. Produce and Fetch have types of our own.
macro_rules! with_request {
    ($key:expr, $Request:ident => $body:expr, $other:pat => $otherwise:expr) => {
        with_request!(@ $key, $Request, $body, $other, $otherwise,
            ListOffsets ListOffsetsRequest, Metadata MetadataRequest,
            OffsetCommit OffsetCommitRequest, OffsetFetch OffsetFetchRequest,
            FindCoordinator FindCoordinatorRequest, JoinGroup JoinGroupRequest,
            Heartbeat HeartbeatRequest, LeaveGroup LeaveGroupRequest, SyncGroup SyncGroupRequest,
            DescribeGroups DescribeGroupsRequest, ListGroups ListGroupsRequest,
            ApiVersions ApiVersionsRequest, CreateTopics CreateTopicsRequest,
            DeleteTopics DeleteTopicsRequest, DeleteRecords DeleteRecordsRequest,
            InitProducerId InitProducerIdRequest,
            OffsetForLeaderEpoch OffsetForLeaderEpochRequest,
            DescribeConfigs DescribeConfigsRequest, AlterConfigs AlterConfigsRequest,
            DescribeLogDirs DescribeLogDirsRequest, CreatePartitions CreatePartitionsRequest,
            DeleteGroups DeleteGroupsRequest,
            IncrementalAlterConfigs IncrementalAlterConfigsRequest,
            ListPartitionReassignments ListPartitionReassignmentsRequest,
            OffsetDelete OffsetDeleteRequest, DescribeCluster DescribeClusterRequest,
            DescribeProducers DescribeProducersRequest,
            DescribeTopicPartitions DescribeTopicPartitionsRequest)
    };
    (@ $key:expr, $Request:ident, $body:expr, $other:pat, $otherwise:expr,
        $($Key:ident $Type:ident),*) => {
        match $key {
            $(ApiKey::$Key => {
                type $Request = messages::$Type;
                $body
            })*
            $other => $otherwise,
        }
    };
}
#[cfg(test)]
pub(super) use with_request;

/// Decodes a frame of whatever API it says it is of.
pub(super) fn decode_any(data: &[u8]) -> Result<(), HeaderError> {
    let (header, reader) = header::read(BytesMut::from(data))?;
    let outcome = with_request!(
        header.api.key,
        Request => decode_twice::<Request>(&header, reader, data.len()),
        key => match key {
            ApiKey::Produce => decode::<produce::ProduceRequest>(&header, reader, data.len()).map(drop),
            ApiKey::Fetch => decode::<fetch::FetchRequest>(&header, reader, data.len()).map(drop),
            _ => unreachable!("{key:?} is in the table but has no decoder"),
        }
    );
    outcome.map_err(HeaderError::Malformed)
}

fn decode<T: Decode>(
    header: &RequestHeader,
    mut reader: Reader,
    frame_bytes: usize,
) -> Result<T, DecodeError> {
    let request = reader.structure(header.version);
    let decoded_bytes = reader.decoded_bytes();
    assert!(
        decoded_bytes <= frame_bytes * DECODED_BYTES_PER_FRAME_BYTE_MAX,
        "{} version {}: {decoded_bytes} bytes for a frame of {frame_bytes}",
        header.api.name,
        header.version,
    );
    let request = request?;
    reader.finish()?;
    Ok(request)
}

/// What was decoded must survive being encoded by the crate: nothing was lost or made up.
fn decode_twice<T: Decode + Encodable + PartialEq + Debug>(
    header: &RequestHeader,
    reader: Reader,
    frame_bytes: usize,
) -> Result<(), DecodeError> {
    let request: T = decode(header, reader, frame_bytes)?;
    let mut again = BytesMut::new();
    request
        .encode(&mut again, header.version)
        .expect("what was decoded can be encoded");
    let flexible = header.api.is_flexible(header.version);
    let again = Reader::new(again, flexible).body::<T>(header.version);
    assert_eq!(again.as_ref(), Ok(&request), "version {}", header.version);
    Ok(())
}
