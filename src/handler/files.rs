//! Files as a part of a callback's output.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Conn, ConnRef, SendError, SharedOutput};
use crate::conn_id::ConnId;
use crate::sys::contents;

impl Conn<'_> {
    /// Sends a part of a file to this connection: the bytes at `range`, counted from the start of the file. The server
    /// reads them when the client takes them, so that an answer of any length is neither in a worker nor kept in
    /// memory, and it sends them however long this worker lives. They are in order with what [`send`](Self::send)
    /// sends, and committed with it: the descriptor is copied, and may be closed when this returns.
    ///
    /// ```
    /// use std::fs::File;
    /// use tine::{Conn, Context};
    ///
    /// fn receive(_: &mut Context<'_>, conn: &mut Conn<'_>, _: &[u8]) -> tine::Result {
    ///     let file = File::open("/etc/services")?;
    ///     let len = file.metadata()?.len();
    ///     conn.send(format!("{len}\n").as_bytes())?;
    ///     Ok(conn.send_file(&file, 0..len)?)
    /// }
    /// ```
    ///
    /// The bytes are those that the file has when they are sent. It must not become shorter until then: replace a
    /// file by rename(2), and do not truncate it. If its bytes can't be read, since it has become shorter or its disk
    /// fails, the connection is closed with RST, so that the client does not take a part for the whole, and its
    /// `close` has [`CloseReason::FileFailed`](super::CloseReason).
    ///
    /// The bytes count as unsent output in all but the limits of memory: reading from the connection pauses while they
    /// are more than [`Server::output_high_water`](crate::Server::output_high_water),
    /// [`notify_drained`](Self::notify_drained) waits for them, and a client that takes none of them is reset at
    /// [`Listener::write_deadline`](crate::Listener::write_deadline). The file is read by its descriptor, which the
    /// server holds until then: each file under way takes one of the descriptors that clients need (RLIMIT_NOFILE,
    /// getrlimit(2)).
    ///
    /// # Errors
    /// [`SendError::NotAFile`] if it is not a regular file that is open for reading, without O_DIRECT;
    /// [`SendError::BadRange`] if the file has not all bytes of the range; [`SendError::TooManyFiles`];
    /// [`SendError::NoDescriptor`]; [`SendError::Closed`] as [`send`](Self::send); [`SendError::OverLimit`] as
    /// [`after`](Self::after).
    pub fn send_file(&mut self, file: impl AsFd, range: Range<u64>) -> Result<(), SendError> {
        send_file(self.output, self.id, file.as_fd(), range)
    }
}

impl ConnRef<'_> {
    /// Sends a part of a file to the connection, as [`Conn::send_file`] does.
    ///
    /// # Errors
    /// Those of [`Conn::send_file`]; [`SendError::OtherWorker`] in base mode for a connection of another worker.
    pub fn send_file(&mut self, file: impl AsFd, range: Range<u64>) -> Result<(), SendError> {
        send_file(self.output, self.id, file.as_fd(), range)
    }
}

fn send_file(
    output: SharedOutput<'_>,
    conn: ConnId,
    file: BorrowedFd<'_>,
    range: Range<u64>,
) -> Result<(), SendError> {
    let file = fit(file, &range)?;
    let mut output = output.borrow_mut();
    match range.is_empty() {
        true => output.send(conn, &[]),
        false => output.send_file(conn, file, range),
    }
}

/// Returns a copy of the descriptor, if that part of the file can be sent.
fn fit(file: BorrowedFd<'_>, range: &Range<u64>) -> Result<OwnedFd, SendError> {
    let is_regular = contents::kind(file).is_ok_and(|kind| kind.is_regular);
    let is_readable = contents::is_readable(file).unwrap_or(false);
    if !is_regular || !is_readable {
        return Err(SendError::NotAFile);
    }
    let len = contents::len(file).map_err(|_| SendError::NotAFile)?;
    if range.start > range.end || range.end > len {
        return Err(SendError::BadRange { len });
    }
    contents::copy(file).map_err(|_| SendError::NoDescriptor)
}
