//! What a function says of itself: a status, and behind it a text. The boundary that no panic
//! passes.

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

/// How a call went. The numbers are given out for good; later versions may add to them, so what is
/// not known should be taken for a failure. tine_strerror() says in words what each means, and
/// tine_last_error() what exactly went wrong.
///
/// Callbacks return one too: TINE_OK, or anything else to say that they failed. That is logged,
/// nothing of the callback's output is sent, and its connection has the fate that the crash policy
/// gives a callback whose worker has died (tine_on_crash), though this worker lives on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_status {
    /// It went well.
    TINE_OK = 0,
    /// For callbacks of yours to return: they could not do their work. tine_fail() says why.
    TINE_ERROR_FAILED = 1,
    /// A pointer is NULL that must not be. Nothing was done.
    TINE_ERROR_NULL = 2,
    /// An argument is out of its range, or a text is not UTF-8. Nothing was done.
    TINE_ERROR_INVALID = 3,
    /// This can be done once, and was: this server runs or has run, or one runs that this is a
    /// process of; a log is set.
    TINE_ERROR_ALREADY = 4,
    /// This can be done in a callback of a connection alone, by the thread that runs it.
    TINE_ERROR_OUTSIDE = 5,
    /// This is known of the callback's own connection alone.
    TINE_ERROR_OTHER_CONN = 6,
    /// In base mode: the connection is another worker's, out of reach.
    TINE_ERROR_OTHER_WORKER = 7,
    /// One callback may not send so much: see tine_server_set_output_limit().
    TINE_ERROR_OVER_LIMIT = 8,
    /// The memory given for a text is too small for it. Nothing was written.
    TINE_ERROR_TOO_SMALL = 9,
    /// A bug in the library: it has panicked, and the panic was stopped at its edge.
    TINE_ERROR_PANIC = 10,
    /// The server does not run: not yet, or not any more.
    TINE_ERROR_NOT_RUNNING = 11,
    /// This can be done in the process that takes the server's signals alone: the master, in base mode
    /// the manager.
    TINE_ERROR_WRONG_PROCESS = 12,

    /// The server could not start: a setting has a value that can't be.
    TINE_ERROR_SETTING = 32,
    /// The server could not start: the process has more threads than one. A fork copies the calling
    /// thread alone, and the locks that others hold stay held.
    TINE_ERROR_THREADS = 33,
    /// The server could not start: an address can't be listened on. tine_last_errno() says why.
    TINE_ERROR_LISTEN = 34,
    /// The server could not start: too few open files are allowed, RLIMIT_NOFILE.
    TINE_ERROR_OPEN_FILES = 35,
    /// The server could not start: no memory that the processes share.
    TINE_ERROR_SHARED_MEMORY = 36,
    /// The server could not start: the pid file can't be written.
    TINE_ERROR_PID_FILE = 37,
    /// The server could not start: a worker ended before it was ready.
    TINE_ERROR_WORKER_START = 38,
    /// The server has ended: its workers kept dying, tine_server_set_fail_on_crash_loop().
    TINE_ERROR_CRASH_LOOP = 39,
    /// The server has ended: its manager process was killed, or exited unexpectedly.
    TINE_ERROR_MANAGER_EXITED = 40,
    /// The server could not start, or has ended: a system call failed. tine_last_errno() says how.
    TINE_ERROR_SYSTEM = 41,
}

use tine_status::*;

/// A status that comes from C, and so may be any number.
pub type StatusIn = i32;

impl tine_status {
    const ALL: [tine_status; 23] = [
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
            TINE_ERROR_ALREADY => c"this can be done only once",
            TINE_ERROR_OUTSIDE => c"this can be done only in a callback of a connection",
            TINE_ERROR_OTHER_CONN => c"this is known only of the callback's own connection",
            TINE_ERROR_OTHER_WORKER => c"the connection is another worker's",
            TINE_ERROR_OVER_LIMIT => c"one callback may not send so much",
            TINE_ERROR_TOO_SMALL => c"the memory is too small for the text",
            TINE_ERROR_PANIC => c"a bug in the library",
            TINE_ERROR_NOT_RUNNING => c"the server does not run",
            TINE_ERROR_WRONG_PROCESS => c"this is another process of the server",
            TINE_ERROR_SETTING => c"a setting is not allowed",
            TINE_ERROR_THREADS => c"the process has more than one thread",
            TINE_ERROR_LISTEN => c"cannot listen",
            TINE_ERROR_OPEN_FILES => c"too few open files are allowed",
            TINE_ERROR_SHARED_MEMORY => c"no memory for the rings between master and workers",
            TINE_ERROR_PID_FILE => c"cannot write the pid file",
            TINE_ERROR_WORKER_START => c"a worker could not start",
            TINE_ERROR_CRASH_LOOP => c"the workers keep dying",
            TINE_ERROR_MANAGER_EXITED => c"the manager process exited unexpectedly",
            TINE_ERROR_SYSTEM => c"a system call failed",
        }
    }
}

/// Why a function did not do what it should.
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
        let said = said.unwrap_or("it did not say why");
        Failure::new(TINE_ERROR_PANIC, format!("a bug in the library: {said}"))
    }

    /// Keeps it for who asks, and says its status.
    fn remember(self) -> tine_status {
        let text: Vec<u8> = self
            .text
            .into_bytes()
            .into_iter()
            .filter(|b| *b != 0)
            .collect();
        let text = CString::new(text).unwrap_or_default();
        // A thread that is about to end has nowhere to keep it, and the status says enough.
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
        };
        Failure::new(status, error.to_string())
    }
}

struct Last {
    status: tine_status,
    text: CString,
    errno: c_int,
    /// A callback has begun since: what it returns is not about this.
    is_old: bool,
}

thread_local! {
    /// The last failure of this thread.
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

/// Every function that can fail goes through here: no panic leaves it, and why it failed is kept.
pub(super) fn boundary(body: impl FnOnce() -> Result<(), Failure>) -> tine_status {
    let outcome = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|payload| Err(Failure::panic(payload.as_ref())));
    match outcome {
        Ok(()) => TINE_OK,
        Err(failure) => failure.remember(),
    }
}

/// A callback begins, whose status [`outcome`] will be asked about.
pub(super) fn callback_begins() {
    LAST.with_borrow_mut(|last| {
        if let Some(last) = last {
            last.is_old = true;
        }
    });
}

/// What a callback's status means: the text that belongs to it, if the callback returned what a
/// function has told it meanwhile.
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

/// What a status means, in a few English words. Never NULL; the text is there for good. Any thread
/// of any process may ask.
#[unsafe(no_mangle)]
pub extern "C" fn tine_strerror(status: StatusIn) -> *const c_char {
    tine_status::of(status)
        .map_or(c"no status of this version of tine", tine_status::words)
        .as_ptr()
}

/// What exactly went wrong in the last call of this thread that failed: which setting, what is
/// wrong with it, what to do. Empty if none has failed; never NULL. A call that goes well does not
/// change it. The text belongs to the library, and is there until the next call of this thread that
/// fails.
#[unsafe(no_mangle)]
pub extern "C" fn tine_last_error() -> *const c_char {
    let text = LAST.try_with(|last| match &*last.borrow() {
        Some(last) => last.text.as_ptr(),
        None => c"".as_ptr(),
    });
    text.unwrap_or(c"".as_ptr())
}

/// For callbacks: says why they fail, for the log line of that, and returns TINE_ERROR_FAILED, so that
/// one can write `return tine_fail("no such user")`. The text is copied, and becomes
/// tine_last_error(). Any thread of any process may call it.
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

/// The errno(3) behind the last failure of this thread: EADDRINUSE, say. 0 if it was none of the
/// kernel's.
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

    /// A program that was compiled once must not be told something else by a later library.
    #[test]
    fn the_numbers_are_given_out_for_good() {
        let numbers = tine_status::ALL.map(|status| status as i32);
        let expected: Vec<i32> = (0..=12).chain(32..=41).collect();
        assert_eq!(numbers.as_slice(), expected);
    }

    #[test]
    fn every_status_has_words_of_its_own() {
        let mut words = tine_status::ALL.map(|status| text(tine_strerror(status as i32)));
        words.sort();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]), "{words:?}");
        for number in [-1, 13, 31, 42, i32::MIN, i32::MAX] {
            assert!(text(tine_strerror(number)).starts_with("no status"));
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
            address: "127.0.0.1:1".parse().unwrap(),
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
            "one callback may not send so much"
        );
        assert_eq!(text(tine_last_error()), "300 are allowed");
    }
}
