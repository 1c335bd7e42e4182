//! The stack of a worker that is stuck in a callback, with the names of the functions.
//!
//! In two steps, because naming is slow and stopping must be quick. The manager calls [`capture`],
//! which stops the worker for less than a millisecond and copies what is needed. A short-lived child
//! of the manager calls [`Capture::resolve`], which maps the files that the worker runs and reads
//! their tables: that may wait for a disk, and the manager must not.

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

/// How long a worker may take to stop. The manager waits for that long.
const PATIENCE: Duration = Duration::from_millis(20);
/// How much of a stack is copied, from its inner end.
const STACK: usize = 256 << 10;
/// How much of a list of mappings is read: thousands of them.
const MAPS: u64 = 1 << 20;
/// How many frames are shown.
const FRAMES: usize = 64;

/// Why there are no stacks here, if there are none.
const LACKING: Option<&str> = match (
    cfg!(feature = "stack"),
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64")),
) {
    (true, true) => None,
    (false, _) => Some("built without the feature `stack`"),
    (true, false) => Some("stacks are read on x86_64 and aarch64 alone"),
};

/// A copy of what it takes to find out where a process was.
pub(crate) struct Capture {
    registers: Registers,
    /// From the stack pointer upwards.
    stack: Vec<u8>,
    /// `/proc/PID/maps`.
    maps: Vec<u8>,
}

/// Copies the stack of a child of this process, which goes on at once. Blocks for 20 ms at most, and
/// for much less if the child gets a processor.
///
/// # Errors
/// Unsupported, if this build can't. NotFound, if the process has ended; it is left to be reaped.
/// PermissionDenied, if it may not be traced, with what to do about it. ResourceBusy, if the kernel
/// holds it where nothing can stop it. TimedOut, if it did not stop for another reason; then
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
    // Where the stack pointer points nowhere, the innermost function is still known.
    let copied = process.read(registers.sp, &mut stack).unwrap_or(0);
    stack.truncate(copied);
    // While it is stopped, since then it holds no lock that this would wait for.
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
    /// The functions that the process was in, the innermost first: as many as could be found.
    /// Called in a process that may take its time, and die: it opens files, and a file that is
    /// changed while it is read can end it.
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
    /// The name of the program or library that it is in.
    pub(crate) module: Option<String>,
    /// Where it was: an address as that file numbers them, which `addr2line -e FILE` takes; without
    /// a file, as the process does.
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
