//! What each call does on the shard it was sent to.

use std::rc::Rc;

use forebay_engine::rt::Class;

use super::{
    Shard,
    mesh::Begun,
    msg::{Answer, Call, Step},
};
use crate::{coord::Coordinators, net, partition};

impl Shard {
    /// Runs a call on its owner. Calls run in order of arrival up to their first await.
    pub(super) fn execute(self: &Rc<Self>, call: Call) -> Begun {
        let shard = self.clone();
        match call {
            Call::Append(appends) => match partition::run_appends(self, appends) {
                Ok(outcomes) => Begun::Done(Answer::Append(outcomes)),
                Err(rest) => Begun::later(async move { Answer::Append(rest.await) }),
            },
            Call::Read(reads) => match partition::run_reads(self, reads) {
                Ok(outcomes) => Begun::Done(Answer::Read(outcomes)),
                Err(rest) => Begun::later(async move { Answer::Read(rest.await) }),
            },
            Call::Watch(watch) => Begun::later(async move {
                partition::watch(shard, watch).await;
                Answer::Watch
            }),
            Call::FindOffsets(queries) => Begun::later(async move {
                Answer::FindOffsets(partition::find_offsets(shard, queries).await)
            }),
            Call::DeleteRecords(calls) => Begun::later(async move {
                Answer::DeleteRecords(partition::delete_records(shard, calls).await)
            }),
            Call::EndOfEpochs(queries) => {
                Begun::Done(Answer::EndOfEpochs(partition::end_of_epochs(self, queries)))
            }
            Call::LogSizes => {
                Begun::later(async move { Answer::LogSizes(partition::log_sizes(shard).await) })
            }
            Call::DescribeProducers(log) => Begun::Done(Answer::DescribeProducers(
                partition::describe_producers(self, log),
            )),
            Call::Control(request) => Begun::later(async move {
                match shard.controller.get() {
                    Some(controller) => Answer::Control(controller.handle(request).await),
                    None => Answer::Gone,
                }
            }),
            Call::Group(request) => {
                Begun::later(async move { Answer::Group(shard.coordinators.handle(request).await) })
            }
            Call::Publish(image) => Begun::later(async move {
                shard.follow(image).await;
                Answer::Published
            }),
            Call::Offline(of, logs) => {
                self.offline_elsewhere.borrow_mut().insert(of, logs);
                Begun::Done(Answer::Noted)
            }
            Call::Enter(ip) => Begun::Done(Answer::Entered(self.front.limits.enter(ip))),
            Call::Leave(ip) => {
                self.front.limits.leave(ip);
                Begun::Done(Answer::Left)
            }
            Call::Metrics => Begun::Done(Answer::Metrics(Box::new(self.counters.snapshot(self)))),
            Call::Step(step) => {
                Begun::later(async move { Answer::Step(shard.run_step(step).await) })
            }
        }
    }

    async fn run_step(self: &Rc<Self>, step: Step) -> Result<(), String> {
        let fault = |fault: forebay_engine::Fault| fault.to_string();
        match step {
            Step::SyncRecovered => self.engine.sync_recovered().await.map_err(fault),
            Step::StartJournal => {
                self.engine.start_journal().await.map_err(fault)?;
                Coordinators::start(self);
                let scrub_bytes_per_sec = self.config.storage.scrub_bytes_per_sec;
                self.engine
                    .start_scrub(scrub_bytes_per_sec / u64::from(self.shard_count()));
                let open_offline = self.clone().open_offline();
                self.rt.spawn(Class::Housekeeping, open_offline).detach();
                Ok(())
            }
            Step::Listen(address) => {
                net::listen(self, address).map_err(|error| format!("listen on {address}: {error}"))
            }
            Step::Drain => {
                // Joins may be parked for minutes: they are refused now.
                self.coordinators.close();
                self.front.drain(&self.rt).await;
                Ok(())
            }
            Step::CloseEngine => self.engine.close().await.map_err(fault),
            Step::Leave => {
                // The answer is in the outbox before the outbox is closed.
                let here = self.clone();
                let leave = async move { here.leave_mesh() };
                self.rt.spawn(Class::Foreground, leave).detach();
                Ok(())
            }
        }
    }
}
