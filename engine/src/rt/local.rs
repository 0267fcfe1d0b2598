//! Waiting within one executor: no locks, no atomics, no runtime. Works alike under both back ends.

use std::marker::PhantomData;

/// One value, once, from one task to another of the same executor.
pub fn oneshot<T>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    unimplemented!()
}
pub struct OneshotSender<T>(PhantomData<T>);
/// A future: `None` when the sender was dropped.
pub struct OneshotReceiver<T>(PhantomData<T>);
impl<T> OneshotSender<T> {
    /// Gives the value back if nobody waits any more.
    pub fn send(self, _value: T) -> Result<(), T> {
        unimplemented!()
    }
    pub fn is_closed(&self) -> bool {
        unimplemented!()
    }
}
impl<T> Future for OneshotReceiver<T> {
    type Output = Option<T>;
    fn poll(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        unimplemented!()
    }
}

/// Wakes tasks that wait for "something changed". A `notify` before the wait is not lost: `wait` returns at once if one
/// came since the last return for the single-waiter form; with several waiters, take `listen()` first, check, then await it.
#[derive(Clone)]
pub struct Notify(PhantomData<()>);
impl Notify {
    pub fn new() -> Notify {
        unimplemented!()
    }
    /// Wakes all that listen now.
    pub fn notify_all(&self) {
        unimplemented!()
    }
    /// A future that completes at the first `notify_all` after this call.
    pub fn listen(&self) -> Listen {
        unimplemented!()
    }
}
impl Default for Notify {
    fn default() -> Notify {
        Notify::new()
    }
}
pub struct Listen(PhantomData<()>);
impl Future for Listen {
    type Output = ();
    fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        unimplemented!()
    }
}

/// A budget (bytes, calls, ...) shared by the tasks of one executor; waiters are served in order.
#[derive(Clone)]
pub struct Budget(PhantomData<()>);
/// Units taken from a [`Budget`]; given back on drop.
pub struct Units(PhantomData<()>);
impl Budget {
    pub fn new(_units: u64) -> Budget {
        unimplemented!()
    }
    /// Waits in line. A request larger than the whole budget is granted when everything else was given back.
    pub async fn take(&self, _units: u64) -> Units {
        unimplemented!()
    }
    pub fn try_take(&self, _units: u64) -> Option<Units> {
        unimplemented!()
    }
    pub fn in_use(&self) -> u64 {
        unimplemented!()
    }
    pub fn total(&self) -> u64 {
        unimplemented!()
    }
}
