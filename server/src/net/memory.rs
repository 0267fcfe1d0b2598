//! Memory of requests in flight: who cannot get it stops reading, and TCP tells the client.
//!
//! A large frame takes memory in steps as its bytes arrive, so that claiming 100 MiB reserves nothing. Taking in steps could
//! deadlock: many half-read frames hold everything and each waits for more. So there is one overdraft per shard: whoever waits in the
//! middle of a request may take it instead of memory and then runs to its end. Memory in use is at most the budget plus one request.

use std::pin::pin;

use forebay_engine::rt::local::{Budget, Units};
use futures_util::future::{Either, select};

/// What the smallest request takes, whatever its size: it bounds how many requests are in flight.
pub const REQUEST_UNITS_MIN: u64 = 1024;

pub struct Memory {
    budget: Budget,
    overdraft: Budget,
}

/// What one request holds; given back on drop.
#[derive(Default)]
pub struct Held {
    units: Vec<Units>,
    bytes: u64,
    overdraft: Option<Units>,
}

impl Memory {
    pub fn new(bytes: u64) -> Memory {
        Memory {
            budget: Budget::new(bytes.max(REQUEST_UNITS_MIN)),
            overdraft: Budget::new(1),
        }
    }

    pub fn in_use(&self) -> u64 {
        self.budget.in_use()
    }

    /// The first memory of a request: waits in line, holding nothing.
    pub async fn begin(&self, bytes: u64) -> Held {
        let bytes = bytes.max(REQUEST_UNITS_MIN);
        Held {
            units: vec![self.budget.take(bytes).await],
            bytes,
            overdraft: None,
        }
    }

    /// Makes sure that `held` covers `bytes`.
    pub async fn extend(&self, held: &mut Held, bytes: u64) {
        let more = bytes.saturating_sub(held.bytes);
        if more == 0 {
            return;
        }
        if held.overdraft.is_none() {
            match self.budget.try_take(more) {
                Some(units) => held.units.push(units),
                None => {
                    let units = pin!(self.budget.take(more));
                    let overdraft = pin!(self.overdraft.take(1));
                    match select(units, overdraft).await {
                        Either::Left((units, _)) => held.units.push(units),
                        Either::Right((overdraft, _)) => held.overdraft = Some(overdraft),
                    }
                }
            }
        }
        held.bytes = bytes;
    }
}

impl Held {
    /// How many bytes this covers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
