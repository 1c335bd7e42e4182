//! The library's own log, in another format or in a file.

use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;

use super::log::{LEVELS, LogLevelIn};
use super::pick;
use super::status::{Failure, boundary, tine_status};
use crate::logger::{Format, Logger};

/// The form of the lines of a log.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_log_format {
    /// For people: time, level, role, pid and message.
    TINE_LOG_TEXT = 0,
    /// An object on one line, with time, level, role, pid and message.
    TINE_LOG_JSON = 1,
    /// The same fields as name=value.
    TINE_LOG_LOGFMT = 2,
}

/// One of tine_log_format, from C.
pub type LogFormatIn = i32;

use tine_log_format::*;

const FORMATS: [(LogFormatIn, Format); 3] = [
    (TINE_LOG_TEXT as i32, Format::Text),
    (TINE_LOG_JSON as i32, Format::Json),
    (TINE_LOG_LOGFMT as i32, Format::Logfmt),
];

/// Sets the log in the place of tine_log_to(): lines up to `level`, in this format, are appended to the file at `path`, or,
/// if that is NULL, go to standard error. The file is made with mode 0640, less the umask, if there is none, and SIGHUP to
/// the server opens it again.
///
/// Once in a process, before tine_server_run().
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_ALREADY, TINE_ERROR_SYSTEM if the file can't be opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_log_to_file(
    level: LogLevelIn,
    path: *const c_char,
    format: LogFormatIn,
) -> tine_status {
    boundary(|| {
        let level = pick("level", level, &LEVELS)?;
        let format = pick("format", format, &FORMATS)?;
        let mut logger = Logger::new().level(level).format(format);
        if !path.is_null() {
            // SAFETY: not NULL; the caller vouches for the NUL at its end. A path is any bytes.
            let path = unsafe { CStr::from_ptr(path) }.to_bytes();
            logger = logger.file(OsStr::from_bytes(path));
        }
        logger.start().map_err(|error| {
            let status = match error.is_taken() {
                true => tine_status::TINE_ERROR_ALREADY,
                false => tine_status::TINE_ERROR_SYSTEM,
            };
            Failure::new(status, error.to_string())
        })
    })
}
