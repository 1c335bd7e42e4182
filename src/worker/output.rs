//! A callback's output in base mode, from the callback to the sockets of its worker.
//!
//! Its one rule: a callback reaches only connections of its own worker.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::asides;
use super::staged::{Body, Staged};
use crate::config::policy::OnCrash;
use crate::config::{FILES_AT_ONCE, MOST_POST, MOST_REPLY, Run, ServerTimer};
use crate::conn_id::ConnId;
use crate::control::{Note, Notes};
use crate::event::Event;
use crate::flow::Flow;
use crate::handler::{
    CloseReason, ConnInfo, Group, Output, SendError, ServerCall, Stats, TaskOrder, Timer, To,
};
use crate::ipc::arena::SlotMemory;
use crate::ipc::memory::SharedBytes;
use crate::ipc::record::{self, Span};
use crate::net::alarms::TIMER_BYTES;
use crate::net::assigned::PROMISE_BYTES;
use crate::net::files::{FilePart, SentFile};
use crate::net::groups::member_bytes;
use crate::net::mail::LETTER_BYTES;
use crate::net::server_timers::charge_of;

/// A callback's output: it goes to the sockets when it is committed.
pub(super) struct SocketOutput<'a> {
    pub(super) staged: &'a mut Staged,
    pub(super) message: &'a [u8],
    pub(super) limit: usize,
    pub(super) flow: &'a mut Flow,
    pub(super) memory: &'a SlotMemory,
    pub(super) notes: &'a Notes,
    pub(super) flushed: bool,
    /// This worker's seat.
    pub(super) seat: Option<usize>,
    /// The most bytes that are kept for users, and how many this callback has added at most.
    pub(super) most_kept: usize,
    pub(super) kept: usize,
    /// The connection of the callback.
    pub(super) current: ConnId,
    /// It takes no more output.
    pub(super) is_closed: bool,
}

impl SocketOutput<'_> {
    /// Returns the id of a connection in this worker's table.
    fn own(&self, conn: ConnId) -> Result<ConnId, SendError> {
        self.flow.own_id(conn).ok_or(SendError::OtherWorker)
    }

    /// Counts bytes that are kept for users.
    fn keep(&mut self, bytes: usize) -> Result<(), SendError> {
        let most = self.most_kept;
        if bytes > 0 && self.flow.kept() + self.kept + bytes > most {
            return Err(SendError::Full { most });
        }
        self.kept += bytes;
        Ok(())
    }

    pub(super) fn commit(&mut self) {
        let apply = |output, body: Body<'_>| match (output, body) {
            (record::Output::File(conn, span), Body::File(file)) => {
                let part = FilePart::new(Arc::clone(file), span);
                self.flow.send_file(conn, part);
            }
            (output, Body::Bytes(bytes)) => self.flow.apply(output, SharedBytes::of(bytes)),
            (_, Body::File(_)) => {}
        };
        let call = |asked| {
            self.notes.tell_surely(match asked {
                ServerCall::Stop => Note::StopServer,
                ServerCall::Reload => Note::ReloadServer,
            });
        };
        self.staged.commit(self.message, apply, call);
    }

    /// Drops the output of a callback that returned an error, and closes its connection after the policy's reply, unless
    /// that is an answer. There is no second attempt: base mode refuses that policy.
    pub(super) fn fail(&mut self, event: Event, conn: ConnId, policy: &OnCrash) {
        self.staged.drop_all();
        let Ok(conn) = self.own(conn) else { return };
        if event == Event::Close {
            return;
        }
        if self.flushed {
            return self.flow.break_off(conn, CloseReason::Crash);
        }
        if let OnCrash::Reply(reply) | OnCrash::Answer(reply) = policy {
            let bytes = SharedBytes::of(reply);
            self.flow.apply(record::Output::Send(conn), bytes);
        }
        if event == Event::Receive && matches!(policy, OnCrash::Answer(_)) {
            return;
        }
        match self.flow.awaits_answer(conn) {
            true => self.flow.break_promise(conn, CloseReason::Crash),
            false => self.flow.close(conn, CloseReason::Crash),
        }
    }
}

impl Output for SocketOutput<'_> {
    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), SendError> {
        let own = self.own(conn)?;
        if conn == self.current && self.is_closed {
            return Err(SendError::Closed);
        }
        self.staged.send(own, bytes, self.message, self.limit)
    }

    fn send_file(
        &mut self,
        conn: ConnId,
        file: OwnedFd,
        range: Range<u64>,
    ) -> Result<(), SendError> {
        let own = self.own(conn)?;
        if conn == self.current && self.is_closed {
            return Err(SendError::Closed);
        }
        if self.staged.files() >= FILES_AT_ONCE {
            let most = FILES_AT_ONCE;
            return Err(SendError::TooManyFiles { most });
        }
        let counted = self.flow.count_file();
        let most = self.flow.most_files();
        let counted = counted.ok_or(SendError::TooManyFiles { most })?;
        self.staged.charge(0, self.limit)?;
        let file = SentFile::new(file, Some(counted)).ok_or(SendError::NotAFile)?;
        let span = Span {
            offset: range.start,
            len: range.end - range.start,
        };
        self.staged.send_file(own, file, span);
        Ok(())
    }

    fn close(&mut self, conn: ConnId) -> Result<(), SendError> {
        let own = self.own(conn)?;
        self.staged.push(record::Output::Close(own));
        self.is_closed |= conn == self.current;
        Ok(())
    }

    fn reset(&mut self, conn: ConnId) -> Result<(), SendError> {
        let own = self.own(conn)?;
        self.staged.push(record::Output::Reset(own));
        self.is_closed |= conn == self.current;
        Ok(())
    }

    /// In base mode nothing is dispatched by it.
    fn set_user(&mut self, conn: ConnId, user: u64) -> Result<(), SendError> {
        let own = self.own(conn)?;
        self.staged.push(record::Output::SetUser(own, user));
        Ok(())
    }

    fn set_state(&mut self, conn: ConnId, state: &[u8]) -> Result<(), SendError> {
        let own = self.own(conn)?;
        self.staged.copy(record::Output::SetState(own), state);
        Ok(())
    }

    fn set_timer(&mut self, conn: ConnId, timer: Timer) -> Result<(), SendError> {
        self.claim(conn, TIMER_BYTES)?;
        let own = self.own(conn)?;
        self.staged.push(record::Output::SetTimer(own, timer));
        Ok(())
    }

    fn cancel_timer(&mut self, conn: ConnId, tag: u64) -> Result<(), SendError> {
        let own = self.own(conn)?;
        self.staged.push(record::Output::CancelTimer(own, tag));
        Ok(())
    }

    fn notify_drained(&mut self, conn: ConnId) -> Result<(), SendError> {
        let own = self.own(conn)?;
        self.staged.push(record::Output::NotifyDrained(own));
        Ok(())
    }

    fn promise(&mut self, conn: ConnId, within: u64, reply: &[u8]) -> Result<(), SendError> {
        if reply.len() > MOST_REPLY {
            return Err(SendError::TooLong { most: MOST_REPLY });
        }
        self.claim(conn, PROMISE_BYTES + reply.len())?;
        let own = self.own(conn)?;
        self.staged
            .copy(record::Output::Promise(own, within), reply);
        Ok(())
    }

    fn hold(&mut self, conn: ConnId, is_held: bool) -> Result<(), SendError> {
        let own = self.own(conn)?;
        self.staged.push(match is_held {
            true => record::Output::Hold(own),
            false => record::Output::Unhold(own),
        });
        Ok(())
    }

    fn claim(&mut self, conn: ConnId, bytes: usize) -> Result<(), SendError> {
        self.own(conn)?;
        self.keep(bytes)
    }

    /// There is no way to other workers but by the clients' connections.
    fn post(&mut self, to: To, bytes: &[u8]) -> Result<(), SendError> {
        let is_own = match to {
            To::Seat(seat) => Some(seat) == self.seat,
            To::Owner(conn) => self.own(conn).is_ok(),
            To::LeastBusy => true,
            To::All => false,
        };
        if !is_own {
            return Err(SendError::OtherWorker);
        }
        if bytes.len() > MOST_POST {
            return Err(SendError::TooLong { most: MOST_POST });
        }
        self.keep(bytes.len() + LETTER_BYTES)?;
        self.staged.copy(asides::POST_HERE, bytes);
        Ok(())
    }

    fn join(&mut self, conn: ConnId, group: &[u8]) -> Result<(), SendError> {
        self.claim(conn, member_bytes(group))?;
        let own = self.own(conn)?;
        self.staged.copy(record::Output::Join(own), group);
        Ok(())
    }

    fn leave(&mut self, conn: ConnId, group: &[u8]) -> Result<(), SendError> {
        let own = self.own(conn)?;
        self.staged.copy(record::Output::Leave(own), group);
        Ok(())
    }

    /// To the members that are connections of this worker.
    fn publish(&mut self, to: Group<'_>, bytes: &[u8]) -> Result<(), SendError> {
        let publish = record::Publish {
            name: to.name.len() as u8,
            except: to.except.and_then(|conn| self.own(conn).ok()),
            is_lossy: to.is_lossy,
        };
        let body = [to.name, bytes].concat();
        self.staged.charge(body.len(), self.limit)?;
        self.staged.copy(record::Output::Publish(publish), &body);
        Ok(())
    }

    fn group_size(&mut self, group: &[u8]) -> Result<usize, SendError> {
        Ok(self.flow.group_size(group))
    }

    fn exists(&mut self, conn: ConnId) -> Result<bool, SendError> {
        let own = self.own(conn)?;
        Ok(self.flow.exists(own))
    }

    fn connections(&mut self) -> Result<Vec<ConnInfo>, SendError> {
        let (mut infos, mut from) = (Vec::new(), Some(0));
        while let Some(place) = from {
            from = self.flow.list(place, usize::MAX, |info| infos.push(info));
        }
        Ok(infos)
    }

    /// Tasks need a master.
    fn task(&mut self, _: TaskOrder, _: &[u8]) -> Result<(), SendError> {
        Err(SendError::NoTaskWorkers)
    }

    fn finish(&mut self, _: &[u8]) -> Result<(), SendError> {
        Err(SendError::NoTaskWorkers)
    }

    /// They are this worker's own.
    fn set_server_timer(&mut self, timer: ServerTimer) -> Result<(), SendError> {
        if timer.run == Run::Each {
            return Err(SendError::OtherWorker);
        }
        self.keep(charge_of(timer, 1))?;
        self.staged.push(record::Output::SetServerTimer(timer));
        Ok(())
    }

    fn cancel_server_timer(&mut self, tag: u64) -> Result<(), SendError> {
        self.staged.push(record::Output::CancelServerTimer(tag));
        Ok(())
    }

    fn call_server(&mut self, call: ServerCall) {
        self.staged.push(record::Output::CallServer(call));
    }

    fn flush(&mut self) {
        self.commit();
        self.flushed = true;
    }

    fn stats(&self) -> Stats {
        Stats {
            callbacks: self.memory.words.activity.completed(),
            connections: self.flow.len() as u64,
            accepted: self.flow.accepted(),
            poisoned: 0,
        }
    }
}
