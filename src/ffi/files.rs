//! Files as a part of a callback's output.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;

use super::conn::{tine_conn, with_any};
use super::status::{Failure, tine_status};
use crate::handler::SendError;

/// Sends a part of a file to a connection, the callback's own or any other of the server (in base mode: of this
/// worker): `length` bytes from `offset` on, counted from the start of the file. `fd` is its descriptor, of a regular
/// file that is open for reading; it is copied, and may be closed when this returns. Its own offset is neither used
/// nor changed.
///
/// The server reads the bytes when the client takes them, so that an answer of any length is neither in a worker nor
/// kept in memory, and sends them however long this worker lives. They are in order with what tine_conn_send() sends,
/// and leave with it: when the callback returns TINE_OK, or calls tine_flush(). They are those that the file has when
/// they are sent. It must not become shorter until then: replace a file with rename(2), and do not truncate it. If
/// its bytes can't be read, the connection is closed with RST, and its `close` has TINE_CLOSE_FILE_FAILED.
///
/// The bytes count as unsent output in all but the limits of memory: reading from the connection pauses while they are
/// more than tine_server_set_output_high_water(), and tine_conn_notify_drained() waits for them. Until they are sent,
/// the server holds a descriptor, of those that clients need (RLIMIT_NOFILE, getrlimit(2)).
///
/// In a callback of a connection, by the thread that runs it.
///
/// Errors: TINE_ERROR_INVALID for a descriptor that is not one of a regular file that is open for reading, without
/// O_DIRECT, and for bytes that the file has not; TINE_ERROR_OPEN_FILES when as many files are being sent as may be,
/// 16 by one commit among them, and when this process has no free descriptor; TINE_ERROR_OUTSIDE,
/// TINE_ERROR_OTHER_WORKER, TINE_ERROR_CLOSED, and TINE_ERROR_OVER_LIMIT as for tine_conn_close().
#[unsafe(no_mangle)]
pub extern "C" fn tine_conn_send_file(
    conn: tine_conn,
    fd: c_int,
    offset: u64,
    length: u64,
) -> tine_status {
    with_any(conn, |conn| {
        if fd < 0 {
            return Err(SendError::NotAFile.into());
        }
        let end = offset
            .checked_add(length)
            .ok_or_else(|| Failure::invalid("length: no file is as long"))?;
        // SAFETY: the descriptor is borrowed for this call. If it is closed, the kernel says so.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        Ok(conn.send_file(file, offset..end)?)
    })
}
