//! A logger for servers: each line on standard error has time, level, role, pid and message.
//!
//! The library logs with the crate [`log`](https://docs.rs/log), which drops all lines until the program
//! sets a logger. This logger is that of the program `tine` and of the C library. Any other logger can be
//! used that works in forked processes and never waits; [`Role::current`] returns the process that logs.
//!
//! ```
//! tine::logger::start(tine::logger::LevelFilter::Info)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{Write, stderr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use env_logger::{Builder, Env};
pub use log::LevelFilter;
use log::{Level, SetLoggerError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::role::Role;

/// The number of lines of this process that were dropped since the last one that was not.
static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// Logs lines up to `level` from now on. Call it before [`Server::run`](crate::Server::run): every
/// process of the server logs with its own role and pid.
///
/// If standard error would block, a line is dropped: a server that waited for a pipe without a reader
/// would stop serving all its clients. The next line that is written says how many were dropped.
///
/// # Errors
/// The process has a logger already.
pub fn start(level: LevelFilter) -> Result<(), SetLoggerError> {
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
                    "{time} WARNING {role}[{pid}] {dropped} log lines were dropped: standard error was full"
                )?;
            }
            writeln!(buffer, "{time} {level} {role}[{pid}] {}", record.args())
        })
        .try_init()
}

/// Whether standard error takes a line now. A pipe that is ready takes 4,096 bytes, pipe(7).
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
