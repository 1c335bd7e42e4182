//! Where the committed outputs of the workers go: to connections of this reactor, on their way to another one, or to
//! the server.
//!
//! Runs in the reactor threads. Its one rule: outputs keep their order.

use super::command::{Command, Mailbox};
use super::transit::Ways;
use crate::conn_id::ConnId;
use crate::flow::Flow;
use crate::handler::{ServerCall, TaskOrder, To};
use crate::ipc::files::FileInbox;
use crate::ipc::frame::InputKind;
use crate::ipc::layout::ReactorWords;
use crate::ipc::link::{Broken, Failed};
use crate::ipc::memory::SharedBytes;
use crate::ipc::queued::Queued;
use crate::ipc::record::{Output, Publish, Span};
use crate::ipc::sync::Ordering;
use crate::net::files::{FilePart, MOST_READ};
use crate::net::groups::Publication;

/// The destination of one worker's outputs.
pub(super) struct Outlet<'a> {
    pub(super) flow: &'a mut Flow,
    pub(super) ways: &'a mut Ways,
    pub(super) calls: &'a mut Vec<ServerCall>,
    pub(super) failed: Vec<Failed>,
    /// A reactor to which there is no more credit.
    pub(super) full: Option<usize>,
    /// The tasks of the server, if it has task workers.
    pub(super) queued: Option<&'a Queued>,
    /// The words of the first reactor.
    pub(super) first: &'a ReactorWords,
    /// All reactors, for questions about the connections of others.
    pub(super) reactors: &'a [Mailbox<Command>],
    /// The slot of the worker.
    pub(super) slot: usize,
    /// The seat of the worker.
    pub(super) seat: u16,
    /// The worker has made what a worker can't make.
    pub(super) broken: Option<Broken>,
    /// The bytes of files that were read for the commit, at most.
    pub(super) read: usize,
}

/// The reactor that has all tasks, and the timers of the server.
const FIRST: u16 = 0;

impl Outlet<'_> {
    /// Applies a committed output, or keeps it for another reactor.
    pub(super) fn output(&mut self, output: Output, bytes: SharedBytes<'_>) {
        let id = match output {
            Output::Send(id)
            | Output::Close(id)
            | Output::Reset(id)
            | Output::SetUser(id, _)
            | Output::SetState(id)
            | Output::SetTimer(id, _)
            | Output::CancelTimer(id, _)
            | Output::NotifyDrained(id)
            | Output::Promise(id, _)
            | Output::Hold(id)
            | Output::Unhold(id)
            | Output::Leave(id)
            | Output::Finish(id)
            | Output::Post(To::Owner(id)) => id,
            // Each reactor has mailboxes for all seats.
            Output::Post(_) => return self.flow.apply(output, bytes),
            Output::Task(order) => return self.task(order, bytes),
            Output::SetServerTimer(_) | Output::CancelServerTimer(_) => {
                return self.server_timer(output);
            }
            Output::Publish(publish) => return self.publish(publish, bytes),
            Output::Join(_) => {
                self.flow.apply(output, bytes);
                let lie = self.flow.take_lie().map(Broken::Groups);
                self.broken = self.broken.take().or(lie);
                return;
            }
            Output::CallServer(call) => {
                if !self.calls.contains(&call) {
                    self.calls.push(call);
                }
                return;
            }
            Output::SendReceived(..)
            | Output::File(..)
            | Output::Ask(_)
            | Output::Aside
            | Output::Flush
            | Output::Done(_)
            | Output::Failed(_) => return,
        };
        if id.owner() == self.flow.owner() {
            self.flow.apply(output, bytes);
        } else {
            self.pass(id.owner(), output, bytes);
        }
    }

    /// Sends a part of the file that the worker has sent for this record.
    pub(super) fn file(&mut self, id: ConnId, span: Span, inbox: &FileInbox) {
        if self.broken.is_some() {
            return;
        }
        let file = match self.flow.take_file(inbox) {
            Ok(file) => file,
            Err(lie) => {
                self.broken = Some(Broken::File(lie));
                return;
            }
        };
        let is_own = id.owner() == self.flow.owner();
        match file.map(|file| FilePart::new(file, span)) {
            Some(part) if is_own => {
                self.read += part.left().min(MOST_READ as u64) as usize;
                self.flow.send_file(id, part);
            }
            Some(part) => {
                let full = self.ways.stage_file(usize::from(id.owner()), id, part);
                self.full = full.or(self.full);
            }
            None if is_own => self.flow.file_is_lost(id),
            None => self.pass(id.owner(), Output::Reset(id), SharedBytes::of(&[])),
        }
    }

    /// Keeps an output for another reactor.
    fn pass(&mut self, to: u16, output: Output, bytes: SharedBytes<'_>) {
        if let Some(full) = self.ways.stage(usize::from(to), output, bytes) {
            self.full = Some(full);
        }
    }

    /// Gives what was published to the reactor that puts it into the order of its group.
    fn publish(&mut self, publish: Publish, bytes: SharedBytes<'_>) {
        let publication = Publication::copy_of(publish, bytes);
        let members = self.flow.group_size(publication.name());
        if members == 0 {
            return;
        }
        let full = self.ways.publish(publication.for_members(members));
        self.full = full.or(self.full);
    }

    /// Counts a task, and passes it to the reactor that has all of them.
    fn task(&mut self, order: TaskOrder, bytes: SharedBytes<'_>) {
        let Some(queued) = self.queued else {
            self.broken = Some(Broken::NoTasks);
            return;
        };
        if let Err(most) = queued.add(bytes.len()) {
            self.broken = Some(Broken::Tasks(most));
        }
        let sender = self.seat;
        let output = Output::Task(TaskOrder { sender, ..order });
        self.pass_to_first(output, bytes);
    }

    fn pass_to_first(&mut self, output: Output, bytes: SharedBytes<'_>) {
        match self.flow.owner() {
            FIRST => self.flow.apply(output, bytes),
            _ => self.pass(FIRST, output, bytes),
        }
    }

    /// Passes a change of the server's timers on. The first reactor ends workers that make it keep too much; those
    /// whose commits this one reads must not escape that.
    fn server_timer(&mut self, output: Output) {
        let (kept, most) = (
            self.first.kept.load(Ordering::Relaxed),
            self.flow.most_kept_of_all(),
        );
        let adds = matches!(output, Output::SetServerTimer(_));
        if adds && self.flow.owner() != FIRST && kept > most as u64 {
            self.broken = Some(Broken::Kept(most));
        }
        self.pass_to_first(output, SharedBytes::of(&[]));
    }

    /// The callback under way has flushed.
    pub(super) fn flushed(&mut self, id: ConnId) {
        self.flow.flushed(id);
    }

    /// A frame is done.
    pub(super) fn done(&mut self, id: ConnId, kind: InputKind) {
        if let Some(event) = kind.event() {
            self.flow.frame_done(id, event);
        }
    }

    /// The callback of a frame has returned an error.
    pub(super) fn failed(&mut self, failed: Failed) {
        self.failed.push(failed);
    }
}
