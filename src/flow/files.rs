//! Files: parts of them are output like any other, in its order, of which nothing is in memory. A piece is read when
//! the socket has room for it, and what the socket does not take is read again.
//!
//! Its one rule: a loop never waits for a disk. What is not in the page cache is read by a thread that does
//! ([`net::files`](crate::net::files)), and the connection waits for that as for room in its socket.

use std::io;
use std::sync::Arc;

use super::Flow;
use super::sealed::Sink;
use crate::conn_id::{ConnId, FIRST_TOKEN};
use crate::handler::CloseReason;
use crate::ipc::files::{Counted, FileCount, FileInbox, FileLie, Taken};
use crate::ipc::sync::AtomicU64;
use crate::limited::{Topic, limited};
use crate::net::buffers::Scratch;
use crate::net::files::{Arrival, Arrivals, FilePart, MOST_READ, SentFile, close_all};
use crate::net::unsent::Unsent;
use crate::sys::contents::Now;
use crate::sys::doorbell::Doorbell;
use crate::sys::epoll::{Interest, Poller};

/// The token of the bell that disk threads ring. The listeners' tokens are below it.
const BELL: u64 = FIRST_TOKEN + (1 << 32);

/// What a loop has to send files.
pub(super) struct Files {
    count: FileCount,
    /// Where pieces are read to; empty before the first file.
    scratch: Scratch,
    /// `None` before the first file that is not in the page cache.
    arrivals: Option<Arc<Arrivals>>,
    poller: Arc<Poller>,
}

/// What has become of the first bytes that are unsent.
pub(super) enum Written {
    /// So many are sent, and the socket may have room for more.
    Some(usize),
    /// The next ones have to wait.
    Last,
    /// The socket has an error.
    Broken(io::Error),
    /// The bytes of a file can't be had.
    Unreadable(io::Error),
}

impl Written {
    /// `n` bytes are sent: all that were to be, or what the socket had room for.
    pub(super) fn of(n: usize, is_all: bool) -> Written {
        match is_all {
            true => Written::Some(n),
            false => Written::Last,
        }
    }
}

impl Flow {
    /// The files of the server are counted there: in the master.
    pub(crate) fn count_files(&mut self, count: FileCount) {
        self.files.count = count;
    }

    /// Takes the file that the next record of a worker for this reactor names; `None` if there was no free descriptor
    /// for it.
    pub(crate) fn take_file(&self, inbox: &FileInbox) -> Result<Option<Arc<SentFile>>, FileLie> {
        let mut rest = Vec::new();
        let link = usize::from(self.owner());
        let limit = self.config.most_files as u64;
        let taken = inbox.take(link, (&self.files.count, limit), &mut rest);
        close_all(rest);
        match taken? {
            Taken { file: None, .. } => Ok(None),
            Taken {
                file: Some(file),
                counted,
            } => match SentFile::new(file, Some(counted)) {
                Some(file) => Ok(Some(file)),
                None => Err(FileLie::Kind),
            },
        }
    }

    /// Returns the most files that this process may be sending.
    pub(crate) fn most_files(&self) -> usize {
        self.config.most_files
    }

    /// Counts a file of a callback of this process; `None` if there are as many as may be.
    pub(crate) fn count_file(&self) -> Option<Counted> {
        let limit = self.config.most_files as u64;
        (self.files.count.get() < limit).then(|| self.files.count.count(limit))
    }

    /// Sends a part of a file, behind the output so far.
    pub(crate) fn send_file(&mut self, id: ConnId, part: FilePart) {
        let now = self.pace.now();
        let Some(conn) = self.table.get_mut(id).filter(|conn| conn.takes_output()) else {
            return;
        };
        conn.pulse.speak(now);
        if part.left() == 0 {
            return;
        }
        if conn.work.awaits_answer {
            self.end_promise(id);
        }
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let is_first = conn.writing.unsent.is_empty();
        conn.writing.unsent.push_file(part);
        if is_first {
            self.write_unsent(id);
        }
        let conn = self.table.get(id);
        if conn.is_some_and(|conn| !conn.writing.unsent.is_empty()) {
            self.unsent_has_grown(id);
        }
    }

    /// The master had no free descriptor for a file that was sent to this connection.
    pub(crate) fn file_is_lost(&mut self, id: ConnId) {
        let error = io::Error::other(
            "the server had no free descriptor for it: raise the limit of open files",
        );
        self.cut_off_file(id, &error);
    }

    /// The rest of a file can't be sent: what the peer has of it must not look whole.
    pub(super) fn cut_off_file(&mut self, id: ConnId, error: &io::Error) {
        let Some(conn) = self.table.get(id).filter(|conn| conn.socket.is_some()) else {
            return;
        };
        let peer = conn.peer;
        let lost = self.reset(id, CloseReason::FileFailed);
        limited!(
            warn,
            Topic::File,
            "connection {id} from {peer} is reset: a file that a callback has sent can't be read to its end ({error}); \
             {lost} bytes of output are lost"
        );
    }

    /// Sends the bytes that disk threads have read.
    pub(super) fn take_arrivals(&mut self) {
        let Some(arrivals) = self.files.arrivals.clone() else {
            return;
        };
        for arrival in arrivals.take() {
            self.file_has_come(arrival, &arrivals);
        }
    }

    fn file_has_come(&mut self, arrival: Arrival, arrivals: &Arrivals) {
        let id = arrival.conn;
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let unsent = &mut conn.writing.unsent;
        // The socket may be closed by now: nothing is unsent then.
        let is_due = unsent.file().is_some_and(|part| part.has_come(&arrival));
        self.table.touch(id);
        if !is_due || self.table.get(id).is_none_or(|conn| conn.is_paused) {
            return;
        }
        let (mut to_kernel, mut kept) = (0, 0);
        let written = match arrival.read {
            Err(error) => Written::Unreadable(error),
            Ok(bytes) => self.with_out(|flow, out| {
                let conn = flow.table.get_mut(id);
                let written = match conn.and_then(|conn| conn.sink(out)) {
                    // Records have come between, and go first. The bytes are read again, from the page cache.
                    Some((_, unsent)) if !unsent.sealed().is_empty() => Written::Last,
                    Some((mut sink, unsent)) => {
                        let written = write_piece(&mut sink, unsent, &bytes);
                        (to_kernel, kept) = (sink.written, sink.kept);
                        written
                    }
                    None => Written::Last,
                };
                arrivals.give(bytes);
                written
            }),
        };
        self.budget.take(kept);
        match written {
            Written::Some(_) | Written::Last => self.has_sent(id, to_kernel),
            Written::Broken(error) => self.write_failed(id, &error),
            Written::Unreadable(error) => self.cut_off_file(id, &error),
        }
    }
}

impl Files {
    /// `poller` is the loop's.
    pub(super) fn new(poller: Arc<Poller>) -> Files {
        Files {
            count: FileCount::Own(Arc::new(AtomicU64::new(0))),
            scratch: Scratch::default(),
            arrivals: None,
            poller,
        }
    }

    fn arrivals(&mut self) -> io::Result<&Arc<Arrivals>> {
        if self.arrivals.is_none() {
            let bell = Doorbell::new()?;
            self.poller.add(&bell, BELL, Interest::BELL)?;
            self.arrivals = Some(Arc::new(Arrivals::new(bell)));
        }
        self.arrivals.as_ref().ok_or(io::ErrorKind::NotFound.into())
    }

    /// Writes bytes of the file that comes next, if they are in the page cache, and has them read if not.
    pub(super) fn write(
        &mut self,
        (id, sink): (ConnId, &mut Sink<'_>),
        unsent: &mut Unsent,
    ) -> Written {
        if self.scratch.is_empty() {
            self.scratch = Scratch::new(MOST_READ);
        }
        let Some(part) = unsent.file().filter(|part| !part.is_awaited()) else {
            return Written::Last;
        };
        match part.read(&mut self.scratch) {
            Ok(Now::Read(n)) => write_piece(sink, unsent, &self.scratch[..n]),
            Ok(Now::Later | Now::Unable) => match self.arrivals() {
                Ok(arrivals) if part.await_bytes(id, arrivals) => Written::Last,
                Ok(_) => Written::Unreadable(io::ErrorKind::OutOfMemory.into()),
                Err(error) => Written::Unreadable(error),
            },
            Err(error) => Written::Unreadable(error),
        }
    }
}

/// Writes bytes of the file that comes next.
fn write_piece(sink: &mut Sink<'_>, unsent: &mut Unsent, bytes: &[u8]) -> Written {
    if bytes.is_empty() {
        let error = "it ends before the part that is sent does";
        return Written::Unreadable(io::Error::new(io::ErrorKind::UnexpectedEof, error));
    }
    match sink.write(bytes) {
        Ok(Some(n)) => {
            unsent.file_sent(bytes.len(), n);
            let is_kept = sink.settle(unsent);
            Written::of(n, !is_kept && (n == bytes.len() || sink.is_sealed()))
        }
        Ok(None) => Written::Last,
        Err(error) => Written::Broken(error),
    }
}
