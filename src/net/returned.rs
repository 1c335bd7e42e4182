//! Messages of one connection that have come back from a worker, to be given to another.

use std::collections::VecDeque;

/// A message that was submitted before.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    /// How many workers have died in it.
    pub(crate) attempts: u8,
}

/// They go before anything that was read later. Mostly there are none, which takes one word.
#[derive(Default, Debug)]
pub(crate) struct Returned(Option<Box<VecDeque<Message>>>);

impl Returned {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes of all of them.
    pub(crate) fn len(&self) -> usize {
        let messages = self.0.iter().flat_map(|messages| messages.iter());
        messages.map(|message| message.bytes.len()).sum()
    }

    /// The oldest one, taken out.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let messages = self.0.as_mut()?;
        let message = messages.pop_front();
        if messages.is_empty() {
            self.0 = None;
        }
        message
    }

    /// One that goes before all the others: it was submitted before them.
    pub(crate) fn put_back(&mut self, message: Message) {
        self.0.get_or_insert_default().push_front(message);
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
        assert_eq!((returned.is_empty(), returned.len()), (false, 6));
        let first = returned.pop().unwrap();
        assert_eq!(first, message(1, 2));
        returned.put_back(first);
        assert_eq!(returned.pop(), Some(message(1, 2)));
        assert_eq!(returned.pop(), Some(message(2, 0)));
        assert!(returned.is_empty());
        assert_eq!(returned.pop(), None);
    }
}
