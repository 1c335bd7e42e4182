//! Groups: connections join them, and callbacks publish to all members at once.

use std::ffi::c_void;

use super::conn::{tine_conn, with_context, with_own};
use super::status::{Failure, tine_status};
use super::{bytes, put};
use crate::config::{MOST_GROUPS, MOST_NAME, MOST_PUBLISH};

/// The most bytes of a group's name.
pub const TINE_MOST_NAME: usize = 128;

/// The most groups of a connection.
pub const TINE_MOST_GROUPS: usize = 128;

/// The most bytes that can be published at once.
pub const TINE_MOST_PUBLISH: usize = 65536;

const _: () = assert!(TINE_MOST_NAME == MOST_NAME);
const _: () = assert!(TINE_MOST_GROUPS == MOST_GROUPS);
const _: () = assert!(TINE_MOST_PUBLISH == MOST_PUBLISH);

/// The callback's own connection joins a group. A group has any name of at most TINE_MOST_NAME bytes, and exists while it
/// has members. The connection gets what is published to it from the commit of this callback on. A member that joins
/// again stays one. The membership belongs to the connection and not to this worker, until the connection leaves or has
/// ended and its `close` has run. It counts against the memory budget.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none and for a longer name, TINE_ERROR_OUTSIDE,
/// TINE_ERROR_OTHER_CONN, TINE_ERROR_FULL, also for a connection in TINE_MOST_GROUPS groups, TINE_ERROR_OVER_LIMIT as for
/// tine_conn_after().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_join(
    conn: tine_conn,
    group: *const c_void,
    length: usize,
) -> tine_status {
    with_own(conn, |current| {
        // SAFETY: tine.h asks it of the caller.
        let group = unsafe { bytes("group", group, length) }?;
        Ok(current.join(group)?)
    })
}

/// The callback's own connection leaves a group; without effect if it is no member.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN,
/// TINE_ERROR_OVER_LIMIT as for tine_conn_after().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_leave(
    conn: tine_conn,
    group: *const c_void,
    length: usize,
) -> tine_status {
    with_own(conn, |current| {
        // SAFETY: tine.h asks it of the caller.
        let group = unsafe { bytes("group", group, length) }?;
        Ok(current.leave(group)?)
    })
}

/// Writes the name of a group of the callback's own connection to `group` and `length`: of the group with this index,
/// from 0, in the order in which it has joined them. The name is valid until the connection joins or leaves a group or the
/// callback returns. Past the last group, `group` is NULL and `length` 0. In its `close`, the connection is still in its
/// groups.
///
/// In a callback of this connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_group(
    conn: tine_conn,
    index: usize,
    group: *mut *const c_void,
    length: *mut usize,
) -> tine_status {
    with_own(conn, |current| {
        let found = current.groups().nth(index);
        let start = found.map_or(std::ptr::null(), <[u8]>::as_ptr);
        // SAFETY: tine.h asks it of the caller, for both.
        unsafe {
            put("group", group, start.cast())?;
            put("length", length, found.map_or(0, <[u8]>::len))
        }
    })
}

/// Publishes up to TINE_MOST_PUBLISH bytes to a group: every member is sent them, but for `except`, which may be {0}. As
/// part of the callback's output, they are committed with the answer, and may be reused when it returns. That is one copy
/// of the bytes, however many members there are. All members get everything that is published to the group in the same
/// order, whichever callbacks publish. What the socket of a member does not take is kept for it, up to
/// tine_server_set_output_limit().
///
/// In base mode, the members that are connections of this worker get them.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for more bytes and for a name over TINE_MOST_NAME, TINE_ERROR_OUTSIDE,
/// TINE_ERROR_OVER_LIMIT when what one callback publishes counts more than its output limit: names and bytes, and 64 for
/// each call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_publish(
    group: *const c_void,
    group_length: usize,
    message: *const c_void,
    length: usize,
    except: tine_conn,
) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    unsafe { publish(group, group_length, message, length, (except, false)) }
}

/// Publishes to a group as tine_publish() does, but for slow members: one to which more than
/// tine_server_set_output_high_water() is unsent misses these bytes as a whole, and is not reset for them. The log says
/// how many have missed something.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: as tine_publish().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_publish_lossy(
    group: *const c_void,
    group_length: usize,
    message: *const c_void,
    length: usize,
    except: tine_conn,
) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    unsafe { publish(group, group_length, message, length, (except, true)) }
}

/// Writes the number of a group's members to `size`. What this callback joins and leaves is not counted, as it is not
/// committed. It asks the master and waits for the answer: mostly for some microseconds, and for two seconds at most. In
/// base mode, the members are counted that are connections of this worker.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a name over TINE_MOST_NAME, TINE_ERROR_OUTSIDE, TINE_ERROR_NO_ANSWER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_group_size(
    group: *const c_void,
    length: usize,
    size: *mut usize,
) -> tine_status {
    with_context(|cx| {
        // SAFETY: tine.h asks it of the caller.
        let group = unsafe { bytes("group", group, length) }?;
        let found = cx.group_size(group)?;
        // SAFETY: as above.
        unsafe { put("size", size, found) }
    })
}

/// # Safety
/// As for [`bytes`], for both.
unsafe fn publish(
    group: *const c_void,
    group_length: usize,
    message: *const c_void,
    length: usize,
    (except, is_lossy): (tine_conn, bool),
) -> tine_status {
    with_context(|cx| {
        // SAFETY: the caller's duty.
        let group = unsafe { bytes("group", group, group_length) }?;
        // SAFETY: the caller's duty.
        let message = unsafe { bytes("message", message, length) }?;
        let except = match except.id {
            0 => None,
            _ => Some(except.name()?),
        };
        let published = match is_lossy {
            true => cx.publish_lossy(group, message, except),
            false => cx.publish(group, message, except),
        };
        published.map_err(Failure::from)
    })
}
