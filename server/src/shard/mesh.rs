//! The queues between shards.
//!
//! Every ordered pair of shards has one bounded queue of batches of messages. A shard puts messages into the outbox of a peer; a
//! task per peer sends all that has gathered as one batch, so that a busy shard wakes its peer once per turn and not once per call.
//! The other way: a task per peer takes batches and runs their calls in order of arrival.
//!
//! Bound: an outbox holds calls that requests in flight are waiting for, answers to calls that peers are waiting for, and
//! cancellations of either. Requests in flight are bounded by the memory budget of each shard (every request takes at least
//! `net::REQUEST_UNITS_MIN`), so outboxes are too; [`OUTBOX_MESSAGES_MAX`] is far above that, and reaching it is a bug.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::Future,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use forebay_engine::{
    ShardId,
    rt::{
        Class, Task,
        channel::{self, Receiver, ReceiverSeed, Sender, SenderSeed},
        local::{Notify, OneshotReceiver, OneshotSender, oneshot},
    },
};
use futures_util::future::{join, join_all};

use super::{
    Shard,
    msg::{Answer, Call, Message},
};

/// Batches on their way between two shards; more wait in the outbox, as one batch.
const QUEUE_BATCHES_MAX: usize = 16;
/// See the top of the file.
const OUTBOX_MESSAGES_MAX: usize = 1 << 20;

/// One shard's ends of all queues, to be carried to its executor.
pub struct MeshSeeds {
    /// By peer; `None` for the shard itself.
    ends: Vec<Option<(SenderSeed<Batch>, ReceiverSeed<Batch>)>>,
}

/// Where the shards run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    Threads,
    /// All on the simulator's one thread.
    Simulated,
}

pub type Batch = Vec<Message>;

impl MeshSeeds {
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.ends.len()).expect("seeds are made for a u16 of shards")
    }
}

/// The ends for all shards, in the order of their ids.
pub fn seeds(shards: u16, between: Between) -> Vec<MeshSeeds> {
    let count = usize::from(shards);
    let mut ends: Vec<Vec<(Option<SenderSeed<Batch>>, Option<ReceiverSeed<Batch>>)>> = (0..count)
        .map(|_| (0..count).map(|_| (None, None)).collect())
        .collect();
    let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
    for (from, to) in pairs.filter(|(from, to)| from != to) {
        let (sender, receiver) = match between {
            Between::Threads => channel::between_threads(QUEUE_BATCHES_MAX),
            Between::Simulated => channel::in_simulator(QUEUE_BATCHES_MAX),
        };
        ends[from][to].0 = Some(sender);
        ends[to][from].1 = Some(receiver);
    }
    ends.into_iter()
        .map(|of_shard| MeshSeeds {
            ends: of_shard.into_iter().map(|(s, r)| s.zip(r)).collect(),
        })
        .collect()
}

/// A shard's side of the mesh.
pub(super) struct Mesh {
    outboxes: Vec<Outbox>,
    next_call: Cell<u64>,
    /// Calls of this shard that are not answered yet.
    asked: RefCell<HashMap<u64, (ShardId, OneshotSender<Answer>)>>,
    /// Outboxes whose task has not ended.
    sending: Cell<usize>,
    sent: Notify,
    /// Calls of others that run here and end with their caller.
    watching: RefCell<HashMap<(ShardId, u64), Task<()>>>,
}

#[derive(Default)]
struct Outbox {
    messages: RefCell<Vec<Message>>,
    filled: Notify,
    closed: Cell<bool>,
}

/// An answer that will come.
pub(super) enum Calling {
    Answered(Option<Answer>),
    Here(Option<Pin<Box<dyn Future<Output = Answer>>>>, OnDrop),
    There {
        shard: Rc<Shard>,
        to: ShardId,
        id: u64,
        ends_with_caller: bool,
        answer: OneshotReceiver<Answer>,
        done: bool,
    },
}

/// What happens to a call on its own shard when nobody waits for it any more.
pub(super) enum OnDrop {
    Cancel,
    RunOn(Rc<Shard>),
}

/// What became of a call by the time its effects are in order.
pub(super) enum Begun {
    Done(Answer),
    Later(Pin<Box<dyn Future<Output = Answer>>>),
}

impl Begun {
    pub(super) fn later(rest: impl Future<Output = Answer> + 'static) -> Begun {
        Begun::Later(Box::pin(rest))
    }
}

impl Mesh {
    pub(super) fn new(shards: u16) -> Mesh {
        Mesh {
            outboxes: (0..shards).map(|_| Outbox::default()).collect(),
            next_call: Cell::new(0),
            asked: RefCell::default(),
            sending: Cell::new(0),
            sent: Notify::new(),
            watching: RefCell::default(),
        }
    }

    /// Completes when the mesh is closed and everything in its outboxes is on its way.
    pub(super) async fn flushed(&self) {
        loop {
            let sent = self.sent.listen();
            if self.sending.get() == 0 {
                return;
            }
            sent.await;
        }
    }

    /// Lets the queues drain and end. Calls that are not answered by then get `Gone`.
    pub(super) fn close(&self) {
        for outbox in &self.outboxes {
            outbox.closed.set(true);
            outbox.filled.notify_all();
        }
    }

    fn push(&self, to: ShardId, message: Message) {
        let outbox = &self.outboxes[usize::from(to.0)];
        let mut messages = outbox.messages.borrow_mut();
        assert!(
            messages.len() < OUTBOX_MESSAGES_MAX,
            "the outbox to shard {to} outgrew the requests in flight"
        );
        messages.push(message);
        if messages.len() == 1 {
            outbox.filled.notify_all();
        }
    }

    fn answered(&self, id: u64, answer: Answer) {
        // Unknown: its caller dropped it.
        if let Some((_, caller)) = self.asked.borrow_mut().remove(&id) {
            let _ = caller.send(answer);
        }
    }

    fn gone(&self, peer: ShardId) {
        self.outboxes[usize::from(peer.0)].closed.set(true);
        let lost: Vec<u64> = self
            .asked
            .borrow()
            .iter()
            .filter(|(_, (to, _))| *to == peer)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.answered(id, Answer::Gone);
        }
    }
}

/// Joins this shard to its peers; completes when all of them have joined. The tasks run until the mesh is closed.
pub(super) async fn join_peers(shard: &Rc<Shard>, seeds: MeshSeeds) {
    let connects = seeds
        .ends
        .into_iter()
        .enumerate()
        .map(async |(peer, ends)| {
            let (sender, receiver) = ends?;
            let (sender, receiver) = join(sender.connect(), receiver.connect()).await;
            Some((ShardId(peer as u16), sender, receiver))
        });
    for (peer, sender, receiver) in join_all(connects).await.into_iter().flatten() {
        let rt = shard.rt.clone();
        let here = shard.clone();
        let send = async move {
            send_to(&here, peer, sender).await;
            here.mesh.sending.set(here.mesh.sending.get() - 1);
            here.mesh.sent.notify_all();
        };
        shard.mesh.sending.set(shard.mesh.sending.get() + 1);
        rt.spawn(Class::Foreground, send).detach();
        rt.spawn(
            Class::Foreground,
            receive_from(shard.clone(), peer, receiver),
        )
        .detach();
    }
}

async fn send_to(shard: &Rc<Shard>, peer: ShardId, sender: Sender<Batch>) {
    let outbox = &shard.mesh.outboxes[usize::from(peer.0)];
    loop {
        let filled = outbox.filled.listen();
        let batch = mem::take(&mut *outbox.messages.borrow_mut());
        if !batch.is_empty() {
            if sender.send(batch).await.is_err() {
                return shard.mesh.gone(peer);
            }
        } else if outbox.closed.get() {
            return;
        } else {
            filled.await;
        }
    }
}

async fn receive_from(shard: Rc<Shard>, peer: ShardId, receiver: Receiver<Batch>) {
    while let Some(batch) = receiver.recv().await {
        for message in batch {
            match message {
                Message::Call { id, call } => run_for(&shard, peer, id, call),
                Message::Answer { id, answer } => shard.mesh.answered(id, answer),
                Message::Cancel { id } => {
                    shard.mesh.watching.borrow_mut().remove(&(peer, id));
                }
            }
        }
    }
    shard.mesh.gone(peer);
    if peer == ShardId(0) {
        shard.leave_mesh();
    }
}

fn run_for(shard: &Rc<Shard>, peer: ShardId, id: u64, call: Call) {
    let ends_with_caller = call.ends_with_caller();
    match begin(shard, call) {
        Begun::Done(answer) => shard.mesh.push(peer, Message::Answer { id, answer }),
        Begun::Later(rest) => {
            let here = shard.clone();
            let task = shard.rt.spawn(Class::Foreground, async move {
                let answer = rest.await;
                let finished = here.mesh.watching.borrow_mut().remove(&(peer, id));
                if let Some(this) = finished {
                    this.detach();
                }
                here.mesh.push(peer, Message::Answer { id, answer });
            });
            if ends_with_caller {
                shard.mesh.watching.borrow_mut().insert((peer, id), task);
            } else {
                task.detach();
            }
        }
    }
}

/// Starts a call on its own shard: its part before the first await has run when this returns.
fn begin(shard: &Rc<Shard>, call: Call) -> Begun {
    match shard.execute(call) {
        Begun::Done(answer) => Begun::Done(answer),
        Begun::Later(mut rest) => {
            // Polled without a waker to notify: whoever awaits the rest polls it again.
            match rest.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => Begun::Done(answer),
                Poll::Pending => Begun::Later(rest),
            }
        }
    }
}

/// Sends a call on its way, or begins it here.
pub(super) fn call(shard: &Rc<Shard>, to: ShardId, call: Call) -> Calling {
    let ends_with_caller = call.ends_with_caller();
    if to == shard.id {
        let only_waits = call.only_waits();
        let begun = match begin(shard, call) {
            Begun::Later(rest) if !only_waits => {
                Begun::later(shard.rt.spawn(Class::Foreground, rest))
            }
            begun => begun,
        };
        return match begun {
            Begun::Done(answer) => Calling::Answered(Some(answer)),
            Begun::Later(rest) if ends_with_caller => Calling::Here(Some(rest), OnDrop::Cancel),
            Begun::Later(rest) => Calling::Here(Some(rest), OnDrop::RunOn(shard.clone())),
        };
    }
    let mesh = &shard.mesh;
    if mesh.outboxes[usize::from(to.0)].closed.get() {
        return Calling::Answered(Some(Answer::Gone));
    }
    let id = mesh.next_call.get();
    mesh.next_call.set(id + 1);
    let (sender, answer) = oneshot();
    mesh.asked.borrow_mut().insert(id, (to, sender));
    mesh.push(to, Message::Call { id, call });
    Calling::There {
        shard: shard.clone(),
        to,
        id,
        ends_with_caller,
        answer,
        done: false,
    }
}

impl Future for Calling {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        match &mut *self {
            Calling::Answered(answer) => {
                Poll::Ready(answer.take().expect("not polled after it was ready"))
            }
            Calling::Here(rest, _) => {
                let running = rest.as_mut().expect("not polled after it was ready");
                let polled = running.as_mut().poll(context);
                if polled.is_ready() {
                    *rest = None;
                }
                polled
            }
            Calling::There { answer, done, .. } => match Pin::new(answer).poll(context) {
                Poll::Ready(answer) => {
                    *done = true;
                    Poll::Ready(answer.unwrap_or(Answer::Gone))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl Drop for Calling {
    /// Calls that change something run on without their caller; others stop.
    fn drop(&mut self) {
        match self {
            Calling::Here(rest, OnDrop::RunOn(shard)) => {
                if let Some(rest) = rest.take() {
                    shard.rt.spawn(Class::Foreground, rest).detach();
                }
            }
            Calling::There {
                shard,
                to,
                id,
                ends_with_caller,
                done: false,
                ..
            } => {
                shard.mesh.asked.borrow_mut().remove(id);
                if *ends_with_caller {
                    shard.mesh.push(*to, Message::Cancel { id: *id });
                }
            }
            _ => {}
        }
    }
}
