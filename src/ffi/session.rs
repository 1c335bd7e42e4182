//! The state, the user, the message numbers and the timers of a callback's connection.

use std::ffi::c_void;
use std::time::Duration;

use super::conn::{tine_conn, with_own};
use super::status::{Failure, tine_status};
use super::{bytes, put};
use crate::config::{MOST_REPLY, MOST_STATE};

/// The most bytes of a connection's state.
pub const TINE_MOST_STATE: usize = 65536;

const _: () = assert!(TINE_MOST_STATE == MOST_STATE);

/// Sets the state of the callback's own connection: at most TINE_MOST_STATE bytes, which may be reused when it
/// returns. It is part of the callback's output: it is committed with the answer, or not at all. It belongs to the
/// connection and not to this worker: the next callback of the connection finds it wherever it runs, also after a
/// crash, a reload or a recycling, until its `close` has run. It counts against the memory budget.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none and for more bytes,
/// TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_FULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_set_state(
    conn: tine_conn,
    state: *const c_void,
    length: usize,
) -> tine_status {
    with_own(conn, |current| {
        // SAFETY: tine.h asks it of the caller.
        let state = unsafe { bytes("state", state, length) }?;
        Ok(current.set_state(state)?)
    })
}

/// Writes the state of the callback's own connection to `state` and `length`: the bytes that this callback or the
/// last committed one of this connection has set. They are valid until the state is set again or the callback
/// returns. A connection without state has a length of 0.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_state(
    conn: tine_conn,
    state: *mut *const c_void,
    length: *mut usize,
) -> tine_status {
    with_own(conn, |current| {
        let found = current.state();
        // SAFETY: tine.h asks it of the caller, for both.
        unsafe {
            put("state", state, found.as_ptr().cast())?;
            put("length", length, found.len())
        }
    })
}

/// Writes the user id of the callback's own connection to `user`, and whether tine_conn_set_user() has set one to
/// `is_set`; without one, `user` is 0.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_user(
    conn: tine_conn,
    user: *mut u64,
    is_set: *mut bool,
) -> tine_status {
    with_own(conn, |current| {
        let found = current.user();
        // SAFETY: tine.h asks it of the caller, for both.
        unsafe {
            put("user", user, found.unwrap_or(0))?;
            put("is_set", is_set, found.is_some())
        }
    })
}

/// Writes the number of the callback's message on its connection to `number`: from 0, and the same in every attempt.
/// With the id of the connection it tells whether an effect outside of the server was there already: a row with
/// that key in a database, for example.
///
/// In a `receive` callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none, and in a callback for another event,
/// TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_message_number(
    conn: tine_conn,
    number: *mut u64,
) -> tine_status {
    with_own(conn, |current| {
        let found = current.message_number();
        let found =
            found.ok_or_else(|| Failure::invalid("this callback is for no message".to_owned()))?;
        // SAFETY: tine.h asks it of the caller.
        unsafe { put("number", number, found) }
    })
}

/// Sets a timer of the callback's own connection: tine_server_on_timer() is called with this tag when the time has
/// passed, and not earlier, in whichever worker is there by then. A connection has one timer for each tag: the last
/// call for it counts, also while it waits for its callback. It fires once; to repeat it, set it again in its
/// callback. Timers end with their connection.
///
/// It is part of the callback's output: it is committed with the answer, or not at all. Its time counts from then on,
/// and stands still while the whole server is stopped.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_FULL, and TINE_ERROR_OVER_LIMIT when
/// the calls of one callback count more than its output limit, 64 bytes each.
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_after(conn: tine_conn, milliseconds: u64, tag: u64) -> tine_status {
    with_own(conn, |current| {
        Ok(current.after(Duration::from_millis(milliseconds), tag)?)
    })
}

/// Cancels the timer of the callback's own connection with this tag, if there is one. A callback that is on its way to
/// a worker by then still runs.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_OVER_LIMIT as for
/// tine_conn_after().
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_cancel(conn: tine_conn, tag: u64) -> tine_status {
    with_own(conn, |current| Ok(current.cancel(tag)?))
}

/// Asks for one call of tine_server_on_drained()'s function, when the socket has taken all output of the callback's own
/// connection; at once if it has. For an answer that is longer than one callback may send.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_OVER_LIMIT as for
/// tine_conn_after().
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_notify_drained(conn: tine_conn) -> tine_status {
    with_own(conn, |current| Ok(current.notify_drained()?))
}

/// The most bytes of the reply to tine_conn_answer_within().
pub const TINE_MOST_REPLY: usize = 4096;

const _: () = assert!(TINE_MOST_REPLY == MOST_REPLY);

/// Promises that the answer of the callback's own connection comes within this time, an hour at most, from a later callback:
/// of a timer, a post, a task, or another connection. The next output to the connection keeps the promise, whichever
/// callback sends it. If there is none in time, the connection gets `reply`, which may be reused when this returns, and is
/// closed with TINE_CLOSE_ANSWER_DEADLINE; likewise, with TINE_CLOSE_CRASH, if a callback of the connection fails meanwhile
/// and the crash policy closes the connection. So a client has its answer or the reply, whatever happens to the workers,
/// unless a callback closes its connection or the server is forced to end.
///
/// The answer must be caused by this commit, as a timer, a post or a task of this callback is, or come after a tine_flush():
/// an output that is committed before the promise does not keep it.
///
/// Until then the next messages of the connection wait in the server, and so does its `close`: answers are in the order
/// of their messages. Its timers and the other events run. A second call replaces the time and the reply. The promise
/// is committed with the callback's output; what the callback has sent before does not keep it.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none and for a reply of more than
/// TINE_MOST_REPLY bytes, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_FULL, TINE_ERROR_OVER_LIMIT as for
/// tine_conn_after().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_answer_within(
    conn: tine_conn,
    milliseconds: u64,
    reply: *const c_void,
    length: usize,
) -> tine_status {
    with_own(conn, |current| {
        // SAFETY: tine.h asks it of the caller.
        let reply = unsafe { bytes("reply", reply, length) }?;
        Ok(current.answer_within(Duration::from_millis(milliseconds), reply)?)
    })
}

/// Stops reading from the callback's own connection, so that TCP slows its client down: until tine_conn_resume(), and
/// for 60 seconds at most. Messages that were read before still have their callbacks, and the client's end is noticed
/// meanwhile. As part of the callback's output, it is committed with the answer.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_OVER_LIMIT as for
/// tine_conn_after().
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_pause(conn: tine_conn) -> tine_status {
    with_own(conn, |current| Ok(current.pause()?))
}

/// Reads from the callback's own connection again, after tine_conn_pause().
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN, TINE_ERROR_OVER_LIMIT as for
/// tine_conn_after().
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_resume(conn: tine_conn) -> tine_status {
    with_own(conn, |current| Ok(current.resume()?))
}
