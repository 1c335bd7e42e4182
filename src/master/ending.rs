//! The end of the server: connections are finished, then cut, then the workers leave, then all are killed.
//!
//! Runs in the master's main thread. Its one rule: each step has a deadline, so that no client and no worker
//! keeps the server from its end.

use std::time::Instant;

use super::{Master, Phase};
use crate::config::{CUT_PATIENCE, LAST_PATIENCE};
use crate::control::Order;
use crate::error::Problem;
use crate::master::reactor::Command;
use crate::sys::process::ExitStatus;
use crate::words;

impl Master {
    pub(super) fn enforce_deadlines(&mut self) {
        let now = self.time.now();
        match self.phase {
            Phase::Draining(at) if at <= now => self.cut(now),
            Phase::Cutting(at) if at <= now => self.kill("the workers did not end their callbacks"),
            Phase::Leaving(at) if at <= now => self.kill("the workers did not leave in time"),
            Phase::Killing(at) if at <= now => {
                self.manager.kill();
                self.phase = Phase::Killing(now + LAST_PATIENCE);
            }
            Phase::Starting
            | Phase::Serving
            | Phase::Draining(_)
            | Phase::Cutting(_)
            | Phase::Leaving(_)
            | Phase::Killing(_)
            | Phase::Ended => {}
        }
    }

    /// The shutdown deadline has passed: closes every connection at once, and lets the workers run the last
    /// callbacks and leave in order.
    pub(super) fn cut(&mut self, now: Instant) {
        words::log_cut(self.loads.sockets());
        self.send_all(|| Command::HangUp);
        self.phase = Phase::Cutting(now + CUT_PATIENCE);
    }

    /// Stops accepting, and finishes the open connections.
    pub(super) fn drain(&mut self) {
        match self.phase {
            Phase::Starting => self.kill("asked to stop before every worker was ready"),
            Phase::Serving => {
                self.supervisor.stopping();
                words::log_stop(self.config.shutdown_deadline, self.loads.sockets());
                self.phase = Phase::Draining(self.time.now() + self.config.shutdown_deadline);
                self.send_all(|| Command::StopAccepting);
                self.orders.send(Order::Refill);
            }
            Phase::Draining(_)
            | Phase::Cutting(_)
            | Phase::Leaving(_)
            | Phase::Killing(_)
            | Phase::Ended => {}
        }
    }

    /// Closes every connection and kills every worker at once.
    pub(super) fn kill(&mut self, why: &str) {
        if matches!(self.phase, Phase::Killing(_) | Phase::Ended) {
            return;
        }
        words::log_force(why, self.loads.sockets());
        self.send_all(|| Command::Stop);
        self.orders.send(Order::Kill);
        self.phase = Phase::Killing(self.time.now() + LAST_PATIENCE);
    }

    pub(super) fn manager_ended(&mut self, exit: ExitStatus) {
        match self.phase {
            Phase::Leaving(_) | Phase::Killing(_) => {}
            Phase::Starting
            | Phase::Serving
            | Phase::Draining(_)
            | Phase::Cutting(_)
            | Phase::Ended => {
                if self.error.is_none() {
                    log::error!(
                        "the manager[pid={}] exited unexpectedly, {exit}: the workers die with it, and the server stops",
                        self.manager.get()
                    );
                    self.error = Some(Problem::ManagerExited.into());
                }
            }
        }
        self.phase = Phase::Ended;
    }
}
