//! fork(2), waitpid(2), kill(2), and a child that does not outlive its parent.

use std::ffi::CString;
use std::io;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill as send_signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, getpid, getppid};

/// A process of this server, by pid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ProcessId(Pid);

impl ProcessId {
    pub(crate) fn current() -> ProcessId {
        ProcessId(getpid())
    }

    /// No process.
    pub(crate) fn none() -> ProcessId {
        ProcessId(Pid::from_raw(0))
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

/// The threads of this process, counted by the kernel.
pub(crate) fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Forks. The child is a copy of this process with its one thread.
///
/// # Errors
/// `ErrorKind::Unsupported` in a process that has more than one thread, and what fork(2) says.
pub(crate) fn fork() -> io::Result<Fork> {
    if threads()? != 1 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: there is only this thread, so no lock is held by another one that the child would
    // wait for in vain: the child may run any code, not only what is async-signal-safe.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Fork::Child),
        ForkResult::Parent { child } => Ok(Fork::Parent(ProcessId(child))),
    }
}

/// Called in a child right after the fork: the kernel kills it when `parent` dies (prctl(2),
/// PR_SET_PDEATHSIG). A parent that died before that is noticed by the look at who the parent is
/// now.
pub(crate) fn die_with(parent: ProcessId) {
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != parent.0 {
        exit_now(1);
    }
}

/// What `ps` shows for this process, 15 bytes at most.
pub(crate) fn set_name(name: &str) {
    let shown = &name.as_bytes()[..name.len().min(15)];
    if let Ok(name) = CString::new(shown) {
        // Only cosmetic: nothing depends on the name.
        let _ = prctl::set_name(&name);
    }
}

/// How this child has ended, if it has; it is reaped then. Other children, of the user's callbacks
/// for example, are left to whoever started them.
pub(crate) fn reap(child: ProcessId) -> io::Result<Option<ExitStatus>> {
    loop {
        match waitpid(child.0, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(Some(ExitStatus::Code(code))),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Ok(Some(ExitStatus::Signal(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps the children of others that a process which runs as PID 1 inherits; elsewhere there are
/// none, and nothing is done. The first child of ours that it meets ends the search: SIGCHLD is
/// about to come for that one, and then there is another.
pub(crate) fn reap_inherited(is_ours: impl Fn(ProcessId) -> bool) -> io::Result<()> {
    let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while getpid().as_raw() == 1 {
        let ended = match waitid(Id::All, peek) {
            Ok(status) => status.pid().map(ProcessId),
            Err(Errno::EINTR) => continue,
            Err(Errno::ECHILD) => None,
            Err(error) => return Err(error.into()),
        };
        match ended.filter(|child| !is_ours(*child)) {
            Some(stranger) => drop(reap(stranger)?),
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Waits until this child has ended, and leaves it to be reaped.
pub(crate) fn wait_for(child: ProcessId) {
    while let Err(Errno::EINTR) = waitid(
        Id::Pid(child.0),
        WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
    ) {}
}

/// Ends this process without running destructors or `atexit` handlers, _exit(2): what a forked
/// child must do, since they belong to the parent.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes any status and does not return.
    unsafe { libc::_exit(status) }
}
