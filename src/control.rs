//! The control pipes between the processes: news and orders between manager and master, as records of 16
//! bytes in a channel for each direction, and the notes of a worker to its manager, as single bytes.
//!
//! Used by master, manager and workers. Its one rule: end-of-file means that the other end is dead.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use crate::sys::parcel;
use crate::sys::pipe::{Received, Receiver, Sender};

/// The bytes of a record.
const LEN: usize = 16;

/// From the manager to the master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// Every seat has a worker that is ready. Sent once.
    AllReady,
    /// A worker was forked into this slot. With each of these come descriptors of its memory, in order, and
    /// then this many more with the next one.
    Forked {
        slot: u32,
        generation: u32,
        left: u32,
    },
    /// waitpid has returned for the worker in this slot.
    Emptied { slot: u32, generation: u32 },
    /// The seat has no worker.
    Vacant { seat: u32 },
    /// The worker in this slot now has the seat. The worker before it may still run its last callback.
    Taken {
        seat: u32,
        slot: u32,
        generation: u32,
    },
    /// The worker that has the seat is ready to serve.
    Ready { seat: u32 },
    /// A worker of the starting server exited before it was ready; the server ends.
    CannotStart { seat: u32, status: i32, signal: i32 },
    /// Every seat has been in back-off for longer than `fail_on_crash_loop`; the server ends.
    CrashLoop,
    /// A reload has begun.
    Reloading,
    /// A reload has ended, well or not.
    Reloaded,
    /// The answer to [`Order::Ping`].
    Pong,
}

/// From the master to the manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Replace every worker, one seat at a time.
    Reload,
    /// Let every worker finish and leave, then end.
    Stop,
    /// The server is about to end: empty seats are filled now, so that messages for them are handled.
    Refill,
    /// Kill every worker, then end.
    Kill,
    /// Kill this incarnation: it broke the protocol.
    KillWorker { slot: u32, generation: u32 },
    /// Answer by [`News::Pong`].
    Ping,
}

fn encode(fields: [u32; 4]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    for (chunk, field) in bytes.chunks_exact_mut(4).zip(fields) {
        chunk.copy_from_slice(&field.to_ne_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> [u32; 4] {
    let mut fields = [0; 4];
    for (field, chunk) in fields.iter_mut().zip(bytes.chunks_exact(4)) {
        *field = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    fields
}

/// A record that can be sent.
pub(crate) trait Record: Sized {
    fn fields(&self) -> [u32; 4];
    fn from_fields(fields: [u32; 4]) -> Option<Self>;
}

impl Record for News {
    fn fields(&self) -> [u32; 4] {
        match *self {
            News::AllReady => [0, 0, 0, 0],
            News::Emptied { slot, generation } => [1, slot, generation, 0],
            News::Taken {
                seat,
                slot,
                generation,
            } => [2, seat, slot, generation],
            News::Ready { seat } => [3, seat, 0, 0],
            News::CannotStart {
                seat,
                status,
                signal,
            } => [4, seat, status as u32, signal as u32],
            News::Vacant { seat } => [5, seat, 0, 0],
            News::CrashLoop => [6, 0, 0, 0],
            News::Forked {
                slot,
                generation,
                left,
            } => [7, slot, generation, left],
            News::Reloading => [8, 0, 0, 0],
            News::Reloaded => [9, 0, 0, 0],
            News::Pong => [10, 0, 0, 0],
        }
    }

    fn from_fields(fields: [u32; 4]) -> Option<News> {
        Some(match fields {
            [0, ..] => News::AllReady,
            [1, slot, generation, _] => News::Emptied { slot, generation },
            [2, seat, slot, generation] => News::Taken {
                seat,
                slot,
                generation,
            },
            [3, seat, ..] => News::Ready { seat },
            [4, seat, status, signal] => News::CannotStart {
                seat,
                status: status as i32,
                signal: signal as i32,
            },
            [5, seat, ..] => News::Vacant { seat },
            [6, ..] => News::CrashLoop,
            [7, slot, generation, left] => News::Forked {
                slot,
                generation,
                left,
            },
            [8, ..] => News::Reloading,
            [9, ..] => News::Reloaded,
            [10, ..] => News::Pong,
            _ => return None,
        })
    }
}

impl Record for Order {
    fn fields(&self) -> [u32; 4] {
        match *self {
            Order::Reload => [0, 0, 0, 0],
            Order::Stop => [1, 0, 0, 0],
            Order::Kill => [2, 0, 0, 0],
            Order::KillWorker { slot, generation } => [3, slot, generation, 0],
            Order::Refill => [4, 0, 0, 0],
            Order::Ping => [5, 0, 0, 0],
        }
    }

    fn from_fields(fields: [u32; 4]) -> Option<Order> {
        Some(match fields {
            [0, ..] => Order::Reload,
            [1, ..] => Order::Stop,
            [2, ..] => Order::Kill,
            [3, slot, generation, _] => Order::KillWorker { slot, generation },
            [4, ..] => Order::Refill,
            [5, ..] => Order::Ping,
            _ => return None,
        })
    }
}

/// Sends the master news, and waits while the channel is full: the master always reads.
pub(crate) fn tell(channel: &parcel::Sender, news: News) -> io::Result<()> {
    channel.send(&encode(news.fields()), &[])
}

/// Sends the master the descriptors of the memory of a worker that was just forked. It may close its own
/// ones at once, also if the master never takes them.
pub(crate) fn tell_forked(
    channel: &parcel::Sender,
    (slot, generation): (usize, u32),
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut left = descriptors.len();
    for some in descriptors.chunks(parcel::MOST_DESCRIPTORS) {
        left -= some.len();
        let news = News::Forked {
            slot: slot as u32,
            generation,
            left: left as u32,
        };
        channel.send(&encode(news.fields()), some)?;
    }
    Ok(())
}

/// News with the descriptors that came with them.
pub(crate) type Delivered = (News, Vec<OwnedFd>);

/// Returns all news that have arrived, each with its descriptors, and whether the manager's end is still
/// open.
pub(crate) fn hear(channel: &mut parcel::Receiver) -> io::Result<(Vec<Delivered>, bool)> {
    let mut news = Vec::new();
    let mut record = [0; LEN];
    loop {
        match channel.receive(&mut record)? {
            parcel::Received::Record(LEN, descriptors) => {
                let fields = decode(&record);
                news.extend(News::from_fields(fields).map(|it| (it, descriptors)));
            }
            // No record of the manager.
            parcel::Received::Record(..) => {}
            parcel::Received::Nothing => return Ok((news, true)),
            parcel::Received::End => return Ok((news, false)),
        }
    }
}

/// Sends one record, or fails if the pipe is full. For the master, which never waits for a process.
pub(crate) fn try_send(pipe: &Sender, record: &impl Record) -> io::Result<()> {
    pipe.try_send(&encode(record.fields()))
}

/// Returns all records that have arrived, and whether the other end is still open.
pub(crate) fn receive<R: Record>(pipe: &mut Receiver) -> io::Result<(Vec<R>, bool)> {
    let mut records = Vec::new();
    let mut buffer = [0; LEN * 64];
    loop {
        // Records are written and read whole: the pipe never holds a part of one, pipe(7).
        match pipe.receive(&mut buffer)? {
            Received::Bytes(n) => records.extend(
                buffer[..n]
                    .chunks_exact(LEN)
                    .filter_map(|c| R::from_fields(decode(c))),
            ),
            Received::Nothing => return Ok((records, true)),
            Received::End => return Ok((records, false)),
        }
    }
}

/// A note of a worker to its manager: one byte in a pipe of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// Its handler is made.
    Ready,
    /// It has begun its first callback.
    Served,
    /// It asks for its replacement, after SIGTERM or `max_requests`: it serves until another worker is
    /// ready to take its seat.
    Replace,
    /// It leaves as it was asked to: the exit that follows is normal.
    Left,
    /// It was on standby, has a seat now, and its `seated` callback has returned.
    Seated,
    /// Base mode: a callback stops the server.
    StopServer,
    /// Base mode: a callback reloads the server.
    ReloadServer,
}

impl Note {
    const ALL: [Note; 7] = [
        Note::Ready,
        Note::Served,
        Note::Replace,
        Note::Left,
        Note::Seated,
        Note::StopServer,
        Note::ReloadServer,
    ];
}

/// A set of notes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NoteSet(u8);

impl NoteSet {
    pub(crate) const EMPTY: NoteSet = NoteSet(0);

    pub(crate) const fn with(self, note: Note) -> NoteSet {
        NoteSet(self.0 | 1 << note as u8)
    }

    /// Returns the notes among bytes of a worker. Other bytes are ignored: a faulty worker may write any.
    pub(crate) fn from_bytes(bytes: &[u8]) -> NoteSet {
        let is_there = |note: &Note| bytes.contains(&(*note as u8));
        let notes = Note::ALL.into_iter().filter(is_there);
        notes.fold(NoteSet::EMPTY, NoteSet::with)
    }

    pub(crate) fn has(self, note: Note) -> bool {
        self.0 & 1 << note as u8 != 0
    }
}

impl fmt::Debug for NoteSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let notes = Note::ALL.iter().filter(|note| self.has(**note));
        f.debug_set().entries(notes).finish()
    }
}

/// A worker's end of its pipe of notes.
#[derive(Clone)]
pub(crate) struct Notes {
    pipe: Rc<Sender>,
    /// Notes that the pipe did not take yet.
    unsent: Rc<Cell<NoteSet>>,
}

impl Notes {
    pub(crate) fn new(pipe: Sender) -> Notes {
        Notes {
            pipe: Rc::new(pipe),
            unsent: Rc::default(),
        }
    }

    /// Sends a note that must arrive: the manager may be in a hook of the user's, and not read. It is kept
    /// until then, once, and [`send_unsent`](Self::send_unsent) tries again.
    pub(crate) fn tell_surely(&self, note: Note) {
        self.unsent.set(self.unsent.get().with(note));
        self.send_unsent();
    }

    /// Tries to send what is unsent.
    pub(crate) fn send_unsent(&self) {
        let unsent = self.unsent.take();
        if unsent == NoteSet::EMPTY {
            return;
        }
        let fails = |note: &Note| unsent.has(*note) && self.try_tell(*note).is_err();
        let left = Note::ALL.into_iter().filter(fails);
        self.unsent.set(left.fold(NoteSet::EMPTY, NoteSet::with));
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent.get() != NoteSet::EMPTY
    }

    /// Sends a note to the manager. A dead manager is noticed by its lifeline instead.
    pub(crate) fn tell(&self, note: Note) {
        if let Err(error) = self.try_tell(note) {
            log::warn!("{error}");
        }
    }

    /// Sends a note, for a caller that has to know if it arrives.
    ///
    /// # Errors
    /// The pipe did not take it.
    pub(crate) fn try_tell(&self, note: Note) -> io::Result<()> {
        self.pipe.try_send(&[note as u8]).map_err(|error| {
            let problem = format!("cannot send the manager the note {note:?}: {error}");
            io::Error::new(error.kind(), problem)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn news_arrive_as_they_were_sent_and_then_the_end() {
        let all = [
            News::AllReady,
            News::Emptied {
                slot: 1,
                generation: 2,
            },
            News::Vacant { seat: 6 },
            News::CrashLoop,
            News::Taken {
                seat: 3,
                slot: 9,
                generation: u32::MAX,
            },
            News::Ready { seat: 4 },
            News::CannotStart {
                seat: 5,
                status: 255,
                signal: -1,
            },
        ];
        let (sender, mut receiver) = parcel::pair().unwrap();
        for news in all {
            tell(&sender, news).unwrap();
        }
        let (heard, alive) = hear(&mut receiver).unwrap();
        let heard: Vec<News> = heard.into_iter().map(|(news, _)| news).collect();
        assert_eq!((heard, alive), (all.to_vec(), true));
        drop(sender);
        assert!(matches!(hear(&mut receiver), Ok((news, false)) if news.is_empty()));
    }

    #[test]
    fn more_descriptors_than_a_record_carries_arrive_in_order() {
        let (sender, mut receiver) = parcel::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let many = vec![file.as_fd(); 2 * parcel::MOST_DESCRIPTORS + 1];
        tell_forked(&sender, (3, 9), &many).unwrap();
        let (heard, _) = hear(&mut receiver).unwrap();
        let sizes = [parcel::MOST_DESCRIPTORS, parcel::MOST_DESCRIPTORS, 1];
        let mut left = many.len();
        assert_eq!(heard.len(), sizes.len());
        for ((news, descriptors), size) in heard.into_iter().zip(sizes) {
            assert_eq!(descriptors.len(), size);
            left -= size;
            let expected = News::Forked {
                slot: 3,
                generation: 9,
                left: left as u32,
            };
            assert_eq!(news, expected);
        }
    }

    #[test]
    fn a_set_of_notes_has_those_that_were_written_and_no_others() {
        let bytes = [Note::Left as u8, 200, Note::Ready as u8, Note::Left as u8];
        let notes = NoteSet::from_bytes(&bytes);
        let found: Vec<Note> = Note::ALL.into_iter().filter(|it| notes.has(*it)).collect();
        assert_eq!(found, [Note::Ready, Note::Left]);
        assert_eq!(format!("{notes:?}"), "{Ready, Left}");
        assert_eq!(NoteSet::from_bytes(&[99, 255]), NoteSet::EMPTY);
    }

    #[test]
    fn a_note_that_must_arrive_waits_for_a_full_pipe_once() {
        let (sender, mut receiver) = crate::sys::pipe::pipe().unwrap();
        let notes = Notes::new(sender);
        while notes.try_tell(Note::Served).is_ok() {}
        notes.tell_surely(Note::StopServer);
        notes.tell_surely(Note::StopServer);
        assert!(notes.has_unsent());
        let mut bytes = vec![0; 1 << 17];
        let Received::Bytes(_) = receiver.receive(&mut bytes).unwrap() else {
            panic!("a full pipe is empty");
        };
        notes.send_unsent();
        assert!(!notes.has_unsent());
        let received = receiver.receive(&mut bytes).unwrap();
        assert_eq!(received, Received::Bytes(1));
        assert_eq!(bytes[0], Note::StopServer as u8);
    }

    #[test]
    fn orders_survive_their_encoding() {
        for order in [
            Order::Ping,
            Order::Refill,
            Order::Reload,
            Order::Stop,
            Order::Kill,
            Order::KillWorker {
                slot: 7,
                generation: 8,
            },
        ] {
            assert_eq!(Order::from_fields(order.fields()), Some(order));
        }
    }
}
