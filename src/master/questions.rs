//! Answers to the questions of callbacks. A question about the connections of another reactor is passed on to that one,
//! which answers in its own link to the worker.
//!
//! Runs in the reactor threads. Its one rule: no reactor waits for another one, and a worker has one question on its
//! way between two of them at most.

use std::sync::Arc;

use super::outlet::Outlet;
use super::reactor::Command;
use super::seats::Seats;
use super::slot::Slot;
use crate::flow::Flow;
use crate::ipc::answer::{Answer, ENTRIES};
use crate::ipc::link::{NO_MORE, ReactorLink, page};
use crate::ipc::listed;
use crate::ipc::record::{About, Question};

/// What a page counts among the bytes of a batch: it is as much work.
const PAGE: usize = 16 << 10;

/// A question on its way to another reactor.
pub(crate) struct Asked {
    slot: usize,
    generation: u32,
    question: Question,
    /// One for each that is on its way.
    under_way: Arc<()>,
}

impl Slot {
    /// Answers the question that was read last, or passes it on. Returns what that counts among the bytes of a batch.
    pub(super) fn answer_question(&mut self, to: &mut Outlet<'_>) -> usize {
        let (question, name) = self.link.question();
        let owner = match question.about {
            About::Group => {
                let size = to.flow.group_size(name);
                self.link.answer(question.number, |_| size as u64);
                self.wake();
                return 0;
            }
            About::Conn(id) => id.owner(),
            About::Conns { reactor, .. } => reactor,
        };
        if owner == to.flow.owner() {
            self.answer_about(question, to.flow);
            return PAGE;
        }
        // An honest worker has none on its way, unless it has given up waiting for the answer.
        let is_free = Arc::strong_count(&self.under_way) == 1;
        if let Some(other) = to.reactors.get(usize::from(owner)).filter(|_| is_free) {
            other.send(Command::Asked(Asked {
                slot: to.slot,
                generation: self.filled_by(),
                question,
                under_way: Arc::clone(&self.under_way),
            }));
        }
        0
    }

    /// Answers a question about the connections of this reactor.
    fn answer_about(&mut self, question: Question, flow: &Flow) {
        let link: &mut ReactorLink = &mut self.link;
        link.answer(question.number, |answer| match question.about {
            About::Group => 0,
            About::Conn(id) => u64::from(flow.exists(id)),
            About::Conns { from, .. } => list(flow, from, answer),
        });
        self.wake();
    }
}

impl Seats {
    /// Answers a question that another reactor has read.
    pub(super) fn answer(&mut self, asked: Asked, flow: &Flow) {
        let Asked {
            slot,
            generation,
            question,
            under_way,
        } = asked;
        // Before the answer: the worker may ask again at once.
        drop(under_way);
        let slot = self.slots.get_mut(slot);
        if let Some(slot) = slot.filter(|slot| slot.filled_by() == generation) {
            slot.answer_about(question, flow);
        }
    }
}

/// Writes a page. Returns how many connections are in it, and where the next one goes on.
fn list(flow: &Flow, from: u32, answer: &Answer) -> u64 {
    let mut count = 0;
    let next = flow.list(from as usize, ENTRIES, |info| {
        answer.put(count, listed::encode(&info));
        count += 1;
    });
    page(count, next.map_or(NO_MORE, |next| next as u32))
}
