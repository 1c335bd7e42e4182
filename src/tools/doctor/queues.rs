//! The accept queues over time: their peaks, and the overflows while each was full.

use std::collections::HashMap;

use super::report::{Counters, Queue};
use crate::sockets::Socket;
use crate::sockets::counters::Overflows;
use crate::sockets::owners::Owners;

/// A queue is forgotten after this many looks without it. The kernel does not show its table in one
/// piece: while listeners come and go, one look may miss a listener that stays.
const FORGOTTEN_AFTER: usize = 20;

/// The number of looks from which on a queue may count as never empty.
pub(super) const ENOUGH_LOOKS: usize = 10;

pub(super) struct Queues {
    queues: HashMap<u64, Waiting>,
    looks: usize,
    first: Overflows,
    last: Overflows,
    /// Overflows while no queue was seen full.
    unexplained: u64,
}

/// The figures of one accept queue.
#[derive(Clone, Copy)]
struct Waiting {
    now: u32,
    peak: u32,
    lowest: u32,
    /// The peak since the last report.
    recent: u32,
    backlog: u32,
    overflows_while_full: u64,
    last_look: usize,
}

impl Queues {
    pub(super) fn new(counters: Overflows) -> Queues {
        Queues {
            queues: HashMap::new(),
            looks: 0,
            first: counters,
            last: counters,
            unexplained: 0,
        }
    }

    /// Returns the number of looks.
    pub(super) fn looks(&self) -> usize {
        self.looks
    }

    /// Takes a look at all listeners, with the counters at that moment.
    pub(super) fn look(&mut self, listeners: &[Socket], counters: Overflows) {
        let grown = counters.since(self.last).listen_overflows;
        self.last = counters;
        self.looks += 1;
        let mut is_explained = false;
        for listener in listeners {
            let waiting = self.add(listener);
            if waiting.now > waiting.backlog {
                waiting.overflows_while_full += grown;
                is_explained = true;
            }
        }
        if !is_explained {
            self.unexplained += grown;
        }
        // A listener that has ended is not shown again, and no other socket gets its cookie.
        let looks = self.looks;
        self.queues
            .retain(|_, waiting| looks - waiting.last_look < FORGOTTEN_AFTER);
    }

    /// Adds a look at one listener.
    fn add(&mut self, listener: &Socket) -> &mut Waiting {
        let (now, backlog) = (listener.recv_q, listener.send_q);
        let waiting = self.queues.entry(listener.cookie()).or_insert(Waiting {
            now,
            peak: now,
            lowest: now,
            recent: now,
            backlog,
            overflows_while_full: 0,
            last_look: self.looks,
        });
        waiting.now = now;
        waiting.last_look = self.looks;
        waiting.backlog = backlog;
        waiting.peak = waiting.peak.max(now);
        waiting.recent = waiting.recent.max(now);
        waiting.lowest = waiting.lowest.min(now);
        waiting
    }

    /// Adds a look at listeners that is no look at all of them.
    pub(super) fn add_some<'a>(&mut self, listeners: impl Iterator<Item = &'a Socket>) {
        for listener in listeners {
            self.add(listener);
        }
    }

    pub(super) fn of(&self, listener: &Socket, owners: &Owners) -> Option<Queue> {
        let waiting = self.queues.get(&listener.cookie())?;
        Some(Queue {
            now: waiting.now,
            peak: waiting.peak,
            lowest: waiting.lowest,
            recent_peak: waiting.recent,
            backlog: waiting.backlog,
            overflows_while_full: waiting.overflows_while_full,
            owners: owners.holders(listener.inode).to_vec(),
            uid: listener.uid,
            cookie: listener.cookie(),
        })
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            since_boot: self.last,
            while_watched: self.last.since(self.first),
            unexplained: self.unexplained,
        }
    }

    /// A report was made: peaks from here on are those until the next one.
    pub(super) fn reported(&mut self) {
        for waiting in self.queues.values_mut() {
            waiting.recent = waiting.now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::State;

    #[test]
    fn a_queue_is_forgotten_when_its_listener_has_ended() {
        let listener = Socket::made_up(State::Listen, "127.0.0.1:80", "0.0.0.0:0", 7);
        let mut queues = Queues::new(Overflows::default());
        let is_known = |queues: &Queues| queues.of(&listener, &Owners::default()).is_some();
        queues.look(std::slice::from_ref(&listener), Overflows::default());
        for _ in 1..FORGOTTEN_AFTER {
            queues.look(&[], Overflows::default());
            assert!(is_known(&queues), "one look may miss it");
        }
        queues.look(&[], Overflows::default());
        assert!(!is_known(&queues));
    }

    #[test]
    fn an_overflow_is_explained_by_the_queues_that_were_full() {
        let mut listener = Socket::made_up(State::Listen, "127.0.0.1:80", "0.0.0.0:0", 7);
        listener.send_q = 1;
        let mut queues = Queues::new(Overflows::default());
        let overflows = |number| Overflows {
            listen_overflows: number,
            ..Overflows::default()
        };
        queues.look(std::slice::from_ref(&listener), overflows(3));
        listener.recv_q = 2;
        queues.look(std::slice::from_ref(&listener), overflows(5));
        let queue = queues.of(&listener, &Owners::default()).unwrap();
        assert_eq!((queue.peak, queue.overflows_while_full), (2, 2));
        let counters = queues.counters();
        assert_eq!(counters.unexplained, 3);
        assert_eq!(counters.while_watched.listen_overflows, 5);
    }
}
