//! Signals as events of a loop: a handler only marks the signal and wakes the loop, which acts on it.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use signal_hook::SigId;
use signal_hook::low_level::{pipe, unregister};

/// The signals that one process listens to. Dropping it stops the listening; a forked child drops the
/// one that it inherited.
pub(crate) struct Signals {
    wake: UnixStream,
    marks: Vec<(Signal, Arc<AtomicBool>)>,
    registrations: Vec<SigId>,
}

impl Signals {
    /// Listens to `signals` from now on.
    pub(crate) fn new(signals: &[Signal]) -> io::Result<Signals> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        let mut this = Signals {
            wake,
            marks: Vec::new(),
            registrations: Vec::new(),
        };
        for &signal in signals {
            let mark = Arc::new(AtomicBool::new(false));
            // Actions run in the order of their registration: the mark is set before the loop
            // wakes.
            this.registrations.push(signal_hook::flag::register(
                signal as i32,
                Arc::clone(&mark),
            )?);
            this.registrations
                .push(pipe::register(signal as i32, write.try_clone()?)?);
            this.marks.push((signal, mark));
        }
        Ok(this)
    }

    /// Whether this signal came and [`take`](Self::take) has not returned it. Makes no system call.
    pub(crate) fn has(&self, signal: Signal) -> bool {
        self.marks
            .iter()
            .any(|(marked, mark)| *marked == signal && mark.load(Ordering::Relaxed))
    }

    /// Forgets the signals that came, except for one, which [`has`](Self::has) still reports.
    pub(crate) fn keep_only(&mut self, kept: Signal) {
        if self.take().contains(&kept)
            && let Some((_, mark)) = self.marks.iter().find(|(signal, _)| *signal == kept)
        {
            mark.store(true, Ordering::SeqCst);
        }
    }

    /// Returns the signals that came since the last call, each once however often it came.
    ///
    /// # Race condition
    /// The wake-up pipe is drained first and the marks are read after: a signal in between leaves a
    /// byte in the pipe, so that the loop wakes again, at worst for nothing.
    pub(crate) fn take(&mut self) -> Vec<Signal> {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(n) if n > 0) {}
        self.marks
            .iter()
            .filter(|(_, mark)| mark.swap(false, Ordering::SeqCst))
            .map(|(signal, _)| *signal)
            .collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Signals {
    /// Stops the listening.
    pub(crate) fn forget(&mut self) {
        for id in self.registrations.drain(..) {
            unregister(id);
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The signals that were blocked before; blocked so again when dropped.
pub(crate) struct Mask(SigSet);

/// Blocks every signal for this thread and for its children and new threads, until [`unblock`] or
/// until the mask is dropped: none is lost between a fork and the child's own listening.
pub(crate) fn block() -> io::Result<Mask> {
    let mut before = SigSet::empty();
    sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    Ok(Mask(before))
}

impl Drop for Mask {
    fn drop(&mut self) {
        if let Err(error) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None) {
            log::error!("cannot restore the signal mask: {error}");
        }
    }
}

/// Unblocks every signal. Those that came meanwhile are delivered now.
pub(crate) fn unblock() -> io::Result<()> {
    Ok(sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::empty()),
        None,
    )?)
}

/// The signals that every process of a server listens to, whether it acts on them or not. They are
/// caught and not ignored: a program that a callback executes gets the defaults back, execve(2).
pub(crate) const USUAL: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGPIPE,
];
