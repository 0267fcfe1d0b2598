//! ApiVersions: which APIs we serve, in which versions.

use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, api_versions_response::ApiVersion,
};

use crate::{
    shard::Shard,
    wire::{Decode, DecodeError, ErrorCode, Reader, api::APIS},
};

impl Decode for ApiVersionsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request.client_software_name = reader.string()?;
            request.client_software_version = reader.string()?;
        }
        Ok(request)
    }
}

/// The table, and no features: nothing we have depends on a finalized one.
pub async fn api_versions(
    _shard: &Rc<Shard>,
    _request: ApiVersionsRequest,
    _version: i16,
) -> ApiVersionsResponse {
    let apis = APIS.iter().map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.advertised_min)
            .with_max_version(api.max)
    });
    ApiVersionsResponse::default()
        .with_api_keys(apis.collect())
        .with_finalized_features_epoch(-1)
}

/// The reply to a version we do not have: version 0, naming only ApiVersions itself, as Kafka does.
pub fn unsupported(correlation_id: i32) -> Bytes {
    let own = APIS.iter().find(|api| api.key == ApiKey::ApiVersions);
    let own = own.expect("the table lists ApiVersions");
    let mut reply = BytesMut::with_capacity(20);
    reply.put_i32(16);
    reply.put_i32(correlation_id);
    reply.put_i16(ErrorCode::UnsupportedVersion.code());
    reply.put_i32(1);
    reply.put_i16(own.key as i16);
    reply.put_i16(own.advertised_min);
    reply.put_i16(own.max);
    reply.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_from_the_future_is_told_what_real_brokers_tell() {
        let expected = b"\0\0\0\x10\0\0\0\x4d\0\x23\0\0\0\x01\0\x12\0\0\0\x04";
        assert_eq!(&unsupported(77)[..], expected);
    }
}
