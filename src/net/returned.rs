//! What has come back from a worker, to be given to another.

use super::connection::{MOST_IN_FLIGHT, Step, Wait};
use super::connections::Connections;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::ipc::link::Returned as Frame;

/// A message that was submitted before.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    /// How many workers have died in it.
    pub(crate) attempts: u8,
}

/// They go before anything that was read later. The oldest one is the last. Mostly there are none.
#[derive(Default, Debug)]
pub(crate) struct Returned(Vec<Message>);

impl Returned {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The oldest one, taken out. With the last one, the memory for them goes.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let message = self.0.pop();
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        message
    }

    /// One that goes before all the others: it was submitted before them.
    pub(crate) fn put_back(&mut self, message: Message) {
        self.0.push(message);
    }
}

impl Connections {
    /// A frame was not begun, or is to be run again: it is owed to a worker, before everything that
    /// was submitted after it. Its bytes are no part of the budget: they are no more than stood in
    /// the inboxes, and those who wait for a worker must not be closed for that.
    pub(crate) fn take_back(&mut self, frame: Frame) {
        let id = frame.conn;
        let Some(conn) = self.get_mut(id) else { return };
        match frame.kind {
            Event::Connect => conn.connect = Step::Owed,
            Event::Close => conn.close = Step::Owed,
            Event::Paused => conn.full_told = false,
            Event::Resumed => conn.full_told = true,
            Event::Receive if !conn.void => conn.returned.put_back(Message {
                bytes: frame.body,
                attempts: frame.attempts,
            }),
            // For nobody.
            Event::Receive => {}
        }
        if frame.kind != Event::Receive
            && frame.attempts > 0
            && let Some(conn) = self.get_mut(id)
        {
            conn.died_in = Some((frame.kind, frame.attempts));
        }
        self.landed(id);
        self.touch(id);
    }

    /// A frame is no longer with a worker.
    pub(crate) fn landed(&mut self, id: ConnId) {
        let Some(conn) = self.get_mut(id) else { return };
        conn.in_flight = conn.in_flight.saturating_sub(1);
        let is_over = match conn.wait {
            Wait::Quiet => conn.in_flight == 0,
            Wait::Fewer => conn.in_flight <= MOST_IN_FLIGHT / 2,
            Wait::Nothing | Wait::Room => false,
        };
        if is_over {
            conn.wait = Wait::Nothing;
            self.touch(id);
        }
    }

    /// The oldest message that has come back.
    pub(crate) fn take_returned(&mut self, id: ConnId) -> Option<Message> {
        self.get_mut(id)?.returned.pop()
    }

    /// Puts it back, since there was no room for it.
    pub(crate) fn put_returned(&mut self, id: ConnId, message: Message) {
        if let Some(conn) = self.get_mut(id) {
            conn.returned.put_back(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_put_back_last_goes_first() {
        let mut returned = Returned::default();
        let message = |byte, attempts| Message {
            bytes: vec![byte; 3],
            attempts,
        };
        returned.put_back(message(2, 0));
        returned.put_back(message(1, 2));
        assert!(!returned.is_empty());
        let first = returned.pop().unwrap();
        assert_eq!(first, message(1, 2));
        returned.put_back(first);
        assert_eq!(returned.pop(), Some(message(1, 2)));
        assert_eq!(returned.pop(), Some(message(2, 0)));
        assert!(returned.is_empty());
        assert_eq!(returned.pop(), None);
    }
}
