//! Questions about the connections of the server.

use libc::sockaddr_storage;

use super::address::storage;
use super::conn::{tine_conn, with_context};
use super::listener::tine_listener_id;
use super::put;
use super::status::{Failure, tine_status};
use crate::handler::ConnInfo;

/// A connection at the moment at which tine_connections() has listed it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tine_conn_info {
    /// The connection.
    pub conn: tine_conn,
    /// The client's address and port, or its credentials, as of tine_conn_peer(): a struct sockaddr_storage, which this
    /// header does not define.
    pub peer: [u64; 16],
    /// The listener that has accepted it.
    pub listener: tine_listener_id,
    /// Whether callbacks have set a user id, and that id, or 0.
    pub has_user: bool,
    pub user: u64,
    /// Milliseconds since it was accepted; in base mode, since this worker has it.
    pub age: u64,
    /// The bytes of output that its socket has not taken yet.
    pub unsent: u64,
}

impl From<&ConnInfo> for tine_conn_info {
    fn from(info: &ConnInfo) -> tine_conn_info {
        tine_conn_info {
            conn: info.id.into(),
            peer: words(storage(info.peer)),
            listener: info.listener.into(),
            has_user: info.user.is_some(),
            user: info.user.unwrap_or(0),
            age: info.age.as_millis() as u64,
            unsent: info.unsent as u64,
        }
    }
}

fn words(storage: sockaddr_storage) -> [u64; 16] {
    // SAFETY: they have the same size, and every pattern of bits is valid for integers. All bytes of a storage that
    // was made by `storage` are initialized.
    unsafe { std::mem::transmute(storage) }
}

/// Writes whether a connection exists to `exists`: it has come, and its `close` has not run. What this callback has
/// closed still exists, as that is not committed. It may end right after the answer. It asks the master and waits for
/// the answer: mostly for some microseconds, and for two seconds at most.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a connection that is none, TINE_ERROR_OUTSIDE,
/// TINE_ERROR_NO_ANSWER, and TINE_ERROR_OTHER_WORKER in base mode for a connection that this worker does not know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_conn_exists(conn: tine_conn, exists: *mut bool) -> tine_status {
    with_context(|cx| {
        let found = cx.exists(conn.name()?)?;
        // SAFETY: tine.h asks it of the caller.
        unsafe { put("exists", exists, found) }
    })
}

/// Lists the connections of the server, in no order, also those whose client has closed, until their `close` has run.
/// `infos` points to memory for `capacity` of them, each of `size` bytes: pass `sizeof *infos`. The number that there
/// are is written to `count`; if that is more than `capacity`, the rest is left out. `infos` may be NULL with a
/// capacity of 0.
///
/// A connection that exists during the whole call is listed once. One that comes or ends meanwhile is listed or not.
/// It asks the master for 128 connections at a time, and waits for each answer for two seconds at most. In base mode,
/// the connections of this worker are listed.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a size of no version, TINE_ERROR_OUTSIDE, TINE_ERROR_NO_ANSWER.
/// Nothing is written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_connections(
    infos: *mut tine_conn_info,
    size: usize,
    capacity: usize,
    count: *mut usize,
) -> tine_status {
    with_context(|cx| {
        // A later version accepts more sizes, and writes the fields that each of them has.
        if size != size_of::<tine_conn_info>() {
            return Err(Failure::invalid(format!(
                "size: {size} is not the size of tine_conn_info, which is {}",
                size_of::<tine_conn_info>()
            )));
        }
        if infos.is_null() && capacity > 0 {
            return Err(Failure::null("infos"));
        }
        if count.is_null() {
            return Err(Failure::null("count"));
        }
        let found = cx.connections()?;
        for (index, info) in found.iter().take(capacity).enumerate() {
            // SAFETY: there is memory for `capacity` of them, and tine.h asks it of the caller that it may be written.
            unsafe { infos.add(index).write(info.into()) };
        }
        // SAFETY: tine.h asks it of the caller.
        unsafe { put("count", count, found.len()) }
    })
}
