//! The fate of a callback whose worker has died in it, or that has returned an error: the declared
//! policy, carried out.

use std::fmt;

use pretty_hex::{HexConfig, config_hex};

use super::reactor::{Reactor, State};
use crate::config::policy::{Crash, CrashPolicy, OnCrash};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::CloseReason;
use crate::ipc::frame::Output;
use crate::ipc::link::Returned;
use crate::ipc::memory::SharedBytes;

/// Which worker it happened to, and what.
#[derive(Clone, Copy)]
struct At {
    seat: usize,
    cause: Cause,
}

/// How many workers a `close` callback may kill: it is run again once.
const CLOSE_ATTEMPTS: u8 = 2;

/// How much of a poisonous message the log shows.
const SHOWN: usize = 256;

/// Why a callback has a fate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// Its worker has died in it.
    Died,
    /// It has returned an error, and its worker lives.
    Failed,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Died => "died",
            Cause::Failed => "failed",
        })
    }
}

impl Reactor {
    /// A callback has not come to its end.
    pub(super) fn decide(&mut self, seat: usize, mut frame: Returned, cause: Cause) {
        frame.attempts = frame.attempts.saturating_add(1);
        let kind = frame.kind;
        let at = At { seat, cause };
        let policy = match (self.policy_for(&frame, cause), cause) {
            // An error never leaves a client waiting.
            (OnCrash::Keep, Cause::Failed) => OnCrash::Close,
            (policy, _) => policy,
        };
        match (policy, kind) {
            (OnCrash::Keep, _) => self.keep(seat, &frame),
            (policy, Event::Close) => self.close_again(at, &policy, frame),
            (OnCrash::Redeliver { .. }, _) if frame.flushed => {
                self.give_up(at, &frame, "it has flushed, and can't be run again");
            }
            (OnCrash::Redeliver { attempts }, _) if frame.attempts < attempts => {
                self.flow.frame_returned(frame);
            }
            (OnCrash::Redeliver { .. }, _) => {
                self.poison(&frame, cause);
                self.give_up(at, &frame, "its attempts are used up");
            }
            (OnCrash::Reply(reply), _) if !frame.flushed => {
                let bytes = SharedBytes::of(&reply);
                self.flow.apply(Output::Send(frame.conn), bytes);
                self.give_up(at, &frame, "the client was told");
            }
            (OnCrash::Reply(_) | OnCrash::Close, _) => self.give_up(at, &frame, ""),
        }
    }

    /// What the user has declared for it.
    fn policy_for(&self, frame: &Returned, cause: Cause) -> OnCrash {
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
            user: conn.work.user,
            event: frame.kind,
            attempts: frame.attempts,
            failed: cause == Cause::Failed,
            flushed: frame.flushed,
            message: &frame.body,
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function(&crash))).unwrap_or_else(
            |_| {
                log::error!("the crash policy has panicked: the connection is closed");
                OnCrash::Close
            },
        )
    }

    /// As if nothing had happened.
    fn keep(&mut self, seat: usize, frame: &Returned) {
        log::info!(
            "worker#{seat} died in {} of connection {}: dropped, the connection stays",
            frame.kind,
            frame.conn
        );
        self.flow.frame_abandoned(frame.conn, frame.kind);
        if self.state != State::Serving {
            // It is too late to look at it.
            self.flow.close(frame.conn, CloseReason::Shutdown);
        }
    }

    /// The socket has waited long enough, and the callback is due for a worker that lives.
    fn close_again(&mut self, at: At, policy: &OnCrash, frame: Returned) {
        let (conn, At { seat, cause }) = (frame.conn, at);
        self.flow.close(conn, CloseReason::Crash);
        let most = match policy {
            OnCrash::Redeliver { attempts } => CLOSE_ATTEMPTS.max(*attempts),
            OnCrash::Close | OnCrash::Reply(_) | OnCrash::Keep => CLOSE_ATTEMPTS,
        };
        if frame.attempts < most {
            log::info!("worker#{seat} {cause} in close of connection {conn}: it is called again");
            self.flow.frame_returned(frame);
        } else {
            self.poison(&frame, cause);
            log::warn!(
                "worker#{seat} {cause} in close of connection {conn}: it is not called again"
            );
            self.flow.frame_done(conn, Event::Close);
        }
    }

    fn give_up(&mut self, at: At, frame: &Returned, why: &str) {
        let (kind, conn, At { seat, cause }) = (frame.kind, frame.conn, at);
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(" ({why})")
        };
        log::info!(
            "worker#{seat} {cause} in {kind} of connection {conn}: the connection is closed{why}"
        );
        self.flow.close(conn, CloseReason::Crash);
        self.flow.frame_done(conn, kind);
    }

    /// Its attempts are used up: a person should look at it.
    fn poison(&mut self, frame: &Returned, cause: Cause) {
        self.poisoned += 1;
        let Returned {
            kind,
            conn,
            attempts,
            body,
            ..
        } = frame;
        let shown = &body[..body.len().min(SHOWN)];
        let peer = self.peer_of(*conn);
        let did = match cause {
            Cause::Died => format!("has killed {attempts} workers"),
            Cause::Failed => format!("has not come to its end in {attempts} attempts"),
        };
        let dump = HexConfig {
            title: false,
            ..HexConfig::default()
        };
        log::error!(
            "poison: {kind} of connection {conn} from {peer} {did}; {} bytes{}{}",
            body.len(),
            if body.len() > SHOWN {
                format!(", of which the first {SHOWN}:\n")
            } else if body.is_empty() {
                String::new()
            } else {
                ":\n".to_owned()
            },
            config_hex(&shown, dump)
        );
    }

    fn peer_of(&self, conn: ConnId) -> String {
        let peer = self.flow.conn(conn).map(|conn| conn.peer.to_string());
        peer.unwrap_or_else(|| "no peer".to_owned())
    }
}
