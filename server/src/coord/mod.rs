//! Coordinators: consumer groups now, transactions and share groups later. One per partition of `__consumer_offsets`.

use std::rc::Rc;

/// Requests to and replies of one group, in the coordinator's own words. (Contract with `shard::msg`: names and `Send`; the owner fills them.)
pub mod group {
    pub enum Request {}
    pub enum Reply {}
}

/// All coordinators of one shard.
#[derive(Default)]
pub struct Coordinators {
    _private: (),
}

impl Coordinators {
    pub async fn handle(self: &Rc<Self>, request: group::Request) -> group::Reply {
        match request {}
    }
}
