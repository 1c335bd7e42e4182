//! The callback a worker is in, published for the watchdog.
//!
//! Its one rule: it is only ever shown to people. Nothing that keeps the server whole depends on it.

use std::fmt;

use super::frame::Input;
use super::sync::{AtomicU64, Ordering};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::peer::{Family, Packed, Peer};

/// The words that a worker writes for each callback.
#[repr(C)]
pub(crate) struct Activity {
    /// How many callbacks were begun and ended: odd while one runs.
    count: AtomicU64,
    conn: AtomicU64,
    peer: [AtomicU64; 2],
    /// The port, above it the kind, and above that whether the peer is one of a unix socket.
    rest: AtomicU64,
}

/// A running callback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Callback {
    /// Its number among those of its worker: two looks that find the same number find the same
    /// callback.
    pub(crate) number: u64,
    pub(crate) event: Event,
    pub(crate) conn: ConnId,
    pub(crate) peer: Peer,
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Callback {
            event, conn, peer, ..
        } = self;
        write!(f, "{event} of connection {conn} from {peer}")
    }
}

impl Activity {
    /// Manager, before it forks a worker into an empty slot: the new worker has begun nothing,
    /// whatever the last one had.
    pub(crate) fn reset(&self) {
        self.count.store(0, Ordering::Relaxed);
    }

    /// Worker: a callback begins.
    pub(crate) fn begin(&self, input: &Input) {
        let peer = Packed::of(input.peer);
        let bits = u128::from_be_bytes(peer.bytes);
        let is_unix = u64::from(peer.family == Family::Unix);
        let rest = is_unix << 24 | u64::from(input.kind.code()) << 16 | u64::from(peer.port);
        self.conn.store(input.conn.as_u64(), Ordering::Relaxed);
        self.peer[0].store((bits >> 64) as u64, Ordering::Relaxed);
        self.peer[1].store(bits as u64, Ordering::Relaxed);
        self.rest.store(rest, Ordering::Relaxed);
        // SYNC POINT with `look`: a reader that sees the number sees its words, or those of a
        // later callback.
        self.count.store(self.count() + 1, Ordering::Release);
    }

    /// Worker: the callback has returned.
    pub(crate) fn end(&self) {
        self.count.store(self.count() + 1, Ordering::Release);
    }

    /// How many callbacks have returned.
    pub(crate) fn completed(&self) -> u64 {
        self.count() / 2
    }

    /// Whether a callback runs.
    pub(crate) fn is_busy(&self) -> bool {
        !self.count().is_multiple_of(2)
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns the running callback, if there is one and its words make sense.
    pub(crate) fn look(&self) -> Option<Callback> {
        // SYNC POINT with `begin`.
        let number = self.count.load(Ordering::Acquire);
        if number.is_multiple_of(2) {
            return None;
        }
        let rest = self.rest.load(Ordering::Relaxed);
        let high = u128::from(self.peer[0].load(Ordering::Relaxed));
        let bits = high << 64 | u128::from(self.peer[1].load(Ordering::Relaxed));
        let peer = Packed {
            // One of IPv4 if its address is mapped: it is only shown.
            family: if rest >> 24 & 1 != 0 {
                Family::Unix
            } else {
                Family::V4
            },
            bytes: bits.to_be_bytes(),
            port: rest as u16,
            scope: 0,
        };
        Some(Callback {
            number,
            event: Event::from_code((rest >> 16) as u8)?,
            conn: ConnId::from_u64(self.conn.load(Ordering::Relaxed))?,
            peer: peer.peer(),
        })
    }
}
