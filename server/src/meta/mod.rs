//! Cluster metadata: a request becomes records, records become a new immutable image, the image is published to all shards.
//!
//! Read in this order: [`image`] (what is known), [`records`] (how it changes), [`controller`] (who decides), `raft` and `log` (how
//! a decision becomes durable), and [`Controller`] here, which drives them on shard 0.

mod codec;
pub mod controller;
pub mod image;
mod log;
mod publish;
mod raft;
pub mod records;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use forebay_engine::{
    Engine, Fault,
    rt::{
        Class, Rt,
        local::{Notify, OneshotSender, oneshot},
    },
};

use crate::{config::Config, partition::Partition, shard::Shard};
use controller::{Refusal, Refused, Reply, Request, decide, first_records};
use log::{MetadataLog, apply_entry};
use raft::Raft;

pub use image::{Broker, Image, PartitionState, Topic};
pub use log::{BALLOT_FILE, METADATA_LOG, log_config, log_name};
pub use publish::refusal_of;

/// Requests that may wait for the controller; more are refused.
const REQUESTS_WAITING_MAX: usize = 4096;

/// How often Raft is told that time passes, and how soon an offline metadata log is seen to be online again.
const TICK: Duration = Duration::from_millis(100);

/// Between two attempts to start over with a metadata log that is online.
const START_OVER_PAUSE: Duration = Duration::from_secs(1);

/// The controller's runtime on shard 0: takes requests one by one, and answers each when its records are durable and all shards
/// follow the image that holds them.
pub struct Controller {
    rt: Rt,
    config: Rc<Config>,
    image: RefCell<Arc<Image>>,
    waiting: RefCell<VecDeque<(Request, OneshotSender<Reply>)>>,
    arrived: Notify,
    stage: Cell<Stage>,
    /// Until `start` takes it.
    voter: RefCell<Option<Voter>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Requests wait.
    Loading,
    Serving,
    /// The metadata log went offline: everything is refused until it is online again and was read anew.
    Failed,
    Stopping,
}

/// Raft and the log it writes to.
struct Voter {
    raft: Raft,
    log: MetadataLog,
}

impl Voter {
    /// A voter that remembers what its log and its ballot say, and the image that the log makes.
    async fn replay(log: &MetadataLog, node_id: i32) -> Result<(Raft, Image), Fault> {
        let replayed = log.replay().await?;
        // Raft has no voter 0.
        let id = node_id as u64 + 1;
        let committed = replayed.terms.last_index();
        let raft = Raft::new(id, &[id], replayed.ballot, replayed.terms, committed);
        Ok((raft, replayed.image))
    }
}

impl Controller {
    /// Replays the metadata log. Writes nothing, so it may run before the journal does. `partition` holds the log that was opened
    /// under [`METADATA_LOG`], [`log_name`] and [`log_config`].
    pub async fn load(
        rt: Rt,
        engine: Engine,
        config: Rc<Config>,
        partition: Rc<Partition>,
    ) -> Result<Rc<Controller>, Fault> {
        let log = MetadataLog::new(rt.clone(), engine, partition, &config.data_dir);
        let (raft, image) = Voter::replay(&log, config.node_id).await?;
        Ok(Rc::new(Controller {
            rt,
            config,
            image: RefCell::new(Arc::new(image)),
            waiting: RefCell::default(),
            arrived: Notify::new(),
            stage: Cell::new(Stage::Loading),
            voter: RefCell::new(Some(Voter { raft, log })),
        }))
    }

    /// The newest image, published or about to be.
    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    /// Takes the lead, describes the cluster if this is its first start, and serves from then on. The journal must run.
    pub async fn start(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        cluster_id: &str,
    ) -> Result<(), StartError> {
        let mut voter = self.voter.take().expect("started once");
        self.lead(&mut voter).await?;
        let known = self.image();
        if known.lanes == 0 {
            let first = first_records(cluster_id, &self.config);
            voter.raft.propose(records::encode(&first)).expect("leads");
            self.commit(&mut voter).await?;
        } else if known.cluster_id != cluster_id {
            return Err(StartError::OtherCluster(known.cluster_id.clone()));
        } else if known.lanes != self.config.lanes {
            return Err(StartError::OtherLanes(known.lanes));
        }
        publish::publish(shard, self.image()).await;
        self.change_stage(Stage::Loading, Stage::Serving);
        let driver = self.clone().run(shard.clone(), voter);
        self.rt.spawn(Class::Foreground, driver).detach();
        Ok(())
    }

    /// Queues the request at once; completes with its reply.
    pub fn handle(self: &Rc<Self>, request: Request) -> impl Future<Output = Reply> + use<> {
        let (done, reply) = oneshot();
        let room = self.waiting.borrow().len() < REQUESTS_WAITING_MAX;
        let open = matches!(self.stage.get(), Stage::Loading | Stage::Serving);
        let closed = self.closed();
        if room && open {
            self.waiting.borrow_mut().push_back((request, done));
            self.arrived.notify_all();
        }
        async move { reply.await.unwrap_or(closed) }
    }

    /// Refuses what waits and what comes; the request at work is finished first.
    pub fn stop(&self) {
        self.stage.set(Stage::Stopping);
        self.refuse_waiting();
        self.arrived.notify_all();
    }

    async fn run(self: Rc<Self>, shard: Rc<Shard>, mut voter: Voter) {
        loop {
            match self.stage.get() {
                Stage::Serving => self.serve_next(&shard, &mut voter).await,
                Stage::Failed => self.start_over(&shard, &mut voter).await,
                Stage::Stopping => break,
                Stage::Loading => unreachable!("runs when it has loaded"),
            }
        }
        self.refuse_waiting();
    }

    async fn serve_next(&self, shard: &Rc<Shard>, voter: &mut Voter) {
        let arrived = self.arrived.listen();
        let next = self.waiting.borrow_mut().pop_front();
        match next {
            Some((request, done)) => {
                let reply = self.serve(shard, voter, &request).await;
                // Whoever asked may be gone; what was decided stays.
                let _ = done.send(reply);
            }
            None => {
                if self.rt.timeout(TICK, arrived).await.is_none() {
                    voter.raft.tick();
                    let ticked = self.commit(voter).await;
                    self.note_failure(ticked);
                }
            }
        }
    }

    /// Waits until the metadata log is online again. Raft and the image may be behind it then, since a mended log keeps what was
    /// refused with the fault: so both are made anew from what it holds.
    async fn start_over(&self, shard: &Rc<Shard>, voter: &mut Voter) {
        self.refuse_waiting();
        let mut told = false;
        while self.stage.get() == Stage::Failed {
            // Requests are refused without a notice: this is the broker's stop.
            let stopped = self.arrived.listen();
            if !voter.log.is_online() {
                self.rt.timeout(TICK, stopped).await;
                continue;
            }
            let Err(fault) = self.read_anew(voter).await else {
                publish::publish(shard, self.image()).await;
                self.change_stage(Stage::Failed, Stage::Serving);
                tracing::info!(
                    "metadata log is online again: topics and configuration can be changed"
                );
                return;
            };
            if !told {
                tracing::error!(%fault, "metadata log is online, but the controller cannot start over with it; it will be tried again");
                told = true;
            }
            self.rt.timeout(START_OVER_PAUSE, stopped).await;
        }
    }

    /// The entry with which the leader begins makes all before it durable; only then may anybody see it.
    async fn read_anew(&self, voter: &mut Voter) -> Result<(), Fault> {
        let (raft, image) = Voter::replay(&voter.log, self.config.node_id).await?;
        assert!(
            image.end >= self.image().end,
            "a mended log has lost something"
        );
        voter.raft = raft;
        *self.image.borrow_mut() = Arc::new(image);
        self.lead(voter).await
    }

    async fn lead(&self, voter: &mut Voter) -> Result<(), Fault> {
        voter.raft.campaign();
        self.commit(voter).await?;
        assert!(voter.raft.is_leader(), "a single voter wins");
        Ok(())
    }

    async fn serve(&self, shard: &Rc<Shard>, voter: &mut Voter, request: &Request) -> Reply {
        let before = self.image();
        let decision = decide(&before, &self.config, &mut || self.rt.random_u64(), request);
        if decision.records.is_empty() {
            return decision.reply;
        }
        let group = records::encode(&decision.records);
        let Some(offset) = voter.raft.propose(group) else {
            return Reply::Refused(Refusal::new(
                Refused::Unavailable,
                "This is not the controller.",
            ));
        };
        assert_eq!(before.end, Some(offset), "decided on all that is committed");
        let committed = self.commit(voter).await;
        if self.note_failure(committed) {
            return self.closed();
        }
        publish::publish(shard, self.image()).await;
        decision.reply
    }

    /// Does what Raft asks for until it asks for nothing, and applies what that commits.
    async fn commit(&self, voter: &mut Voter) -> Result<(), Fault> {
        while let Some(work) = voter.raft.next_work() {
            if let Some(ballot) = work.ballot {
                voter.log.save_ballot(ballot).await?;
            }
            voter.log.append(&work.entries).await?;
            let committed = voter.raft.done(work);
            if committed.is_empty() {
                continue;
            }
            let mut image = Image::clone(&self.image());
            for entry in &committed {
                apply_entry(&mut image, entry).expect("what was decided on this image fits it");
            }
            *self.image.borrow_mut() = Arc::new(image);
        }
        Ok(())
    }

    /// Takes a fault of the metadata log for what it is: nothing can be changed for now. `true` if there was one.
    fn note_failure(&self, outcome: Result<(), Fault>) -> bool {
        let Err(fault) = outcome else {
            return false;
        };
        tracing::error!(%fault, "metadata log is offline: topics and configuration cannot be changed until it is online again");
        self.change_stage(Stage::Serving, Stage::Failed);
        true
    }

    /// A broker that is stopping does nothing else any more.
    fn change_stage(&self, from: Stage, to: Stage) {
        if self.stage.get() != Stage::Stopping {
            assert_eq!(self.stage.replace(to), from);
        }
    }

    fn refuse_waiting(&self) {
        for (_, done) in self.waiting.take() {
            let _ = done.send(self.closed());
        }
    }

    /// The reply to everything that is not served.
    fn closed(&self) -> Reply {
        Reply::Refused(match self.stage.get() {
            Stage::Failed => Refusal::new(Refused::Storage, "The metadata log is offline."),
            Stage::Stopping => Refusal::new(Refused::Unavailable, "The broker is stopping."),
            _ => Refusal::new(
                Refused::Unavailable,
                "Too many requests wait for the controller.",
            ),
        })
    }
}

/// Why the controller did not start.
#[derive(Debug)]
pub enum StartError {
    Fault(Fault),
    /// The data directory says another cluster than its metadata log.
    OtherCluster(String),
    /// `forebay.lanes` differs from what the cluster was made with.
    OtherLanes(u16),
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> StartError {
        StartError::Fault(fault)
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Fault(fault) => fault.fmt(f),
            StartError::OtherCluster(id) => {
                write!(
                    f,
                    "the metadata log belongs to cluster {id}; check meta.properties"
                )
            }
            StartError::OtherLanes(lanes) => write!(
                f,
                "this cluster was made with forebay.lanes={lanes}, which cannot change"
            ),
        }
    }
}

impl std::error::Error for StartError {}
