//! What becomes of the callback that a worker has died in: the declared policy, carried out.

use pretty_hex::{HexConfig, config_hex};

use super::reactor::{Reactor, State};
use crate::config::policy::{Callback, Crash, CrashPolicy, OnCrash};
use crate::conn_id::ConnId;
use crate::handler::CloseReason;
use crate::ipc::frame::{InputKind, Output};
use crate::ipc::link::Returned;
use crate::ipc::memory::SharedBytes;

/// How many workers a `close` callback may kill: it is run again once.
const CLOSE_ATTEMPTS: u8 = 2;

/// How much of a poisonous message the log shows.
const SHOWN: usize = 256;

impl Reactor {
    /// A worker has died in this callback.
    pub(super) fn decide(&mut self, seat: usize, mut frame: Returned) {
        frame.attempts = frame.attempts.saturating_add(1);
        let kind = frame.kind;
        let policy = self.policy_for(&frame);
        match (policy, kind) {
            (OnCrash::Keep, _) => self.keep(seat, &frame),
            (policy, InputKind::Close) => self.close_again(seat, &policy, frame),
            (OnCrash::Redeliver { .. }, _) if frame.flushed => {
                self.give_up(seat, &frame, "it has flushed, and can't be run again");
            }
            (OnCrash::Redeliver { attempts }, _) if frame.attempts < attempts => {
                self.flow.frame_returned(frame);
            }
            (OnCrash::Redeliver { .. }, _) => {
                self.poison(&frame);
                self.give_up(seat, &frame, "it was run often enough");
            }
            (OnCrash::Reply(reply), _) if !frame.flushed => {
                let bytes = SharedBytes::of(&reply);
                self.flow.apply(Output::Send(frame.conn), bytes);
                self.give_up(seat, &frame, "the client was told");
            }
            (OnCrash::Reply(_) | OnCrash::Close, _) => self.give_up(seat, &frame, ""),
        }
    }

    /// What the user has declared for it.
    fn policy_for(&self, frame: &Returned) -> OnCrash {
        let function = match &self.config.on_crash {
            CrashPolicy::Always(policy) => return policy.clone(),
            CrashPolicy::Function(function) => function,
        };
        let Some(conn) = self.flow.conn(frame.conn) else {
            return OnCrash::Close;
        };
        let Some(callback) = callback(frame.kind) else {
            return OnCrash::Close;
        };
        let crash = Crash {
            conn: frame.conn,
            peer: conn.peer,
            listener: usize::from(conn.listener),
            user: conn.work.user,
            callback,
            attempts: frame.attempts,
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

    /// The socket has waited long enough, and the callback is due, in a worker that lives.
    fn close_again(&mut self, seat: usize, policy: &OnCrash, frame: Returned) {
        let conn = frame.conn;
        self.flow.close(conn, CloseReason::Crash);
        let most = match policy {
            OnCrash::Redeliver { attempts } => CLOSE_ATTEMPTS.max(*attempts),
            OnCrash::Close | OnCrash::Reply(_) | OnCrash::Keep => CLOSE_ATTEMPTS,
        };
        if frame.attempts < most {
            log::info!("worker#{seat} died in close of connection {conn}: it is called again");
            self.flow.frame_returned(frame);
        } else {
            self.poison(&frame);
            log::warn!("worker#{seat} died in close of connection {conn}: it is not called again");
            self.flow.frame_done(conn, InputKind::Close);
        }
    }

    fn give_up(&mut self, seat: usize, frame: &Returned, why: &str) {
        let (kind, conn) = (frame.kind, frame.conn);
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(" ({why})")
        };
        log::info!(
            "worker#{seat} died in {kind} of connection {conn}: the connection is closed{why}"
        );
        self.flow.close(conn, CloseReason::Crash);
        self.flow.frame_done(conn, kind);
    }

    /// As many workers have died in it as may: a person should look at it.
    fn poison(&mut self, frame: &Returned) {
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
        let dump = HexConfig {
            title: false,
            ..HexConfig::default()
        };
        log::error!(
            "poison: {kind} of connection {conn} from {peer} has killed {attempts} workers; {} bytes{}{}",
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

/// The callback that a frame asks for.
fn callback(kind: InputKind) -> Option<Callback> {
    Some(match kind {
        InputKind::Connect => Callback::Connect,
        InputKind::Receive => Callback::Receive,
        InputKind::Close => Callback::Close,
        InputKind::BufferFull => Callback::BufferFull,
        InputKind::BufferEmpty => Callback::BufferEmpty,
        InputKind::Void => return None,
    })
}
