//! A callback's output in process mode: records in the outbox of the link that has delivered its message.
//!
//! Its one rule: everything is staged, and nothing published, before the callback returns `Ok` or flushes; only
//! output that is larger than the ring is published in parts, which the reactor holds back.

use std::mem;
use std::ops::Range;
use std::os::fd::OwnedFd;

use super::process::Desk;
use crate::config::{MOST_POST, MOST_REPLY, MOST_TASK, ServerTimer};
use crate::conn_id::ConnId;
use crate::handler::{ConnInfo, Group, Output, SendError, ServerCall, Stats, TaskOrder, Timer, To};
use crate::ipc::link::{NO_MORE, WorkerOutbox, charge, of_page};
use crate::ipc::listed;
use crate::ipc::queued::Amount;
use crate::ipc::record::{self, About, Part, Span};
use crate::ipc::sync::Ordering;
use crate::net::alarms::TIMER_BYTES;
use crate::net::assigned::PROMISE_BYTES;
use crate::net::groups::member_bytes;
use crate::net::mail::LETTER_BYTES;
use crate::net::server_timers::charge_of;

/// The reactor that has the timers of the server.
const FIRST: usize = 0;

/// A callback's output: it goes to the outbox of the link that delivered the message.
pub(super) struct LinkOutput<'a> {
    pub(super) desk: &'a mut Desk,
    pub(super) outbox: &'a mut WorkerOutbox,
    pub(super) current: ConnId,
    pub(super) message: &'a [u8],
    pub(super) sent: usize,
    /// What its records without bytes count, against the same limit.
    pub(super) records: usize,
    /// What it adds to the bytes that its reactor keeps for users, at most; not known there yet.
    pub(super) kept: usize,
    /// The tasks that it has queued and not committed yet.
    pub(super) tasks: Amount,
    /// The callback has closed its own connection; not committed yet.
    pub(super) closes: bool,
    pub(super) is_closed: bool,
    pub(super) own: Own,
}

/// The records of a callback that can't be refused, for its own connection and the server. Each is staged
/// once, however often the callback asks, so that they never break the budget of a commit.
#[derive(Default)]
pub(super) struct Own {
    /// To be staged with the next commit: the last one counts.
    user: Option<u64>,
    closed: bool,
    reset: bool,
    stop: bool,
    reload: bool,
}

impl LinkOutput<'_> {
    /// Counts a record without bytes for another connection. The reactor counts all of them against
    /// what one commit may have, so that a callback which makes too many must learn of it here.
    fn charge_record(&mut self) -> Result<(), SendError> {
        self.charge(0)
    }

    /// Counts a record with bytes that are sent to no client.
    fn charge(&mut self, len: usize) -> Result<(), SendError> {
        let limit = self.desk.limit;
        let charged = self.records + charge(len);
        if charged > limit {
            return Err(SendError::OverLimit { limit });
        }
        self.records = charged;
        Ok(())
    }

    /// Reserves bytes of what a reactor keeps for its users.
    fn claim_at(&mut self, reactor: usize, bytes: usize) -> Result<(), SendError> {
        // The reactor's own figure may be some commits old: what is kept goes beyond the limit by at most what
        // these hold.
        let words = self.desk.reactors.get(reactor);
        let kept = words.map_or(0, |words| words.kept.load(Ordering::Relaxed));
        let most = self.desk.most_kept;
        if bytes > 0 && kept.saturating_add((self.kept + bytes) as u64) > most as u64 {
            return Err(SendError::Full { most });
        }
        self.kept += bytes;
        Ok(())
    }

    fn ask(&mut self, about: (usize, About), name: &[u8]) -> Result<u64, SendError> {
        // An error can only be epoll's, as in `stage`.
        let answer = self.desk.ask(self.outbox, about, name);
        let answer = answer.expect("a worker can wait for an answer");
        answer.ok_or(SendError::NoAnswer)
    }

    fn stage(&mut self, output: record::Output, body: &[u8]) {
        // An error can only be epoll's: a worker that can't wait can't go on, and the crash policy
        // covers its death.
        self.desk
            .make_room(self.outbox, body.len())
            .expect("a worker can wait for room");
        self.outbox.stage(output, body);
    }

    pub(super) fn stage_user(&mut self) {
        if let Some(user) = self.own.user.take() {
            self.stage(record::Output::SetUser(self.current, user), &[]);
        }
    }

    /// Returns the number of the link that has delivered the message.
    fn link(&self) -> usize {
        usize::from(self.current.owner())
    }

    /// Called when the output so far is committed: records its tasks, and the close of the callback's own connection.
    pub(super) fn note_committed(&mut self) {
        let (link, tasks) = (self.link(), mem::take(&mut self.tasks));
        if let Some(claims) = &mut self.desk.task_claims {
            claims.commit(link, tasks);
        }
        if mem::take(&mut self.closes) {
            self.desk.closed.insert(self.current);
        }
    }
}

impl Output for LinkOutput<'_> {
    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), SendError> {
        if conn == self.current && self.is_closed {
            return Err(SendError::Closed);
        }
        let limit = self.desk.limit;
        // Bytes of the message itself need not be copied: its reactor has them.
        let is_near = conn.owner() == self.current.owner();
        let received = Part::of(self.message, bytes).filter(|_| is_near);
        let chunks = match received {
            Some(_) => 1,
            None => bytes.len().div_ceil(self.outbox.largest()),
        };
        let charged = self.sent + bytes.len() + chunks * charge(0);
        if charged > limit {
            return Err(SendError::OverLimit { limit });
        }
        self.sent = charged;
        if let Some(part) = received {
            self.stage(record::Output::SendReceived(conn, part), &[]);
            return Ok(());
        }
        for chunk in bytes.chunks(self.outbox.largest()) {
            self.stage(record::Output::Send(conn), chunk);
        }
        Ok(())
    }

    fn send_file(
        &mut self,
        conn: ConnId,
        file: OwnedFd,
        range: Range<u64>,
    ) -> Result<(), SendError> {
        if conn == self.current && self.is_closed {
            return Err(SendError::Closed);
        }
        self.desk.files.claim()?;
        self.charge_record()?;
        let span = Span {
            offset: range.start,
            len: range.end - range.start,
        };
        self.stage(record::Output::File(conn, span), &[]);
        self.desk.files.stage(file);
        Ok(())
    }

    fn close(&mut self, conn: ConnId) -> Result<(), SendError> {
        if conn != self.current {
            self.charge_record()?;
        } else if mem::replace(&mut self.own.closed, true) {
            return Ok(());
        }
        self.stage(record::Output::Close(conn), &[]);
        self.closes |= conn == self.current;
        self.is_closed |= conn == self.current;
        Ok(())
    }

    fn reset(&mut self, conn: ConnId) -> Result<(), SendError> {
        if conn != self.current {
            self.charge_record()?;
        } else if mem::replace(&mut self.own.reset, true) {
            return Ok(());
        }
        self.stage(record::Output::Reset(conn), &[]);
        self.closes |= conn == self.current;
        self.is_closed |= conn == self.current;
        Ok(())
    }

    fn set_user(&mut self, conn: ConnId, user: u64) -> Result<(), SendError> {
        if conn == self.current {
            self.own.user = Some(user);
        } else {
            self.charge_record()?;
            self.stage(record::Output::SetUser(conn, user), &[]);
        }
        Ok(())
    }

    /// The bytes of a connection's own state are not counted against the limit: there are few, and once.
    fn set_state(&mut self, conn: ConnId, state: &[u8]) -> Result<(), SendError> {
        self.stage(record::Output::SetState(conn), state);
        Ok(())
    }

    fn set_timer(&mut self, conn: ConnId, timer: Timer) -> Result<(), SendError> {
        self.claim(conn, TIMER_BYTES)?;
        self.charge_record()?;
        self.stage(record::Output::SetTimer(conn, timer), &[]);
        Ok(())
    }

    fn cancel_timer(&mut self, conn: ConnId, tag: u64) -> Result<(), SendError> {
        self.charge_record()?;
        self.stage(record::Output::CancelTimer(conn, tag), &[]);
        Ok(())
    }

    fn notify_drained(&mut self, conn: ConnId) -> Result<(), SendError> {
        self.charge_record()?;
        self.stage(record::Output::NotifyDrained(conn), &[]);
        Ok(())
    }

    fn promise(&mut self, conn: ConnId, within: u64, reply: &[u8]) -> Result<(), SendError> {
        if reply.len() > MOST_REPLY {
            return Err(SendError::TooLong { most: MOST_REPLY });
        }
        self.claim(conn, PROMISE_BYTES + reply.len())?;
        self.charge_record()?;
        self.stage(record::Output::Promise(conn, within), reply);
        self.desk.has_promised = true;
        Ok(())
    }

    fn hold(&mut self, conn: ConnId, is_held: bool) -> Result<(), SendError> {
        self.charge_record()?;
        let record = match is_held {
            true => record::Output::Hold(conn),
            false => record::Output::Unhold(conn),
        };
        self.stage(record, &[]);
        Ok(())
    }

    fn claim(&mut self, conn: ConnId, bytes: usize) -> Result<(), SendError> {
        self.claim_at(usize::from(conn.owner()), bytes)
    }

    fn set_server_timer(&mut self, timer: ServerTimer) -> Result<(), SendError> {
        self.claim_at(FIRST, charge_of(timer, self.desk.seats))?;
        self.charge(0)?;
        self.stage(record::Output::SetServerTimer(timer), &[]);
        Ok(())
    }

    fn cancel_server_timer(&mut self, tag: u64) -> Result<(), SendError> {
        self.charge(0)?;
        self.stage(record::Output::CancelServerTimer(tag), &[]);
        Ok(())
    }

    fn post(&mut self, to: To, bytes: &[u8]) -> Result<(), SendError> {
        let seats = self.desk.seats;
        let copies = match to {
            To::Seat(seat) if seat >= seats => return Err(SendError::NoSeat { seats }),
            To::All => seats,
            To::Seat(_) | To::LeastBusy | To::Owner(_) => 1,
        };
        if bytes.len() > MOST_POST {
            return Err(SendError::TooLong { most: MOST_POST });
        }
        let owner = match to {
            To::Owner(conn) => conn,
            To::Seat(_) | To::All | To::LeastBusy => self.current,
        };
        self.claim(owner, bytes.len() + copies * LETTER_BYTES)?;
        self.charge(bytes.len())?;
        self.stage(record::Output::Post(to), bytes);
        Ok(())
    }

    fn task(&mut self, order: TaskOrder, bytes: &[u8]) -> Result<(), SendError> {
        let claims = self.desk.task_claims.as_ref();
        let claims = claims.ok_or(SendError::NoTaskWorkers)?;
        if bytes.len() > MOST_TASK {
            return Err(SendError::TooLong { most: MOST_TASK });
        }
        let tasks = claims.claim(self.tasks, bytes.len())?;
        self.charge(bytes.len())?;
        self.tasks = tasks;
        self.stage(record::Output::Task(order), bytes);
        Ok(())
    }

    fn finish(&mut self, result: &[u8]) -> Result<(), SendError> {
        if result.len() > MOST_TASK {
            return Err(SendError::TooLong { most: MOST_TASK });
        }
        self.claim(self.current, result.len() + LETTER_BYTES)?;
        self.charge(result.len())?;
        self.stage(record::Output::Finish(self.current), result);
        Ok(())
    }

    fn join(&mut self, conn: ConnId, group: &[u8]) -> Result<(), SendError> {
        self.claim(conn, member_bytes(group))?;
        self.charge(group.len())?;
        self.stage(record::Output::Join(conn), group);
        Ok(())
    }

    fn leave(&mut self, conn: ConnId, group: &[u8]) -> Result<(), SendError> {
        self.charge(group.len())?;
        self.stage(record::Output::Leave(conn), group);
        Ok(())
    }

    fn publish(&mut self, to: Group<'_>, bytes: &[u8]) -> Result<(), SendError> {
        let publish = record::Publish {
            name: to.name.len() as u8,
            except: to.except,
            is_lossy: to.is_lossy,
        };
        self.charge(to.name.len() + bytes.len())?;
        self.stage(record::Output::Publish(publish), &[to.name, bytes].concat());
        Ok(())
    }

    fn group_size(&mut self, group: &[u8]) -> Result<usize, SendError> {
        let own = usize::from(self.current.owner());
        let size = self.ask((own, About::Group), group)?;
        Ok(size as usize)
    }

    fn exists(&mut self, conn: ConnId) -> Result<bool, SendError> {
        let owner = usize::from(conn.owner());
        if owner >= self.desk.reactors.len() {
            return Ok(false);
        }
        Ok(self.ask((owner, About::Conn(conn)), &[])? != 0)
    }

    fn connections(&mut self) -> Result<Vec<ConnInfo>, SendError> {
        let mut infos = Vec::new();
        for number in 0..self.desk.reactors.len() {
            let (reactor, mut from) = (number as u16, 0);
            while from != NO_MORE {
                let value = self.ask((number, About::Conns { reactor, from }), &[])?;
                let (count, next) = of_page(value);
                let answer = self.desk.answer(number);
                infos.extend((0..count).filter_map(|index| listed::decode(answer.entry(index))));
                from = next;
            }
        }
        Ok(infos)
    }

    fn call_server(&mut self, call: ServerCall) {
        let asked = match call {
            ServerCall::Stop => &mut self.own.stop,
            ServerCall::Reload => &mut self.own.reload,
        };
        if !mem::replace(asked, true) {
            self.stage(record::Output::CallServer(call), &[]);
        }
    }

    fn flush(&mut self) {
        self.stage_user();
        self.stage(record::Output::Flush, &[]);
        let link = self.link();
        // An error can only be that the master is gone.
        self.desk
            .files
            .send(link)
            .expect("a worker can send the master files");
        self.outbox.publish();
        self.outbox.ring();
        self.desk.files.note(link, || self.outbox.written());
        self.desk
            .settle_files(self.outbox, link)
            .expect("a worker can wait for its reactor");
        self.note_committed();
        (self.sent, self.records) = (0, 0);
        (self.own.stop, self.own.reload) = (false, false);
    }

    #[cfg(feature = "test-hooks")]
    fn forge(&mut self, forgery: &crate::handler::Forgery) {
        match forgery {
            crate::handler::Forgery::Bytes(bytes) => self.outbox.forge(bytes),
            crate::handler::Forgery::Mark(distance) => self.outbox.forge_mark(*distance),
            crate::handler::Forgery::Files(link, files) => self.desk.files.forge(*link, files),
        }
    }

    fn stats(&self) -> Stats {
        let words = || self.desk.reactors.iter();
        Stats {
            callbacks: self.desk.memory.words.activity.completed(),
            connections: words()
                .map(|words| words.connections.load(Ordering::Relaxed))
                .sum(),
            accepted: words()
                .map(|words| words.accepted.load(Ordering::Relaxed))
                .sum(),
            poisoned: words()
                .map(|words| words.poisoned.load(Ordering::Relaxed))
                .sum(),
        }
    }
}
