//! A bounded queue between shards that share the simulator's thread. The ends are `Send` because the real ones are, and
//! carried around by the same code; hence the lock, which nobody ever waits for.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, Waker},
};

struct Queue<T> {
    items: VecDeque<T>,
    bound: usize,
    sender_alive: bool,
    receiver_alive: bool,
    /// Everyone who waits, at either end. All are woken at every change, and look again.
    wakers: Vec<Waker>,
}

pub(in crate::rt) struct Sender<T>(Arc<Mutex<Queue<T>>>);
pub(in crate::rt) struct Receiver<T>(Arc<Mutex<Queue<T>>>);

pub(in crate::rt) fn new<T: Send + 'static>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(Mutex::new(Queue {
        items: VecDeque::new(),
        bound,
        sender_alive: true,
        receiver_alive: true,
        wakers: Vec::new(),
    }));
    (Sender(queue.clone()), Receiver(queue))
}

fn lock<T>(queue: &Mutex<Queue<T>>) -> MutexGuard<'_, Queue<T>> {
    queue.lock().expect("no code panics while it holds this")
}

impl<T> Queue<T> {
    fn wait(&mut self, waker: &Waker) {
        if !self.wakers.iter().any(|other| other.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
    }

    fn wake_all(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

impl<T> Sender<T> {
    pub(in crate::rt) async fn send(&self, item: T) -> Result<(), T> {
        let mut item = Some(item);
        poll_fn(|cx| {
            let mut queue = lock(&self.0);
            if queue.receiver_alive && queue.items.len() == queue.bound {
                queue.wait(cx.waker());
                return Poll::Pending;
            }
            let item = item.take().expect("polled after completion");
            if !queue.receiver_alive {
                return Poll::Ready(Err(item));
            }
            queue.items.push_back(item);
            queue.wake_all();
            Poll::Ready(Ok(()))
        })
        .await
    }
}

impl<T> Receiver<T> {
    pub(in crate::rt) async fn recv(&self) -> Option<T> {
        poll_fn(|cx| {
            let mut queue = lock(&self.0);
            if let Some(item) = queue.items.pop_front() {
                queue.wake_all();
                return Poll::Ready(Some(item));
            }
            if !queue.sender_alive {
                return Poll::Ready(None);
            }
            queue.wait(cx.waker());
            Poll::Pending
        })
        .await
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0);
        queue.sender_alive = false;
        queue.wake_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let items = {
            let mut queue = lock(&self.0);
            queue.receiver_alive = false;
            queue.wake_all();
            std::mem::take(&mut queue.items)
        };
        // Dropped without the lock: an item may hold the other end.
        drop(items);
    }
}
