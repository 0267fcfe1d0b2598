//! All coordinators of one shard, one per partition of `__consumer_offsets` that it owns.

use std::rc::Rc;

use super::group::{Reply, Request};

#[derive(Default)]
pub struct Coordinators {
    _private: (),
}

impl Coordinators {
    pub async fn handle(self: &Rc<Self>, _request: Request) -> Reply {
        unimplemented!()
    }
}
