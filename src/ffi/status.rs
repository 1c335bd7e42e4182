//! The result of every function: a status, and a text for the last failure. Also the boundary that no
//! panic passes.

use std::any::Any;
use std::cell::RefCell;
use std::error::Error as _;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::lossy;
use crate::error::{Error, ErrorKind};
use crate::handler::SendError;

/// The result of a call. The numbers never change; later versions may add new ones, so treat an unknown
/// one as a failure. tine_strerror() returns the meaning of each in words, and tine_last_error() the
/// details of a failure.
///
/// Callbacks return one too: TINE_OK, or any other to report a failure. A failure is logged, none of the
/// callback's output is sent, and the crash policy (tine_on_crash) decides the fate of its connection, as
/// if the worker had died, though this worker lives on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_status {
    /// Success.
    TINE_OK = 0,
    /// For your callbacks to return: they could not do their work. tine_fail() sets the reason.
    TINE_ERROR_FAILED = 1,
    /// A pointer is NULL that must not be. The call had no effect.
    TINE_ERROR_NULL = 2,
    /// An argument is out of its range, or a text is not UTF-8. The call had no effect.
    TINE_ERROR_INVALID = 3,
    /// The call can be made only once, and was: this server runs or has run, or this is a process of a
    /// running server; or the log is set.
    TINE_ERROR_ALREADY = 4,
    /// The call can be made only in a callback of a connection, by the thread that runs it.
    TINE_ERROR_OUTSIDE = 5,
    /// The call can be made only for the callback's own connection.
    TINE_ERROR_OTHER_CONN = 6,
    /// In base mode: the connection belongs to another worker, which cannot be reached.
    TINE_ERROR_OTHER_WORKER = 7,
    /// The callback has sent more than tine_server_set_output_limit() allows.
    TINE_ERROR_OVER_LIMIT = 8,
    /// The memory for a text is too small for it. The call has written nothing.
    TINE_ERROR_TOO_SMALL = 9,
    /// A bug in the library: it panicked, and the panic was stopped at its boundary.
    TINE_ERROR_PANIC = 10,
    /// The server does not run yet, or has ended.
    TINE_ERROR_NOT_RUNNING = 11,
    /// The call can be made only in the process that handles the server's signals: the master, in base
    /// mode the manager.
    TINE_ERROR_WRONG_PROCESS = 12,
    /// The callback's own connection takes no more output: the callback has closed it, or is its close
    /// callback for a reason that leaves nothing to send on (tine_close_reason).
    TINE_ERROR_CLOSED = 13,
    /// The server keeps as many bytes of states, timers, promises, groups, posts and results as it may: half of
    /// the memory budget. Or the connection is in TINE_MOST_GROUPS groups. Or as many posts of a poster wait as may.
    TINE_ERROR_FULL = 14,
    /// As many tasks wait or run as may, or as many bytes of them: tine_server_set_task_queue().
    TINE_ERROR_QUEUE_FULL = 15,
    /// The server has no task workers: tine_server_set_task_workers(). In base mode it can't have any.
    TINE_ERROR_NO_TASK_WORKERS = 16,
    /// The master has not answered a question of the callback in time: it is busy, or was stopped.
    TINE_ERROR_NO_ANSWER = 17,

    /// The server could not start: a setting has an invalid value.
    TINE_ERROR_SETTING = 32,
    /// The server could not start: the process has more than one thread. A fork copies the calling
    /// thread alone, and the locks that others hold are never released.
    TINE_ERROR_THREADS = 33,
    /// The server could not start: it cannot listen on an address. tine_last_errno() has the cause.
    TINE_ERROR_LISTEN = 34,
    /// The server could not start: the limit of open files (RLIMIT_NOFILE) is too low. Or tine_conn_send_file() was
    /// refused: as many files are being sent as may be.
    TINE_ERROR_OPEN_FILES = 35,
    /// The server could not start: the memory that the processes share could not be mapped.
    TINE_ERROR_SHARED_MEMORY = 36,
    /// The server could not start: the pid file can't be written.
    TINE_ERROR_PID_FILE = 37,
    /// The server could not start: a worker exited before it was ready.
    TINE_ERROR_WORKER_START = 38,
    /// The server has ended: its workers kept dying. See tine_server_set_fail_on_crash_loop().
    TINE_ERROR_CRASH_LOOP = 39,
    /// The server has ended: its manager process was killed, or exited unexpectedly.
    TINE_ERROR_MANAGER_EXITED = 40,
    /// The server could not start, or has ended: a system call failed. tine_last_errno() has the cause.
    TINE_ERROR_SYSTEM = 41,
}

use tine_status::*;

/// A status from C, which may be any number.
pub type StatusIn = i32;

impl tine_status {
    const ALL: [tine_status; 28] = [
        TINE_OK,
        TINE_ERROR_FAILED,
        TINE_ERROR_NULL,
        TINE_ERROR_INVALID,
        TINE_ERROR_ALREADY,
        TINE_ERROR_OUTSIDE,
        TINE_ERROR_OTHER_CONN,
        TINE_ERROR_OTHER_WORKER,
        TINE_ERROR_OVER_LIMIT,
        TINE_ERROR_TOO_SMALL,
        TINE_ERROR_PANIC,
        TINE_ERROR_NOT_RUNNING,
        TINE_ERROR_WRONG_PROCESS,
        TINE_ERROR_CLOSED,
        TINE_ERROR_FULL,
        TINE_ERROR_QUEUE_FULL,
        TINE_ERROR_NO_TASK_WORKERS,
        TINE_ERROR_NO_ANSWER,
        TINE_ERROR_SETTING,
        TINE_ERROR_THREADS,
        TINE_ERROR_LISTEN,
        TINE_ERROR_OPEN_FILES,
        TINE_ERROR_SHARED_MEMORY,
        TINE_ERROR_PID_FILE,
        TINE_ERROR_WORKER_START,
        TINE_ERROR_CRASH_LOOP,
        TINE_ERROR_MANAGER_EXITED,
        TINE_ERROR_SYSTEM,
    ];

    pub(super) fn of(code: StatusIn) -> Option<tine_status> {
        Self::ALL
            .into_iter()
            .find(|status| *status as StatusIn == code)
    }

    fn words(self) -> &'static CStr {
        match self {
            TINE_OK => c"success",
            TINE_ERROR_FAILED => c"the callback failed",
            TINE_ERROR_NULL => c"a pointer is NULL that must not be",
            TINE_ERROR_INVALID => c"an argument is not allowed",
            TINE_ERROR_ALREADY => c"the call can be made only once",
            TINE_ERROR_OUTSIDE => c"the call can be made only in a callback of a connection",
            TINE_ERROR_OTHER_CONN => c"the call can be made only for the callback's own connection",
            TINE_ERROR_OTHER_WORKER => c"the connection belongs to another worker",
            TINE_ERROR_OVER_LIMIT => c"the callback has sent more than the output limit",
            TINE_ERROR_TOO_SMALL => c"the memory is too small for the text",
            TINE_ERROR_PANIC => c"a bug in the library",
            TINE_ERROR_NOT_RUNNING => c"the server does not run",
            TINE_ERROR_WRONG_PROCESS => c"the call must be made in the master (base mode: manager)",
            TINE_ERROR_CLOSED => c"the connection takes no more output",
            TINE_ERROR_FULL => c"the server keeps as much as it may",
            TINE_ERROR_QUEUE_FULL => c"the queue of tasks is full",
            TINE_ERROR_NO_TASK_WORKERS => c"the server has no task workers",
            TINE_ERROR_NO_ANSWER => c"the master has not answered in time",
            TINE_ERROR_SETTING => c"a setting has an invalid value",
            TINE_ERROR_THREADS => c"the process has more than one thread",
            TINE_ERROR_LISTEN => c"cannot listen",
            TINE_ERROR_OPEN_FILES => c"the limit of open files is too low",
            TINE_ERROR_SHARED_MEMORY => c"no memory for the rings between master and workers",
            TINE_ERROR_PID_FILE => c"cannot write the pid file",
            TINE_ERROR_WORKER_START => c"a worker did not start",
            TINE_ERROR_CRASH_LOOP => c"the workers keep dying",
            TINE_ERROR_MANAGER_EXITED => c"the manager process exited unexpectedly",
            TINE_ERROR_SYSTEM => c"a system call failed",
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    status: tine_status,
    text: String,
    errno: c_int,
}

impl Failure {
    pub(super) fn new(status: tine_status, text: impl Into<String>) -> Failure {
        Failure {
            status,
            text: text.into(),
            errno: 0,
        }
    }

    pub(super) fn null(argument: &str) -> Failure {
        Failure::new(TINE_ERROR_NULL, format!("{argument} is NULL"))
    }

    pub(super) fn invalid(text: impl Into<String>) -> Failure {
        Failure::new(TINE_ERROR_INVALID, text)
    }

    fn panic(payload: &(dyn Any + Send)) -> Failure {
        let said = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let said = said.unwrap_or("a panic without a text");
        Failure::new(TINE_ERROR_PANIC, format!("a bug in the library: {said}"))
    }

    /// Keeps it for tine_last_error(), and returns its status.
    fn remember(self) -> tine_status {
        let text: Vec<u8> = self
            .text
            .into_bytes()
            .into_iter()
            .filter(|b| *b != 0)
            .collect();
        let text = CString::new(text).unwrap_or_default();
        // A thread that is about to end cannot keep it; it still gets the status.
        let _ = LAST.try_with(|last| {
            *last.borrow_mut() = Some(Last {
                status: self.status,
                text,
                errno: self.errno,
                is_old: false,
            });
        });
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match error.kind() {
            ErrorKind::Setting => TINE_ERROR_SETTING,
            ErrorKind::Threads => TINE_ERROR_THREADS,
            ErrorKind::Listen => TINE_ERROR_LISTEN,
            ErrorKind::OpenFiles => TINE_ERROR_OPEN_FILES,
            ErrorKind::SharedMemory => TINE_ERROR_SHARED_MEMORY,
            ErrorKind::PidFile => TINE_ERROR_PID_FILE,
            ErrorKind::WorkerStart => TINE_ERROR_WORKER_START,
            ErrorKind::CrashLoop => TINE_ERROR_CRASH_LOOP,
            ErrorKind::ManagerExited => TINE_ERROR_MANAGER_EXITED,
            ErrorKind::System => TINE_ERROR_SYSTEM,
        };
        let source = error.source().and_then(|s| s.downcast_ref::<io::Error>());
        Failure {
            status,
            errno: source.and_then(io::Error::raw_os_error).unwrap_or(0),
            text: error.to_string(),
        }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Failure {
        let status = match error {
            SendError::OverLimit { .. } => TINE_ERROR_OVER_LIMIT,
            SendError::OtherWorker => TINE_ERROR_OTHER_WORKER,
            SendError::Closed => TINE_ERROR_CLOSED,
            SendError::TooLong { .. }
            | SendError::NoSeat { .. }
            | SendError::NotAFile
            | SendError::BadRange { .. } => TINE_ERROR_INVALID,
            SendError::TooManyFiles { .. } | SendError::NoDescriptor => TINE_ERROR_OPEN_FILES,
            SendError::Full { .. } | SendError::TooManyGroups { .. } => TINE_ERROR_FULL,
            SendError::NoAnswer => TINE_ERROR_NO_ANSWER,
            SendError::QueueFull { .. } => TINE_ERROR_QUEUE_FULL,
            SendError::NoTaskWorkers => TINE_ERROR_NO_TASK_WORKERS,
        };
        Failure::new(status, error.to_string())
    }
}

struct Last {
    status: tine_status,
    text: CString,
    errno: c_int,
    /// A callback has begun since: its status is not about this failure.
    is_old: bool,
}

thread_local! {
    /// The thread's last failure.
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

/// Runs a function of the ABI that can fail: stops panics, and keeps the failure.
pub(super) fn boundary(body: impl FnOnce() -> Result<(), Failure>) -> tine_status {
    let outcome = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|payload| Err(Failure::panic(payload.as_ref())));
    match outcome {
        Ok(()) => TINE_OK,
        Err(failure) => failure.remember(),
    }
}

/// Called before a callback. Its status is passed to [`outcome`] afterwards.
pub(super) fn callback_begins() {
    LAST.with_borrow_mut(|last| {
        if let Some(last) = last {
            last.is_old = true;
        }
    });
}

/// Returns the result of a callback's status. The error's text is that of the last failure, if a function
/// has returned the same status to the callback.
pub(super) fn outcome(code: StatusIn) -> crate::error::Result {
    let Some(status) = tine_status::of(code) else {
        return Err(format!("the callback returned {code}").into());
    };
    if status == TINE_OK {
        return Ok(());
    }
    let detail = LAST.with_borrow(|last| match last {
        Some(last) if last.status == status && !last.is_old => {
            last.text.to_string_lossy().into_owned()
        }
        Some(_) | None => status.words().to_string_lossy().into_owned(),
    });
    Err(detail.into())
}

/// Returns the meaning of a status in a few English words. Never NULL; the text is never freed. Any
/// thread of any process may call it.
#[unsafe(no_mangle)]
pub extern "C" fn tine_strerror(status: StatusIn) -> *const c_char {
    tine_status::of(status)
        .map_or(
            c"an unknown status in this version of tine",
            tine_status::words,
        )
        .as_ptr()
}

/// Returns the details of this thread's last failed call: the argument or setting, the mistake, the
/// remedy. Empty if none has failed; never NULL. A successful call does not change it. The text belongs
/// to the library, and is valid until the next failed call of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn tine_last_error() -> *const c_char {
    let text = LAST.try_with(|last| match &*last.borrow() {
        Some(last) => last.text.as_ptr(),
        None => c"".as_ptr(),
    });
    text.unwrap_or(c"".as_ptr())
}

/// For callbacks: sets the reason of their failure for the log, and returns TINE_ERROR_FAILED, for
/// `return tine_fail("no such user")`. The text is copied, and becomes tine_last_error(). Any thread of
/// any process may call it.
///
/// Errors: TINE_ERROR_NULL. It never returns TINE_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_fail(why: *const c_char) -> tine_status {
    boundary(|| {
        // SAFETY: tine.h asks it of the caller.
        let why = unsafe { lossy("why", why) }?;
        Err(Failure::new(TINE_ERROR_FAILED, why))
    })
}

/// Returns the errno(3) of this thread's last failed call: EADDRINUSE, for example. 0 if the failure was
/// not from the kernel.
#[unsafe(no_mangle)]
pub extern "C" fn tine_last_errno() -> c_int {
    let errno = LAST.try_with(|last| last.borrow().as_ref().map_or(0, |last| last.errno));
    errno.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Problem;

    fn text(text: *const c_char) -> String {
        // SAFETY: the functions under test return texts that end with a NUL.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
    }

    /// A program compiled once must get the same numbers from a later library.
    #[test]
    fn the_numbers_are_given_out_for_good() {
        let numbers = tine_status::ALL.map(|status| status as i32);
        let expected: Vec<i32> = (0..=17).chain(32..=41).collect();
        assert_eq!(numbers.as_slice(), expected);
    }

    #[test]
    fn every_status_has_words_of_its_own() {
        let mut words = tine_status::ALL.map(|status| text(tine_strerror(status as i32)));
        words.sort();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]), "{words:?}");
        for number in [-1, 18, 31, 42, i32::MIN, i32::MAX] {
            assert!(text(tine_strerror(number)).starts_with("an unknown status"));
        }
    }

    #[test]
    fn a_panic_becomes_a_status_and_a_text() {
        let status = boundary(|| panic!("of {}", "art"));
        assert_eq!(status, TINE_ERROR_PANIC);
        assert_eq!(text(tine_last_error()), "a bug in the library: of art");
    }

    #[test]
    fn a_failure_is_remembered_until_the_next_and_by_its_thread_alone() {
        let fails = |text: &'static str| boundary(|| Err(Failure::invalid(text)));
        assert_eq!(fails("one\0two"), TINE_ERROR_INVALID);
        assert_eq!(text(tine_last_error()), "onetwo");
        assert_eq!(boundary(|| Ok(())), TINE_OK);
        assert_eq!(text(tine_last_error()), "onetwo");
        let other = std::thread::spawn(|| text(tine_last_error())).join();
        assert_eq!(other.unwrap(), "");
        fails("three");
        assert_eq!(text(tine_last_error()), "three");
    }

    #[test]
    fn what_the_kernel_said_is_kept_as_a_number() {
        let source = io::Error::from_raw_os_error(libc::EADDRINUSE);
        let problem = Problem::Listen {
            listener: "web".to_owned(),
            address: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            source,
        };
        let status = boundary(|| Err(Error::from(problem).into()));
        assert_eq!(
            (status, tine_last_errno()),
            (TINE_ERROR_LISTEN, libc::EADDRINUSE)
        );
        boundary(|| Err(Failure::null("server")));
        assert_eq!(tine_last_errno(), 0);
    }

    #[test]
    fn a_callback_s_status_tells_what_the_library_has_told() {
        boundary(|| Err(Failure::new(TINE_ERROR_OVER_LIMIT, "300 are allowed")));
        let said = |status| outcome(status).unwrap_err().to_string();
        assert_eq!(said(TINE_ERROR_OVER_LIMIT as i32), "300 are allowed");
        assert_eq!(said(TINE_ERROR_FAILED as i32), "the callback failed");
        assert_eq!(said(77), "the callback returned 77");
        assert!(outcome(0).is_ok());

        callback_begins();
        assert_eq!(
            said(TINE_ERROR_OVER_LIMIT as i32),
            "the callback has sent more than the output limit"
        );
        assert_eq!(text(tine_last_error()), "300 are allowed");
    }
}
