//! What the manager tells of its workers to whoever asks.

use std::collections::HashMap;
use std::time::Instant;

use super::{DESK, Manager};
use crate::ipc::activity::Callback;
use crate::role::Role;
use crate::status::{self, CallbackStatus, Head, Packet, WorkerStatus};
use crate::sys::epoll::Poller;

/// Where it can be asked, and what was told the last time.
pub(super) struct Desk {
    desk: Option<status::Desk>,
    head: Head,
    /// By slot, which callback of which generation ran at the last look, and since when, as far as
    /// looks can tell. Nobody looks between two questions: a clock that is read at each callback
    /// would be felt.
    seen: HashMap<usize, (u32, u64, Instant)>,
}

impl Desk {
    pub(super) fn open(poller: &Poller, head: Head) -> Desk {
        Desk {
            desk: status::Desk::open(poller, DESK),
            head,
            seen: HashMap::new(),
        }
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.desk.as_ref().and_then(status::Desk::next_look)
    }

    fn look(
        &mut self,
        slot: usize,
        generation: u32,
        callback: &Callback,
        now: Instant,
    ) -> CallbackStatus {
        let new = (generation, callback.number, now);
        let seen = self.seen.entry(slot).or_insert(new);
        if (seen.0, seen.1) != (new.0, new.1) {
            *seen = new;
        }
        CallbackStatus {
            kind: callback.event.to_string(),
            conn: callback.conn.to_string(),
            peer: callback.peer,
            at_least: now.duration_since(seen.2),
        }
    }
}

impl Manager<'_> {
    /// Answers who has asked.
    pub(super) fn tell_status(&mut self) {
        let Some(desk) = &mut self.desk.desk else {
            return;
        };
        let visitors = desk.visitors(&self.poller);
        if visitors.is_empty() {
            return;
        }
        let packet = Packet::Manager {
            head: self.desk.head.clone(),
            workers: self.worker_statuses(),
        };
        visitors.iter().for_each(|visitor| visitor.tell(&packet));
    }

    fn worker_statuses(&mut self) -> Vec<WorkerStatus> {
        let (now, desk) = (Instant::now(), &mut self.desk);
        let mut workers = Vec::new();
        for (number, slot) in self.slots.iter().enumerate() {
            let Some(handle) = &slot.handle else {
                continue;
            };
            let callback = slot.memory.words.activity.look();
            let callback = callback.map(|it| desk.look(number, handle.generation, &it, now));
            workers.push(WorkerStatus {
                role: Role::of_worker(slot.post.seat()).to_string(),
                seat: slot.post.seat(),
                generation: handle.generation,
                pid: handle.pid.get(),
                callback,
                waiting: 0,
            });
        }
        workers
    }
}
