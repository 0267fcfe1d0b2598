//! Calls by name: each knows the answer that fits it, so that no caller matches on one that cannot come.
//!
//! All of them are on their way when they return, polled or not. `None` means that the broker is stopping.

use std::{collections::BTreeMap, future::Future, net::IpAddr, rc::Rc, sync::Arc};

use forebay_engine::{LogId, Offset, ShardId};

use super::{
    Shard,
    msg::{Answer, Call, Step},
};
use crate::{
    coord::group,
    meta::{Image, controller},
    metrics::Snapshot,
    partition::{
        AppendOutcome, Appends, DeleteRecords, EpochEnd, EpochEndQuery, FindOffset, FoundOffset,
        LogSize, OffsetFailure, ProducerState, ReadFailure, ReadOutcome, Reads, Watch,
    },
};

macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident($request:ty) -> $reply:ty = $call:expr => $answer:pat => $value:expr;
    )*) => {
        impl Shard {
            $(
                $(#[$doc])*
                pub fn $name(
                    self: &Rc<Self>,
                    to: ShardId,
                    request: $request,
                ) -> impl Future<Output = Option<$reply>> + use<> {
                    let call: fn($request) -> Call = $call;
                    let answer = self.call(to, call(request));
                    async move {
                        match answer.await {
                            $answer => Some($value),
                            Answer::Gone => None,
                            _ => unreachable!("a call is answered in kind"),
                        }
                    }
                }
            )*
        }
    };
}

calls! {
    /// Asks the shard that owns a group.
    group(group::Request) -> group::Reply = Call::Group => Answer::Group(reply) => reply;
    /// Gives a new image to one shard; completes when that shard's partitions follow it.
    publish(Arc<Image>) -> () = Call::Publish => Answer::Published => ();
    append(Appends) -> Vec<AppendOutcome> = Call::Append => Answer::Append(outcomes) => outcomes;
    read(Reads) -> Vec<ReadOutcome> = Call::Read => Answer::Read(outcomes) => outcomes;
    /// Completes when there is something to read; drop it to stop waiting.
    watch(Watch) -> () = Call::Watch => Answer::Watch => ();
    find_offsets(Vec<FindOffset>) -> Vec<Result<Option<FoundOffset>, ReadFailure>> =
        Call::FindOffsets => Answer::FindOffsets(found) => found;
    delete_records(Vec<DeleteRecords>) -> Vec<Result<Offset, OffsetFailure>> =
        Call::DeleteRecords => Answer::DeleteRecords(starts) => starts;
    end_of_epochs(Vec<EpochEndQuery>) -> Vec<Result<EpochEnd, ReadFailure>> =
        Call::EndOfEpochs => Answer::EndOfEpochs(ends) => ends;
    /// Sizes of all logs of a shard.
    log_sizes(()) -> Vec<LogSize> = |()| Call::LogSizes => Answer::LogSizes(sizes) => sizes;
    /// `Some(None)` when the partition is not there.
    describe_producers(LogId) -> Option<Vec<ProducerState>> =
        Call::DescribeProducers => Answer::DescribeProducers(producers) => producers;
    /// To shard 0: whether one more connection from this address may come in.
    enter(IpAddr) -> bool = Call::Enter => Answer::Entered(may) => may;
    leave(IpAddr) -> () = Call::Leave => Answer::Left => ();
    metrics(()) -> Box<Snapshot> = |()| Call::Metrics => Answer::Metrics(snapshot) => snapshot;
    step(Step) -> Result<(), String> = Call::Step => Answer::Step(result) => result;
}

impl Shard {
    /// Asks the controller on shard 0.
    pub fn control(
        self: &Rc<Self>,
        request: controller::Request,
    ) -> impl Future<Output = Option<controller::Reply>> + use<> {
        let answer = self.call(ShardId(0), Call::Control(request));
        async move {
            match answer.await {
                Answer::Control(reply) => Some(reply),
                Answer::Gone => None,
                _ => unreachable!("a call is answered in kind"),
            }
        }
    }

    /// Splits `items` by the shard that owns each, asks those shards at once, and gives the replies in the order of the items. All
    /// calls are on their way when this returns. `None` for items whose shard is stopping.
    pub fn scatter<T, R, F, A>(
        self: &Rc<Self>,
        items: Vec<(ShardId, T)>,
        ask: A,
    ) -> impl Future<Output = Vec<Option<R>>> + use<T, R, F, A>
    where
        F: Future<Output = Option<Vec<R>>>,
        A: Fn(&Rc<Shard>, ShardId, Vec<T>) -> F,
    {
        let count = items.len();
        let mut by_shard: BTreeMap<ShardId, (Vec<usize>, Vec<T>)> = BTreeMap::new();
        for (position, (owner, item)) in items.into_iter().enumerate() {
            let (positions, of_shard) = by_shard.entry(owner).or_default();
            positions.push(position);
            of_shard.push(item);
        }
        let asked: Vec<(Vec<usize>, F)> = by_shard
            .into_iter()
            .map(|(owner, (positions, items))| (positions, ask(self, owner, items)))
            .collect();
        async move {
            let mut replies: Vec<Option<R>> = (0..count).map(|_| None).collect();
            for (positions, answer) in asked {
                let Some(of_shard) = answer.await else {
                    continue;
                };
                assert_eq!(positions.len(), of_shard.len(), "one reply per item");
                for (position, reply) in positions.into_iter().zip(of_shard) {
                    replies[position] = Some(reply);
                }
            }
            replies
        }
    }
}
