//! Messages that a worker has handed back, or has died in: another worker will run them.

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

    /// Takes the oldest one out. With the last one, the memory for them goes.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let message = self.0.pop();
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        message
    }

    /// Puts one before all the others: it was submitted before them.
    pub(crate) fn put_back(&mut self, message: Message) {
        self.0.push(message);
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
