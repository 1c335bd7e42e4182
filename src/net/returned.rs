//! Messages handed back by a worker that died or was replaced; another worker will run them.

/// A message that was submitted before.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    pub(crate) number: u64,
    /// Its attempts so far.
    pub(crate) attempts: u8,
}

/// Returned messages, the oldest one first. They are submitted before everything that was read later.
/// Usually there are none, and a list takes one pointer then. At most, as many are returned as were in flight.
#[derive(Default, Debug)]
pub(crate) struct Returned(Option<Box<Node>>);

#[derive(Debug)]
struct Node {
    message: Message,
    later: Returned,
}

impl Returned {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the oldest one.
    pub(crate) fn first(&self) -> Option<&Message> {
        self.0.as_ref().map(|node| &node.message)
    }

    /// Removes and returns the oldest one.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let Node { message, later } = *self.0.take()?;
        *self = later;
        Some(message)
    }

    /// Puts a message before all others: it was submitted before them.
    pub(crate) fn put_back(&mut self, message: Message) {
        let later = std::mem::take(self);
        self.0 = Some(Box::new(Node { message, later }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_put_back_last_goes_first() {
        let mut returned = Returned::default();
        let message = |byte, attempts| Message {
            bytes: vec![byte; 3],
            number: u64::from(byte),
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
