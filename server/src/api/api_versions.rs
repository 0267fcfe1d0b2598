//! ApiVersions: which APIs we serve, in which versions.

use kafka_protocol::messages::ApiVersionsRequest;

use crate::wire::{Decode, DecodeError, Reader};

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
