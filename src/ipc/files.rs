//! The descriptors of files that workers send, on their way to the reactors: in a socket that one worker process has,
//! each sent before the commit that names it is published.
//!
//! A record names no descriptor: the records of a link and its descriptors are in the same order. Whatever instruction
//! a worker dies at, each record that is published has its descriptor in the socket; the descriptors that are left over
//! end with the worker.
//!
//! Its one rule: a worker that keeps to its limits is never blamed. The master takes a descriptor only for a record,
//! and counts each that it holds.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use super::layout::{ReactorWords, Shared};
use super::sync::{AtomicU64, Ordering};
use crate::config::FILES_AT_ONCE;
use crate::sys::parcel::Receiver;

/// The most files of one worker that the master takes while it has as many as it may: what a worker can have sent
/// before it knew, and as many again.
const MOST_OVER: u64 = 4 * FILES_AT_ONCE as u64;

/// The most descriptors of one worker that wait for records of other reactors.
const MOST_WAITING: usize = 4 * FILES_AT_ONCE;

/// How many files a process holds to send them.
#[derive(Clone)]
pub(crate) enum FileCount {
    /// In a worker of base mode.
    Own(Arc<AtomicU64>),
    /// In the master: in the words of the first reactor, which every worker can read.
    Shared(Shared<ReactorWords>),
}

impl FileCount {
    fn open(&self) -> &AtomicU64 {
        match self {
            FileCount::Own(open) => open,
            FileCount::Shared(words) => &words.files,
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.open().load(Ordering::Relaxed)
    }

    /// Counts one more, until its [`Counted`] is dropped.
    pub(crate) fn count(&self, limit: u64) -> Counted {
        self.open().fetch_add(1, Ordering::Relaxed);
        Counted {
            count: self.clone(),
            limit,
        }
    }
}

/// A file that is counted.
pub(crate) struct Counted {
    count: FileCount,
    limit: u64,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {} files", self.count.get())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let before = self.count.open().fetch_sub(1, Ordering::Relaxed);
        if let FileCount::Shared(words) = &self.count
            && before == self.limit
        {
            words.files_fell.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A descriptor that a record has named.
#[derive(Debug)]
pub(crate) struct Taken {
    /// `None` if the master could not take it, for want of a free descriptor.
    pub(crate) file: Option<OwnedFd>,
    pub(crate) counted: Counted,
}

/// How a worker lies about files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileLie {
    /// A record without a descriptor.
    NotSent,
    /// A message that is none of a descriptor, or has several.
    Message,
    /// Many descriptors without records.
    NotNamed,
    /// Many files more than there may be.
    TooMany,
    /// The descriptor is none of a regular file that is open for reading.
    Kind,
}

impl fmt::Display for FileLie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileLie::NotSent => "a file whose descriptor was not sent",
            FileLie::Message => "a message for files that is not of one descriptor",
            FileLie::NotNamed => "descriptors of files that no record names",
            FileLie::TooMany => "more files than there may be",
            FileLie::Kind => "a file that is not a regular one, open for reading",
        })
    }
}

/// The master's end of a worker's socket, for the reactors together.
pub(crate) struct FileInbox(Mutex<Inbox>);

struct Inbox {
    receiver: Receiver,
    reactors: usize,
    /// By link, those that other reactors were not looking for.
    waiting: VecDeque<(usize, Option<OwnedFd>)>,
    /// Since `files` last fell below the limit, by the number of such falls: how many of this worker were taken.
    over: (u64, u64),
}

impl FileInbox {
    pub(crate) fn new(receiver: Receiver, reactors: usize) -> FileInbox {
        FileInbox(Mutex::new(Inbox {
            receiver,
            reactors,
            waiting: VecDeque::new(),
            over: (0, 0),
        }))
    }

    /// Takes the descriptor of the next record of a link. Those that are of no use are added to `rest`: the caller sees
    /// to it that closing them stops nobody.
    ///
    /// # Errors
    /// The worker lies.
    pub(crate) fn take(
        &self,
        link: usize,
        (count, limit): (&FileCount, u64),
        rest: &mut Vec<OwnedFd>,
    ) -> Result<Taken, FileLie> {
        let mut inbox = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = inbox.next_of(link, rest)?;
        let counted = count.count(limit);
        match inbox.admits(count, limit) {
            true => Ok(Taken { file, counted }),
            false => {
                rest.extend(file);
                Err(FileLie::TooMany)
            }
        }
    }

    /// Whether the worker has left descriptors in the socket: they end with the last use of this.
    pub(crate) fn has_unread(&self) -> bool {
        let inbox = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !inbox.waiting.is_empty() || inbox.receiver.has_unread().unwrap_or(true)
    }

    /// The worker is dead: returns the descriptors that nothing has named so far. Those of a link whose commits are
    /// still to be read stay.
    pub(crate) fn drain(&self, link: usize) -> Vec<OwnedFd> {
        let mut inbox = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, others) = std::mem::take(&mut inbox.waiting)
            .into_iter()
            .partition(|(of, _)| *of == link);
        inbox.waiting = others;
        let own: VecDeque<(usize, Option<OwnedFd>)> = own;
        own.into_iter().filter_map(|(_, file)| file).collect()
    }
}

impl Inbox {
    fn next_of(
        &mut self,
        link: usize,
        rest: &mut Vec<OwnedFd>,
    ) -> Result<Option<OwnedFd>, FileLie> {
        let has_come = self.waiting.iter().position(|(of, _)| *of == link);
        if let Some((_, file)) = has_come.and_then(|index| self.waiting.remove(index)) {
            return Ok(file);
        }
        loop {
            let (of, file) = self.receive(rest)?;
            if of == link {
                return Ok(file);
            }
            if self.waiting.len() >= MOST_WAITING {
                rest.extend(file);
                return Err(FileLie::NotNamed);
            }
            self.waiting.push_back((of, file));
        }
    }

    /// Returns the next message: the link that it is for, and its descriptor.
    fn receive(&self, rest: &mut Vec<OwnedFd>) -> Result<(usize, Option<OwnedFd>), FileLie> {
        // One byte more, so that a longer message shows.
        let mut message = [0; 3];
        let received = self.receiver.receive_suspect(&mut message);
        let (len, mut files, is_cut) = match received {
            Ok(Some(it)) => (it.len, it.descriptors, it.is_cut),
            Ok(None) => return Err(FileLie::NotSent),
            Err(error) => {
                log::error!("cannot receive the descriptor of a file: {error}");
                return Err(FileLie::NotSent);
            }
        };
        let link = usize::from(u16::from_ne_bytes([message[0], message[1]]));
        // Without a descriptor it is cut if this process could not take it.
        let is_one = files.len() + usize::from(is_cut) == 1;
        if len == size_of::<u16>() && link < self.reactors && is_one {
            return Ok((link, files.pop()));
        }
        rest.extend(files);
        Err(FileLie::Message)
    }

    /// Whether the worker can have sent this file without seeing that there are as many as there may be.
    fn admits(&mut self, count: &FileCount, limit: u64) -> bool {
        let FileCount::Shared(words) = count else {
            return true;
        };
        if count.get() <= limit {
            return true;
        }
        let falls = words.files_fell.load(Ordering::Relaxed);
        if self.over.0 != falls {
            self.over = (falls, 0);
        }
        self.over.1 += 1;
        self.over.1 <= MOST_OVER
    }
}

#[cfg(all(test, not(miri)))] // Miri has no such sockets.
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::super::arena::ReactorsMemory;
    use super::*;
    use crate::sys::parcel::{self, Sender};

    const LIMIT: u64 = 10;

    fn inbox() -> (Sender, FileInbox, FileCount) {
        let (sender, receiver) = parcel::pair().unwrap();
        let words = ReactorsMemory::new(1).unwrap().own.remove(0);
        let inbox = FileInbox::new(receiver, 2);
        (sender, inbox, FileCount::Shared(words))
    }

    fn send(sender: &Sender, link: u16) {
        let file = File::open("/dev/null").unwrap();
        sender.send(&link.to_ne_bytes(), &[file.as_fd()]).unwrap();
    }

    #[test]
    fn each_link_gets_its_own_in_their_order() {
        let (sender, inbox, count) = inbox();
        [0, 1, 1, 0]
            .into_iter()
            .for_each(|link| send(&sender, link));
        let mut rest = Vec::new();
        let mut take = |link| inbox.take(link, (&count, LIMIT), &mut rest);
        let all: Vec<_> = [1, 0, 1, 0].into_iter().map(&mut take).collect();
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(take(0).err(), Some(FileLie::NotSent));
        assert_eq!(count.get(), 4);
        drop(all);
        assert_eq!(count.get(), 0);
        assert!(rest.is_empty());
    }

    #[test]
    fn what_is_left_over_is_returned_to_be_closed() {
        let (sender, inbox, count) = inbox();
        [1, 1, 0].into_iter().for_each(|link| send(&sender, link));
        let mut rest = Vec::new();
        assert!(inbox.take(0, (&count, LIMIT), &mut rest).is_ok());
        assert_eq!(inbox.drain(0).len(), 0);
        assert_eq!(inbox.drain(1).len(), 2);
        (0..=MOST_WAITING).for_each(|_| send(&sender, 1));
        let taken = inbox.take(0, (&count, LIMIT), &mut rest);
        assert_eq!(taken.err(), Some(FileLie::NotNamed));
        assert_eq!(rest.len() + inbox.drain(1).len(), MOST_WAITING + 1);
        sender
            .send(&[0; 3], &[File::open("/").unwrap().as_fd()])
            .unwrap();
        let taken = inbox.take(0, (&count, LIMIT), &mut rest);
        assert_eq!((taken.err(), rest.len()), (Some(FileLie::Message), 2));
    }

    #[test]
    fn only_a_worker_that_does_not_look_at_the_limit_is_blamed() {
        let (sender, inbox, count) = inbox();
        let mut rest = Vec::new();
        let mut take = || {
            send(&sender, 0);
            inbox.take(0, (&count, LIMIT), &mut rest)
        };
        let mut held: Vec<_> = (0..LIMIT + MOST_OVER).map(|_| take()).collect();
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(take().err(), Some(FileLie::TooMany));
        held.truncate(LIMIT as usize);
        // They are as many as there may be, and have not become fewer.
        assert_eq!(take().err(), Some(FileLie::TooMany));
        held.pop();
        held.push(take());
        // From here on it can have sent as many more.
        held.extend((0..MOST_OVER).map(|_| take()));
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(take().err(), Some(FileLie::TooMany));
    }
}
