//! What a callback can do for connections. A connection is a number, so that a stale or invented
//! one does no harm; the callback that a thread is in is known here, and not passed around.

use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::sockaddr_storage;
use socket2::SockAddr;

use super::listener::tine_listener_id;
use super::status::{Failure, boundary, tine_status};
use super::{bytes, put};
use crate::conn_id::ConnId;
use crate::error::Error;
use crate::handler::{Conn, ConnRef, Context, SendError};
use crate::manager::spawn::PANICKED;
use crate::peer::Peer;
use crate::sys::process;

/// Names one connection of the server, in every process of it, for as long as it runs. It may be
/// copied, kept, compared by its number, and given to other processes. It is never given to another
/// connection: what is sent to one that is gone reaches nobody.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct tine_conn {
    /// Its number; never 0, which may stand for no connection.
    pub id: u64,
}

impl From<ConnId> for tine_conn {
    fn from(id: ConnId) -> tine_conn {
        tine_conn { id: id.as_u64() }
    }
}

impl tine_conn {
    fn name(self) -> Result<ConnId, Failure> {
        ConnId::from_u64(self.id).ok_or_else(|| {
            Failure::invalid(format!("conn: {:#x} is no connection's name", self.id))
        })
    }
}

/// What a callback was given.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Given {
    cx: *mut Context<'static>,
    conn: *mut Conn<'static>,
}

thread_local! {
    /// What the callback that this thread runs was given, while C's function runs.
    static CURRENT: Cell<Option<Given>> = const { Cell::new(None) };
}

/// While it is there, C can do for the callback's connection what the functions below do. A guard and
/// not a closure: all that lies between the server and C's function is seen in every stack that the
/// watchdog names.
pub(super) struct Current<'a> {
    given: Given,
    before: Option<Given>,
    pub(super) conn: tine_conn,
    _borrow: PhantomData<&'a mut ()>,
}

impl<'a> Current<'a> {
    pub(super) fn new(cx: &'a mut Context<'_>, conn: &'a mut Conn<'_>) -> Current<'a> {
        let name = conn.id().into();
        // The lifetimes are lost here, and kept in fact: the pointers are gone from where they are
        // put before the borrows end, and nothing else uses what they point to until then.
        let given = Given {
            cx: ptr::from_mut(cx).cast(),
            conn: ptr::from_mut(conn).cast(),
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
            // It would go on as the same worker, beside the one that it was forked from.
            log::error!("a process that a callback has forked returns from it: it ends here");
            process::exit_now(0);
        }
    }
}

/// Sees to it that in a process which a callback forks, no callback runs: what it does for a
/// connection would go into the memory that the worker writes at the same time.
pub(super) fn see_to_forks() -> Result<(), Failure> {
    extern "C" fn forget() {
        let _ = CURRENT.try_with(|current| current.set(None));
    }
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if REGISTERED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: the function is there for good, and async-signal-safe as a handler has to be: it
    // writes one word of its thread.
    match unsafe { libc::pthread_atfork(None, None, Some(forget)) } {
        0 => Ok(()),
        errno => {
            let source = io::Error::from_raw_os_error(errno);
            Err(Error::system("have forks told of")(source).into())
        }
    }
}

/// Puts back what was taken, also when a panic passes.
struct Restore(Option<Given>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Does something with what the callback that runs was given.
///
/// A panic ends the worker, as in Rust: what was half sent must not be committed with the rest.
fn with_current(
    body: impl FnOnce(&mut Context<'_>, &mut Conn<'_>) -> Result<(), Failure>,
) -> tine_status {
    boundary(|| {
        // Taken while it is used: what calls this function from in here, a log function say, finds
        // nothing.
        let current = CURRENT.take();
        let _restore = Restore(current);
        let Some(given) = current else {
            return Err(Failure::new(
                tine_status::TINE_ERROR_OUTSIDE,
                "no callback of a connection runs in this thread",
            ));
        };
        // SAFETY: a `Current` of this thread has put them there and holds both borrows; nothing else
        // uses them, since they were taken.
        let (cx, conn) = unsafe { (&mut *given.cx, &mut *given.conn) };
        or_end_the_worker(|| body(cx, conn))
    })
}

/// As `with_current`, for what is not about a connection.
pub(super) fn with_context(
    body: impl FnOnce(&mut Context<'_>) -> Result<(), Failure>,
) -> tine_status {
    with_current(|cx, _| body(cx))
}

/// As `with_current`, for any connection.
fn with_any(
    conn: tine_conn,
    body: impl FnOnce(&mut ConnRef<'_>) -> Result<(), SendError>,
) -> tine_status {
    with_current(|cx, _| Ok(body(&mut cx.conn(conn.name()?))?))
}

fn or_end_the_worker<T>(body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        log::error!("a bug in the library: this worker ends, and the crash policy decides");
        process::exit_now(PANICKED)
    })
}

/// As `with_current`, for what is known of that connection alone.
fn with_own(
    conn: tine_conn,
    body: impl FnOnce(&mut Conn<'_>) -> Result<(), Failure>,
) -> tine_status {
    with_current(|_, current| {
        if conn.name()? != current.id() {
            return Err(Failure::new(
                tine_status::TINE_ERROR_OTHER_CONN,
                "conn: the callback is another connection's, and this is known of its own alone",
            ));
        }
        body(current)
    })
}

/// Sends `length` bytes to a connection: the callback's own or any other of the server (in base
/// mode: of this worker). They are taken whole or not at all, and are the caller's again when it
/// returns. A connection that is gone takes them and drops them.
///
/// Nothing leaves before the callback returns TINE_OK or tine_flush() is called: a callback that fails
/// before that, or whose worker dies, has sent nothing. The bytes are copied once, but for those of the
/// message that the callback was given: any part of it, to any connection of the same reactor, is sent
/// from where it lies. It never waits for the client. There is no order between what callbacks of different connections
/// send to the same one.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OVER_LIMIT, TINE_ERROR_OTHER_WORKER.
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

/// Closes a connection after what was sent to it: FIN, once the peer has taken everything. Messages
/// of it that are still on their way are dropped, and its `close` is called.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER.
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_close(conn: tine_conn) -> tine_status {
    with_any(conn, |conn| conn.close())
}

/// Closes a connection at once, with RST: what was not sent yet is dropped, and its `close` is
/// called.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER.
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_reset(conn: tine_conn) -> tine_status {
    with_any(conn, |conn| conn.reset())
}

/// Associates a connection with a user: any number that stands for a user, an account, a tenant. With
/// TINE_DISPATCH_USER_ID all connections of one user are one worker's, from the next message on; a
/// dispatch function is told. Base mode: nothing happens, a connection stays where it was accepted.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER.
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_set_user(conn: tine_conn, user: u64) -> tine_status {
    with_any(conn, |conn| conn.set_user(user))
}

/// The client's address and port, of the callback's own connection: written to `peer`.
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
        let Peer::Ip(peer_address) = current.peer();
        let address = SockAddr::from(peer_address);
        let mut storage = MaybeUninit::<sockaddr_storage>::zeroed();
        // SAFETY: a storage has room for any address, and where it is zero it is a good one.
        let storage = unsafe {
            let from = address.as_ptr().cast::<u8>();
            let len = address.len() as usize;
            ptr::copy_nonoverlapping(from, storage.as_mut_ptr().cast(), len);
            storage.assume_init()
        };
        // SAFETY: tine.h asks it of the caller.
        unsafe { put("peer", peer, storage) }
    })
}

/// The listener that accepted the callback's own connection: written to `listener`.
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

/// How many workers have begun this callback, with this message, before, and died in it: written to
/// `attempt`. 0 but under TINE_ON_CRASH_REDELIVER.
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

/// Commits the output of this callback so far: it leaves now. From here on its message can't be run
/// again: if the worker dies in this callback, or the callback fails, the connection is closed. A
/// callback that sends more than it may at
/// once can flush in between.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_OUTSIDE.
#[unsafe(no_mangle)]
pub extern "C" fn tine_flush() -> tine_status {
    with_current(|_, current| {
        current.flush();
        Ok(())
    })
}

/// Ends the server gracefully, as SIGTERM does, once this callback has returned TINE_OK or called
/// tine_flush(); not at all if it fails or its worker dies before.
///
/// In a callback of a connection, by the thread that runs it. See tine_server_stop() for others.
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
/// In a callback of a connection, by the thread that runs it. See tine_server_reload() for others.
///
/// Errors: TINE_ERROR_OUTSIDE.
#[unsafe(no_mangle)]
pub extern "C" fn tine_reload() -> tine_status {
    with_context(|cx| {
        cx.server().reload();
        Ok(())
    })
}

/// Figures of the running server, as a worker sees them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_stats {
    /// The seat of the worker that asks: the N of `worker#N`.
    pub seat: i64,
    /// Which process of the server's workers it is, from 1: no two have the same.
    pub generation: u32,
    /// Callbacks that this worker process has finished.
    pub callbacks: u64,
    /// Connections open now: of the whole server in process mode, of this worker in base mode.
    pub connections: u64,
    /// Connections accepted since the start, counted likewise.
    pub accepted: u64,
    /// Callbacks that have used up their attempts. 0 in base mode.
    pub poisoned: u64,
}

/// Figures of the running server, written to `stats`, of which the caller has `size` bytes: give
/// `sizeof *stats`, so that a program goes on working when later versions know more figures.
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a size that is no version's, TINE_ERROR_OUTSIDE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_stats_read(stats: *mut tine_stats, size: usize) -> tine_status {
    with_context(|cx| {
        // A later version knows more sizes, and what those who have compiled with each expect.
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
