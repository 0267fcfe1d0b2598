//! Waiting within one executor: no locks, no atomics, no runtime. Works alike under both back ends.
//!
//! Every future here may be dropped at any time: it takes its place in line, its waker and its units with it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// One value, once, from one task to another of the same executor.
pub fn oneshot<T>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    let slot = Rc::new(RefCell::new(Slot {
        value: None,
        waker: None,
        sender_alive: true,
        receiver_alive: true,
    }));
    (OneshotSender(slot.clone()), OneshotReceiver(slot))
}

struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
    sender_alive: bool,
    receiver_alive: bool,
}

pub struct OneshotSender<T>(Rc<RefCell<Slot<T>>>);

/// A future: `None` when the sender was dropped.
pub struct OneshotReceiver<T>(Rc<RefCell<Slot<T>>>);

impl<T> OneshotSender<T> {
    /// Gives the value back if nobody waits any more.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut slot = self.0.borrow_mut();
        if !slot.receiver_alive {
            return Err(value);
        }
        slot.value = Some(value);
        // Dropping `self` wakes the receiver.
        Ok(())
    }

    pub fn is_closed(&self) -> bool {
        !self.0.borrow().receiver_alive
    }
}

impl<T> Drop for OneshotSender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut slot = self.0.borrow_mut();
            slot.sender_alive = false;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for OneshotReceiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.0.borrow_mut();
        if let Some(value) = slot.value.take() {
            return Poll::Ready(Some(value));
        }
        if !slot.sender_alive {
            return Poll::Ready(None);
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for OneshotReceiver<T> {
    fn drop(&mut self) {
        // The value is dropped outside of the borrow: its own drop may reach for this slot.
        let (value, waker) = {
            let mut slot = self.0.borrow_mut();
            slot.receiver_alive = false;
            (slot.value.take(), slot.waker.take())
        };
        drop((value, waker));
    }
}

/// Wakes tasks that wait for "something changed". To miss nothing: `listen()` first, then check, then await the listener.
#[derive(Clone, Default)]
pub struct Notify(Rc<RefCell<Listeners>>);

#[derive(Default)]
struct Listeners {
    /// Counts `notify_all`; a listener is done as soon as it differs from what it saw first.
    generation: u64,
    next_id: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Wakes all that listen now.
    pub fn notify_all(&self) {
        let wakers = {
            let mut listeners = self.0.borrow_mut();
            listeners.generation += 1;
            std::mem::take(&mut listeners.wakers)
        };
        for waker in wakers.into_values() {
            waker.wake();
        }
    }

    /// A future that completes at the first `notify_all` after this call.
    pub fn listen(&self) -> Listen {
        let mut listeners = self.0.borrow_mut();
        listeners.next_id += 1;
        Listen {
            listeners: self.0.clone(),
            id: listeners.next_id,
            seen: listeners.generation,
        }
    }
}

pub struct Listen {
    listeners: Rc<RefCell<Listeners>>,
    id: u64,
    seen: u64,
}

impl Future for Listen {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut listeners = self.listeners.borrow_mut();
        if listeners.generation != self.seen {
            return Poll::Ready(());
        }
        listeners.wakers.insert(self.id, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        let waker = self.listeners.borrow_mut().wakers.remove(&self.id);
        drop(waker);
    }
}

/// A budget (bytes, calls, ...) shared by the tasks of one executor; waiters are served in order.
#[derive(Clone)]
pub struct Budget(Rc<RefCell<Account>>);

struct Account {
    total: u64,
    in_use: u64,
    line: VecDeque<Rc<Waiter>>,
}

struct Waiter {
    units: u64,
    /// Set by whoever gives units back; from then on they are counted as in use.
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Units taken from a [`Budget`]; given back on drop.
pub struct Units {
    account: Rc<RefCell<Account>>,
    units: u64,
}

impl Budget {
    pub fn new(units: u64) -> Budget {
        Budget(Rc::new(RefCell::new(Account {
            total: units,
            in_use: 0,
            line: VecDeque::new(),
        })))
    }

    /// Waits in line. A request larger than the whole budget is granted when everything else was given back.
    pub async fn take(&self, units: u64) -> Units {
        if let Some(units) = self.try_take(units) {
            return units;
        }
        let waiter = Rc::new(Waiter {
            units,
            granted: Cell::new(false),
            waker: RefCell::new(None),
        });
        self.0.borrow_mut().line.push_back(waiter.clone());
        InLine {
            account: self.0.clone(),
            waiter,
            taken: false,
        }
        .await
    }

    /// `None` when there is not enough, or others already wait.
    pub fn try_take(&self, units: u64) -> Option<Units> {
        let mut account = self.0.borrow_mut();
        if !account.line.is_empty() || !account.fits(units) {
            return None;
        }
        account.in_use += units;
        Some(Units {
            account: self.0.clone(),
            units,
        })
    }

    pub fn in_use(&self) -> u64 {
        self.0.borrow().in_use
    }

    pub fn total(&self) -> u64 {
        self.0.borrow().total
    }
}

impl Account {
    fn fits(&self, units: u64) -> bool {
        self.in_use == 0 || self.in_use.saturating_add(units) <= self.total
    }
}

/// Serves the line from its head as far as the budget reaches.
fn serve(account: &RefCell<Account>) {
    loop {
        let waiter = {
            let mut account = account.borrow_mut();
            match account.line.front() {
                Some(head) if account.fits(head.units) => {}
                _ => return,
            }
            let head = account.line.pop_front().expect("looked at it above");
            account.in_use += head.units;
            head.granted.set(true);
            head
        };
        let waker = waiter.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn give_back(account: &RefCell<Account>, units: u64) {
    {
        let mut account = account.borrow_mut();
        assert!(account.in_use >= units, "gave back more than was taken");
        account.in_use -= units;
    }
    serve(account);
}

struct InLine {
    account: Rc<RefCell<Account>>,
    waiter: Rc<Waiter>,
    taken: bool,
}

impl Future for InLine {
    type Output = Units;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Units> {
        if self.waiter.granted.get() {
            assert!(!self.taken, "polled after completion");
            self.taken = true;
            return Poll::Ready(Units {
                account: self.account.clone(),
                units: self.waiter.units,
            });
        }
        *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        if self.waiter.granted.get() {
            give_back(&self.account, self.waiter.units);
            return;
        }
        let waiter = &self.waiter;
        self.account
            .borrow_mut()
            .line
            .retain(|other| !Rc::ptr_eq(other, waiter));
        // Those behind may have waited only for this one.
        serve(&self.account);
    }
}

impl Units {
    pub fn units(&self) -> u64 {
        self.units
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        give_back(&self.account, self.units);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

    /// Polls once with a waker that does nothing.
    fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        block_on(poll_once(future))
    }

    #[test]
    fn oneshot_delivers() {
        let (sender, receiver) = oneshot();
        let (sent, got) = block_on(zip(async { sender.send(7) }, receiver));
        assert_eq!((sent, got), (Ok(()), Some(7)));
    }

    #[test]
    fn oneshot_tells_of_a_dropped_end() {
        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert_eq!(block_on(receiver), None);

        let (sender, receiver) = oneshot();
        assert!(!sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(7), Err(7));
    }

    #[test]
    fn oneshot_wakes_a_waiting_receiver() {
        let (sender, receiver) = oneshot();
        // The receiver is polled first here, so it completes only if it is woken.
        let (got, _) = block_on(zip(receiver, async {
            futures_lite::future::yield_now().await;
            sender.send("late").expect("the receiver waits")
        }));
        assert_eq!(got, Some("late"));
    }

    #[test]
    fn notify_reaches_those_who_listen_before_it() {
        let notify = Notify::new();
        let mut before = notify.listen();
        let mut waiting = notify.listen();
        assert_eq!(poll(&mut waiting), None);
        notify.notify_all();
        assert_eq!(poll(&mut before), Some(()));
        assert_eq!(poll(&mut waiting), Some(()));
        assert_eq!(poll(&mut notify.listen()), None);
    }

    #[test]
    fn a_dropped_listener_leaves_no_waker() {
        let notify = Notify::new();
        let mut listen = notify.listen();
        assert_eq!(poll(&mut listen), None);
        assert_eq!(notify.0.borrow().wakers.len(), 1);
        drop(listen);
        assert_eq!(notify.0.borrow().wakers.len(), 0);
    }

    #[test]
    fn budget_serves_in_order() {
        let budget = Budget::new(10);
        let first = budget.try_take(8).expect("empty");
        let mut large = Box::pin(budget.take(6));
        let mut small = Box::pin(budget.take(1));
        assert!(poll(&mut large).is_none());
        // It would fit, but the large one came first.
        assert!(poll(&mut small).is_none());
        assert!(budget.try_take(1).is_none());
        drop(first);
        let large = poll(&mut large).expect("head of the line");
        let small = poll(&mut small).expect("fits beside it");
        assert_eq!(budget.in_use(), 7);
        drop((large, small));
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn a_request_above_the_whole_budget_is_granted_alone() {
        let budget = Budget::new(10);
        let one = budget.try_take(1).expect("empty");
        let mut huge = Box::pin(budget.take(100));
        assert!(poll(&mut huge).is_none());
        drop(one);
        let huge = poll(&mut huge).expect("everything else was given back");
        assert_eq!((huge.units(), budget.in_use()), (100, 100));
        assert!(budget.try_take(1).is_none());
        drop(huge);
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn dropping_a_waiter_loses_nothing() {
        let budget = Budget::new(10);
        let held = budget.try_take(8).expect("empty");
        let mut head = Box::pin(budget.take(5));
        let mut next = Box::pin(budget.take(2));
        assert!(poll(&mut head).is_none());
        assert!(poll(&mut next).is_none());
        // Not yet granted: the one behind is served at once.
        drop(head);
        let next = poll(&mut next).expect("the head is gone");
        assert_eq!(budget.in_use(), 10);

        // Granted but never polled again: the units come back.
        let mut granted = Box::pin(budget.take(4));
        assert!(poll(&mut granted).is_none());
        drop(held);
        assert_eq!(budget.in_use(), 6);
        drop(granted);
        assert_eq!(budget.in_use(), 2);
        drop(next);
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn giving_back_wakes_the_line() {
        let budget = Budget::new(1);
        let held = budget.try_take(1).expect("empty");
        block_on(zip(budget.take(1), async move {
            futures_lite::future::yield_now().await;
            drop(held);
        }));
        assert_eq!(budget.in_use(), 0);
    }
}
