//! Log lines: time, level, role, pid, message, on standard error.

use std::io::{Write, stderr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use env_logger::{Builder, Env};
use log::{Level, LevelFilter};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Role;

/// Lines of this process that nobody took.
static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// Starts logging, and says whether it did: a process logs to one place. The role and the pid are
/// asked for at each line, so that they are right in every forked process.
///
/// A line is dropped rather than waited for: where standard error is a pipe that nobody reads, a
/// server that waited would stand still with all its clients. The next line that is taken tells how
/// many were dropped.
pub(crate) fn start(level: LevelFilter) -> bool {
    Builder::from_env(Env::default())
        .filter_level(level)
        .format(|buffer, record| {
            if !is_taken() {
                DROPPED.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            let level = match record.level() {
                Level::Error => "ERROR",
                Level::Warn => "WARNING",
                Level::Info => "INFO",
                Level::Debug => "DEBUG",
                Level::Trace => "TRACE",
            };
            let (time, role, pid) = (
                buffer.timestamp_millis(),
                Role::current(),
                std::process::id(),
            );
            let dropped = DROPPED.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                writeln!(
                    buffer,
                    "{time} WARNING {role}[{pid}] {dropped} log lines were dropped"
                )?;
            }
            writeln!(buffer, "{time} {level} {role}[{pid}] {}", record.args())
        })
        .try_init()
        .is_ok()
}

/// Whether standard error takes a line now. A pipe that says so takes 4,096 bytes, pipe(7).
fn is_taken() -> bool {
    let stderr = stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => fds[0]
            .revents()
            .is_some_and(|ready| ready.contains(PollFlags::POLLOUT)),
        Err(_) => true,
    }
}
