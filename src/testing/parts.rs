//! For `make bench-parts` only, behind the feature `bench-hooks`: a ring, the frame codec, a table of
//! connections and a wheel of timers, each by itself, to be timed.
//!
//! Its one rule: the timed code is the code that servers run. The code here only prepares it, and keeps
//! the compiler from removing results that are not used.

use std::hint::black_box;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::config::ListenerId;
use crate::conn_id::ConnId;
use crate::error::Error;
use crate::event::Event;
use crate::ipc::frame::{INPUT_HEADER, Input};
use crate::ipc::memory::Ring;
use crate::ipc::record::{OUTPUT_HEADER, Output};
use crate::ipc::ring::{Consumer, Producer, aligned};
use crate::ipc::sync::{AtomicU64, Ordering};
use crate::net::table::{self, count_names};
use crate::net::wheel::{Key, Wheel};
use crate::peer::Peer;
use crate::sys::epoll::Poller;
use crate::sys::memory::SharedFile;

/// The writing end of a ring, as a reactor's end of an inbox.
pub struct Writer {
    ring: Arc<Ring>,
    producer: Producer<Arc<AtomicU64>>,
    /// The reader's position, which a reactor knows from commits.
    read: Arc<AtomicU64>,
}

/// The reading end of a ring, as a worker's end of an inbox.
pub struct Reader {
    ring: Arc<Ring>,
    consumer: Consumer<Arc<AtomicU64>>,
    read: Arc<AtomicU64>,
}

/// Returns a ring of `capacity` bytes, a power of two of pages, mapped as in a server.
///
/// # Errors
/// Those of memfd_create(2) and mmap(2).
pub fn ring(capacity: usize) -> io::Result<(Writer, Reader)> {
    let file = SharedFile::new("bench", capacity)?;
    let ring = Arc::new(Ring::map(&file, 0, capacity)?);
    let (published, read) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writer = Writer {
        ring: Arc::clone(&ring),
        producer: Producer::new(Arc::clone(&published), capacity as u64, 0),
        read: Arc::clone(&read),
    };
    let consumer = Consumer::new(published, capacity as u64, 0);
    Ok((
        writer,
        Reader {
            ring,
            consumer,
            read,
        },
    ))
}

impl Writer {
    /// Stages a frame. Returns whether there was room for it.
    pub fn put(&mut self, body: &[u8]) -> bool {
        // SYNC POINT with `Reader::take`: bytes that it has read may be overwritten.
        self.producer.freed(self.read.load(Ordering::Acquire));
        let len = INPUT_HEADER + body.len();
        if aligned(len) > self.producer.free() {
            return false;
        }
        let start = self.producer.tail();
        self.ring.write(start + INPUT_HEADER as u64, body);
        self.ring.write(start, &input(body.len() as u32).encode());
        self.producer.stage(len);
        true
    }

    /// Publishes all staged frames.
    pub fn publish(&mut self) {
        self.producer.publish();
    }
}

impl Reader {
    /// Takes a frame; its bytes stay in the ring. Returns their number.
    pub fn take(&mut self) -> Option<u32> {
        // Only the writer above writes the mark.
        if !self.consumer.look().unwrap_or(false) {
            return None;
        }
        let start = self.consumer.head();
        let input = black_box(Input::decode(&self.ring.read(start)))?;
        let end = start + aligned(INPUT_HEADER + input.len as usize);
        self.consumer.advance_to(end);
        self.read.store(end, Ordering::Release);
        Some(input.len)
    }
}

/// A header of each kind of frame, and its encoding.
pub struct Codec {
    input: Input,
    input_bytes: [u8; INPUT_HEADER],
    output: Output,
    output_bytes: [u8; OUTPUT_HEADER],
}

/// Headers of 64 bytes each.
pub fn headers() -> Codec {
    let (input, output) = (input(LEN), Output::Send(conn(7)));
    Codec {
        input_bytes: input.encode(),
        output_bytes: output.encode(LEN),
        input,
        output,
    }
}

const LEN: u32 = 64;

impl Codec {
    /// Encodes an input, as a reactor does for each message.
    pub fn encode_input(&self) -> [u8; INPUT_HEADER] {
        self.input.encode()
    }

    /// Decodes an input, as a worker does for each message. Returns whether it is valid.
    pub fn decode_input(&self) -> bool {
        black_box(Input::decode(&self.input_bytes)).is_some()
    }

    /// Encodes an output, as a worker does for each answer.
    pub fn encode_output(&self) -> [u8; OUTPUT_HEADER] {
        self.output.encode(LEN)
    }

    /// Decodes an untrusted output, as a reactor does for each answer. Returns whether it is valid.
    pub fn decode_output(&self) -> bool {
        black_box(Output::decode(&self.output_bytes, u64::from(LEN))).is_ok()
    }
}

/// A table of connections, watched by epoll.
pub struct Table {
    connections: table::Table,
    ids: Vec<ConnId>,
}

impl Table {
    /// Returns a table with these sockets.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn new(sockets: impl Iterator<Item = io::Result<OwnedFd>>) -> Result<Table, Error> {
        let failed = |source| Error::system("watch sockets")(source);
        let poller = Poller::new().map_err(failed)?;
        let connections = table::Table::new(0, count_names(), Arc::new(poller));
        let mut table = Table {
            connections,
            ids: Vec::new(),
        };
        for socket in sockets {
            let id = table.add(socket.map_err(failed)?).map_err(failed)?;
            table.ids.push(id);
        }
        while table.connections.next_touched().is_some() {}
        Ok(table)
    }

    fn add(&mut self, socket: OwnedFd) -> io::Result<ConnId> {
        let conn = self
            .connections
            .add(socket, Peer::Ip(PEER.into()), ListenerId(0))?;
        Ok(conn.id)
    }

    /// Finds the connection with this number by its id, as for every event and every answer.
    pub fn find(&mut self, number: usize) -> bool {
        self.connections.get_mut(self.ids[number]).is_some()
    }

    /// Touches a connection, and takes it as the next one to advance.
    pub fn touch(&mut self, number: usize) -> bool {
        self.connections.touch(self.ids[number]);
        self.connections.next_touched() == Some(self.ids[number])
    }

    /// Adds one more connection, and removes it.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn come_and_go(&mut self, socket: OwnedFd) -> io::Result<bool> {
        let id = self.add(socket)?;
        self.connections.next_touched();
        Ok(self.connections.remove(id).is_some())
    }
}

/// A wheel of timers, of which each is set to pass within a minute.
pub struct Timers {
    wheel: Wheel<u32>,
    keys: Vec<Key>,
    now: u64,
}

/// The time until a timer passes, in milliseconds.
const MINUTE: u64 = 60_000;

impl Timers {
    /// Returns a wheel with `size` timers, spread over the next minute.
    pub fn new(size: u32) -> Timers {
        let mut wheel = Wheel::new(0);
        let at = |number| 1 + u64::from(number) * MINUTE / u64::from(size);
        let keys = (0..size).map(|number| wheel.set(at(number), number));
        let keys = keys.collect();
        Timers {
            wheel,
            keys,
            now: 0,
        }
    }

    /// Adds a timer, and removes it.
    pub fn set_and_remove(&mut self, number: u32) -> bool {
        let at = self.now + 1 + u64::from(number) % MINUTE;
        let key = self.wheel.set(at, number);
        self.wheel.remove(key) == number
    }

    /// Restarts a timer: it passes in a minute from now.
    pub fn restart(&mut self, number: u32) {
        let key = self.keys[number as usize];
        self.wheel.restart(key, self.now + MINUTE);
    }

    /// Lets time pass until a timer passes, and sets that again: its whole way through the wheel.
    pub fn pass(&mut self) -> bool {
        let mut work = usize::MAX;
        loop {
            if let Some(number) = self.wheel.pop(self.now, &mut work) {
                self.keys[number as usize] = self.wheel.set(self.now + MINUTE, number);
                return true;
            }
            match self.wheel.next() {
                Some(next) => self.now = next,
                None => return false,
            }
        }
    }
}

const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 40_000);

fn input(len: u32) -> Input {
    Input {
        kind: Event::Receive.into(),
        conn: conn(1),
        peer: Peer::Ip(PEER.into()),
        listener: 0,
        attempt: 0,
        detail: 0,
        deadline: 0,
        value: 0,
        follows: false,
        carries: false,
        is_gone: false,
        is_firm: false,
        submitted: 0,
        len,
    }
}

fn conn(generation: u32) -> ConnId {
    ConnId::new(0, 0, NonZeroU32::new(generation).unwrap_or(NonZeroU32::MIN))
}
