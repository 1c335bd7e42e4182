//! What the manager tells of its workers to whoever asks.

use std::collections::HashMap;
use std::io;
use std::time::Instant;

use super::{DESK, Manager};
use crate::ipc::doing::Callback;
use crate::role::Role;
use crate::status::{self, CallbackStatus, Packet, WorkerStatus};
use crate::sys::epoll::{Interest, Poller};

/// Where it can be asked, and what was told the last time.
pub(super) struct Desk {
    desk: Option<status::Desk>,
    /// By berth, since when a callback has run, as far as looks can tell. Nobody looks between two
    /// questions: a clock that is read at each callback would be felt.
    seen: HashMap<usize, (u64, Instant)>,
}

impl Desk {
    pub(super) fn open(poller: &Poller) -> io::Result<Desk> {
        let desk = status::Desk::open();
        if let Some(desk) = &desk {
            poller.add(desk, DESK, Interest::BELL)?;
        }
        Ok(Desk {
            desk,
            seen: HashMap::new(),
        })
    }

    fn look(&mut self, berth: usize, callback: &Callback, now: Instant) -> CallbackStatus {
        let seen = self.seen.entry(berth).or_insert((callback.number, now));
        if seen.0 != callback.number {
            *seen = (callback.number, now);
        }
        CallbackStatus {
            kind: callback.kind.to_string(),
            conn: callback.conn.to_string(),
            peer: callback.peer,
            at_least: now.duration_since(seen.1),
        }
    }
}

impl Manager<'_> {
    /// Answers who has asked.
    pub(super) fn tell_status(&mut self) {
        let visitors = self.desk.desk.as_ref().map(status::Desk::visitors);
        let visitors = visitors.unwrap_or_default();
        if visitors.is_empty() {
            return;
        }
        let packet = Packet::Manager {
            workers: self.worker_statuses(),
        };
        visitors.iter().for_each(|visitor| visitor.tell(&packet));
    }

    fn worker_statuses(&mut self) -> Vec<WorkerStatus> {
        let (now, desk) = (Instant::now(), &mut self.desk);
        let mut workers = Vec::new();
        for (number, berth) in self.berths.iter().enumerate() {
            let Some(handle) = &berth.handle else {
                continue;
            };
            let callback = berth.memory.words.doing.look();
            let callback = callback.map(|callback| desk.look(number, &callback, now));
            workers.push(WorkerStatus {
                role: Role::of_worker(berth.post.seat()).to_string(),
                pid: handle.pid.get(),
                callback,
                waiting: 0,
                berth: number,
                generation: handle.generation,
            });
        }
        workers
    }
}
