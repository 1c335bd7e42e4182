//! Files that are sent to connections: their descriptors, and the parts of them that are unsent.
//!
//! Its one rule: a loop asks nothing of a file that could wait. Whether its file system answers at once shows when it
//! is first read; until then, and for those that do not, threads wait for it, also to close it: [`disk`].

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::disk;
use crate::conn_id::ConnId;
use crate::ipc::files::Counted;
use crate::ipc::record::Span;
use crate::sys::contents::{self, Now};
use crate::sys::doorbell::Doorbell;

/// The most bytes that a loop reads at once. More takes no less processor time, and longer turns: 64 KiB to 512 KiB all
/// took 0.30 s for 1 GiB.
pub(crate) const MOST_READ: usize = 64 << 10;

/// The most bytes that a disk thread reads at once: each time it is woken, and the loop is.
const MOST_AWAITED: usize = 256 << 10;

/// The first read of a file, and the least after a socket that has taken little.
const FIRST_READ: usize = 64 << 10;
const LEAST_READ: usize = 16 << 10;

/// A file that is being sent.
pub(crate) struct SentFile {
    /// `None` once it is closed.
    file: Option<OwnedFd>,
    device: u64,
    /// Its file system reads without waiting.
    is_quick: AtomicBool,
    /// Until it is closed.
    counted: Option<Counted>,
}

impl SentFile {
    /// `None` if it is not a regular file that is open for reading.
    pub(crate) fn new(file: OwnedFd, counted: Option<Counted>) -> Option<Arc<SentFile>> {
        let kind = contents::kind(file.as_fd());
        let is_readable = contents::is_readable(file.as_fd());
        let sent = SentFile {
            device: kind.as_ref().map_or(0, |kind| kind.device),
            is_quick: AtomicBool::new(false),
            file: Some(file),
            counted,
        };
        let is_fit = kind.is_ok_and(|kind| kind.is_regular) && is_readable.unwrap_or(false);
        is_fit.then(|| Arc::new(sent))
    }

    fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(file.as_fd())
    }
}

impl Drop for SentFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            match self.is_quick.load(Ordering::Relaxed) {
                true => drop(file),
                false => close(self.device, (file, self.counted.take())),
            }
        }
    }
}

/// Closes a file whose file system may wait for that: FUSE and NFS do. It counts until then.
fn close(device: u64, file: impl Send + 'static) {
    // Without any thread it is closed here, by the end of the job.
    let _ = disk::run(device, Box::new(|| drop(file)));
}

/// Drops what is not known to be closed at once.
pub(crate) fn close_later(closed: impl Send + 'static) {
    // Without any thread it is closed here, by the end of the job.
    let _ = disk::run(0, Box::new(|| drop(closed)));
}

/// Closes descriptors of which nothing is known.
pub(crate) fn close_all(files: Vec<OwnedFd>) {
    for file in files {
        let device = contents::kind(file.as_fd()).map_or(0, |kind| kind.device);
        close(device, file);
    }
}

/// A part of a file that is unsent.
pub(crate) struct FilePart {
    file: Arc<SentFile>,
    at: u64,
    left: u64,
    /// How many bytes the next read asks for.
    next: usize,
    /// A disk thread is at it.
    is_awaited: bool,
}

impl FilePart {
    pub(crate) fn new(file: Arc<SentFile>, span: Span) -> FilePart {
        FilePart {
            file,
            at: span.offset,
            left: span.len,
            next: FIRST_READ,
            is_awaited: false,
        }
    }

    /// A part of a file that is never read.
    #[cfg(test)]
    pub(super) fn example(len: u64) -> FilePart {
        let file = std::fs::File::open("/proc/self/exe").expect("this program");
        let file = SentFile::new(file.into(), None).expect("it is regular");
        // It is closed here.
        file.is_quick.store(true, Ordering::Relaxed);
        FilePart::new(file, Span { offset: 0, len })
    }

    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// Reads its first bytes, if they need not be waited for.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Now> {
        let most = self.wanted().min(buffer.len());
        let now = contents::read_now(self.file.fd()?, self.at, &mut buffer[..most])?;
        if now != Now::Unable {
            self.file.is_quick.store(true, Ordering::Relaxed);
        }
        Ok(now)
    }

    fn wanted(&self) -> usize {
        self.left.min(self.next as u64) as usize
    }

    /// Of `read` bytes the socket has taken `n`: the rest are read again when it has room, and not kept.
    pub(super) fn sent(&mut self, read: usize, n: usize) {
        self.at += n as u64;
        self.left -= n as u64;
        self.next = match n < read {
            true => n.next_power_of_two().clamp(LEAST_READ, MOST_AWAITED),
            false => (self.next * 2).min(MOST_AWAITED),
        };
    }

    /// Has a disk thread wait for its first bytes. Returns false if there is none.
    pub(crate) fn await_bytes(&mut self, conn: ConnId, arrivals: &Arc<Arrivals>) -> bool {
        let (file, at) = (Arc::clone(&self.file), self.at);
        let (most, arrivals) = (self.wanted(), Arc::clone(arrivals));
        let job = move || {
            let mut bytes = arrivals.buffer(most);
            let read = file
                .fd()
                .and_then(|fd| contents::read(fd, at, &mut bytes))
                .map(|n| {
                    bytes.truncate(n);
                    bytes
                });
            arrivals.add(Arrival {
                conn,
                file,
                at,
                read,
            });
        };
        self.is_awaited = disk::run(self.file.device, Box::new(job)).is_ok();
        self.is_awaited
    }

    /// Whether these are the bytes that a disk thread was asked for. It is not awaited any more then.
    pub(crate) fn has_come(&mut self, arrival: &Arrival) -> bool {
        let is_it = Arc::ptr_eq(&self.file, &arrival.file) && self.at == arrival.at;
        is_it && std::mem::take(&mut self.is_awaited)
    }
}

impl fmt::Debug for FilePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes from {} of a file", self.left, self.at)
    }
}

impl PartialEq for FilePart {
    fn eq(&self, other: &FilePart) -> bool {
        let same_part = (self.at, self.left) == (other.at, other.left);
        Arc::ptr_eq(&self.file, &other.file) && same_part
    }
}

impl Eq for FilePart {}

/// Bytes of a file for a connection, from a disk thread.
pub(crate) struct Arrival {
    pub(crate) conn: ConnId,
    file: Arc<SentFile>,
    at: u64,
    pub(crate) read: io::Result<Vec<u8>>,
}

/// The way from the disk threads to one loop.
pub(crate) struct Arrivals {
    inner: Mutex<Inner>,
    bell: Doorbell,
}

#[derive(Default)]
struct Inner {
    come: Vec<Arrival>,
    /// A buffer for the next read.
    spare: Vec<u8>,
}

impl Arrivals {
    /// The bell is rung for each arrival.
    pub(crate) fn new(bell: Doorbell) -> Arrivals {
        Arrivals {
            inner: Mutex::default(),
            bell,
        }
    }

    fn buffer(&self, len: usize) -> Vec<u8> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = std::mem::take(&mut inner.spare);
        drop(inner);
        buffer.resize(len, 0);
        buffer
    }

    fn add(&self, arrival: Arrival) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.come.push(arrival);
        drop(inner);
        self.bell.ring();
    }

    /// Takes what has come.
    pub(crate) fn take(&self) -> Vec<Arrival> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut inner.come)
    }

    /// Takes back a buffer.
    pub(crate) fn give(&self, buffer: Vec<u8>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.spare = buffer;
    }
}
