//! Gets an executor going again that sleeps although there is something to do.
//!
//! glommio sleeps in one of its rings and has the kernel poll the other from there. On some kernels and virtual machines an event
//! of the polled ring now and then does not end that sleep (DataDog/glommio issues 326 and 547 describe it; seen here with Linux 6.18:
//! under load some 1 in 10 runs of the journal's tests stood still, and went on at once after any signal). So each executor beats
//! by a timer, and a thread of its own looks for a beat that is overdue and sends that executor's thread a signal: the system call
//! returns, and glommio looks at all of its rings. A busy executor that is signalled in vain loses nothing but the interruption.

use std::{
    ptr,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often an executor wakes up to say that it does.
pub const HEARTBEAT: Duration = Duration::from_millis(5);
/// A beat is overdue when none came for this long.
const OVERDUE: Duration = Duration::from_millis(15);
/// Ignored by default, and used by hardly anyone.
const SIGNAL: libc::c_int = libc::SIGURG;

static RESCUES: AtomicU64 = AtomicU64::new(0);

/// How often an overdue executor was signalled since the process began: for metrics.
pub fn rescues() -> u64 {
    RESCUES.load(Ordering::Relaxed)
}

/// Watches the executor of the thread that made it, until dropped.
pub struct Watchdog {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    beats: AtomicU64,
    stop: AtomicBool,
}

impl Watchdog {
    pub fn start() -> Watchdog {
        install_handler();
        let state = Arc::new(State::default());
        let watched = this_thread();
        let watching = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("watchdog".to_string())
            .spawn(move || watch(&watching, watched))
            .expect("a thread can be started beside the one of its executor");
        Watchdog {
            state,
            thread: Some(thread),
        }
    }

    /// Called by the executor about every [`HEARTBEAT`].
    pub fn beat(&self) {
        self.state.beats.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does nothing that could panic.
            let _ = thread.join();
        }
    }
}

fn watch(state: &State, watched: libc::pid_t) {
    let mut seen = 0;
    loop {
        thread::park_timeout(OVERDUE);
        // Dropping the watchdog joins us before its thread can end, so `watched` is still that thread.
        if state.stop.load(Ordering::Relaxed) {
            return;
        }
        let beats = state.beats.load(Ordering::Relaxed);
        if beats == seen {
            signal(watched);
            RESCUES.fetch_add(1, Ordering::Relaxed);
        }
        seen = beats;
    }
}

#[allow(unsafe_code)]
fn this_thread() -> libc::pid_t {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { libc::gettid() }
}

#[allow(unsafe_code)]
fn signal(thread: libc::pid_t) {
    // SAFETY: plain integers; a thread that is gone makes the call fail, which harms nobody.
    unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGNAL);
    }
}

extern "C" fn do_nothing(_: libc::c_int) {}

/// A signal without a handler would be discarded before it ended a system call.
#[allow(unsafe_code)]
fn install_handler() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: a zeroed sigaction is valid; the handler does nothing, so it is safe in any context. SA_RESTART keeps
        // ordinary system calls from failing with EINTR; io_uring_enter returns all the same.
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = do_nothing as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(SIGNAL, &raw const action, ptr::null_mut())
        };
        assert_eq!(result, 0, "the signal may be handled");
    });
}
