//! Posts: from a callback to workers.

use std::ffi::c_void;

use super::bytes;
use super::conn::{tine_conn, with_context};
use super::server::{running, tine_server};
use super::status::{boundary, tine_status};
use crate::config::MOST_POST;
use crate::handler::To;

/// For tine_server_post() and tine_poster_post(): every worker that has a seat.
pub const TINE_SEAT_ALL: i64 = -1;

/// For tine_server_post() and tine_poster_post(): any worker.
pub const TINE_SEAT_ANY: i64 = -2;

/// The most bytes of a post.
pub const TINE_MOST_POST: usize = 65536;

const _: () = assert!(TINE_MOST_POST == MOST_POST);

/// Posts up to TINE_MOST_POST bytes to the worker that has this seat, from 0: the N of `worker#N`.
/// tine_server_on_post()'s function is called there with them. As part of the callback's output, they are committed
/// with the answer. They are the master's then: if a worker dies before it has handled them, or in that, its
/// successor gets them. Posts of one connection's callbacks to one seat arrive in order while the connection stays
/// with its worker; there is no other order. The bytes may be reused when it returns.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for more bytes and for a seat that no worker has, TINE_ERROR_OUTSIDE,
/// TINE_ERROR_FULL, TINE_ERROR_OVER_LIMIT when the posts of one callback count more than its output limit, their bytes
/// and 64 each, and TINE_ERROR_OTHER_WORKER in base mode for any worker but this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_post_to_seat(
    seat: usize,
    message: *const c_void,
    length: usize,
) -> tine_status {
    post(To::Seat(seat), message, length)
}

/// Posts to every worker that has a seat, this one included; as tine_post_to_seat() in all else.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: as tine_post_to_seat().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_post_to_all(message: *const c_void, length: usize) -> tine_status {
    post(To::All, message, length)
}

/// Posts to any worker: the one with the fewest messages to handle, as far as the dispatch counts them; as
/// tine_post_to_seat() in all else.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: as tine_post_to_seat().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_post_to_least_busy(
    message: *const c_void,
    length: usize,
) -> tine_status {
    post(To::LeastBusy, message, length)
}

/// Posts to the worker of a connection, by the time that the post is committed; as tine_post_to_seat() in all else. For
/// a connection that is gone, it is dropped.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: as tine_post_to_seat(), and TINE_ERROR_INVALID for a connection that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_post_to_owner(
    conn: tine_conn,
    message: *const c_void,
    length: usize,
) -> tine_status {
    with_context(|cx| {
        let owner = To::Owner(conn.name()?);
        // SAFETY: tine.h asks it of the caller.
        let message = unsafe { bytes("message", message, length) }?;
        Ok(cx.post(owner, message)?)
    })
}

/// Posts to the worker that has this seat, or with -1 to every worker that has a seat, or with -2 to any worker. What
/// tine_post_to_seat() says of posts holds for these, which are committed at once; those of one thread to one seat
/// arrive in order. Master: any thread, while tine_server_run() runs.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for more bytes and for a seat that no worker has, TINE_ERROR_FULL,
/// TINE_ERROR_NOT_RUNNING, TINE_ERROR_WRONG_PROCESS, and TINE_ERROR_OTHER_WORKER in base mode.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_post(
    server: *const tine_server,
    seat: i64,
    message: *const c_void,
    length: usize,
) -> tine_status {
    let to = to_seat(seat);
    boundary(|| {
        // SAFETY: tine.h asks it of the caller, for both.
        let (server, message) = unsafe { (running(server)?, bytes("message", message, length)?) };
        Ok(server.post(to, message)?)
    })
}

/// Returns the workers that a seat of C means.
pub(super) fn to_seat(seat: i64) -> To {
    match seat {
        TINE_SEAT_ALL => To::All,
        TINE_SEAT_ANY => To::LeastBusy,
        seat => To::Seat(usize::try_from(seat).unwrap_or(usize::MAX)),
    }
}

fn post(to: To, message: *const c_void, length: usize) -> tine_status {
    with_context(|cx| {
        // SAFETY: tine.h asks it of the callers' callers.
        let message = unsafe { bytes("message", message, length) }?;
        Ok(cx.post(to, message)?)
    })
}
