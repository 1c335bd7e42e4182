//! The calls of the experiment's own sockets, in their order: each socket writes its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::lock;
use crate::lab::end::Ends;
use crate::lab::picture::Side;

/// Shared by the sockets of an experiment and its recorder.
#[derive(Clone, Default, Debug)]
pub(crate) struct Journal(Arc<Mutex<Vec<Call>>>);

/// A call that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    pub(super) began: Instant,
    /// When it had returned, where that is known. It had before the next one began.
    pub(super) ended: Option<Instant>,
    pub(super) by: Caller,
    pub(super) does: Does,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Caller {
    End(Ends, Side),
    Listener(SocketAddr),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Does {
    Connect,
    /// `accept()` has returned this end.
    Accept,
    /// `send()` has taken these bytes.
    Send(u32),
    /// Nothing more fits: the peer's kernel has received that many bytes.
    Fill(u32),
    /// `read()` has returned these bytes.
    Read(u32),
    /// `read()` has returned end of file.
    ReadEnd,
    /// `shutdown(SHUT_WR)`
    FinishWriting,
    Close,
    /// `close()` with `SO_LINGER` of zero.
    Abort,
    /// The kernel probes the peer from now on.
    KeepAlive,
    /// A filter drops every segment that arrives, from now on or no longer.
    Deaf(bool),
}

impl Journal {
    /// Writes a call that has just returned.
    pub(crate) fn did(&self, by: Caller, does: Does, began: Instant) {
        let ended = Some(Instant::now());
        self.write(Call {
            began,
            ended,
            by,
            does,
        });
    }

    /// Writes a call that is about to begin, and can't fail.
    pub(crate) fn does(&self, by: Caller, does: Does) {
        let (began, ended) = (Instant::now(), None);
        self.write(Call {
            began,
            ended,
            by,
            does,
        });
    }

    fn write(&self, call: Call) {
        lock(&self.0).push(call);
    }

    /// Returns the calls of this connection that began until a time, and those of its listener. Each of
    /// them has ended by the time that is noted, or when the next one of all began.
    pub(super) fn of(&self, ends: Ends, until: Instant) -> Vec<Call> {
        let is_of = |call: &&Call| {
            call.began <= until
                && match call.by {
                    Caller::End(of, _) => of == ends,
                    Caller::Listener(at) => at == ends.server,
                }
        };
        let mut calls = lock(&self.0).clone();
        for next in (1..calls.len()).rev() {
            let began = calls[next].began;
            calls[next - 1].ended.get_or_insert(began);
        }
        calls.iter().filter(is_of).copied().collect()
    }
}
