//! The stack of a worker that is stuck in a callback, with the names of the functions.
//!
//! In two steps, because resolving names is slow and the worker must be stopped only briefly. The manager
//! calls [`capture`], which stops the worker for less than a millisecond and copies its registers, stack
//! and mappings. A short-lived child of the manager calls [`Capture::resolve`], which maps the files that
//! the worker runs and reads their tables: that may wait for a disk, and the manager must not.

#[cfg(all(
    feature = "stack",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod unwind;

#[cfg(all(
    test,
    feature = "stack",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use super::process::{Activity, ended, state};
use crate::sys::trace::{Registers, Stopped};

/// The longest wait of the manager for a worker to stop.
const PATIENCE: Duration = Duration::from_millis(20);
/// The most bytes of a stack that are copied, from its inner end.
const STACK: usize = 256 << 10;
/// The most bytes of the list of mappings that are read: thousands of mappings.
const MAPS: u64 = 1 << 20;
/// The most frames that are shown.
const FRAMES: usize = 64;

/// Why this build cannot read stacks; `None` if it can.
const LACKING: Option<&str> = match (
    cfg!(feature = "stack"),
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64")),
) {
    (true, true) => None,
    (false, _) => Some("built without the feature `stack`"),
    (true, false) => Some("stacks can be read only on x86_64 and aarch64"),
};

/// A copy of a process's registers, stack and mappings.
pub(crate) struct Capture {
    registers: Registers,
    /// From the stack pointer upwards.
    stack: Vec<u8>,
    /// `/proc/PID/maps`.
    maps: Vec<u8>,
}

/// Copies the stack of a child of this process, which goes on at once. Blocks for at most 20 ms, and for
/// much less if the child gets a processor.
///
/// # Errors
/// Unsupported, if this build cannot read stacks. NotFound, if the process has ended; it is still to be
/// reaped. PermissionDenied, if it may not be traced, with the remedy. ResourceBusy, if it waits in the
/// kernel and can't be stopped. TimedOut, if it did not stop for another reason; then
/// [`reap`](crate::sys::process::reap) must be called at each SIGCHLD, which lets it go on.
pub(crate) fn capture(pid: i32) -> io::Result<Capture> {
    capture_within(pid, PATIENCE)
}

fn capture_within(pid: i32, patience: Duration) -> io::Result<Capture> {
    if let Some(lacking) = LACKING {
        return Err(io::Error::new(io::ErrorKind::Unsupported, lacking));
    }
    match state(pid)?.activity {
        Activity::Running | Activity::Sleeping | Activity::Stopped => {}
        Activity::WaitingForDisk => {
            let problem =
                format!("process {pid} waits in the kernel (state D): it can't be stopped");
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, problem));
        }
        Activity::Zombie => return Err(ended(pid)),
    }
    let mut stack = vec![0; STACK];
    let mut maps = Vec::with_capacity(64 << 10);
    let process = Stopped::stop(pid, patience)?;
    let registers = process.registers()?;
    // With an invalid stack pointer, the innermost function is still known.
    let copied = process.read(registers.sp, &mut stack).unwrap_or(0);
    stack.truncate(copied);
    // While it is stopped: then it holds no lock that this read would wait for.
    File::open(format!("/proc/{pid}/maps"))?
        .take(MAPS)
        .read_to_end(&mut maps)?;
    drop(process);
    Ok(Capture {
        registers,
        stack,
        maps,
    })
}

impl Capture {
    /// Returns the functions that the process was in, the innermost first, as far as they are found.
    /// Called in a process that may block and die: it opens files, and a file that is changed while it is
    /// read can kill it.
    pub(crate) fn resolve(&self) -> Vec<Frame> {
        #[cfg(all(
            feature = "stack",
            any(target_arch = "x86_64", target_arch = "aarch64")
        ))]
        return unwind::frames(self);
        #[cfg(not(all(
            feature = "stack",
            any(target_arch = "x86_64", target_arch = "aarch64")
        )))]
        return Vec::new();
    }
}

/// One function that a process was in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    /// 0 is the innermost.
    pub(crate) number: usize,
    /// Its name, without the hash of a Rust name.
    pub(crate) function: Option<String>,
    /// The name of its program or library.
    pub(crate) module: Option<String>,
    /// Its address in that file, for `addr2line -e FILE`; without a file, in the process.
    pub(crate) offset: u64,
    /// Its source, as `FILE:LINE`.
    pub(crate) location: Option<String>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.module {
            Some(module) => format!("{module}+{:#x}", self.offset),
            None => format!("{:#x}", self.offset),
        };
        let number = self.number;
        match (&self.function, &self.location) {
            (Some(function), Some(location)) => write!(f, "  #{number} {function} ({location})"),
            (Some(function), None) => write!(f, "  #{number} {function} ({place})"),
            (None, Some(location)) => write!(f, "  #{number} {place} ({location})"),
            (None, None) => write!(f, "  #{number} {place}"),
        }
    }
}
