//! The master's orders to the manager. None is lost while the manager lives, and none is waited for.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use crate::control::{self, Order};
use crate::sys::pipe::Sender;

/// The time between two tries of an order that the pipe did not take.
const RETRY: Duration = Duration::from_millis(10);

/// The pipe to the manager, and the orders that it did not take yet: it is full while the manager is in a
/// hook of the user's and does not read, and the kernel may lack memory for a record.
pub(super) struct Orders {
    pipe: Sender,
    /// Each order waits once.
    unsent: VecDeque<Order>,
}

impl Orders {
    pub(super) fn new(pipe: Sender) -> Orders {
        Orders {
            pipe,
            unsent: VecDeque::new(),
        }
    }

    /// Sends an order now, or as soon as the pipe takes it.
    pub(super) fn send(&mut self, order: Order) {
        if !self.unsent.contains(&order) {
            self.unsent.push_back(order);
        }
        self.send_unsent();
    }

    /// Sends the orders that wait, as far as the pipe takes them. A dead manager gets none: its exit is
    /// noticed by other means.
    pub(super) fn send_unsent(&mut self) {
        while let Some(order) = self.unsent.front() {
            match control::try_send(&self.pipe, order) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => {
                    return log::debug!("the order {order:?} to the manager waits: {error}");
                }
            }
            self.unsent.pop_front();
        }
    }

    /// Returns the time until the next try.
    pub(super) fn next_try(&self) -> Option<Duration> {
        (!self.unsent.is_empty()).then_some(RETRY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pipe::{Received, pipe};

    #[test]
    fn an_order_waits_for_a_full_pipe_once_and_in_its_turn() {
        let (sender, mut receiver) = pipe().unwrap();
        let mut orders = Orders::new(sender);
        let mut sent = 0;
        while orders.next_try().is_none() {
            orders.send(Order::Reload);
            sent += 1;
        }
        // The last one waits.
        for order in [Order::Reload, Order::Stop, Order::Reload] {
            orders.send(order);
        }
        let received = control::receive::<Order>(&mut receiver).unwrap();
        assert_eq!(received, (vec![Order::Reload; sent - 1], true));
        orders.send_unsent();
        assert_eq!(orders.next_try(), None);
        let received = control::receive::<Order>(&mut receiver).unwrap();
        assert_eq!(received, (vec![Order::Reload, Order::Stop], true));
        assert_eq!(receiver.receive(&mut [0]).unwrap(), Received::Nothing);
    }

    #[test]
    fn a_dead_manager_gets_no_order() {
        let (sender, receiver) = pipe().unwrap();
        drop(receiver);
        let mut orders = Orders::new(sender);
        orders.send(Order::Stop);
        assert_eq!(orders.next_try(), None);
    }
}
