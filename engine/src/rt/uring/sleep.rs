//! All sleeps of one executor, on a single timer of glommio.
//!
//! Two things of glommio's timers (glommio-ng 0.12) forbid one per request. A timer that is polled again enters the wheel again and
//! forgets its earlier entry, which stays until it is due: a produce that is polled twice leaves its time-out of half a minute behind.
//! And each turn of the reactor looks at every entry to find the next. Here an entry is replaced, and goes with its sleep.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use glommio::timer::Timer;

#[derive(Clone, Default)]
pub(super) struct Sleeps(Rc<RefCell<Line>>);

/// Who sleeps, in the order of waking.
#[derive(Default)]
struct Line {
    sleepers: BTreeMap<Key, Waker>,
    next_id: u64,
    /// Of the task that keeps the timer.
    keeper: Option<Waker>,
}

type Key = (Instant, u64);

impl Sleeps {
    pub(super) fn sleep(&self, duration: Duration) -> Sleep {
        let mut line = self.0.borrow_mut();
        line.next_id += 1;
        Sleep {
            // As good as for ever, where the clock cannot tell.
            until: Instant::now().checked_add(duration),
            id: line.next_id,
            line: self.0.clone(),
        }
    }

    /// Wakes sleepers when their time has come; runs as long as its executor.
    pub(super) async fn keep(self) {
        let mut timer = Timer::new(Duration::ZERO);
        poll_fn(|cx| {
            loop {
                let now = Instant::now();
                self.wake_due(now);
                let mut line = self.0.borrow_mut();
                line.keeper = Some(cx.waker().clone());
                let Some(&(next, _)) = line.sleepers.keys().next() else {
                    return Poll::<()>::Pending;
                };
                drop(line);
                // Takes the entry of the last time out of the wheel.
                timer.reset(next.saturating_duration_since(now));
                if Pin::new(&mut timer).poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    fn wake_due(&self, now: Instant) {
        loop {
            let mut line = self.0.borrow_mut();
            let Some(first) = line.sleepers.first_entry().filter(|e| e.key().0 <= now) else {
                return;
            };
            let waker = first.remove();
            drop(line);
            waker.wake();
        }
    }
}

pub(super) struct Sleep {
    until: Option<Instant>,
    id: u64,
    line: Rc<RefCell<Line>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else {
            return Poll::Pending;
        };
        if Instant::now() >= until {
            return Poll::Ready(());
        }
        let key = (until, self.id);
        let mut line = self.line.borrow_mut();
        let before = line.sleepers.insert(key, cx.waker().clone());
        let is_next = line.sleepers.keys().next() == Some(&key);
        let keeper = line.keeper.take_if(|_| before.is_none() && is_next);
        drop(line);
        drop(before);
        if let Some(keeper) = keeper {
            keeper.wake();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(until) = self.until {
            let waker = self.line.borrow_mut().sleepers.remove(&(until, self.id));
            drop(waker);
        }
    }
}
