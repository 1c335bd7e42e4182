//! A logger for servers: each line has time, level, role, pid and message. It writes to standard error or a file.
//!
//! The library logs with the crate [`log`](https://docs.rs/log), which drops all lines until the program
//! sets a logger. This logger is that of the program `tine` and of the C library. Any other logger can be
//! used that works in forked processes and never waits; [`Role::current`] returns the process that logs.
//!
//! ```
//! tine::logger::start(tine::logger::LevelFilter::Info)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Logger`] has more settings: a file, and the format of the lines.

mod file;
mod format;

use std::cell::Cell;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use env_logger::{Builder, Env, Target};
pub use log::LevelFilter;
use log::{Level, SetLoggerError};

use self::file::LogFile;
pub use self::format::Format;
use self::format::Line;
use crate::role::Role;
use crate::sys::notice::Notice;
use crate::sys::stream::{self, Cut};

/// The number of lines that the process `COUNTING` has dropped since the last one that was not.
static DROPPED: AtomicUsize = AtomicUsize::new(0);
static COUNTING: AtomicU32 = AtomicU32::new(0);

/// Where the lines go, if not to standard error.
static FILE: Mutex<Option<LogFile>> = Mutex::new(None);

/// Changes of the log, for all processes: how often it was opened again, times 8, plus the level.
static NOTICE: OnceLock<Notice> = OnceLock::new();

/// The part of the notice that is the level.
const LEVEL: u32 = 7;
const ONE_OPENING: u32 = 8;

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
    install(level, Format::Text)
}

/// The settings of the logger, with more than [`start`] has.
///
/// ```no_run
/// use tine::logger::{Format, LevelFilter, Logger};
///
/// Logger::new()
///     .level(LevelFilter::Warn)
///     .format(Format::Json)
///     .file("/var/log/app.log")
///     .start()?;
/// # Ok::<(), tine::logger::StartError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a logger does nothing until it is started"]
pub struct Logger {
    level: LevelFilter,
    format: Format,
    file: Option<PathBuf>,
}

impl Default for Logger {
    fn default() -> Logger {
        Logger {
            level: LevelFilter::Info,
            format: Format::Text,
            file: None,
        }
    }
}

impl Logger {
    /// Returns a logger that writes text up to the level info to standard error.
    pub fn new() -> Logger {
        Logger::default()
    }

    /// The lowest level that is logged. Default: info.
    pub fn level(mut self, level: LevelFilter) -> Logger {
        self.level = level;
        self
    }

    /// The form of the lines. Default: [`Format::Text`].
    pub fn format(mut self, format: Format) -> Logger {
        self.format = format;
        self
    }

    /// A file to append to, in the place of standard error. It is made with mode 0640, less the umask, if there is none.
    /// [`reopen`], which SIGHUP to the server calls, opens it again.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Logger {
        self.file = Some(path.into());
        self
    }

    /// Logs from now on, as [`start`] does.
    ///
    /// # Errors
    /// The process has a logger already, or the file can't be opened.
    pub fn start(self) -> Result<(), StartError> {
        let file = match &self.file {
            Some(path) => {
                Some(LogFile::open(path).map_err(|source| StartError::file(path, source))?)
            }
            None => None,
        };
        install(self.level, self.format).map_err(|_| StartError::taken())?;
        *locked_file() = file;
        Ok(())
    }
}

/// Why a log did not start.
#[derive(Debug)]
pub struct StartError {
    text: String,
    #[cfg_attr(not(feature = "capi"), allow(dead_code))] // Only C asks.
    is_taken: bool,
}

impl StartError {
    fn taken() -> StartError {
        StartError {
            text: "this process has a log already: start it once, before the server".to_owned(),
            is_taken: true,
        }
    }

    /// Whether the process has a logger already.
    #[cfg(feature = "capi")]
    pub(crate) fn is_taken(&self) -> bool {
        self.is_taken
    }

    fn file(path: &Path, source: io::Error) -> StartError {
        let path = path.display();
        StartError {
            text: format!(
                "cannot open the log file {path}: {source}; its folder must exist, and be writable for this user"
            ),
            is_taken: false,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StartError {}

/// Opens the log file again, in this process at once and in those that it has forked before their next line. A process
/// that may not open it keeps the old file. Without a log file nothing happens. SIGHUP to the server calls it.
pub fn reopen() {
    if let Some(notice) = NOTICE.get() {
        notice.set(notice.get().wrapping_add(ONE_OPENING));
        follow();
    }
}

/// Changes the level, in this process at once and in those that it has forked with their next line: a worker that is
/// forked later has it from its start.
pub fn set_level(level: LevelFilter) {
    if let Some(notice) = NOTICE.get() {
        notice.set((notice.get() & !LEVEL) | level as u32);
    }
    log::set_max_level(level);
}

/// Takes over what another process has changed.
fn follow() {
    let Some(notice) = NOTICE.get() else {
        return;
    };
    let now = notice.get();
    let level = LevelFilter::iter().nth((now & LEVEL) as usize);
    if let Some(level) = level.filter(|level| *level != log::max_level()) {
        log::set_max_level(level);
    }
    let mut file = locked_file();
    if let Some(Err(error)) = file.as_mut().map(|file| file.follow(now / ONE_OPENING)) {
        drop(file);
        // With the notice seen, this line does not come here again.
        log::warn!("cannot open the log file again, the old one stays: {error}");
    }
}

fn locked_file() -> std::sync::MutexGuard<'static, Option<LogFile>> {
    FILE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install(level: LevelFilter, format: Format) -> Result<(), SetLoggerError> {
    let journal = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    Builder::from_env(Env::default())
        // The level is that of the crate log, which may change.
        .filter_level(LevelFilter::Trace)
        .target(Target::Pipe(Box::new(Sink)))
        .format(move |buffer, record| {
            // Here, and not in the sink, which is locked: it may log.
            follow();
            let to_journal = !journal.is_empty()
                && locked_file().is_none()
                && stream::stderr_is_journal(&journal);
            let (pid, role) = (std::process::id(), Role::current());
            let time = buffer.timestamp_millis();
            let write = |level, message: &str| {
                let line = Line {
                    time: &time,
                    level,
                    role: &role,
                    pid,
                    message,
                };
                line.written(format, to_journal)
            };
            let dropped = take_dropped(pid);
            let lines = if dropped == 1 { "line" } else { "lines" };
            let report = match dropped {
                0 => String::new(),
                _ => write(
                    Level::Warn,
                    &format!("{dropped} {lines} dropped: {}", full()),
                ),
            };
            REPORTED.set((dropped, report.len()));
            let text = write(record.level(), &record.args().to_string());
            buffer.write_all(format!("{report}{text}").as_bytes())
        })
        .try_init()?;
    match Notice::new() {
        Ok(notice) => {
            notice.set(level as u32);
            // Another thread can't have set it: only one has set the logger.
            let _ = NOTICE.set(notice);
        }
        Err(error) => {
            log::warn!("a changed log level or log file will be this process's alone: {error}")
        }
    }
    log::set_max_level(level);
    Ok(())
}

fn full() -> &'static str {
    match *locked_file() {
        Some(_) => "the log file could not be written",
        None => "standard error was full",
    }
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

/// The file or standard error, which take the lines they have room for.
struct Sink;

impl Write for Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut file = locked_file();
        let written = match file.as_mut() {
            Some(file) => file.write(lines),
            None => stream::stderr().write(lines),
        };
        if let Err(cut) = written {
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
