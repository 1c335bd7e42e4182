//! ptrace(2): a child that is stopped, so that its parent can look at it without its help.
//!
//! Its one rule: afterwards the child goes on as if nobody had looked. A signal that was on its way
//! is passed on, a stopped child stays stopped, an ended one is left to be reaped, and no blocking
//! call fails because of us.

use std::ffi::c_void;
use std::io::{self, IoSliceMut};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::memory::page;
use super::process::{Change, peek};

/// The registers from which a stack is unwound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// The program counter.
    pub(crate) pc: u64,
    /// The stack pointer.
    pub(crate) sp: u64,
    /// The frame pointer: `rbp` or `x29`.
    pub(crate) fp: u64,
    /// The link register: `x30`, and 0 where there is none.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    pub(crate) lr: u64,
}

/// A child whose main thread is stopped; it goes on when this is dropped.
pub(crate) struct Stopped {
    pid: Pid,
    /// The reason of the stop: a signal, and an event in the bits above it.
    why: i32,
}

/// The event of a stop that was asked for, or that a stop signal has caused, ptrace(2).
const EVENT_STOP: i32 = 128;
/// It stopped because we asked.
const INTERRUPTED: i32 = libc::SIGTRAP | EVENT_STOP << 8;

impl Stopped {
    /// Stops a child of this process, within `patience`. The thread that calls this must be the one
    /// that uses and drops the result.
    ///
    /// The kernel sends SIGCHLD for the stop, to no harm: nothing has ended.
    ///
    /// # Errors
    /// EPERM as PermissionDenied, with what to do about it. NotFound when the child has ended; it is
    /// left to be reaped. TimedOut when it did not stop, as a process in state D: it can't be let go
    /// on before it does, and [`reap`](super::process::reap) sees to that.
    pub(crate) fn stop(pid: i32, patience: Duration) -> io::Result<Stopped> {
        let pid = Pid::from_raw(pid);
        ptrace::seize(pid, ptrace::Options::empty()).map_err(|errno| refused(pid, errno))?;
        ptrace::interrupt(pid).map_err(|errno| refused(pid, errno))?;
        Stopped::wait(pid, patience)
    }

    /// Waits until it has stopped, for whatever reason.
    fn wait(pid: Pid, patience: Duration) -> io::Result<Stopped> {
        let start = Instant::now();
        loop {
            match look(pid, libc::WEXITED | libc::WSTOPPED)? {
                Some(Change {
                    code: libc::CLD_TRAPPED,
                    status: why,
                    ..
                }) => return Ok(Stopped { pid, why }),
                Some(_) => return Err(ended(pid)),
                None => {}
            }
            match start.elapsed() {
                // It takes microseconds if there is a processor for it; so it has ours.
                waited if waited < Duration::from_micros(200) => thread::yield_now(),
                waited if waited < patience => thread::sleep(Duration::from_micros(100)),
                _ => {
                    let problem = format!("process {pid} did not stop in {patience:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
                }
            }
        }
    }

    /// Its main thread's registers.
    ///
    /// # Errors
    /// When it was killed meanwhile, and Unsupported on machines other than x86_64 and aarch64.
    pub(crate) fn registers(&self) -> io::Result<Registers> {
        #[cfg(target_arch = "x86_64")]
        return Ok(ptrace::getregs(self.pid).map(|registers| Registers {
            pc: registers.rip,
            sp: registers.rsp,
            fp: registers.rbp,
            lr: 0,
        })?);
        #[cfg(target_arch = "aarch64")]
        return Ok(ptrace::getregs(self.pid).map(|registers| Registers {
            pc: registers.pc,
            sp: registers.sp,
            fp: registers.regs[29],
            lr: registers.regs[30],
        })?);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return Err(io::ErrorKind::Unsupported.into());
    }

    /// Copies its memory from `address` on, up to the first page that it does not have. Returns how
    /// many bytes were copied.
    pub(crate) fn read(&self, address: u64, into: &mut [u8]) -> io::Result<usize> {
        let (mut at, page) = (address as usize, page());
        let end = at.saturating_add(into.len());
        // A piece a page: what the kernel can't read ends the copy at the piece before it.
        let mut pieces = Vec::with_capacity(into.len() / page + 2);
        while at < end {
            let next = (at - at % page).saturating_add(page).min(end);
            pieces.push(RemoteIoVec {
                base: at,
                len: next - at,
            });
            at = next;
        }
        Ok(process_vm_readv(
            self.pid,
            &mut [IoSliceMut::new(into)],
            &pieces,
        )?)
    }

    /// Repairs the call that our stop broke: the kernel starts it again, unless a handler runs.
    #[cfg(target_arch = "x86_64")]
    fn resume_call(&self) -> nix::Result<()> {
        /// ERESTARTNOHAND: what calls return inside the kernel for exactly that. No process ever
        /// sees it.
        const AGAIN: i64 = -514;
        let mut registers = ptrace::getregs(self.pid)?;
        let was_broken = registers.rax as i64 == -i64::from(libc::EINTR);
        if was_broken && BREAKABLE.contains(&(registers.orig_rax as libc::c_long)) {
            registers.rax = AGAIN as u64;
            ptrace::setregs(self.pid, registers)?;
        }
        Ok(())
    }

    /// Elsewhere the first argument, which the result has replaced, is not to be had: these calls
    /// fail with EINTR, as they do whenever a process is stopped.
    #[cfg(not(target_arch = "x86_64"))]
    fn resume_call(&self) -> nix::Result<()> {
        Ok(())
    }
}

/// The calls that fail with EINTR when a process is stopped and goes on, although no handler has
/// run, signal(7): on sockets if they have a timeout. Others are started again by the kernel. A
/// timeout starts again too.
#[cfg(target_arch = "x86_64")]
const BREAKABLE: [libc::c_long; 20] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_io_getevents,
];

impl Drop for Stopped {
    fn drop(&mut self) {
        if self.why == INTERRUPTED
            && let Err(error) = self.resume_call()
        {
            log::debug!("the call of process {} was not resumed: {error}", self.pid);
        }
        // With no event, a signal was about to be delivered: it still is.
        let signal = match self.why >> 8 {
            0 => self.why,
            _ => 0,
        };
        // SAFETY: PTRACE_DETACH touches no memory of this process. Not nix's, which knows no
        // real-time signals.
        let done = unsafe {
            libc::ptrace(
                libc::PTRACE_DETACH,
                self.pid.as_raw(),
                ptr::null_mut::<c_void>(),
                ptr::without_provenance_mut::<c_void>(signal as usize),
            )
        };
        if done == -1 {
            // It was killed while it was stopped; nothing is left to let go on.
            log::debug!("process {} was not let go on: {}", self.pid, Errno::last());
        }
    }
}

/// Lets a child go on that has stopped long after [`Stopped::stop`] gave up.
/// `status` is that of waitpid(2).
pub(super) fn let_go(pid: i32, status: i32) {
    drop(Stopped {
        pid: Pid::from_raw(pid),
        why: status >> 8,
    });
}

fn refused(pid: Pid, errno: Errno) -> io::Error {
    match errno {
        Errno::ESRCH => ended(pid),
        // The kernel says so too of a child that has ended and was not reaped.
        Errno::EPERM if has_ended(pid) => ended(pid),
        Errno::EPERM => {
            let problem = format!(
                "process {pid} may not be traced: somebody else traces it, or it has changed its \
                 user and this process has no CAP_SYS_PTRACE, or a security module forbids it"
            );
            io::Error::new(io::ErrorKind::PermissionDenied, problem)
        }
        errno => errno.into(),
    }
}

fn ended(pid: Pid) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("process {pid} has ended"))
}

fn has_ended(pid: Pid) -> bool {
    // A stop of one that is traced is told whether it is asked for or not.
    let is_end = |change: &Change| change.code != libc::CLD_TRAPPED;
    matches!(look(pid, libc::WEXITED), Ok(Some(change)) if is_end(&change))
}

/// Looks for a change of its state; __WALL, since a thread may be looked at as well.
fn look(pid: Pid, states: i32) -> io::Result<Option<Change>> {
    peek(
        libc::P_PID,
        pid.as_raw() as libc::id_t,
        states | libc::__WALL,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::puppet::{Part, Puppet};

    #[test]
    fn a_signal_that_was_on_its_way_is_passed_on() {
        let mut puppet = Puppet::start(Part::Counts);
        assert_eq!(puppet.hear(), "listens");
        let thread = Pid::from_raw(puppet.thread);
        // The signal comes after the first step of `stop` and before the second.
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        assert!(Puppet::signal(puppet.process(), puppet.thread));
        let stopped = Stopped::wait(thread, Duration::from_secs(10)).unwrap();
        assert_eq!(stopped.why, libc::SIGRTMIN());
        assert_ne!(stopped.registers().unwrap().sp, 0);
        drop(stopped);
        puppet.tell();
        assert_eq!(puppet.hear(), "1");
    }
}
