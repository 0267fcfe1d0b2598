//! Bounded single-producer single-consumer queue between two shards. One message is usually a batch of calls.
//!
//! Between threads this is glommio's shared channel: `connect` waits until the other end connects too, so connect the
//! ends concurrently. Between shards of the simulator it is a plain queue.

use super::{sim, uring};

pub struct Sender<T: Send + 'static>(SenderKind<T>);
pub struct Receiver<T: Send + 'static>(ReceiverKind<T>);

/// Half-made ends: `Send`, to be carried to their executors and connected there.
pub struct SenderSeed<T: Send + 'static>(SenderSeedKind<T>);
pub struct ReceiverSeed<T: Send + 'static>(ReceiverSeedKind<T>);

enum SenderKind<T: Send + 'static> {
    Uring(uring::channel::Sender<T>),
    Sim(sim::channel::Sender<T>),
}
enum ReceiverKind<T: Send + 'static> {
    Uring(uring::channel::Receiver<T>),
    Sim(sim::channel::Receiver<T>),
}
enum SenderSeedKind<T: Send + 'static> {
    Uring(uring::channel::SenderSeed<T>),
    Sim(sim::channel::Sender<T>),
}
enum ReceiverSeedKind<T: Send + 'static> {
    Uring(uring::channel::ReceiverSeed<T>),
    Sim(sim::channel::Receiver<T>),
}

/// For shards on glommio executors of different threads.
pub fn between_threads<T: Send + 'static>(bound: usize) -> (SenderSeed<T>, ReceiverSeed<T>) {
    assert!(bound > 0, "a queue without room");
    let (sender, receiver) = uring::channel::new(bound);
    (
        SenderSeed(SenderSeedKind::Uring(sender)),
        ReceiverSeed(ReceiverSeedKind::Uring(receiver)),
    )
}

/// For shards that share the simulator's one thread.
pub fn in_simulator<T: Send + 'static>(bound: usize) -> (SenderSeed<T>, ReceiverSeed<T>) {
    assert!(bound > 0, "a queue without room");
    let (sender, receiver) = sim::channel::new(bound);
    (
        SenderSeed(SenderSeedKind::Sim(sender)),
        ReceiverSeed(ReceiverSeedKind::Sim(receiver)),
    )
}

impl<T: Send + 'static> SenderSeed<T> {
    pub async fn connect(self) -> Sender<T> {
        Sender(match self.0 {
            SenderSeedKind::Uring(seed) => SenderKind::Uring(seed.connect().await),
            SenderSeedKind::Sim(sender) => SenderKind::Sim(sender),
        })
    }
}

impl<T: Send + 'static> ReceiverSeed<T> {
    pub async fn connect(self) -> Receiver<T> {
        Receiver(match self.0 {
            ReceiverSeedKind::Uring(seed) => ReceiverKind::Uring(seed.connect().await),
            ReceiverSeedKind::Sim(receiver) => ReceiverKind::Sim(receiver),
        })
    }
}

impl<T: Send + 'static> Sender<T> {
    /// Waits for room; `Err` gives the item back when the receiver is gone.
    pub async fn send(&self, item: T) -> Result<(), T> {
        match &self.0 {
            SenderKind::Uring(sender) => sender.send(item).await,
            SenderKind::Sim(sender) => sender.send(item).await,
        }
    }
}

impl<T: Send + 'static> Receiver<T> {
    /// `None` when the sender is gone and the queue is empty.
    pub async fn recv(&self) -> Option<T> {
        match &self.0 {
            ReceiverKind::Uring(receiver) => receiver.recv().await,
            ReceiverKind::Sim(receiver) => receiver.recv().await,
        }
    }
}
