//! A thread of the worker beside its loop: it puts what the program writes to standard error into the log, and notices
//! that the program leaves, or writes, while it was asked nothing.
//!
//! Its one rule: the worker never waits for it, except a moment at its end, for the last lines.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};

use super::exchange::{Fault, Pipes, unasked};
use super::program::{Program, words};

/// The longest line of standard error in the log; longer ones are cut into such.
const LONGEST_LINE: usize = 4096;
/// A worker that has begun no callback for this long has committed its last one, which takes microseconds.
const SETTLED: Duration = Duration::from_millis(20);
/// While callbacks come, how often to look whether they still do.
const GLANCE: Duration = Duration::from_secs(1);
/// The time for the last lines, and for a program that has closed a pipe to exit.
const MOMENT: Duration = Duration::from_millis(200);

/// What the two threads of a worker share.
pub(super) struct Shared {
    /// Held during each callback, and by the thread that ends the worker.
    program: Mutex<Program>,
    pid: u32,
    /// The number of callbacks that have begun.
    calls: AtomicU64,
    /// The worker is about to end: the program may leave.
    ending: AtomicBool,
}

impl Shared {
    /// Begins a callback.
    pub(super) fn begin(&self) -> MutexGuard<'_, Program> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on the program may leave.
    pub(super) fn allow_end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Waits until a program that may leave has said its last words.
    pub(super) fn await_last_lines(watch: &Receiver<()>) {
        // The thread sends nothing: this ends when it does.
        let _ = watch.recv_timeout(MOMENT);
    }
}

/// Starts the thread. The channel closes when it ends.
pub(super) fn start(
    program: Program,
    pipes: &Pipes,
    errors: File,
) -> io::Result<(Arc<Shared>, Receiver<()>)> {
    let shared = Arc::new(Shared {
        pid: program.pid(),
        program: Mutex::new(program),
        calls: AtomicU64::new(0),
        ending: AtomicBool::new(false),
    });
    let (says_end, end) = sync_channel(0);
    let watch = Watch {
        shared: Arc::clone(&shared),
        output: pipes.output.as_fd().try_clone_to_owned()?,
        exit: pipes.exit.try_clone()?,
        errors: Some(errors),
        line: Vec::new(),
        _says_end: says_end,
    };
    // Signals are for the loop of the worker.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let thread = thread::Builder::new().name("watch".to_owned());
    let started = thread.spawn(move || watch.run());
    before.thread_set_mask()?;
    started?;
    Ok((shared, end))
}

/// Ends the worker, with a line that says what its program did, and where.
pub(super) fn end_worker(
    program: &mut Program,
    fault: &Fault,
    place: &str,
    last_lines: impl FnOnce(),
) -> ! {
    if matches!(fault, Fault::Left | Fault::ClosedInput) {
        // Its exit says more than its closed pipe.
        program.ends_within(MOMENT);
    }
    let status = program.kill();
    last_lines();
    let pid = program.pid();
    let what = match (fault, status) {
        (Fault::Left | Fault::ClosedInput, Some(status)) => words(status),
        (Fault::Left, None) => "has closed its standard output".to_owned(),
        (Fault::ClosedInput, None) => "has closed its standard input".to_owned(),
        (Fault::Rubbish(what), _) => format!("has written {what}"),
        (Fault::Failed(error), _) => format!("cannot be reached: {error}"),
    };
    log::warn!("program[pid={pid}] {what}, {place}: its worker ends with it");
    process::exit(1);
}

struct Watch {
    shared: Arc<Shared>,
    output: OwnedFd,
    exit: OwnedFd,
    /// `None` at its end.
    errors: Option<File>,
    /// The beginning of a line.
    line: Vec<u8>,
    _says_end: SyncSender<()>,
}

/// What the thread waits for.
#[derive(Clone, Copy)]
enum State {
    /// Callbacks come, and output is theirs: to be woken for each would make messages dear.
    Busy { calls: u64 },
    /// No callback has come for a while: nor should output.
    Idle,
    /// The program has left or written, perhaps in a callback, or right after its answer.
    Suspicious { calls: u64 },
}

/// What has come.
struct Seen {
    errors: bool,
    program: bool,
}

impl Watch {
    fn run(mut self) {
        let mut state = State::Busy { calls: 0 };
        loop {
            state = match self.step(state) {
                Ok(Some(state)) => state,
                Ok(None) => return,
                Err(error) => {
                    let pid = self.shared.pid;
                    return log::error!("cannot watch program[pid={pid}]: {error}");
                }
            }
        }
    }

    /// Waits once. Returns `None` when there is nothing more to watch.
    fn step(&mut self, state: State) -> io::Result<Option<State>> {
        let (asleep, output, limit) = match state {
            State::Busy { .. } => (true, PollFlags::empty(), Some(GLANCE)),
            State::Idle => (true, PollFlags::POLLIN, None),
            State::Suspicious { .. } => (false, PollFlags::empty(), Some(SETTLED)),
        };
        let seen = self.wait(asleep.then_some(output), limit)?;
        if seen.errors {
            self.forward();
        }
        if self.errors.is_none() && self.shared.ending.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let now = self.shared.calls.load(Ordering::Relaxed);
        Ok(Some(match state {
            _ if seen.program => State::Suspicious { calls: now },
            // A timer that runs anew with each line may be late.
            _ if seen.errors => state,
            State::Busy { calls } if calls == now => State::Idle,
            State::Suspicious { calls } if calls == now => {
                self.end_idle_worker();
                State::Busy { calls: now }
            }
            State::Busy { .. } | State::Suspicious { .. } => State::Busy { calls: now },
            State::Idle => State::Idle,
        }))
    }

    /// Waits for the program, if these events of its output are given, and for its lines.
    fn wait(&self, program: Option<PollFlags>, limit: Option<Duration>) -> io::Result<Seen> {
        let mut fds = Vec::with_capacity(3);
        if let Some(output) = program {
            fds.push(PollFd::new(self.output.as_fd(), output));
            fds.push(PollFd::new(self.exit.as_fd(), PollFlags::POLLIN));
        }
        let of_program = fds.len();
        if let Some(errors) = &self.errors {
            fds.push(PollFd::new(errors.as_fd(), PollFlags::POLLIN));
        }
        let limit = limit.map_or(Ok(PollTimeout::NONE), PollTimeout::try_from);
        match poll(&mut fds, limit.unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let came = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let (program, errors) = fds.split_at(of_program);
        Ok(Seen {
            errors: errors.iter().any(came),
            program: program.iter().any(came),
        })
    }

    /// Reads once from standard error, and logs each line.
    fn forward(&mut self) {
        let Some(errors) = &mut self.errors else {
            return;
        };
        let mut bytes = [0; LONGEST_LINE];
        match errors.read(&mut bytes) {
            Ok(0) => self.errors = None,
            Ok(read) => {
                for byte in &bytes[..read] {
                    if *byte == b'\n' || self.line.len() == LONGEST_LINE {
                        self.log_line();
                    }
                    if *byte != b'\n' {
                        self.line.push(*byte);
                    }
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => {
                let pid = self.shared.pid;
                log::warn!("cannot read the standard error of program[pid={pid}]: {error}");
                self.errors = None;
            }
        }
        if self.errors.is_none() && !self.line.is_empty() {
            self.log_line();
        }
    }

    fn log_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        log::warn!("program[pid={}]: {}", self.shared.pid, text.trim_end());
        self.line.clear();
    }

    /// Ends the worker, if it is in no callback and the program is to blame for anything.
    fn end_idle_worker(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut program = match shared.program.try_lock() {
            Ok(program) => program,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // A callback runs, and sees for itself.
            Err(TryLockError::WouldBlock) => return,
        };
        let mut byte = [0; 64];
        let fault = match rustix::io::read(&self.output, &mut byte) {
            Ok(0) => Fault::Left,
            Ok(read) => Fault::Rubbish(unasked(&byte[..read])),
            Err(rustix::io::Errno::AGAIN) if program.ends_within(Duration::ZERO) => Fault::Left,
            // A callback has read it.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Err(error) => Fault::Failed(error.into()),
        };
        end_worker(&mut program, &fault, "while it was asked nothing", || {
            while self.errors.is_some()
                && self.wait(None, Some(MOMENT)).is_ok_and(|seen| seen.errors)
            {
                self.forward();
            }
        });
    }
}
