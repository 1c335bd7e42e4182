//! fork(2), waitpid(2), kill(2), and a child that does not outlive its parent.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill as send_signal};
use nix::unistd::{ForkResult, Pid, getpid, getppid};

use super::fault::{self, Call};
use super::{forks, trace};

/// A process of this server, by pid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ProcessId(Pid);

impl ProcessId {
    pub(crate) fn current() -> ProcessId {
        ProcessId(getpid())
    }

    #[cfg(test)]
    pub(crate) fn of(pid: i32) -> ProcessId {
        ProcessId(Pid::from_raw(pid))
    }

    /// Returns the process with this pid, if there is one; 0 and less are none.
    pub(crate) fn find(pid: i32) -> Option<ProcessId> {
        let process = ProcessId(Pid::from_raw(pid));
        let answer = (pid > 0).then(|| send_signal(process.0, None))?;
        // It may be another user's.
        matches!(answer, Ok(()) | Err(Errno::EPERM)).then_some(process)
    }

    /// Returns its name in `ps` in parentheses, after a space; nothing if it is not known.
    pub(crate) fn name(self) -> String {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.0));
        name.map_or_else(|_| String::new(), |name| format!(" ({})", name.trim()))
    }

    pub(crate) fn get(self) -> i32 {
        self.0.as_raw()
    }

    /// Ends the process at once, whatever it is doing. The pid must not have been reaped yet, so
    /// that it can't be another's.
    pub(crate) fn kill(self) {
        debug_assert!(
            self.0.as_raw() > 0,
            "0 and less are process groups, kill(2)"
        );
        if let Err(error) = send_signal(self.0, Signal::SIGKILL) {
            log::error!("cannot kill process {}: {error}", self.0);
        }
    }
}

/// Which side of a fork this is.
pub(crate) enum Fork {
    Child,
    Parent(ProcessId),
}

/// How a process ended, waitpid(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExitStatus {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ExitStatus::Code(code) => write!(f, "status={code}"),
            ExitStatus::Signal(signal) => write!(f, "signal={signal}{}", Named(signal)),
        }
    }
}

/// The name of a signal in parentheses, after a space; nothing for 0.
pub(crate) struct Named(pub(crate) i32);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (signal, first) = (self.0, libc::SIGRTMIN());
        match Signal::try_from(signal) {
            Ok(name) => write!(f, " ({name})"),
            Err(_) if signal == first => f.write_str(" (SIGRTMIN)"),
            Err(_) if (first..=libc::SIGRTMAX()).contains(&signal) => {
                write!(f, " (SIGRTMIN+{})", signal - first)
            }
            Err(_) => Ok(()),
        }
    }
}

/// The threads of this process, counted by the kernel.
pub(crate) fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Forks. The child is a copy of this process with its one thread.
///
/// # Errors
/// This process has more than one thread, or one of fork(2).
pub(crate) fn fork() -> io::Result<Fork> {
    match threads()? {
        1 => {}
        threads => {
            let problem = format!("this process has {threads} threads: a callback started some");
            return Err(io::Error::other(problem));
        }
    }
    fault::check(Call::Fork)?;
    // SAFETY: there is only this thread, so no other one holds a lock that the child would wait for
    // without end: the child may run any code, not only async-signal-safe functions.
    match forks::ours(|| unsafe { nix::unistd::fork() })? {
        ForkResult::Child => {
            forks::forget_those_of_the_parent();
            Ok(Fork::Child)
        }
        ForkResult::Parent { child } => Ok(Fork::Parent(ProcessId(child))),
    }
}

/// Called in a child right after the fork: the kernel kills it when `parent` dies (prctl(2),
/// PR_SET_PDEATHSIG). A parent that died before that is noticed by comparing it with the parent of
/// now.
pub(crate) fn die_with(parent: ProcessId) {
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != parent.0 {
        exit_now(1);
    }
}

/// Another process, watched: the descriptor is ready to be read once it has ended, pidfd_open(2).
pub(crate) struct Watched {
    pub(crate) pid: i32,
    descriptor: OwnedFd,
}

impl Watched {
    /// # Errors
    /// ESRCH if there is no such process.
    pub(crate) fn new(pid: i32) -> io::Result<Watched> {
        // SAFETY: takes two integers. The descriptor has close-on-exec.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let Some(number) = i32::try_from(opened).ok().filter(|number| *number >= 0) else {
            return Err(io::Error::last_os_error());
        };
        // SAFETY: the kernel has just made the descriptor, and it belongs to nobody yet.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(Watched { pid, descriptor })
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The kernel ends this process after this many seconds, alarm(2): for a process that may otherwise
/// wait without end.
pub(crate) fn end_within(seconds: u32) {
    nix::unistd::alarm::set(seconds);
}

/// Sends a signal to this process. It can always do that, kill(2).
pub(crate) fn signal_itself(signal: Signal) {
    if let Err(error) = send_signal(getpid(), signal) {
        log::error!("cannot send {signal} to this process: {error}");
    }
}

/// What `ps` shows for this process, 15 bytes at most.
pub(crate) fn set_name(name: &str) {
    let shown = &name.as_bytes()[..name.len().min(15)];
    if let Ok(name) = CString::new(shown) {
        // Only cosmetic: nothing depends on the name.
        let _ = prctl::set_name(&name);
    }
    #[cfg(feature = "test-hooks")]
    fault::enter(name);
}

/// Reaps this child if it has ended, and returns how it ended. Other children, of the user's
/// callbacks for example, are left to the code that started them.
pub(crate) fn reap(child: ProcessId) -> io::Result<Option<ExitStatus>> {
    wait(child, libc::WNOHANG)
}

/// waitpid(2). A child that has only stopped was inspected and did not stop in time then: it goes on,
/// and has not ended.
fn wait(child: ProcessId, flags: i32) -> io::Result<Option<ExitStatus>> {
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes one int to `status`. Not nix's waitpid, which takes the child
        // away and reports EINVAL when a real-time signal has ended it.
        match unsafe { libc::waitpid(child.get(), &raw mut status, flags) } {
            0 => return Ok(None),
            -1 => match Errno::last() {
                Errno::EINTR => {}
                // Other code in this process has waited for it: it is gone, and how is not known.
                Errno::ECHILD => return Ok(Some(ExitStatus::Code(-1))),
                error => return Err(error.into()),
            },
            _ if libc::WIFSTOPPED(status) => {
                trace::let_go(child.get(), status);
                return Ok(None);
            }
            _ if libc::WIFSIGNALED(status) => {
                return Ok(Some(ExitStatus::Signal(libc::WTERMSIG(status))));
            }
            _ => return Ok(Some(ExitStatus::Code(libc::WEXITSTATUS(status)))),
        }
    }
}

/// The children of others that a process which runs as PID 1 inherits. Elsewhere there are none.
#[derive(Default)]
pub(crate) struct Strangers {
    /// When the first one was seen.
    seen: Option<Instant>,
}

impl Strangers {
    /// How long an ended child is left to the code in this process that may have started it.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Reaps those that have waited long enough. A child of ours that it meets ends the search:
    /// SIGCHLD is about to come for that one, and with it another search.
    pub(crate) fn reap(&mut self, is_ours: impl Fn(ProcessId) -> bool) -> io::Result<()> {
        while getpid().as_raw() == 1 {
            let ended = peek_ended()?;
            let now = Instant::now();
            let Some(stranger) = ended.filter(|child| !is_ours(*child)) else {
                self.seen = None;
                return Ok(());
            };
            // Those behind the first one are not told apart by their age: they go with it.
            let since = *self.seen.get_or_insert(now);
            if now.duration_since(since) < Self::PATIENCE {
                return Ok(());
            }
            reap(stranger)?;
        }
        Ok(())
    }

    /// How long until it is worth looking again.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Duration> {
        Some((self.seen? + Self::PATIENCE).saturating_duration_since(now))
    }
}

/// A child that has ended, left to be reaped.
fn peek_ended() -> io::Result<Option<ProcessId>> {
    match peek(libc::P_ALL, 0, libc::WEXITED) {
        Ok(change) => Ok(change.map(|change| ProcessId(Pid::from_raw(change.pid)))),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A change of a child's state, waitid(2).
pub(super) struct Change {
    pub(super) pid: i32,
    /// `CLD_EXITED` or another one of these.
    pub(super) code: i32,
    /// Its exit status, or the signal.
    pub(super) status: i32,
}

/// Looks for a child in one of these states, and leaves it to be waited for.
pub(super) fn peek(
    which: libc::idtype_t,
    id: libc::id_t,
    states: i32,
) -> io::Result<Option<Change>> {
    loop {
        // SAFETY: all zero is a siginfo_t: it has only numbers, and pointers that are not followed.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = states | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: the kernel writes one siginfo_t to `info`.
        if unsafe { libc::waitid(which, id, &raw mut info, flags) } == 0 {
            // SAFETY: of SIGCHLD the kernel sets both, and of nothing they are 0, waitid(2).
            let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
            let code = info.si_code;
            return Ok((pid != 0).then_some(Change { pid, code, status }));
        }
        match Errno::last() {
            Errno::EINTR => {}
            error => return Err(error.into()),
        }
    }
}

/// How long a child that was killed is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until this child, which was killed, has ended, and reaps it. A process that the kernel or a tracer
/// holds may not end: it is left behind then.
pub(crate) fn wait_for(child: ProcessId) {
    if !wait_within(child, PATIENCE) {
        log::error!(
            "process {} did not end within {PATIENCE:?} although it was killed: it is left behind",
            child.get()
        );
    }
}

/// Waits until this child has ended, at most for `patience`, and reaps it. Returns whether it has ended.
fn wait_within(child: ProcessId, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_micros(100);
    while let Ok(None) = wait(child, libc::WNOHANG) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    true
}

/// Ends this process without running destructors or `atexit` handlers, _exit(2). A forked child must
/// end like this, since they belong to the parent.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes any status and does not return.
    unsafe { libc::_exit(status) }
}

#[cfg(all(test, not(miri)))] // Miri has no processes.
mod tests {
    use super::*;

    #[test]
    fn a_child_that_does_not_end_is_not_waited_for_without_end() {
        let child = std::process::Command::new("sleep").arg("1000").spawn();
        let child = ProcessId::of(child.unwrap().id() as i32);
        assert!(!wait_within(child, Duration::from_millis(20)));
        child.kill();
        assert!(wait_within(child, Duration::from_secs(600)));
    }
}
