//! The calls that a callback makes on connections. A connection is a number, so that a stale or invented
//! one does no harm; the callback that a thread runs is known here, and not an argument.

use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::sockaddr_storage;

use super::address::storage;
use super::listener::tine_listener_id;
use super::status::{Failure, boundary, tine_status};
use super::{bytes, put};
use crate::conn_id::ConnId;
use crate::error::Error;
use crate::handler::{Conn, ConnRef, Context, Task};
use crate::manager::spawn::PANICKED;
use crate::sys::process;

/// The id of one connection, valid in every process of the server for as long as it runs. It may be
/// copied, kept, compared by its number, and passed to other processes. It is never reused: bytes sent
/// to a connection that is gone reach no other one. The log prints it as OWNER:PLACE:GENERATION, which are the
/// upper 10 bits of the number, the 22 below them, and its lower 32: the reactor that has the connection (in base
/// mode the slot of the worker process that accepted it), the place in its table, and a count of its connections.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct tine_conn {
    /// Its number; never 0, so 0 can be used for no connection.
    pub id: u64,
}

impl From<ConnId> for tine_conn {
    fn from(id: ConnId) -> tine_conn {
        tine_conn { id: id.as_u64() }
    }
}

impl tine_conn {
    pub(super) fn name(self) -> Result<ConnId, Failure> {
        ConnId::from_u64(self.id).ok_or_else(|| {
            Failure::invalid(format!(
                "conn: {:#x} is not the id of a connection",
                self.id
            ))
        })
    }
}

/// The arguments of a callback.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Given {
    cx: *mut Context<'static>,
    /// Null in a callback that is about no connection.
    conn: *mut Conn<'static>,
    /// Null in a callback that is about no task.
    task: *mut Task<'static>,
}

thread_local! {
    /// The arguments of the callback that this thread runs, while C's function runs.
    static CURRENT: Cell<Option<Given>> = const { Cell::new(None) };
}

/// While it exists, C may call the functions below. A guard and not a closure: each frame between the
/// server and C's function is seen in every stack that the watchdog logs.
pub(super) struct Current<'a> {
    given: Given,
    before: Option<Given>,
    pub(super) conn: tine_conn,
    _borrow: PhantomData<&'a mut ()>,
}

impl<'a> Current<'a> {
    pub(super) fn new(cx: &'a mut Context<'_>, conn: &'a mut Conn<'_>) -> Current<'a> {
        let name = conn.id().into();
        Current::of(cx, (ptr::from_mut(conn).cast(), ptr::null_mut()), name)
    }

    /// Of a callback that is about no connection.
    pub(super) fn without_conn(cx: &'a mut Context<'_>) -> Current<'a> {
        Current::of(cx, (ptr::null_mut(), ptr::null_mut()), tine_conn { id: 0 })
    }

    /// Of a callback for a task.
    pub(super) fn of_task(cx: &'a mut Context<'_>, task: &'a mut Task<'_>) -> Current<'a> {
        let task = ptr::from_mut(task).cast();
        Current::of(cx, (ptr::null_mut(), task), tine_conn { id: 0 })
    }

    fn of(
        cx: &'a mut Context<'_>,
        (conn, task): (*mut Conn<'static>, *mut Task<'static>),
        name: tine_conn,
    ) -> Current<'a> {
        // The lifetimes are lost in the types, and still kept: the pointers are removed before the
        // borrows end, and nothing else uses their targets until then.
        let given = Given {
            cx: ptr::from_mut(cx).cast(),
            conn,
            task,
        };
        Current {
            given,
            before: CURRENT.replace(Some(given)),
            conn: name,
            _borrow: PhantomData,
        }
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        if CURRENT.replace(self.before) != Some(self.given) {
            // It would go on as a copy of the worker that it was forked from.
            log::error!("a process forked in a callback returned from the callback: it exits here");
            process::exit_now(0);
        }
    }
}

/// Makes a process that a callback forks leave the callback: its calls on a connection would write to the
/// memory that the worker writes at the same time.
pub(super) fn see_to_forks() -> Result<(), Failure> {
    extern "C" fn forget() {
        let _ = CURRENT.try_with(|current| current.set(None));
    }
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if REGISTERED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: the function is never unloaded, and async-signal-safe as a fork handler must be: it writes
    // one word of its thread.
    match unsafe { libc::pthread_atfork(None, None, Some(forget)) } {
        0 => Ok(()),
        errno => {
            let source = io::Error::from_raw_os_error(errno);
            Err(Error::system("register a fork handler")(source).into())
        }
    }
}

/// Puts the taken arguments back, also after a panic.
struct Restore(Option<Given>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Passes the arguments of the running callback to a function.
///
/// A panic in it ends the worker, as in Rust: output that is half staged must not be committed.
fn with_current(
    body: impl FnOnce(&mut Context<'_>, Option<&mut Conn<'_>>) -> Result<(), Failure>,
) -> tine_status {
    with_given(|cx, conn, _| body(cx, conn))
}

fn with_given(
    body: impl FnOnce(
        &mut Context<'_>,
        Option<&mut Conn<'_>>,
        Option<&mut Task<'_>>,
    ) -> Result<(), Failure>,
) -> tine_status {
    boundary(|| {
        // Taken while they are used: a nested call, from a log function for example, finds none.
        let current = CURRENT.take();
        let _restore = Restore(current);
        let Some(given) = current else {
            return Err(Failure::new(
                tine_status::TINE_ERROR_OUTSIDE,
                "no callback of a worker runs in this thread",
            ));
        };
        // SAFETY: a `Current` of this thread has put them there and holds both borrows; no other code
        // uses them, since they were taken.
        let (cx, conn) = unsafe { (&mut *given.cx, given.conn.as_mut()) };
        // SAFETY: as above.
        let task = unsafe { given.task.as_mut() };
        or_end_the_worker(|| body(cx, conn, task))
    })
}

/// As `with_current`, for the callback's own task.
pub(super) fn with_task(body: impl FnOnce(&mut Task<'_>) -> Result<(), Failure>) -> tine_status {
    with_given(|_, _, task| match task {
        Some(task) => body(task),
        None => Err(Failure::new(
            tine_status::TINE_ERROR_OUTSIDE,
            "this callback is for no task",
        )),
    })
}

/// As `with_current`, for calls that are not about a connection.
pub(super) fn with_context(
    body: impl FnOnce(&mut Context<'_>) -> Result<(), Failure>,
) -> tine_status {
    with_current(|cx, _| body(cx))
}

/// As `with_current`, for any connection.
pub(super) fn with_any(
    conn: tine_conn,
    body: impl FnOnce(&mut ConnRef<'_>) -> Result<(), Failure>,
) -> tine_status {
    with_current(|cx, _| body(&mut cx.conn(conn.name()?)))
}

fn or_end_the_worker<T>(body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        log::error!(
            "a panic in tine, which is a bug: this worker exits, and the crash policy decides"
        );
        process::exit_now(PANICKED)
    })
}

/// As `with_current`, for facts that are known only of the callback's own connection.
pub(super) fn with_own(
    conn: tine_conn,
    body: impl FnOnce(&mut Conn<'_>) -> Result<(), Failure>,
) -> tine_status {
    with_current(|_, current| {
        let id = conn.name()?;
        match current.filter(|current| current.id() == id) {
            Some(current) => body(current),
            None => Err(Failure::new(
                tine_status::TINE_ERROR_OTHER_CONN,
                "conn: this is not the callback's own connection, and the call works for that one only",
            )),
        }
    })
}

/// Sends `length` bytes to a connection: the callback's own or any other of the server (in base
/// mode: of this worker), all or none of them. They may be reused when it returns. For a connection that
/// is gone, they are dropped.
///
/// The bytes leave when the callback returns TINE_OK or calls tine_flush(): a callback that fails before
/// that, or in which the worker dies, has sent nothing. They are copied once; any part of the callback's own
/// message, sent to any connection of the same reactor, is not copied at all. It never waits for the
/// client. There is no order between the outputs of callbacks of different connections to the same one.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OVER_LIMIT, TINE_ERROR_OTHER_WORKER,
/// TINE_ERROR_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_send(
    conn: tine_conn,
    message: *const c_void,
    length: usize,
) -> tine_status {
    with_current(|cx, _| {
        // SAFETY: tine.h asks it of the caller.
        let message = unsafe { bytes("message", message, length) }?;
        Ok(cx.conn(conn.name()?).send(message)?)
    })
}

/// Closes a connection after its output: with FIN, once the peer has taken all of it. Messages of it
/// that no callback has begun are dropped, and its `close` is called. Of another connection, in process
/// mode, those that are in a worker's inbox by then still have their callbacks.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER, and TINE_ERROR_OVER_LIMIT when the
/// calls of one callback on other connections count more than its output limit, 64 bytes each, in process
/// mode.
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_close(conn: tine_conn) -> tine_status {
    with_any(conn, |conn| Ok(conn.close()?))
}

/// Closes a connection at once with RST: unsent output is dropped, and its `close` is called.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER, and TINE_ERROR_OVER_LIMIT as for
/// tine_conn_close().
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_reset(conn: tine_conn) -> tine_status {
    with_any(conn, |conn| Ok(conn.reset()?))
}

/// Associates a connection with a user id: any number, such as that of a user, an account, a tenant.
/// With TINE_DISPATCH_USER_ID all connections of one user id go to one worker, from the next message on;
/// a dispatch function gets it too. Base mode: no effect, a connection stays with its worker.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER, and TINE_ERROR_OVER_LIMIT as for
/// tine_conn_close().
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_set_user(conn: tine_conn, user: u64) -> tine_status {
    with_current(|cx, current| {
        let id = conn.name()?;
        match current.filter(|current| current.id() == id) {
            Some(current) => current.set_user(user),
            None => cx.conn(id).set_user(user)?,
        }
        Ok(())
    })
}

/// Writes the client's address and port to `peer`, for the callback's own connection. A client of IPv4 is one of AF_INET at
/// every listener. A client of a unix socket has the family AF_UNIX and no address: tine_address_credentials() reads its
/// process and its user.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_peer(
    conn: tine_conn,
    peer: *mut sockaddr_storage,
) -> tine_status {
    with_own(conn, |current| {
        // SAFETY: tine.h asks it of the caller.
        unsafe { put("peer", peer, storage(current.peer())) }
    })
}

/// Writes the listener that accepted the callback's own connection to `listener`.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_listener(
    conn: tine_conn,
    listener: *mut tine_listener_id,
) -> tine_status {
    with_own(conn, |current| {
        let accepted_by = current.listener().into();
        // SAFETY: tine.h asks it of the caller.
        unsafe { put("listener", listener, accepted_by) }
    })
}

/// Writes the number of earlier runs of this callback with this message to `attempt`: runs in which a
/// worker died, or that failed. Always 0 except under TINE_ON_CRASH_REDELIVER, and in a `close` that runs
/// a second time.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_attempt(conn: tine_conn, attempt: *mut u8) -> tine_status {
    with_own(conn, |current| {
        // SAFETY: tine.h asks it of the caller.
        unsafe { put("attempt", attempt, current.attempt()) }
    })
}

/// Commits the output of this callback so far, which leaves now. From here on the callback can't be run
/// again: if the worker dies in it, or it fails, the connection is closed. A callback that sends more
/// than the output limit can flush in between.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN in a callback that is about no connection.
#[unsafe(no_mangle)]
pub extern "C" fn tine_flush() -> tine_status {
    with_current(|_, current| match current {
        Some(current) => {
            current.flush();
            Ok(())
        }
        None => Err(Failure::new(
            tine_status::TINE_ERROR_OTHER_CONN,
            "this callback is about no connection: its output is committed when it returns",
        )),
    })
}

/// Shuts the server down gracefully, as SIGTERM does, once this callback has returned TINE_OK or called
/// tine_flush(); not at all if it fails or its worker dies before.
///
/// In a callback of a connection, by the thread that runs it. Elsewhere, use tine_server_stop().
///
/// Errors: TINE_ERROR_OUTSIDE.
#[unsafe(no_mangle)]
pub extern "C" fn tine_stop() -> tine_status {
    with_context(|cx| {
        cx.server().stop();
        Ok(())
    })
}

/// Replaces the workers one at a time, as SIGUSR1 does, once this callback has returned TINE_OK or
/// called tine_flush(); not at all if it fails or its worker dies before.
///
/// In a callback of a connection, by the thread that runs it. Elsewhere, use tine_server_reload().
///
/// Errors: TINE_ERROR_OUTSIDE.
#[unsafe(no_mangle)]
pub extern "C" fn tine_reload() -> tine_status {
    with_context(|cx| {
        cx.server().reload();
        Ok(())
    })
}

/// Counters of the running server.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_stats {
    /// The seat of the calling worker: the N of `worker#N`.
    pub seat: i64,
    /// The number of the worker process, from 1: no two have the same.
    pub generation: u32,
    /// Callbacks that this worker process has finished.
    pub callbacks: u64,
    /// Connections open now: of the whole server in process mode, of this worker in base mode.
    pub connections: u64,
    /// Connections accepted since the start, counted in the same way.
    pub accepted: u64,
    /// Callbacks that have used up their attempts. 0 in base mode.
    pub poisoned: u64,
}

/// Writes counters of the running server to `stats`, which has `size` bytes. Pass `sizeof *stats`, so
/// that a program works with later versions that have more counters.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a size of no version, TINE_ERROR_OUTSIDE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_stats_read(stats: *mut tine_stats, size: usize) -> tine_status {
    with_context(|cx| {
        // A later version accepts more sizes, and writes the fields that each of them has.
        if size != size_of::<tine_stats>() {
            return Err(Failure::invalid(format!(
                "size: {size} is not the size of tine_stats, which is {}",
                size_of::<tine_stats>()
            )));
        }
        let (worker, figures) = (cx.worker(), cx.stats());
        let figures = tine_stats {
            seat: super::handler::seat(worker.seat()),
            generation: worker.generation(),
            callbacks: figures.callbacks,
            connections: figures.connections,
            accepted: figures.accepted,
            poisoned: figures.poisoned,
        };
        // SAFETY: tine.h asks it of the caller.
        unsafe { put("stats", stats, figures) }
    })
}
