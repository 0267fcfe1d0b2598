//! The simulator: a deterministic executor with virtual time and an in-memory disk that forgets what was not synced.
//!
//! One thread, one seed. Which of the ready tasks runs next, how long each I/O takes, what a crash leaves of unsynced
//! writes: all of it is drawn from the seed, so a run can be replayed from that one number. A panic prints it. Time
//! stands still while tasks run, but for a little per poll; when nothing is ready it jumps to the next timer. If there
//! is none either, the run is stuck, which is a bug and a panic.
//!
//! What it does not promise: real durations, classes of work, blocking.

pub(super) mod channel;
mod disk;
mod faults;
mod file;
pub(super) mod net;
mod trace;

#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::Path,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use super::{Instant, Rt, local, random::Random};
use crate::types::Timestamp;

pub use disk::{Damage, Disk};
pub use faults::Faults;
pub(super) use file::{File, FileSystem};
pub use trace::{Event, Trace};

/// What one poll of a task costs in virtual time, so that a loop that only yields still sees time pass.
const POLL_NANOS: u64 = 200;
/// Milliseconds since 1970 at which every run starts.
const WALL_CLOCK_START: i64 = 1_700_000_000_000;

/// Runs `main` to its end on `disk` and returns what it returned, with the disk as a process that is killed then leaves
/// it: unsynced writes are still there, and lost only by [`Disk::crash`].
pub fn run<T, Running>(seed: u64, disk: Disk, main: impl FnOnce(Rt) -> Running) -> (T, Disk)
where
    T: 'static,
    Running: Future<Output = T> + 'static,
{
    let sim = Sim(Rc::new(Inner {
        seed,
        random: Random::new(seed),
        now_nanos: Cell::new(0),
        ready: Arc::default(),
        tasks: RefCell::default(),
        tasks_spawned: Cell::new(0),
        timers: RefCell::default(),
        timers_set: Cell::new(0),
        faults: Cell::default(),
        stalled_until: Cell::new(0),
        damage: RefCell::default(),
        files_open: Cell::new(0),
        tells: Cell::new(false),
        trace: RefCell::default(),
        disk: RefCell::new(disk.told_of_errors()),
        links: RefCell::default(),
    }));
    let _replay_hint = ReplayHint(sim.clone());
    let mut main = sim.spawn(main(Rt::Sim(sim.clone())));
    let result = loop {
        // Polled again after every step, so nobody needs to wake this.
        match Pin::new(&mut main).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => break result,
            Poll::Pending => sim.step(),
        }
    };
    sim.drop_all_tasks();
    let disk = sim.0.disk.take();
    (result, disk)
}

/// Handle to the simulated machine.
#[derive(Clone)]
pub struct Sim(Rc<Inner>);

struct Inner {
    seed: u64,
    random: Random,
    now_nanos: Cell<u64>,
    ready: Arc<Ready>,
    /// `None` while the task is being polled.
    tasks: RefCell<BTreeMap<TaskId, Option<TaskFuture>>>,
    tasks_spawned: Cell<TaskId>,
    timers: RefCell<BTreeMap<TimerKey, Waker>>,
    timers_set: Cell<u64>,
    faults: Cell<Faults>,
    /// The disk answers nothing before this.
    stalled_until: Cell<u64>,
    damage: RefCell<Vec<Damage>>,
    files_open: Cell<usize>,
    tells: Cell<bool>,
    trace: RefCell<Trace>,
    disk: RefCell<Disk>,
    links: RefCell<net::Links>,
}

type TaskId = u64;
type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;
/// When, and a number that keeps timers of the same instant apart.
type TimerKey = (u64, u64);

/// Tasks that were woken. A set, so that the order of wake-ups has no influence: the seed alone decides.
#[derive(Default)]
struct Ready(Mutex<BTreeSet<TaskId>>);

impl Ready {
    fn with<R>(&self, work: impl FnOnce(&mut BTreeSet<TaskId>) -> R) -> R {
        work(&mut self.0.lock().expect("no code panics while it holds this"))
    }
}

struct TaskWaker {
    id: TaskId,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.with(|ready| ready.insert(self.id));
    }
}

impl Sim {
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    pub fn set_faults(&self, faults: Faults) {
        self.0.faults.set(faults);
    }

    /// Makes the disk as large as that from now on: less than it holds is a disk that somebody else has filled.
    pub fn set_capacity(&self, total_bytes: u64) {
        self.0.disk.borrow_mut().set_capacity(total_bytes);
    }

    /// All that the disk has falsified in this run so far without an error.
    pub fn damage(&self) -> Vec<Damage> {
        self.0.damage.borrow().clone()
    }

    /// Files that the program holds open.
    pub fn files_open(&self) -> usize {
        self.0.files_open.get()
    }

    /// What the disk would hold if power were lost now. The run goes on, on its own disk.
    pub fn crash(&self) -> Disk {
        self.record("crash", 0);
        self.0.disk.borrow().crash_with(&self.0.random)
    }

    /// What has happened so far: equal for two runs of the same code and seed.
    pub fn trace(&self) -> Trace {
        self.0.trace.borrow().clone()
    }

    pub(super) fn now(&self) -> Instant {
        Instant(self.0.now_nanos.get())
    }

    pub(super) fn wall_clock(&self) -> Timestamp {
        let elapsed_ms = self.0.now_nanos.get() / 1_000_000;
        Timestamp(WALL_CLOCK_START + i64::try_from(elapsed_ms).expect("below 2^64 / 10^6"))
    }

    pub(super) fn random_u64(&self) -> u64 {
        self.0.random.next_u64()
    }

    pub(super) fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        let id = self.0.tasks_spawned.get() + 1;
        self.0.tasks_spawned.set(id);
        let (done, result) = local::oneshot();
        let task: TaskFuture = Box::pin(async move {
            // Nobody receives the result of a detached task.
            let _ = done.send(future.await);
        });
        self.0.tasks.borrow_mut().insert(id, Some(task));
        self.0.ready.with(|ready| ready.insert(id));
        Task {
            sim: self.clone(),
            id,
            result,
            cancel_on_drop: true,
        }
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now().plus(duration)).await;
    }

    fn sleep_until(&self, at: Instant) -> Sleep {
        Sleep {
            sim: self.clone(),
            at: at.0,
            timer: None,
        }
    }

    /// From here on every disk operation is told on standard error, for whoever replays a seed.
    pub fn tell_operations(&self) {
        self.0.tells.set(true);
    }

    fn tell(&self, what: &str, path: &Path, detail: impl std::fmt::Debug) {
        if self.0.tells.get() {
            let micros = self.0.now_nanos.get() / 1000;
            eprintln!("{micros:>8} us  {what} {} {detail:?}", path.display());
        }
    }

    fn record(&self, what: &'static str, subject: u64) {
        let event = Event {
            at_nanos: self.0.now_nanos.get(),
            what,
            subject,
        };
        self.0.trace.borrow_mut().record(event);
    }

    /// Polls one ready task, or lets time pass until there is one.
    fn step(&self) {
        self.fire_timers();
        let picked = self.0.ready.with(|ready| {
            let count = ready.len() as u64;
            let index = (count > 0).then(|| self.0.random.below(count) as usize)?;
            let id = *ready.iter().nth(index).expect("index is below the count");
            ready.remove(&id);
            Some(id)
        });
        match picked {
            Some(id) => self.poll_task(id),
            None => self.jump_to_next_timer(),
        }
    }

    fn poll_task(&self, id: TaskId) {
        let Some(slot) = self.0.tasks.borrow_mut().get_mut(&id).map(Option::take) else {
            // Woken after it was done.
            return;
        };
        let mut task = slot.expect("a task is not polled while it is polled");
        self.record("poll", id);
        self.0.now_nanos.set(self.0.now_nanos.get() + POLL_NANOS);
        let waker = Waker::from(Arc::new(TaskWaker {
            id,
            ready: self.0.ready.clone(),
        }));
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        let mut tasks = self.0.tasks.borrow_mut();
        match polled {
            Poll::Ready(()) => {
                tasks.remove(&id);
            }
            // If its place is gone, it was cancelled while it ran.
            Poll::Pending => {
                if let Some(slot) = tasks.get_mut(&id) {
                    *slot = Some(task);
                    return;
                }
            }
        }
        // The future may hold anything, so it is dropped while nothing is borrowed.
        drop(tasks);
        drop(task);
    }

    fn jump_to_next_timer(&self) {
        let next = self.0.timers.borrow().keys().next().copied();
        let Some((at, _)) = next else {
            panic!("the simulation is stuck: no task is ready and no timer is set");
        };
        assert!(at >= self.0.now_nanos.get(), "due timers were fired before");
        self.0.now_nanos.set(at);
        self.record("jump", 0);
        self.fire_timers();
    }

    fn fire_timers(&self) {
        let now = self.0.now_nanos.get();
        let due = {
            let mut timers = self.0.timers.borrow_mut();
            let later = timers.split_off(&(now + 1, 0));
            std::mem::replace(&mut *timers, later)
        };
        for waker in due.into_values() {
            waker.wake();
        }
    }

    fn cancel(&self, id: TaskId) {
        let task = self.0.tasks.borrow_mut().remove(&id);
        if task.is_some() {
            self.record("cancel", id);
        }
        drop(task);
    }

    /// What a dropped future spawns or wakes is dropped in turn.
    fn drop_all_tasks(&self) {
        loop {
            let tasks = self.0.tasks.take();
            if tasks.is_empty() {
                return;
            }
            drop(tasks);
        }
    }
}

/// Tells how to replay a run that panics.
struct ReplayHint(Sim);

impl Drop for ReplayHint {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let trace = self.0.0.trace.borrow();
            eprintln!("simulator: seed {}, {trace}", self.0.0.seed);
        }
    }
}

pub struct Task<T> {
    sim: Sim,
    id: TaskId,
    result: local::OneshotReceiver<T>,
    cancel_on_drop: bool,
}

impl<T> Task<T> {
    pub(super) fn detach(mut self) {
        self.cancel_on_drop = false;
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.result)
            .poll(cx)
            .map(|result| result.expect("only this handle can cancel the task"))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if self.cancel_on_drop {
            self.sim.cancel(self.id);
        }
    }
}

struct Sleep {
    sim: Sim,
    at: u64,
    timer: Option<TimerKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let inner = self.sim.0.clone();
        if inner.now_nanos.get() >= self.at {
            return Poll::Ready(());
        }
        let key = match self.timer {
            Some(key) => key,
            None => {
                inner.timers_set.set(inner.timers_set.get() + 1);
                (self.at, inner.timers_set.get())
            }
        };
        self.timer = Some(key);
        let waker = cx.waker().clone();
        let replaced = inner.timers.borrow_mut().insert(key, waker);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            let waker = self.sim.0.timers.borrow_mut().remove(&key);
            drop(waker);
        }
    }
}
