//! A worker under ptrace(2), instruction by instruction, from the end of its sleep to the next one.
//!
//! Its one rule: the thread that seizes a worker is the one that steps and kills it, as ptrace(2) demands.

use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use self::machine::registers;
use crate::common::SOON;
use crate::common::process::Process;

const THIS_THREAD: Pid = Pid::from_raw(0);

/// Whether the registers of this machine are known here.
pub(crate) const IS_KNOWN_MACHINE: bool = machine::IS_KNOWN;

/// A worker that was seized in its sleep. It is killed at the latest when this is dropped.
pub(crate) struct Traced {
    pid: Pid,
    /// The system call in which it sleeps.
    sleep: Call,
    has_ended: bool,
    /// The processors of this thread before.
    processors: CpuSet,
}

/// A system call, and the address of the instruction that makes it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Call {
    number: i64,
    at: u64,
}

/// The registers that tell where a stopped worker is.
struct Registers {
    /// The program counter.
    pc: u64,
    /// The number of the system call that has begun.
    begun: i64,
    /// The number of the call, if the next instruction makes one.
    next: i64,
}

impl Traced {
    /// Seizes a worker, and lets it go to sleep.
    ///
    /// # Errors
    /// When it may not be traced, or has ended.
    pub(crate) fn seize(worker: Process) -> nix::Result<Self> {
        let mut traced = Self {
            pid: Pid::from_raw(worker.pid),
            sleep: Call { number: 0, at: 0 },
            has_ended: true,
            processors: sched_getaffinity(THIS_THREAD)?,
        };
        ptrace::seize(traced.pid, Options::PTRACE_O_TRACESYSGOOD)?;
        traced.has_ended = false;
        ptrace::interrupt(traced.pid)?;
        traced.wait()?;
        traced.share_a_processor()?;
        traced.go_to_sleep()?;
        Ok(traced)
    }

    /// Each step is two switches between this thread and the worker, which cost a tenth of what it costs to wake another
    /// processor.
    fn share_a_processor(&self) -> nix::Result<()> {
        let first = (0..CpuSet::count()).find(|nth| self.processors.is_set(*nth) == Ok(true));
        let mut one = CpuSet::new();
        one.set(first.unwrap_or(0))?;
        sched_setaffinity(self.pid, &one)?;
        sched_setaffinity(THIS_THREAD, &one)
    }

    /// The stop for the interruption is outside of any call, so that each odd stop for a call is at its beginning.
    fn go_to_sleep(&mut self) -> nix::Result<()> {
        let (mut signal, mut is_inside) = (None, false);
        loop {
            ptrace::syscall(self.pid, signal.take())?;
            match self.wait()? {
                WaitStatus::PtraceSyscall(_) => is_inside = !is_inside,
                WaitStatus::Stopped(_, other) => signal = Some(other),
                WaitStatus::PtraceEvent(..) => {}
                end => panic!("a worker on its way to sleep: {end:?}"),
            }
            let now = registers(self.pid)?;
            if is_inside && machine::SLEEPS.contains(&now.begun) {
                self.sleep = Call {
                    number: now.begun,
                    at: now.pc - machine::CALL_LENGTH,
                };
                return ptrace::syscall(self.pid, None);
            }
        }
    }

    /// Waits for the end of its sleep, which a message is to cause.
    pub(crate) fn wakes(&self) -> nix::Result<()> {
        match self.wait()? {
            WaitStatus::PtraceSyscall(_) => Ok(()),
            other => panic!("a worker that is to wake: {other:?}"),
        }
    }

    /// Leads it `steps` instructions further, at most to its next sleep or its end. Returns how many it took.
    pub(crate) fn lead(&mut self, steps: u64) -> nix::Result<u64> {
        let mut signal = None;
        for done in 0..steps {
            let now = registers(self.pid)?;
            let next = Call {
                number: now.next,
                at: now.pc,
            };
            if next == self.sleep {
                return Ok(done);
            }
            ptrace::step(self.pid, signal.take())?;
            match self.wait()? {
                WaitStatus::Stopped(_, Signal::SIGTRAP) | WaitStatus::PtraceEvent(..) => {}
                WaitStatus::Stopped(_, other) => signal = Some(other),
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                    self.has_ended = true;
                    return Ok(done);
                }
                other => panic!("a worker after {done} steps: {other:?}"),
            }
        }
        Ok(steps)
    }

    /// Kills it. Its manager hears of that once it was waited for here.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Neither can fail for a thread and a process that exist.
        let _ = sched_setaffinity(THIS_THREAD, &self.processors);
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let _ = kill(self.pid, Signal::SIGKILL);
        // Stops that were due come before its end.
        while !matches!(
            self.wait(),
            Ok(WaitStatus::Signaled(..) | WaitStatus::Exited(..)) | Err(_)
        ) {}
    }

    /// Waits for its next stop, or its end.
    fn wait(&self) -> nix::Result<WaitStatus> {
        let begin = Instant::now();
        loop {
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                Ok(status) => return Ok(status),
                Err(error) => return Err(error),
            }
            match begin.elapsed() {
                // A step takes microseconds on the processor that this thread gives up.
                waited if waited < Duration::from_micros(200) => thread::yield_now(),
                waited if waited < SOON => thread::sleep(Duration::from_micros(100)),
                _ => return Err(Errno::ETIMEDOUT),
            }
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use nix::sys::ptrace;
    use nix::unistd::Pid;

    use super::Registers;

    pub(super) const IS_KNOWN: bool = true;
    /// Bytes of the instruction `syscall`.
    pub(super) const CALL_LENGTH: u64 = 2;
    pub(super) const SLEEPS: &[i64] = &[
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
    ];

    pub(super) fn registers(pid: Pid) -> nix::Result<Registers> {
        ptrace::getregs(pid).map(|registers| Registers {
            pc: registers.rip,
            begun: registers.orig_rax.cast_signed(),
            next: registers.rax.cast_signed(),
        })
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use nix::sys::ptrace;
    use nix::unistd::Pid;

    use super::Registers;

    pub(super) const IS_KNOWN: bool = true;
    /// Bytes of the instruction `svc`.
    pub(super) const CALL_LENGTH: u64 = 4;
    pub(super) const SLEEPS: &[i64] = &[libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];

    pub(super) fn registers(pid: Pid) -> nix::Result<Registers> {
        ptrace::getregs(pid).map(|registers| Registers {
            pc: registers.pc,
            begun: registers.regs[8].cast_signed(),
            next: registers.regs[8].cast_signed(),
        })
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod machine {
    use nix::errno::Errno;
    use nix::unistd::Pid;

    use super::Registers;

    pub(super) const IS_KNOWN: bool = false;
    pub(super) const CALL_LENGTH: u64 = 0;
    pub(super) const SLEEPS: &[i64] = &[];

    pub(super) fn registers(_: Pid) -> nix::Result<Registers> {
        Err(Errno::ENOSYS)
    }
}
