//! The head of each request and reply: which API, which version, which request is answered.
//!
//! [`read`] decides from untrusted bytes whether we serve the request at all. What to do with one that we do not serve
//! (close the connection; for ApiVersions, answer as [`RequestHeader::of_api_versions_0`]) is up to the connection.

use std::fmt;

use bytes::BytesMut;
use kafka_protocol::{messages::ApiKey, protocol::StrBytes};

use super::{
    api::{self, Api},
    reader::{DecodeError, Reader},
};

#[derive(Clone, Debug)]
pub struct RequestHeader {
    pub api: &'static Api,
    /// A version we accept of that API.
    pub version: i16,
    /// Given back with the reply, which the client finds its request by.
    pub correlation_id: i32,
    pub client_id: Option<StrBytes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    Malformed(DecodeError),
    /// Not in the table of APIs.
    UnknownApi {
        key: i16,
        version: i16,
    },
    UnsupportedVersion {
        key: ApiKey,
        version: i16,
        correlation_id: i32,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Malformed(error) => write!(f, "request header: {error}"),
            HeaderError::UnknownApi { key, version } => {
                write!(f, "API key {key} (version {version}) is not served")
            }
            HeaderError::UnsupportedVersion { key, version, .. } => {
                write!(f, "version {version} of {key:?} is not served")
            }
        }
    }
}

impl std::error::Error for HeaderError {}

impl From<DecodeError> for HeaderError {
    fn from(error: DecodeError) -> HeaderError {
        HeaderError::Malformed(error)
    }
}

impl RequestHeader {
    /// What to answer an ApiVersions request of a version we do not know with: as if it were of version 0, which every
    /// client understands, and with UNSUPPORTED_VERSION.
    pub fn of_api_versions_0(correlation_id: i32) -> RequestHeader {
        RequestHeader {
            api: api::find(ApiKey::ApiVersions as i16).expect("ApiVersions is in the table"),
            version: 0,
            correlation_id,
            client_id: None,
        }
    }
}

/// Reads the header of a frame (without its size prefix). The reader that is returned stands on the body.
pub fn read(frame: BytesMut) -> Result<(RequestHeader, Reader), HeaderError> {
    let mut reader = Reader::new(frame, false);
    let key = reader.i16()?;
    let version = reader.i16()?;
    let correlation_id = reader.i32()?;
    let api = api::find(key).ok_or(HeaderError::UnknownApi { key, version })?;
    if !api.accepts(version) {
        return Err(HeaderError::UnsupportedVersion {
            key: api.key,
            version,
            correlation_id,
        });
    }
    let client_id = reader.nullable_string_not_compact()?;
    reader.set_flexible(api.is_flexible(version));
    reader.skip_tagged_fields()?;
    let header = RequestHeader {
        api,
        version,
        correlation_id,
        client_id,
    };
    Ok((header, reader))
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;
    use crate::wire::reader::Malformed;

    fn frame(key: i16, version: i16, tail: &[u8]) -> BytesMut {
        let mut frame = BytesMut::new();
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_i32(77);
        frame.put_slice(tail);
        frame
    }

    #[test]
    fn flexible_headers_keep_the_old_string_and_add_tagged_fields() {
        let (header, reader) = read(frame(18, 2, b"\x00\x02me")).unwrap();
        assert_eq!(header.api.key, ApiKey::ApiVersions);
        assert_eq!((header.version, header.correlation_id), (2, 77));
        assert_eq!(header.client_id.as_deref(), Some("me"));
        reader.finish().unwrap();

        let (header, reader) = read(frame(18, 3, b"\xff\xff\x01\x05\x02ab")).unwrap();
        assert_eq!(header.client_id, None);
        reader.finish().unwrap();

        let error = read(frame(18, 3, b"\xff\xff")).err();
        let truncated = DecodeError {
            what: Malformed::Truncated,
            at: 10,
        };
        assert_eq!(error, Some(HeaderError::Malformed(truncated)));
    }

    #[test]
    fn what_we_do_not_serve_is_told_apart() {
        let unknown = |key, version| HeaderError::UnknownApi { key, version };
        let unsupported = |key, version| HeaderError::UnsupportedVersion {
            key,
            version,
            correlation_id: 77,
        };
        let check = |key, version, expected| {
            assert_eq!(
                read(frame(key, version, b"\xff\xff\x00")).err(),
                Some(expected)
            );
        };
        check(-1, 0, unknown(-1, 0));
        check(7, 0, unknown(7, 0));
        check(24, 0, unknown(24, 0));
        check(0, 2, unsupported(ApiKey::Produce, 2));
        check(0, 12, unsupported(ApiKey::Produce, 12));
        check(1, 13, unsupported(ApiKey::Fetch, 13));
        check(18, 5, unsupported(ApiKey::ApiVersions, 5));
        check(18, -1, unsupported(ApiKey::ApiVersions, -1));
    }
}
