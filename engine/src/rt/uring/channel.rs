//! glommio's shared channel, twice: items one way, credits the other way.
//!
//! Why credits: a glommio sender that waits for room in a full queue never learns that its receiver is gone (it is woken,
//! finds the queue still full and waits again, for ever). A receiver learns it at once. So the sender waits for a credit,
//! as a receiver, and with a credit in hand there is always room for its item.

use std::cell::Cell;

use glommio::{
    GlommioError, ResourceType,
    channels::shared_channel::{
        self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender,
    },
};

/// Room for one item.
struct Credit;

pub(in crate::rt) struct SenderSeed<T: Send + 'static> {
    items: SharedSender<T>,
    credits: SharedReceiver<Credit>,
    bound: usize,
}

pub(in crate::rt) struct ReceiverSeed<T: Send + 'static> {
    items: SharedReceiver<T>,
    credits: SharedSender<Credit>,
}

pub(in crate::rt) struct Sender<T: Send + 'static> {
    items: ConnectedSender<T>,
    credits: ConnectedReceiver<Credit>,
    /// Items that fit before the first credit must come back.
    unused: Cell<usize>,
}

pub(in crate::rt) struct Receiver<T: Send + 'static> {
    items: ConnectedReceiver<T>,
    credits: ConnectedSender<Credit>,
}

pub(in crate::rt) fn new<T: Send + 'static>(bound: usize) -> (SenderSeed<T>, ReceiverSeed<T>) {
    let (items_sender, items) = shared_channel::new_bounded(bound);
    let (credits_sender, credits) = shared_channel::new_bounded(bound);
    let sender = SenderSeed {
        items: items_sender,
        credits,
        bound,
    };
    let receiver = ReceiverSeed {
        items,
        credits: credits_sender,
    };
    (sender, receiver)
}

impl<T: Send + 'static> SenderSeed<T> {
    /// Both ends connect items first, so that neither waits for the other's second.
    pub(in crate::rt) async fn connect(self) -> Sender<T> {
        Sender {
            items: self.items.connect().await,
            credits: self.credits.connect().await,
            unused: Cell::new(self.bound),
        }
    }
}

impl<T: Send + 'static> ReceiverSeed<T> {
    pub(in crate::rt) async fn connect(self) -> Receiver<T> {
        Receiver {
            items: self.items.connect().await,
            credits: self.credits.connect().await,
        }
    }
}

impl<T: Send + 'static> Sender<T> {
    pub(in crate::rt) async fn send(&self, item: T) -> Result<(), T> {
        if self.unused.get() > 0 {
            self.unused.set(self.unused.get() - 1);
        } else if self.credits.recv().await.is_none() {
            return Err(item);
        }
        // No await from here on: a credit is never lost with a dropped future.
        match self.items.try_send(item) {
            Ok(()) => Ok(()),
            Err(GlommioError::Closed(ResourceType::Channel(item))) => Err(item),
            Err(other) => unreachable!("a credit means room: {other}"),
        }
    }
}

impl<T: Send + 'static> Receiver<T> {
    pub(in crate::rt) async fn recv(&self) -> Option<T> {
        let item = self.items.recv().await?;
        // Fails only when the sender is gone, which needs no credit.
        let _ = self.credits.try_send(Credit);
        Some(item)
    }
}
