//! Where the committed outputs of the workers go: to connections of this reactor, on their way to another one, or to
//! the server.
//!
//! Runs in the reactor threads. Its one rule: outputs keep their order.

use super::transit::Ways;
use crate::conn_id::ConnId;
use crate::flow::Flow;
use crate::handler::{ServerCall, To};
use crate::ipc::frame::InputKind;
use crate::ipc::link::Failed;
use crate::ipc::memory::SharedBytes;
use crate::ipc::record::Output;
use crate::net::groups::Publication;

/// The destination of one worker's outputs.
pub(super) struct Outlet<'a> {
    pub(super) flow: &'a mut Flow,
    pub(super) ways: &'a mut Ways,
    pub(super) calls: &'a mut Vec<ServerCall>,
    pub(super) failed: Vec<Failed>,
    /// A reactor to which there is no more credit.
    pub(super) full: Option<usize>,
}

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
            | Output::Hold(id)
            | Output::Unhold(id)
            | Output::Join(id)
            | Output::Leave(id)
            | Output::Post(To::Owner(id)) => id,
            // Each reactor has mailboxes for all seats.
            Output::Post(_) => return self.flow.apply(output, bytes),
            Output::Publish(publish) => {
                let publication = Publication::copy_of(publish, bytes);
                let members = self.flow.group_size(publication.name());
                let full = self.ways.publish(publication.for_members(members));
                self.full = full.or(self.full);
                return;
            }
            Output::CallServer(call) => {
                if !self.calls.contains(&call) {
                    self.calls.push(call);
                }
                return;
            }
            Output::SendReceived(..)
            | Output::Ask(_)
            | Output::Flush
            | Output::Done(_)
            | Output::Failed(_) => return,
        };
        if id.owner() == self.flow.owner() {
            self.flow.apply(output, bytes);
        } else if let Some(full) = self.ways.stage(id, output, bytes) {
            self.full = Some(full);
        }
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
