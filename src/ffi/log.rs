//! Log lines, to a function of the user or to standard error.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::fmt;

use log::{Level, LevelFilter, Metadata, Record};

use super::status::{Failure, boundary, tine_status};
use super::{Userdata, lossy, pick};
use crate::role::Role;
use crate::sys::process::ProcessId;

/// The level of a log line.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_log_level {
    /// No line has this level: as a limit, it turns the log off.
    TINE_LOG_OFF = 0,
    /// A failure.
    TINE_LOG_ERROR = 1,
    /// An unusual event, such as the abnormal exit of a worker.
    TINE_LOG_WARN = 2,
    /// A rare and normal event.
    TINE_LOG_INFO = 3,
    /// Details for finding a fault.
    TINE_LOG_DEBUG = 4,
    /// More details.
    TINE_LOG_TRACE = 5,
}

/// One of tine_log_level, from C.
pub type LogLevelIn = i32;

use tine_log_level::*;

pub(super) const LEVELS: [(LogLevelIn, LevelFilter); 6] = [
    (TINE_LOG_OFF as i32, LevelFilter::Off),
    (TINE_LOG_ERROR as i32, LevelFilter::Error),
    (TINE_LOG_WARN as i32, LevelFilter::Warn),
    (TINE_LOG_INFO as i32, LevelFilter::Info),
    (TINE_LOG_DEBUG as i32, LevelFilter::Debug),
    (TINE_LOG_TRACE as i32, LevelFilter::Trace),
];

/// A line of the log. Valid until the function returns.
#[repr(C)]
pub struct tine_log_line {
    /// Its level.
    pub level: tine_log_level,
    /// The role of the process that logs: "master", "manager", "worker#0", "standby"; "tine" before the
    /// server has started.
    pub role: *const c_char,
    /// The pid of that process.
    pub pid: i32,
    /// The text, without a newline at its end. It may have some inside.
    pub text: *const c_char,
}

/// Takes a line of the log. Called in every process of the server, in the master by any of its threads:
/// it must be thread-safe. It must not block: the reactor, the manager or the worker that logs waits for it,
/// and with it the clients. Lines that it logs itself
/// with tine_log() are dropped.
pub type tine_log_fn =
    Option<unsafe extern "C-unwind" fn(line: *const tine_log_line, userdata: *mut c_void)>;

type Take = unsafe extern "C-unwind" fn(*const tine_log_line, *mut c_void);

struct Sink {
    take: Take,
    userdata: Userdata,
}

impl log::Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // Without this, a function that logs would call itself without end.
        let is_inside = INSIDE
            .try_with(|inside| inside.replace(true))
            .unwrap_or(true);
        if is_inside {
            return;
        }
        let _leave = Leave;
        if !self.enabled(record.metadata()) {
            return;
        }
        let (role, text) = (c_text(Role::current()), c_text(record.args()));
        let line = tine_log_line {
            level: match record.level() {
                Level::Error => TINE_LOG_ERROR,
                Level::Warn => TINE_LOG_WARN,
                Level::Info => TINE_LOG_INFO,
                Level::Debug => TINE_LOG_DEBUG,
                Level::Trace => TINE_LOG_TRACE,
            },
            role: role.as_ptr(),
            pid: ProcessId::current().get(),
            text: text.as_ptr(),
        };
        // SAFETY: the user's function, called as tine.h says; its argument lives until it returns.
        unsafe { (self.take)(&line, self.userdata.get()) };
    }

    fn flush(&self) {}
}

thread_local! {
    /// This thread is in the user's function.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|inside| inside.set(false));
    }
}

/// Returns a text for C, without its NULs.
fn c_text(text: impl fmt::Display) -> CString {
    let bytes: Vec<u8> = text.to_string().into_bytes();
    CString::new(
        bytes
            .into_iter()
            .filter(|byte| *byte != 0)
            .collect::<Vec<u8>>(),
    )
    .unwrap_or_default()
}

/// Sets the log: lines up to `level` go to `function`, or, if that is NULL, to standard error with time,
/// level, role and pid. No line is waited for there, whatever standard error is: a line for which there is no
/// room is dropped and counted. Without this call, lines up to
/// TINE_LOG_INFO go to standard error, from tine_server_run() on.
///
/// Once in a process, before tine_server_run(). `userdata` is passed to the function until the process
/// ends, also after tine_server_run() has returned.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub extern "C" fn tine_log_to(
    level: LogLevelIn,
    function: tine_log_fn,
    userdata: *mut c_void,
) -> tine_status {
    boundary(|| {
        let level = pick("level", level, &LEVELS)?;
        let is_first = match function {
            Some(take) => {
                let userdata = Userdata(userdata);
                let sink = Box::new(Sink { take, userdata });
                let is_first = log::set_boxed_logger(sink).is_ok();
                if is_first {
                    log::set_max_level(level);
                }
                is_first
            }
            None => crate::logger::start(level).is_ok(),
        };
        match is_first {
            true => Ok(()),
            false => Err(Failure::new(
                tine_status::TINE_ERROR_ALREADY,
                "this process has a log already: call tine_log_to() once, before tine_server_run()",
            )),
        }
    })
}

/// Writes a line to the server's log, with the role and the pid of the calling process. Any thread of
/// any process may call it. Bytes that are not UTF-8 are replaced, so that a text may be cut anywhere.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a level.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_log(level: LogLevelIn, message: *const c_char) -> tine_status {
    boundary(|| {
        // SAFETY: tine.h asks it of the caller.
        let message = unsafe { lossy("message", message) }?;
        let level = pick("level", level, &LEVELS)?;
        if let Some(level) = level.to_level() {
            log::log!(level, "{message}");
        }
        Ok(())
    })
}

/// Sets the default log before the server runs.
pub(super) fn start_by_default() {
    // An error means that the program has set a log: that one is used.
    let _ = crate::logger::start(LevelFilter::Info);
}
