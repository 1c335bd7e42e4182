//! A program from its start to its end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Child, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

use super::Exec;
use super::exchange::Pipes;
use crate::sys::child;

/// A process that was killed is gone soon, unless its disk does not answer.
const SOON: Duration = Duration::from_secs(1);

/// A started program. It and its process group are killed when this is dropped.
pub(super) struct Program {
    child: Child,
    exit: OwnedFd,
    status: Option<ExitStatus>,
}

impl Program {
    /// Starts it. Returns also the pipes of its standard input and output, and the one of its standard error.
    pub(super) fn start(exec: &Exec) -> io::Result<(Program, Pipes, File)> {
        let mut command = process::Command::new(&exec.command.program);
        command
            .args(&exec.command.arguments)
            .env("TINE_FORMAT", exec.format.name())
            .env("TINE_RUN", &exec.run)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        child::confine(&mut command);
        let mut child = command.spawn()?;
        let pid = rustix::process::Pid::from_child(&child);
        let streams = (
            child.stdin.take().map(OwnedFd::from),
            child.stdout.take().map(OwnedFd::from),
            child.stderr.take().map(OwnedFd::from),
        );
        let exit = pidfd_open(pid, PidfdFlags::empty())?;
        let (Some(input), Some(output), Some(errors)) = streams else {
            return Err(io::Error::other("a pipe is missing"));
        };
        let pipes = Pipes::new(
            at_once(input)?,
            at_once(output)?,
            exit.try_clone()?,
            exec.longest,
        );
        let program = Program {
            child,
            exit,
            status: None,
        };
        Ok((program, pipes, at_once(errors)?))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, which is awaited for this long.
    pub(super) fn ends_within(&mut self, time: Duration) -> bool {
        let end = std::time::Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            // Up, so that the last part of a millisecond is not spent awake.
            let left = PollTimeout::try_from(left + Duration::from_micros(999));
            let mut fds = [PollFd::new(self.exit.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, left.unwrap_or(PollTimeout::MAX)) {
                Ok(0) if std::time::Instant::now() >= end => return false,
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return true,
                Err(error) => {
                    log::error!("cannot wait for program[pid={}]: {error}", self.pid());
                    return false;
                }
            }
        }
    }

    /// Sends a signal to its process group. Its pid is its own until it was waited for.
    pub(super) fn signal(&self, signal: Signal) {
        if self.status.is_some() {
            return;
        }
        let group = Pid::from_raw(self.pid().cast_signed());
        match killpg(group, signal) {
            // All of it has ended.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => log::warn!("cannot send {signal} to program[pid={group}]: {error}"),
        }
    }

    /// Kills what is left of it and its group. Returns how it has ended, if it had before.
    pub(super) fn kill(&mut self) -> Option<ExitStatus> {
        let had_ended = self.ends_within(Duration::ZERO);
        self.signal(Signal::SIGKILL);
        if self.status.is_none() && self.ends_within(SOON) {
            match self.child.try_wait() {
                Ok(status) => self.status = status,
                Err(error) => log::warn!("cannot wait for program[pid={}]: {error}", self.pid()),
            }
        }
        self.status.filter(|_| had_ended)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the file without blocking.
fn at_once(end: OwnedFd) -> io::Result<File> {
    let flags = OFlag::from_bits_retain(fcntl(&end, FcntlArg::F_GETFL)?);
    fcntl(&end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(File::from(end))
}

/// Returns how a program has ended, in words.
pub(super) fn words(status: ExitStatus) -> String {
    let Some(number) = status.signal() else {
        return format!("exited with status {}", status.code().unwrap_or_default());
    };
    match Signal::try_from(number) {
        Ok(signal) => format!("was killed by signal {number} ({signal})"),
        Err(_) => format!("was killed by signal {number}"),
    }
}
