//! What one shard may ask of another: one enum of calls, one of answers.
//!
//! Everything here is `Send` and owns its data, because it crosses threads. A call is answered exactly once. Its effects (appends,
//! say) happen in the order in which one shard sent its calls to another; answers come back in any order.
//!
//! To add a call: a variant in [`Call`], one in [`Answer`], an arm in `Shard::execute`, and a typed method beside
//! [`super::Shard::call`] so that no caller matches on an answer that cannot come.

use std::sync::Arc;

use crate::{
    coord::group,
    meta::{Image, controller},
};

pub enum Call {
    /// To shard 0, where the metadata log lives: a change of the cluster's metadata.
    Control(controller::Request),
    /// A new image: the shard opens, closes and reconfigures its partitions, then answers `Published`.
    Publish(Arc<Image>),
    /// To the shard that owns the group's partition of `__consumer_offsets`.
    Group(group::Request),
}

pub enum Answer {
    Control(controller::Reply),
    Published,
    Group(group::Reply),
    /// The other shard is stopping.
    Gone,
}

/// What travels between two shards, many at a time.
pub(super) enum Message {
    Call {
        id: u64,
        call: Call,
    },
    Answer {
        id: u64,
        answer: Answer,
    },
    /// The caller no longer wants the answer.
    Cancel {
        id: u64,
    },
}

impl Call {
    /// Calls that only wait are dropped with their caller; all others run to their end.
    pub(super) fn ends_with_caller(&self) -> bool {
        match self {
            Call::Control(_) | Call::Publish(_) | Call::Group(_) => false,
        }
    }
}
