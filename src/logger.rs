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

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use env_logger::{Builder, Env, Target};
pub use log::LevelFilter;
use log::{Level, SetLoggerError};

use crate::printable::{is_control, printable};
use crate::role::Role;
use crate::sys::stream::{self, Cut};

/// The number of lines that the process `COUNTING` has dropped since the last one that was not.
static DROPPED: AtomicUsize = AtomicUsize::new(0);
static COUNTING: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The number of dropped lines that the line under way reports, and the bytes of the report.
    static REPORTED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Logs lines up to `level` from now on. Call it before [`Server::run`](crate::Server::run): every
/// process of the server logs with its own role and pid.
///
/// No line is waited for, whether standard error is a pipe that is not read, a terminal that is stopped
/// (Ctrl-S), a socket or a file. A line for which there is no room is dropped, and the next one that is
/// written follows a line with the number: `12 lines dropped`. Standard error itself is left as it is, since
/// it may be shared with other programs.
///
/// # Errors
/// The process has a logger already.
pub fn start(level: LevelFilter) -> Result<(), SetLoggerError> {
    Builder::from_env(Env::default())
        .filter_level(level)
        .target(Target::Pipe(Box::new(Sink)))
        .format(|buffer, record| {
            let level = match record.level() {
                Level::Error => "ERROR",
                Level::Warn => "WARNING",
                Level::Info => "INFO",
                Level::Debug => "DEBUG",
                Level::Trace => "TRACE",
            };
            let pid = std::process::id();
            let (time, role) = (buffer.timestamp_millis(), Role::current());
            let dropped = take_dropped(pid);
            let report = match dropped {
                0 => String::new(),
                1 => format!("{time} WARNING {role}[{pid}] 1 line dropped: standard error was full\n"),
                _ => format!(
                    "{time} WARNING {role}[{pid}] {dropped} lines dropped: standard error was full\n"
                ),
            };
            REPORTED.set((dropped, report.len()));
            let text = escaped(record.args().to_string());
            writeln!(buffer, "{report}{time} {level} {role}[{pid}] {text}")
        })
        .try_init()
}

/// Makes a text safe for a log, in which a program may have put bytes of a client. Its further lines are
/// indented, so that none of them looks like a line of the log.
fn escaped(text: String) -> String {
    if !text.contains(is_control) {
        return text;
    }
    let lines: Vec<String> = text.trim_end().split('\n').map(printable).collect();
    lines.join("\n    ")
}

/// Writes a text to standard output as the logger writes its lines: without waiting. `println!` would wait
/// for the reader of a full pipe.
///
/// # Errors
/// `ErrorKind::WouldBlock` when there is no room for all of it.
pub fn print(text: &str) -> io::Result<()> {
    written(stream::stdout().write(text.as_bytes()))
}

/// Writes a text to standard error, without waiting.
///
/// # Errors
/// As [`print`](fn@print).
pub fn print_error(text: &str) -> io::Result<()> {
    written(stream::stderr().write(text.as_bytes()))
}

fn written(result: Result<(), Cut>) -> io::Result<()> {
    result.map_err(|cut| cut.error)
}

/// Takes the number of lines that this process has dropped. A forked process has dropped none of those of its
/// parent.
fn take_dropped(pid: u32) -> usize {
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    match COUNTING.swap(pid, Ordering::Relaxed) == pid {
        true => dropped,
        false => 0,
    }
}

/// Standard error, which takes the lines it has room for.
struct Sink;

impl Write for Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if let Err(cut) = stream::stderr().write(lines) {
            let (dropped, report) = REPORTED.get();
            let unreported = if cut.written < report { dropped } else { 0 };
            DROPPED.fetch_add(unreported + 1, Ordering::Relaxed);
        }
        // There is nothing else to be done about it: a failed log is told nowhere.
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn no_text_begins_a_line_of_the_log_or_controls_a_terminal() {
        assert_eq!(escaped("plain é".to_owned()), "plain é");
        assert_eq!(
            escaped("a\r\n2026-01-01 ERROR master[1] forged\u{1b}[2J\n".to_owned()),
            "a\\r\n    2026-01-01 ERROR master[1] forged\\u{1b}[2J"
        );
    }
}
