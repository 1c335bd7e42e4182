//! A chat: each line of a client goes to all others.
//!
//!     cargo run --example chat -- 127.0.0.1:9501
//!
//! The members of the room are served by several workers. The list of members is in shared memory that was
//! mapped before the server forked. It outlives every worker, and the members' connections belong to the
//! master: `pkill -KILL '^tine worker'` loses no member and no line.
//!
//! Any process may be killed at any instruction, so the list has no lock that could stay locked: a
//! place in it is one number, which is written atomically.
#![allow(clippy::print_stdout)] // The line that says where it listens.
#![allow(unsafe_code)] // Memory that all processes share.

use std::env;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use tine::{Closed, Conn, ConnId, Context, Handler, Listener, OnCrash, Protocol, Server};

/// The most members.
const PLACES: usize = 1024;

/// The members' connections. 0, which is never an id, marks a free place.
#[derive(Clone, Copy)]
struct Room(&'static [AtomicU64]);

impl Room {
    /// Maps the list. Called before the server forks, so that all of its processes share it.
    fn new() -> nix::Result<Room> {
        let bytes = NonZeroUsize::new(PLACES * size_of::<AtomicU64>()).ok_or(nix::Error::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping overlaps no other. It is never unmapped, so it lives as long as the
        // process; it is zeroed and page-aligned, and zeros are free places.
        unsafe {
            let memory = mmap_anonymous(None, bytes, access, MapFlags::MAP_SHARED)?;
            Ok(Room(std::slice::from_raw_parts(
                memory.cast().as_ptr(),
                PLACES,
            )))
        }
    }

    /// Takes a place, unless the member has one: `connect` runs again if its worker died.
    /// Returns whether there was a place.
    fn join(self, id: ConnId) -> bool {
        let id = id.as_u64();
        let is_free = |place: &&AtomicU64| {
            let taken = place.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed);
            taken.is_ok()
        };
        let is_mine = |place: &AtomicU64| place.load(Ordering::Relaxed) == id;
        self.0.iter().any(is_mine) || self.0.iter().find(is_free).is_some()
    }

    fn leave(self, id: ConnId) {
        for place in self.0 {
            let _ = place.compare_exchange(id.as_u64(), 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn members(self) -> impl Iterator<Item = ConnId> {
        let member = |place: &AtomicU64| ConnId::from_u64(place.load(Ordering::Relaxed));
        self.0.iter().filter_map(member)
    }
}

struct Chat {
    room: Room,
}

impl Handler for Chat {
    fn connect(&mut self, _cx: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
        if self.room.join(conn.id()) {
            conn.send(b"Welcome.\n")?;
        } else {
            conn.send(b"The room is full.\n")?;
            conn.close();
        }
        Ok(())
    }

    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
        for member in self.room.members().filter(|id| *id != conn.id()) {
            // The bytes are not copied for each member: they are sent from the received message.
            cx.conn(member).send(line)?;
        }
        Ok(())
    }

    fn close(
        &mut self,
        _cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        _closed: Closed,
    ) -> tine::Result {
        self.room.leave(conn.id());
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:9501".to_owned());
    let room = Room::new()?;
    Server::new()
        .listen(
            Listener::tcp(address)
                .protocol(Protocol::lines())
                .max_message(4096),
        )
        .on_crash(OnCrash::Redeliver { attempts: 3 })
        .on_start(|started| println!("{started}"))
        .run(move |_worker| Chat { room })?;
    Ok(())
}
