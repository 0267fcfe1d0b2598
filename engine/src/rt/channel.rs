//! Bounded single-producer single-consumer queue between two shards. One message is usually a batch of calls.

pub struct Sender<T: Send + 'static>(std::marker::PhantomData<T>);
pub struct Receiver<T: Send + 'static>(std::marker::PhantomData<T>);

/// Half-made ends: `Send`, to be carried to their executors and connected there.
pub struct SenderSeed<T: Send + 'static>(std::marker::PhantomData<T>);
pub struct ReceiverSeed<T: Send + 'static>(std::marker::PhantomData<T>);

/// For shards on glommio executors of different threads.
pub fn between_threads<T: Send + 'static>(_bound: usize) -> (SenderSeed<T>, ReceiverSeed<T>) {
    unimplemented!()
}

/// For shards that share the simulator's one thread.
pub fn in_simulator<T: Send + 'static>(_bound: usize) -> (SenderSeed<T>, ReceiverSeed<T>) {
    unimplemented!()
}

impl<T: Send + 'static> SenderSeed<T> {
    pub async fn connect(self) -> Sender<T> {
        unimplemented!()
    }
}

impl<T: Send + 'static> ReceiverSeed<T> {
    pub async fn connect(self) -> Receiver<T> {
        unimplemented!()
    }
}

impl<T: Send + 'static> Sender<T> {
    /// Waits for room; `Err` gives the item back when the receiver is gone.
    pub async fn send(&self, _item: T) -> Result<(), T> {
        unimplemented!()
    }
}

impl<T: Send + 'static> Receiver<T> {
    /// `None` when the sender is gone and the queue is empty.
    pub async fn recv(&self) -> Option<T> {
        unimplemented!()
    }
}
