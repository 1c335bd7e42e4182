//! The reactor reads commits: the outputs of one callback, up to the record that makes them count.
//!
//! Its one rule: every number that the worker wrote is copied once, and checked before it is used.

use super::broken::Broken;
use super::pages::MUCH;
use super::reactor::{Delivery, ReactorLink};
use crate::config::limits::charge;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::ipc::frame::InputKind;
use crate::ipc::memory::SharedBytes;
use crate::ipc::record::{OUTPUT_BODY, Output, Part};
use crate::ipc::ring::aligned;

/// How many outputs a link keeps memory for, after a commit that was held back.
pub(super) const MOST_KEPT: usize = 1024;

/// An output and the place of its bytes.
pub(super) struct Staged {
    output: Output,
    source: Source,
    len: usize,
}

pub(super) enum Source {
    Ring(u64),
    Held(usize),
    /// In the inbox, in a message that is not retired before its commit is applied.
    Inbox(u64),
}

/// A commit record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Commit {
    /// The output so far may leave; the frame goes on.
    Flush,
    /// Posts that belong to no frame.
    Aside,
    /// The oldest frame of the inbox is done.
    Done,
    /// The callback of the oldest frame has failed, and its outputs are dropped.
    Failed,
    /// It ends no commit: the callback waits for an answer.
    Question,
}

/// The record at the end of a commit. Done and failed have the position of their frame.
enum End {
    Aside,
    Flush,
    Done(u64),
    Failed(u64),
}

impl ReactorLink {
    /// Reads the worker's output up to the next commit record. Its outputs are then in
    /// [`output`](Self::output) until [`finish`](Self::finish) is called. Output that was published
    /// without a record is held back and its place in the ring freed.
    ///
    /// # Errors
    /// The worker broke the protocol. Nothing of its unfinished commit is applied, and nothing more
    /// is read.
    pub(crate) fn next_commit(&mut self) -> Result<Option<Commit>, Broken> {
        if self.failed || self.generation == 0 {
            return Ok(None);
        }
        let found = self.scan();
        if found.is_err() {
            (self.failed, self.is_front_blamed) = (true, true);
            self.forget_outputs();
        }
        found
    }

    fn scan(&mut self) -> Result<Option<Commit>, Broken> {
        let mut at = self.outbox.head();
        loop {
            if at == self.outbox.tail() && !self.is_final {
                self.outbox.look()?;
            }
            let available = self.outbox.tail() - at;
            if available == 0 {
                self.hold(at);
                return Ok(None);
            }
            let rest = available
                .checked_sub(OUTPUT_BODY as u64)
                .ok_or(Broken::Torn(available))?;
            let body = at + OUTPUT_BODY as u64;
            let (output, len) = Output::decode(&self.outbox_ring.read(at), rest)?;
            at = body + aligned(len);
            match output {
                Output::Send(_)
                | Output::File(..)
                | Output::Close(_)
                | Output::Reset(_)
                | Output::SetUser(..)
                | Output::SetState(_)
                | Output::SetTimer(..)
                | Output::CancelTimer(..)
                | Output::NotifyDrained(_)
                | Output::Promise(..)
                | Output::Hold(_)
                | Output::Unhold(_)
                | Output::Post(_)
                | Output::Task(_)
                | Output::Finish(_)
                | Output::Join(_)
                | Output::Leave(_)
                | Output::Publish(_)
                | Output::SetServerTimer(_)
                | Output::CancelServerTimer(_)
                | Output::CallServer(_) => {
                    self.stage(output, Source::Ring(body), len)?;
                }
                Output::SendReceived(conn, part) => {
                    let source = self.received(conn, part)?;
                    self.stage(Output::Send(conn), source, part.len as usize)?;
                }
                Output::Ask(question) => {
                    self.note_question(question, body, len);
                    // What was read before it waits for its commit.
                    self.hold(at);
                    return Ok(Some(Commit::Question));
                }
                Output::Aside => return self.commit(End::Aside, at).map(Some),
                Output::Flush => return self.commit(End::Flush, at).map(Some),
                Output::Done(position) => return self.commit(End::Done(position), at).map(Some),
                Output::Failed(position) => {
                    return self.commit(End::Failed(position), at).map(Some);
                }
            }
        }
    }

    /// Notes an output of the commit that is being read.
    fn stage(&mut self, output: Output, source: Source, len: usize) -> Result<(), Broken> {
        // A mailbox is no connection: nothing can be assigned to it.
        let is_foreign = |conn: ConnId| {
            let is_finish = matches!(output, Output::Finish(_));
            !self.is_under_way(conn) || conn.is_mailbox() && !is_finish
        };
        if let Some(conn) = output.own_conn().filter(|conn| is_foreign(*conn)) {
            return Err(Broken::OtherConnection(conn));
        }
        if matches!(output, Output::Finish(_)) && !self.is_task_under_way() {
            return Err(Broken::Finish);
        }
        // Every frame counts, also one without bytes: it is remembered.
        self.charged += charge(len);
        if self.charged > self.budget {
            return Err(Broken::OverBudget(self.budget));
        }
        self.outputs.push(Staged {
            output,
            source,
            len,
        });
        Ok(())
    }

    /// Returns the place of a part of the message under way. That is the oldest message: a commit of
    /// another is refused. For another reactor the part would have to be copied, and the ring, in
    /// which the request is short however long the part is, would not keep that within bounds.
    fn received(&self, conn: ConnId, part: Part) -> Result<Source, Broken> {
        let message = self.in_flight.front();
        let has_part = |message: &&Delivery| {
            part.is_within(message.message()) && message.conn.owner() == conn.owner()
        };
        match message.filter(has_part) {
            Some(message) => Ok(Source::Inbox(message.body() + u64::from(part.offset))),
            None => Err(Broken::Part {
                part,
                message: message.map(Delivery::message),
            }),
        }
    }

    /// Checks that a commit record names the frame that is under way.
    fn commit(&mut self, end: End, next: u64) -> Result<Commit, Broken> {
        let expected = self.in_flight.front().map(|delivery| delivery.start);
        self.next = next;
        match end {
            End::Done(position) if Some(position) == expected => Ok(Commit::Done),
            End::Failed(position) if Some(position) == expected && !self.is_front_void() => {
                self.forget_outputs();
                Ok(Commit::Failed)
            }
            End::Done(position) | End::Failed(position) => Err(Broken::Done { position, expected }),
            End::Aside if self.has_posts_alone() => Ok(Commit::Aside),
            End::Aside => Err(Broken::Aside),
            End::Flush if expected.is_some() => Ok(Commit::Flush),
            End::Flush => Err(Broken::Flush),
        }
    }

    /// Whether the frame under way is one of this connection.
    fn is_under_way(&self, conn: ConnId) -> bool {
        let front = self.in_flight.front();
        front.is_some_and(|delivery| delivery.conn == conn) && !self.is_front_void()
    }

    /// Whether the commit that is being read has nothing but posts: for them, no frame needs to be under way.
    fn has_posts_alone(&self) -> bool {
        let mut outputs = self.outputs.iter();
        outputs.all(|staged| matches!(staged.output, Output::Post(_)))
    }

    /// Whether the frame under way is a task.
    fn is_task_under_way(&self) -> bool {
        let front = self.in_flight.front();
        front.is_some_and(|delivery| delivery.kind == Event::Task.into())
    }

    /// Reads nothing more of the worker: what this commit made was too much. If it has finished its frame, another
    /// one is the oldest now, which is not to blame.
    pub(crate) fn refuse(&mut self, commit: Commit) {
        self.failed = true;
        self.is_front_blamed = commit == Commit::Flush;
    }

    /// Whether the oldest frame was recalled: no callback runs for it, so that none can fail.
    fn is_front_void(&self) -> bool {
        let front = self.in_flight.front();
        front.is_some_and(|delivery| delivery.kind == InputKind::Void)
    }

    /// Copies the output that was read without a commit record out of the ring, up to `end`. Parts of
    /// the message stay in the inbox.
    fn hold(&mut self, end: u64) {
        for staged in &mut self.outputs[self.held_outputs..] {
            if let Source::Ring(position) = staged.source {
                staged.source = Source::Held(self.held.len());
                self.outbox_ring
                    .shared(position, staged.len)
                    .append_to(&mut self.held);
            }
        }
        self.held_outputs = self.outputs.len();
        self.outbox.advance_to(end);
    }

    /// Forgets the commit that is being read.
    pub(super) fn forget_outputs(&mut self) {
        self.outputs.clear();
        self.charged = 0;
        if std::mem::take(&mut self.held_outputs) > 0 {
            self.has_freed_much |= self.held.len() >= MUCH;
            // Rare, and may be large even where no bytes were held: the memory is given back.
            self.held = Vec::new();
            self.outputs.shrink_to(MOST_KEPT);
        }
    }

    /// Whether the worker has published frames that are not read, or a mark that can't be.
    pub(crate) fn has_output(&mut self) -> bool {
        !self.failed && self.generation != 0 && self.outbox.look().unwrap_or(true)
    }

    /// How many outputs the commit has.
    pub(crate) fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// What the outputs of the commit are charged against the budget.
    pub(crate) fn charged(&self) -> usize {
        self.charged
    }

    /// Returns one output of the commit.
    pub(crate) fn output(&self, index: usize) -> (Output, SharedBytes<'_>) {
        let staged = &self.outputs[index];
        let bytes = match staged.source {
            Source::Ring(position) => self.outbox_ring.shared(position, staged.len),
            Source::Held(start) => SharedBytes::of(&self.held[start..start + staged.len]),
            Source::Inbox(position) => self.inbox_ring.shared(position, staged.len),
        };
        (staged.output, bytes)
    }
}

// An output counts as much as its header takes in the ring.
const _: () = assert!(charge(0) == OUTPUT_BODY);
