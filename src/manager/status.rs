//! The manager's answer to a status request: its workers, and the callback that each one is in.
//!
//! Runs in the manager. Its one rule: nothing is looked at until a request comes.

use std::collections::HashMap;
use std::time::Instant;

use super::{DESK, Manager};
use crate::config::Mode;
use crate::ipc::activity::Callback;
use crate::ipc::sync::Ordering;
use crate::role::Role;
use crate::status::{self, CallbackStatus, Head, Packet, PostDesk, Room, WorkerStatus};
use crate::sys::epoll::Poller;

/// The manager's desk, and the callbacks that it saw at earlier requests.
pub(super) struct Desk {
    desk: Option<status::Desk>,
    head: Head,
    /// By slot: generation and number of the callback that ran at the last request, and the time of the
    /// first request that saw it. Nothing looks between requests: reading a clock at each callback would
    /// cost measurable time.
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
    /// Answers the callers that have come: status requests, and posts.
    pub(super) fn answer_callers(&mut self) {
        self.answer_status();
        self.take_posts();
    }

    /// Returns when that is due, if no event comes before.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let post_desk = self.post_desk.as_ref().and_then(PostDesk::next_look);
        post_desk.into_iter().chain(self.desk.next_look()).min()
    }

    /// Answers the status requests that have come.
    fn answer_status(&mut self) {
        let Some(desk) = &mut self.desk.desk else {
            return;
        };
        let callers = desk.callers(&self.poller);
        if callers.is_empty() {
            return;
        }
        let packet = Packet::Manager {
            head: self.desk.head.clone(),
            workers: self.worker_statuses(),
        };
        callers.iter().for_each(|caller| caller.send(&packet));
    }

    fn worker_statuses(&mut self) -> Vec<WorkerStatus> {
        let (now, desk) = (Instant::now(), &mut self.desk);
        let mut workers = Vec::new();
        for (number, slot) in self.slots.iter().enumerate() {
            let (Some(handle), Some(worker)) = (&slot.handle, self.roster.worker(number)) else {
                continue;
            };
            let callback = slot.memory.words.activity.look();
            let callback = callback.map(|it| desk.look(number, worker.generation, &it, now));
            let room = match self.config.mode {
                Mode::Process => None,
                Mode::Base => {
                    let connections = slot.memory.words.connections.load(Ordering::Relaxed);
                    Some(Room::new(connections, self.config.max_connections))
                }
            };
            let seat = worker.duty.seat();
            workers.push(WorkerStatus {
                role: Role::of_worker(seat).to_string(),
                seat,
                generation: worker.generation,
                pid: handle.pid.get(),
                callback,
                waiting: 0,
                room,
            });
        }
        workers
    }
}
