//! Signals as events of a loop: a handler only marks the signal and wakes the loop, which acts on it.
//!
//! Its one rule: while a server runs, the handlers of the program for these signals are set aside, and they are
//! put back at the end. A handler that ran as well could end the master, or lose a request.
//!
//! | process | caught |
//! |---|---|
//! | the calling one, and the manager | [`OURS`]; and [`spare`], where they would kill the process |
//! | a worker | [`WORKERS`]; for the others it has what the program had before |
//! | a child that a callback forks | nothing: at the first signal it gets what the program had before |

use std::cell::UnsafeCell;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

/// The signals that are the server's while it runs, whether it acts on them or not. They are caught and not
/// ignored: a program that a callback executes gets the defaults back, execve(2).
const OURS: [Signal; 10] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGPIPE,
    Signal::SIGXFSZ,
    Signal::SIGCHLD,
    // The process was stopped, and goes on: the time in between counts in no deadline.
    Signal::SIGCONT,
];

/// Those of them that a worker catches. It reaps no child of ours.
const WORKERS: [Signal; 9] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGPIPE,
    Signal::SIGXFSZ,
    Signal::SIGCONT,
];

/// Signals without a meaning for a server, of which each one kills a process by default. A handler of the
/// program, a profiler's for example, stays.
fn spare() -> impl Iterator<Item = i32> {
    let others = [
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGPOLL,
        libc::SIGSTKFLT,
        libc::SIGPWR,
    ];
    others
        .into_iter()
        .chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
}

/// The number of signals, and one more, as they count from 1.
const COUNT: usize = 65;

/// What the program had for each signal before the server took it over, and the signals that it has blocked.
struct Before {
    actions: UnsafeCell<[MaybeUninit<libc::sigaction>; COUNT]>,
    blocked: UnsafeCell<Option<SigSet>>,
}

// SAFETY: written by `take_over` alone, which runs while the process has one thread and all signals are blocked
// there. Everything else reads, and only the entries that it has written.
unsafe impl Sync for Before {}

static BEFORE: Before = Before {
    actions: UnsafeCell::new([const { MaybeUninit::uninit() }; COUNT]),
    blocked: UnsafeCell::new(None),
};

/// The process that handles signals, by pid. A child of a callback inherits the handlers, and is another one.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// The signals that came, by bit. Set by the handler and taken by `Signals::take`, each with SeqCst.
static CAME: AtomicU64 = AtomicU64::new(0);
/// The descriptor that wakes the loop, or -1. Stored before `OWNER` names this process.
static WAKE: AtomicI32 = AtomicI32::new(-1);

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The handler of our signals. Async-signal-safe: atomics, and the system calls getpid, write, sigaction, kill.
extern "C" fn mark(signal: libc::c_int) {
    let errno = Errno::last();
    if is_owner(signal) {
        CAME.fetch_or(bit(signal), Ordering::SeqCst);
        // SAFETY: one byte is read from a constant. A full pipe wakes the loop as well.
        unsafe { libc::write(WAKE.load(Ordering::SeqCst), [0_u8].as_ptr().cast(), 1) };
    }
    errno.set();
}

/// The handler of the spare signals.
extern "C" fn pass_over(signal: libc::c_int) {
    let errno = Errno::last();
    is_owner(signal);
    errno.set();
}

/// Whether this process handles its signals. Another one has been forked from it by a callback: the signal is
/// sent once more, to what the program had before.
fn is_owner(signal: libc::c_int) -> bool {
    // SAFETY: getpid takes nothing and can't fail.
    let pid = unsafe { libc::getpid() };
    if pid == OWNER.load(Ordering::SeqCst) {
        return true;
    }
    restore(signal);
    // SAFETY: takes two integers. The signal is blocked in its handler, and comes when that returns.
    unsafe { libc::kill(pid, signal) };
    false
}

/// Gives a signal what the program had for it, unless the program has set a handler since.
fn restore(signal: i32) {
    if is_caught(signal) {
        put_back(signal);
    }
}

fn put_back(signal: i32) {
    // SAFETY: `take_over` has written the entry of each signal that is caught, and nothing writes it since.
    let before = unsafe { (*BEFORE.actions.get())[signal as usize].as_ptr() };
    // SAFETY: the entry is a whole sigaction. It was valid for the kernel when it was read.
    unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
}

/// Whether the handler of a signal is ours.
fn is_caught(signal: i32) -> bool {
    // SAFETY: all zero is a sigaction: numbers, an empty set, and no function.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a sigaction to `now`, and is given no other one.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut now) };
    let ours = [mark, pass_over].map(|it| it as extern "C" fn(libc::c_int) as usize);
    asked == 0 && ours.contains(&now.sa_sigaction)
}

/// Takes away a signal that is pending: one that is ignored is, sigaction(2).
fn discard(signal: i32) {
    // SAFETY: all zero is a sigaction: numbers, an empty set, and no function.
    let mut ignored: libc::sigaction = unsafe { std::mem::zeroed() };
    ignored.sa_sigaction = libc::SIG_IGN;
    // SAFETY: the kernel reads a sigaction that ignores the signal, and reports no old one to NULL.
    unsafe { libc::sigaction(signal, &raw const ignored, ptr::null_mut()) };
}

/// The signals of the program are the server's while it exists.
pub(crate) struct TakenOver(());

/// Takes the signals over. The caller has blocked them, and the process has one thread.
pub(crate) fn take_over(mask: &Mask) -> io::Result<TakenOver> {
    OWNER.store(0, Ordering::SeqCst);
    let mut blocked = mask.0;
    OURS.into_iter().for_each(|signal| blocked.remove(signal));
    // SAFETY: as `Before` says: there is no other thread, and no handler runs.
    unsafe { *BEFORE.blocked.get() = Some(blocked) };
    for (signal, _) in every() {
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the kernel writes a sigaction to `before`, and is given no other one.
        check(unsafe { libc::sigaction(signal, ptr::null(), before.as_mut_ptr()) })?;
        // SAFETY: as `Before` says: there is no other thread, and no handler runs.
        unsafe { (*BEFORE.actions.get())[signal as usize] = before };
    }
    let taken = TakenOver(());
    for (signal, handler) in every() {
        // SAFETY: the entry was written above.
        let before = unsafe { (*BEFORE.actions.get())[signal as usize].assume_init_ref() };
        if handler == Handler::Mark || before.sa_sigaction == libc::SIG_DFL {
            catch(signal, handler)?;
        }
    }
    Ok(taken)
}

impl Drop for TakenOver {
    fn drop(&mut self) {
        forget_own();
        for (signal, _) in every().filter(|(signal, _)| is_caught(*signal)) {
            // A handle of the server may have sent it a moment ago, for the server alone.
            if [Signal::SIGTERM as i32, Signal::SIGUSR1 as i32].contains(&signal) {
                discard(signal);
            }
            put_back(signal);
        }
    }
}

/// Takes away the signals that a write or a growing file has sent to this thread, while they are blocked.
pub(super) fn forget_own() {
    let own: SigSet = [Signal::SIGPIPE, Signal::SIGXFSZ].into_iter().collect();
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel reads a signal set and a time, and reports nothing about the signal to NULL.
    while unsafe { libc::sigtimedwait(own.as_ref(), ptr::null_mut(), &raw const now) } > 0 {}
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Handler {
    Mark,
    PassOver,
}

fn every() -> impl Iterator<Item = (i32, Handler)> {
    let ours = OURS.into_iter().map(|it| (it as i32, Handler::Mark));
    ours.chain(spare().map(|it| (it, Handler::PassOver)))
}

fn catch(signal: i32, handler: Handler) -> io::Result<()> {
    let handler = match handler {
        Handler::Mark => mark,
        Handler::PassOver => pass_over,
    } as extern "C" fn(libc::c_int);
    // SAFETY: all zero is a sigaction: numbers, an empty set, and no function.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // On the other stack, if the thread has one: those of some languages have no room for a handler.
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // One after the other: the other stack has room for the frame of one signal, sigaltstack(2), and those that come while
    // the process is stopped come all at once.
    // SAFETY: the set is valid for writes.
    check(unsafe { libc::sigfillset(&raw mut action.sa_mask) })?;
    // SAFETY: the handler is async-signal-safe, and of the type that these flags ask for.
    check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The signals that come to one process. There is one of it in a process; a forked child drops the one that it
/// inherited, and makes its own.
pub(crate) struct Signals {
    wake: UnixStream,
    /// Written by the handler.
    waker: UnixStream,
}

impl Signals {
    /// Listens in the process that has taken the signals over, or in the manager that it has forked.
    pub(crate) fn of_server() -> io::Result<Signals> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        CAME.store(0, Ordering::SeqCst);
        WAKE.store(waker.as_raw_fd(), Ordering::SeqCst);
        // SAFETY: getpid takes nothing and can't fail.
        OWNER.store(unsafe { libc::getpid() }, Ordering::SeqCst);
        Ok(Signals { wake, waker })
    }

    /// Listens in a worker, where all other signals are the program's again: an alarm that a callback sets
    /// has the effect that it would have without a server.
    pub(crate) fn of_worker() -> io::Result<Signals> {
        let is_workers = |signal: i32| WORKERS.iter().any(|it| *it as i32 == signal);
        let others = every().filter(|(signal, _)| !is_workers(*signal));
        others.for_each(|(signal, _)| restore(signal));
        Signals::of_server()
    }

    /// Whether this signal came and [`take`](Self::take) has not returned it. Makes no system call.
    pub(crate) fn has(&self, signal: Signal) -> bool {
        CAME.load(Ordering::Relaxed) & bit(signal as i32) != 0
    }

    /// Forgets the signals that came, except for one, which [`has`](Self::has) still reports.
    pub(crate) fn keep_only(&mut self, kept: Signal) {
        self.drain();
        CAME.fetch_and(bit(kept as i32), Ordering::SeqCst);
    }

    /// Returns the signals that came since the last call, each once however often it came.
    ///
    /// # Race condition
    /// The wake-up pipe is drained first and the marks are read after: a signal in between leaves a
    /// byte in the pipe, so that the loop wakes again, at worst for nothing.
    pub(crate) fn take(&mut self) -> Vec<Signal> {
        self.drain();
        let came = CAME.swap(0, Ordering::SeqCst);
        let has_come = |signal: &Signal| came & bit(*signal as i32) != 0;
        OURS.into_iter().filter(has_come).collect()
    }

    fn drain(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(n) if n > 0) {}
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // In a child it is the parent's number.
        if WAKE.load(Ordering::SeqCst) == self.waker.as_raw_fd() {
            WAKE.store(-1, Ordering::SeqCst);
        }
    }
}

/// Tells a second SIGINT from an echo of the first: npm, timeout(1) and a terminal's group send several at once.
#[derive(Default)]
pub(crate) struct Interrupts {
    first: Option<Instant>,
}

/// The meaning of a SIGINT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interrupt {
    /// The first one, or an echo of it: stop gracefully.
    Stop,
    /// A second one: stop by force.
    Force,
}

impl Interrupts {
    /// The time after the first one in which another one is its echo.
    const ECHO: Duration = Duration::from_millis(500);

    pub(crate) fn came(&mut self, now: Instant) -> Interrupt {
        let first = *self.first.get_or_insert(now);
        match now.duration_since(first) < Self::ECHO {
            true => Interrupt::Stop,
            false => Interrupt::Force,
        }
    }
}

/// The signals that were blocked before; blocked so again when dropped.
pub(crate) struct Mask(SigSet);

/// Blocks every signal for this thread and for its children and new threads, until [`unblock`] or
/// until the mask is dropped: none is lost between a fork and the child's own listening.
pub(crate) fn block() -> io::Result<Mask> {
    let mut before = SigSet::empty();
    pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    Ok(Mask(before))
}

impl Drop for Mask {
    fn drop(&mut self) {
        if let Err(error) = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None) {
            log::error!("cannot restore the signal mask: {error}");
        }
    }
}

/// Unblocks the server's signals, and leaves those blocked that the program has blocked. Those that came
/// meanwhile are delivered now.
pub(crate) fn unblock() -> io::Result<()> {
    // SAFETY: as `Before` says: this only reads.
    let blocked = unsafe { *BEFORE.blocked.get() }.unwrap_or_else(SigSet::empty);
    Ok(pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&blocked),
        None,
    )?)
}

/// Leaves a forked helper nothing but SIGALRM, which ends it: what is sent to the process group is the server's.
pub(crate) fn leave_to_alarm() -> io::Result<()> {
    let mut blocked = SigSet::all();
    blocked.remove(Signal::SIGALRM);
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None)?;
    // SAFETY: all zero is a sigaction with the default, SIG_DFL.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads one sigaction, and reports no old one to NULL.
    check(unsafe { libc::sigaction(libc::SIGALRM, &raw const default, ptr::null_mut()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_within_half_a_second_is_an_echo_of_the_first() {
        let mut interrupts = Interrupts::default();
        let begin = Instant::now();
        let mut came = |ms| interrupts.came(begin + Duration::from_millis(ms));
        assert_eq!(came(0), Interrupt::Stop);
        assert_eq!(came(1), Interrupt::Stop);
        assert_eq!(came(499), Interrupt::Stop);
        assert_eq!(came(500), Interrupt::Force);
    }
}
