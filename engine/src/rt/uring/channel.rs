//! glommio's shared channel, under our names.

use glommio::{
    GlommioError, ResourceType,
    channels::shared_channel::{
        self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender,
    },
};

pub(in crate::rt) struct SenderSeed<T: Send + 'static>(SharedSender<T>);
pub(in crate::rt) struct ReceiverSeed<T: Send + 'static>(SharedReceiver<T>);
pub(in crate::rt) struct Sender<T: Send + 'static>(ConnectedSender<T>);
pub(in crate::rt) struct Receiver<T: Send + 'static>(ConnectedReceiver<T>);

pub(in crate::rt) fn new<T: Send + 'static>(bound: usize) -> (SenderSeed<T>, ReceiverSeed<T>) {
    let (sender, receiver) = shared_channel::new_bounded(bound);
    (SenderSeed(sender), ReceiverSeed(receiver))
}

impl<T: Send + 'static> SenderSeed<T> {
    pub(in crate::rt) async fn connect(self) -> Sender<T> {
        Sender(self.0.connect().await)
    }
}

impl<T: Send + 'static> ReceiverSeed<T> {
    pub(in crate::rt) async fn connect(self) -> Receiver<T> {
        Receiver(self.0.connect().await)
    }
}

impl<T: Send + 'static> Sender<T> {
    pub(in crate::rt) async fn send(&self, item: T) -> Result<(), T> {
        match self.0.send(item).await {
            Ok(()) => Ok(()),
            Err(
                GlommioError::Closed(ResourceType::Channel(item))
                | GlommioError::WouldBlock(ResourceType::Channel(item)),
            ) => Err(item),
            Err(other) => unreachable!("a channel fails only by closing: {other}"),
        }
    }
}

impl<T: Send + 'static> Receiver<T> {
    pub(in crate::rt) async fn recv(&self) -> Option<T> {
        self.0.recv().await
    }
}
