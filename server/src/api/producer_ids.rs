//! InitProducerId: an identity for idempotent producers.

use std::{cell::Cell, rc::Rc};

use forebay_engine::rt::local::Budget;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::{
    meta::controller::{PRODUCER_IDS_PER_BLOCK, Reply, Request},
    shard::Shard,
    wire::{Decode, DecodeError, ErrorCode, Reader},
};

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

/// The block of ids this shard gives away. Ids left over when the broker stops are never used.
pub struct ProducerIds {
    next: Cell<i64>,
    end: Cell<i64>,
    /// One request for a block at a time.
    asking: Budget,
}

impl Default for ProducerIds {
    fn default() -> ProducerIds {
        ProducerIds {
            next: Cell::new(0),
            end: Cell::new(0),
            asking: Budget::new(1),
        }
    }
}

impl ProducerIds {
    fn take(&self) -> Option<i64> {
        let id = self.next.get();
        if id == self.end.get() {
            return None;
        }
        self.next.set(id + 1);
        Some(id)
    }

    async fn next(&self, shard: &Rc<Shard>) -> Result<i64, ErrorCode> {
        loop {
            if let Some(id) = self.take() {
                return Ok(id);
            }
            let _turn = self.asking.take(1).await;
            if self.next.get() < self.end.get() {
                continue;
            }
            let broker = shard.config.node_id;
            match shard.control(Request::AllocateProducerIds { broker }).await {
                Some(Reply::AllocateProducerIds(first)) => {
                    assert!(
                        first >= self.end.get(),
                        "producer ids are never given twice"
                    );
                    self.next.set(first);
                    self.end.set(first + PRODUCER_IDS_PER_BLOCK);
                }
                // Clients try again.
                _ => return Err(ErrorCode::CoordinatorLoadInProgress),
            }
        }
    }
}

/// Idempotent producers get a new id, also when they bring one: an epoch is only bumped within a transaction. Transactional producers
/// are refused in a way that they do not retry.
pub async fn init_producer_id(
    shard: &Rc<Shard>,
    request: InitProducerIdRequest,
    _version: i16,
) -> InitProducerIdResponse {
    let id = match request.transactional_id {
        Some(id) if id.is_empty() => Err(ErrorCode::InvalidRequest),
        Some(_) => Err(ErrorCode::UnsupportedVersion),
        None => shard.producer_ids.next(shard).await,
    };
    let response = InitProducerIdResponse::default();
    match id {
        Ok(id) => response.with_producer_id(id.into()).with_producer_epoch(0),
        Err(error) => response
            .with_error_code(error.code())
            .with_producer_id((-1).into())
            .with_producer_epoch(-1),
    }
}
