//! Carries out the crash policy for a callback that did not complete: its worker died in it, or it
//! returned an error.
//!
//! Runs in the reactor threads. Its one rule: every such callback gets the fate that the policy declares,
//! and the log names it.

use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::reactor::{Reactor, State};
use crate::config::policy::{Crash, CrashPolicy, FailedTask, OnCrash};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::CloseReason;
use crate::ipc::link::Returned;
use crate::ipc::memory::SharedBytes;
use crate::ipc::record::Output;
use crate::limited::{Topic, limited};
use crate::net::connection::Connection;

/// A callback that did not complete, for log lines.
#[derive(Clone, Copy)]
struct Incident {
    seat: usize,
    cause: Cause,
    event: Event,
    conn: ConnId,
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Incident {
            seat, event, conn, ..
        } = self;
        match self.cause {
            Cause::Died => write!(f, "worker#{seat} died in {event} of connection {conn}"),
            Cause::Failed => write!(f, "{event} of connection {conn} failed in worker#{seat}"),
        }
    }
}

/// How many times `close` is run before it is given up, unless the policy allows more.
const CLOSE_ATTEMPTS: u8 = 2;

/// Why a callback did not complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// Its worker died in it.
    Died,
    /// It returned an error; its worker lives.
    Failed,
}

impl Reactor {
    /// Applies the crash policy to a callback that did not complete.
    pub(super) fn decide(&mut self, seat: usize, mut frame: Returned, cause: Cause) {
        frame.attempts = frame.attempts.saturating_add(1);
        let kind = frame.kind;
        if !kind.has_connection() {
            return self.decide_letter(seat, frame, cause);
        }
        let incident = Incident {
            seat,
            cause,
            event: kind,
            conn: frame.conn,
        };
        let policy = match (self.policy_for(&frame, Some(cause)), cause) {
            // An error never leaves a client waiting.
            (OnCrash::Keep, Cause::Failed) => OnCrash::Close,
            // To send none is to close.
            (OnCrash::Reply(reply) | OnCrash::Answer(reply), _) if reply.is_empty() => {
                OnCrash::Close
            }
            // There is no message to answer, or no end of one.
            (OnCrash::Answer(reply), _) if !self.has_answer(&frame) => OnCrash::Reply(reply),
            (policy, _) => policy,
        };
        match (policy, kind) {
            (OnCrash::Keep, _) => self.keep(incident),
            (policy, Event::Close) => self.close_again(incident, &policy, frame),
            (OnCrash::Redeliver { .. }, _) if frame.flushed => {
                self.break_off(incident, " (not run again: it had flushed output)");
            }
            (OnCrash::Redeliver { attempts }, _) if frame.attempts < attempts => {
                // Whether paused and resumed run again depends on the output by then.
                if matches!(kind, Event::Connect | Event::Receive | Event::Timer) {
                    let next = frame.attempts + 1;
                    limited!(
                        info,
                        Topic::Incident,
                        "{incident}: it runs again (attempt {next} of {attempts})"
                    );
                }
                self.flow.frame_returned(frame);
            }
            (OnCrash::Redeliver { .. }, _) => {
                self.poison(&frame, cause);
                self.give_up(incident, " (all attempts are used up)");
            }
            (OnCrash::Answer(reply), _) if !frame.flushed => self.answer(incident, &reply),
            (OnCrash::Reply(reply), _) if !frame.flushed => {
                let bytes = SharedBytes::of(&reply);
                self.flow.apply(Output::Send(frame.conn), bytes);
                self.give_up(incident, " after the crash policy's reply");
            }
            (OnCrash::Reply(_) | OnCrash::Answer(_) | OnCrash::Close, _) if frame.flushed => {
                self.break_off(incident, "")
            }
            (OnCrash::Reply(_) | OnCrash::Answer(_) | OnCrash::Close, _) => {
                self.give_up(incident, "")
            }
        }
    }

    /// Whether the frame is a message with boundaries.
    fn has_answer(&self, frame: &Returned) -> bool {
        let conn = self.flow.conn(frame.conn);
        let is_cut = |it: &Connection| !self.config.listener(it.listener).protocol.is_raw();
        frame.kind == Event::Receive && conn.is_some_and(is_cut)
    }

    /// Answers the message in the place of its callback. The connection stays.
    fn answer(&mut self, incident: Incident, reply: &[u8]) {
        let Incident { event, conn, .. } = incident;
        limited!(
            info,
            Topic::Incident,
            "{incident}: the client gets the crash policy's answer, and the connection stays"
        );
        self.flow.apply(Output::Send(conn), SharedBytes::of(reply));
        self.flow.frame_done(conn, event);
    }

    /// Runs the callback of no connection again, as often as it may be run.
    fn decide_letter(&mut self, seat: usize, frame: Returned, cause: Cause) {
        let (kind, attempts) = (frame.kind, frame.attempts);
        let most = match kind {
            Event::Task => self.config.task_attempts,
            _ => self.config.post_attempts,
        };
        let did = match cause {
            Cause::Died => format!("worker#{seat} died in {kind}"),
            Cause::Failed => format!("{kind} failed in worker#{seat}"),
        };
        if frame.flushed {
            limited!(
                warn,
                Topic::Incident,
                "{did}: it is not run again (it had flushed output)"
            );
        } else if attempts < most {
            let next = attempts + 1;
            limited!(
                info,
                Topic::Incident,
                "{did}: it runs again (attempt {next} of {most})"
            );
            return self.flow.frame_returned(frame);
        } else {
            self.poison(&frame, cause);
        }
        if kind == Event::Task {
            self.task_failed(&frame, cause);
        }
        self.flow.frame_done(frame.conn, kind);
    }

    /// A task is given up: tells the user's function.
    fn task_failed(&mut self, frame: &Returned, cause: Cause) {
        let Some(running) = self.flow.end_task(frame.conn) else {
            return;
        };
        let Some(function) = &self.config.task_failed.0 else {
            return;
        };
        let failed = FailedTask {
            bytes: &frame.body,
            tag: running.order.tag,
            key: running.order.key,
            seat: usize::from(running.order.sender),
            attempts: frame.attempts,
            failed: cause == Cause::Failed,
            flushed: frame.flushed,
        };
        if catch_unwind(AssertUnwindSafe(|| function(&failed))).is_err() {
            limited!(
                error,
                Topic::Function,
                "on_task_failed panicked: the server goes on"
            );
        }
    }

    /// Ends the connections whose next message no worker has begun in time.
    pub(super) fn end_late(&mut self) {
        for id in self.flow.enforce_silence() {
            if let Some(frame) = self.flow.first_waiting(id) {
                let reply = self.reply_for(&frame);
                self.flow.end_late(id, reply);
            }
        }
        let frames = self.seats.take_expired(self.flow.now());
        let (mut seen, mut late) = (HashSet::new(), Vec::new());
        for frame in &frames {
            // The oldest of its connection decides: it has expired.
            if seen.insert(frame.conn) {
                late.push((frame.conn, self.reply_for(frame)));
            }
        }
        self.flow.frames_returned(frames);
        for (id, reply) in late {
            self.flow.end_late(id, reply);
        }
    }

    /// Returns the reply to a message that no worker has begun in time.
    fn reply_for(&self, frame: &Returned) -> Vec<u8> {
        match self.policy_for(frame, None) {
            OnCrash::Reply(reply) | OnCrash::Answer(reply) => reply,
            // There is no worker to give it to, and its client has waited for long enough.
            OnCrash::Close | OnCrash::Redeliver { .. } | OnCrash::Keep => Vec::new(),
        }
    }

    /// Returns the policy that the user declared for this callback; without a cause, it was not begun in
    /// time.
    fn policy_for(&self, frame: &Returned, cause: Option<Cause>) -> OnCrash {
        let function = match &self.config.crash_policy {
            CrashPolicy::Always(policy) => return policy.clone(),
            CrashPolicy::Function(function) => function,
        };
        let Some(conn) = self.flow.conn(frame.conn) else {
            return OnCrash::Close;
        };
        let crash = Crash {
            conn: frame.conn,
            peer: conn.peer,
            listener: conn.listener,
            user: conn.work.user(),
            event: frame.kind,
            attempts: frame.attempts,
            failed: cause == Some(Cause::Failed),
            flushed: frame.flushed,
            expired: cause.is_none(),
            message: &frame.body,
        };
        catch_unwind(AssertUnwindSafe(|| function(&crash))).unwrap_or_else(|_| {
            limited!(
                error,
                Topic::Function,
                "the crash function panicked: connection {} is closed",
                frame.conn
            );
            OnCrash::Close
        })
    }

    /// Drops the callback and leaves its connection as it is.
    fn keep(&mut self, incident: Incident) {
        let Incident { event, conn, .. } = incident;
        limited!(
            info,
            Topic::Incident,
            "{incident}: {event} is dropped, the connection stays open"
        );
        self.flow.frame_abandoned(conn, event);
        if self.state != State::Serving {
            // A server that shuts down keeps no connection open to be looked at.
            self.flow.close(conn, CloseReason::Shutdown);
        }
    }

    /// Closes the socket now, and runs `close` again in another worker, within its attempts.
    fn close_again(&mut self, incident: Incident, policy: &OnCrash, frame: Returned) {
        let conn = frame.conn;
        self.flow.close(conn, CloseReason::Crash);
        if frame.flushed {
            limited!(
                info,
                Topic::Incident,
                "{incident}: close does not run again (it had flushed output)"
            );
            return self.flow.frame_done(conn, Event::Close);
        }
        let most = match (policy, incident.cause) {
            (OnCrash::Redeliver { attempts }, Cause::Died) => CLOSE_ATTEMPTS.max(*attempts),
            (OnCrash::Redeliver { attempts }, Cause::Failed) => *attempts,
            (_, Cause::Died) => CLOSE_ATTEMPTS,
            // It came to its end, and said so.
            (_, Cause::Failed) => 1,
        };
        if frame.attempts < most {
            limited!(info, Topic::Incident, "{incident}: close runs again");
            self.flow.frame_returned(frame);
        } else {
            if most > 1 {
                self.poison(&frame, incident.cause);
                limited!(
                    warn,
                    Topic::Incident,
                    "{incident}: close does not run again (it was run {most} times)"
                );
            }
            self.flow.frame_done(conn, Event::Close);
        }
    }

    /// Closes the connection with RST: the client has a part of the callback's output, and must not take it
    /// for the whole. `how` ends the log line.
    fn break_off(&mut self, incident: Incident, how: &str) {
        let Incident { event, conn, .. } = incident;
        if !self.flow.conn(conn).is_some_and(Connection::is_open) {
            return self.give_up(incident, ", as the handler had asked behind its output");
        }
        limited!(
            info,
            Topic::Incident,
            "{incident}: the connection is reset{how}"
        );
        self.flow.break_off(conn, CloseReason::Crash);
        self.flow.frame_done(conn, event);
    }

    /// Closes the connection. `how` ends the log line.
    fn give_up(&mut self, incident: Incident, how: &str) {
        let Incident { event, conn, .. } = incident;
        limited!(
            info,
            Topic::Incident,
            "{incident}: the connection is closed{how}"
        );
        match self.flow.awaits_answer(conn) {
            // By an earlier callback, which has named a reply.
            true => self.flow.break_promise(conn, CloseReason::Crash),
            false => self.flow.close(conn, CloseReason::Crash),
        }
        self.flow.frame_done(conn, event);
    }

    /// Logs a callback that has used up its attempts, with its message, for a person to look at.
    fn poison(&mut self, frame: &Returned, cause: Cause) {
        self.poisoned += 1;
        let Returned {
            kind,
            conn,
            attempts,
            body,
            ..
        } = frame;
        let of = match kind.has_connection() {
            true => format!(" of connection {conn} from {}", self.peer_of(*conn)),
            false => String::new(),
        };
        let did = match cause {
            Cause::Died => format!("killed {attempts} workers"),
            Cause::Failed => format!("did not complete in {attempts} attempts"),
        };
        let message = message(body, self.config.poison_shown);
        limited!(error, Topic::Poison, "poison: {kind}{of} {did}{message}");
    }

    fn peer_of(&self, conn: ConnId) -> String {
        let peer = self.flow.conn(conn).map(|conn| conn.peer.to_string());
        peer.unwrap_or_else(|| "a client that is gone".to_owned())
    }
}

/// Returns the part of a log line that shows a message: at most `most` bytes of it, on one line.
fn message(body: &[u8], most: usize) -> String {
    let shown = body[..body.len().min(most)].escape_ascii();
    match body.len() {
        0 => String::new(),
        len if most == 0 => format!("; its message has {len} bytes"),
        len if len > most => {
            format!("; the first {most} of its message's {len} bytes: \"{shown}\"")
        }
        len => format!("; the {len} bytes of its message: \"{shown}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn a_poisonous_message_is_one_line_and_can_be_left_out() {
        let shown = message(b"a\n\x1b[2Jb\"", 256);
        assert_eq!(shown, r#"; the 8 bytes of its message: "a\n\x1b[2Jb\"""#);
        let shown = message(&[b'x'; 300], 2);
        assert_eq!(shown, r#"; the first 2 of its message's 300 bytes: "xx""#);
        assert_eq!(message(b"secret", 0), "; its message has 6 bytes");
        assert_eq!(message(b"", 256), "");
    }
}
