//! The unix socket at which a process of the server takes posts of other programs.
//!
//! Runs in the master's main thread, and in the manager of base mode. Its one rule: it never waits for a caller. One
//! that says nothing is dropped after a while, and there are only so many.

use std::time::{Duration, Instant};

use super::desk::{Caller, Desk};
use super::post::{Answer, HEADER, Refused, decode, name_of};
use crate::config::MOST_POST;
use crate::handler::To;
use crate::sys::epoll::{Interest, Poller};

/// How long a caller may take for its post, which it sends with its first packet.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct PostDesk {
    desk: Desk,
    token: u64,
    /// Callers whose post has not come, and until when it may come.
    awaited: Vec<(Caller, Instant)>,
    /// For the longest post, and one byte more.
    buffer: Vec<u8>,
}

impl PostDesk {
    /// Opens the socket, which the poller reports as `token`. Returns `None` on failure, which is logged.
    pub(crate) fn open(poller: &Poller, token: u64) -> Option<PostDesk> {
        let name = name_of(std::process::id() as i32);
        let desk = Desk::open_as(
            poller,
            token,
            &name,
            "`tine post` cannot reach this process",
        )?;
        Some(PostDesk {
            desk,
            token,
            awaited: Vec::new(),
            buffer: Vec::new(),
        })
    }

    /// Returns when [`take`](Self::take) is due, if no event comes before.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let drops = self.awaited.iter().map(|(_, until)| *until);
        drops.chain(self.desk.next_look()).min()
    }

    /// Takes the posts that have come, and answers each with what `post` returns.
    pub(crate) fn take(
        &mut self,
        poller: &Poller,
        mut post: impl FnMut(To, &[u8]) -> Result<(), Refused>,
    ) {
        let until = Instant::now() + PATIENCE;
        for caller in self.desk.callers(poller) {
            match poller.add(&caller, self.token, Interest::READ) {
                Ok(()) => self.awaited.push((caller, until)),
                Err(error) => log::debug!("post refused: cannot watch its socket: {error}"),
            }
        }
        if self.awaited.is_empty() {
            return;
        }
        self.buffer.resize(HEADER + MOST_POST + 1, 0);
        let (now, buffer) = (Instant::now(), &mut self.buffer);
        self.awaited.retain(|(caller, until)| {
            let Some(packet) = caller.receive(buffer) else {
                return *until > now || forget(poller, caller);
            };
            if let Some(packet) = packet {
                let answer = decode(packet).and_then(|(to, bytes)| post(to, bytes));
                caller.answer(&Answer(answer));
            }
            forget(poller, caller)
        });
        if self.awaited.is_empty() {
            self.buffer = Vec::new();
        }
    }
}

/// Stops watching a caller. A child that a hook has forked may have a copy of its socket.
fn forget(poller: &Poller, caller: &Caller) -> bool {
    if let Err(error) = poller.remove(caller) {
        log::debug!("cannot stop watching the socket of a post: {error}");
    }
    false
}
