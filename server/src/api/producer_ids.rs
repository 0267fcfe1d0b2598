//! InitProducerId: an identity for idempotent producers.

use kafka_protocol::messages::InitProducerIdRequest;

use crate::wire::{Decode, DecodeError, Reader};

impl Decode for InitProducerIdRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = InitProducerIdRequest::default();
        request.transactional_id = reader.nullable_string()?;
        request.transaction_timeout_ms = reader.i32()?;
        if version >= 3 {
            request.producer_id = reader.i64()?.into();
            request.producer_epoch = reader.i16()?;
        }
        Ok(request)
    }
}
