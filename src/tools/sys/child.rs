//! A program that a worker starts: it dies with the worker, and inherits nothing of the server.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{Pid, getpid, getppid, setsid};

/// Has the program start in a session of its own, with default signals, no signal blocked, and no descriptor but its
/// standard streams. The kernel kills it when the thread that starts it ends (prctl(2), PR_SET_PDEATHSIG), also if
/// that is killed itself.
pub(crate) fn confine(command: &mut Command) {
    let (parent, last_signal) = (getpid(), libc::SIGRTMAX());
    // SAFETY: the closure only makes system calls, as it must between fork and exec.
    unsafe { command.pre_exec(move || prepare(parent, last_signal)) };
}

fn prepare(parent: Pid, last_signal: libc::c_int) -> io::Result<()> {
    // A session has a process group of its own, and no terminal: Ctrl-C is for the server, which drains.
    setsid()?;
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    for signal in 1..=last_signal {
        // SAFETY: no handler is set. It fails for SIGKILL, SIGSTOP and the signals of the C library, which are never
        // ignored.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    // Also descriptors that the server itself has inherited. They are closed at exec(2), since std needs one until then.
    // SAFETY: takes three integers.
    match unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
