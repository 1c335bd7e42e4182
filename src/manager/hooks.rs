//! The user's callbacks in the manager process.
//!
//! Their one rule: a panic in one is logged, and the server goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::exit::WorkerExit;
use crate::sys::process;

/// The type of `on_worker_exit`.
pub(crate) type OnWorkerExit = Box<dyn FnMut(&WorkerExit)>;

#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) manager_start: Option<Box<dyn FnOnce()>>,
    pub(crate) manager_stop: Option<Box<dyn FnOnce()>>,
    /// Called for every worker that has ended, abnormally or not.
    pub(crate) worker_exit: Option<OnWorkerExit>,
    /// Called once every worker is ready, in base mode. In process mode the master calls it.
    pub(crate) all_ready: Option<Box<dyn FnOnce()>>,
}

impl Hooks {
    pub(super) fn manager_start(&mut self) {
        if let Some(hook) = self.manager_start.take() {
            call("on_manager_start", hook, GOES_ON);
        }
    }

    pub(super) fn manager_stop(&mut self) {
        if let Some(hook) = self.manager_stop.take() {
            call("on_manager_stop", hook, "the server ends all the same");
        }
    }

    pub(super) fn worker_exit(&mut self, exit: &WorkerExit) {
        if let Some(hook) = &mut self.worker_exit {
            call("on_worker_exit", || hook(exit), GOES_ON);
        }
    }

    pub(super) fn all_ready(&mut self) {
        if let Some(hook) = self.all_ready.take() {
            call("on_start", hook, GOES_ON);
        }
    }
}

const GOES_ON: &str = "the server goes on";

/// Runs a callback and logs its panic, with what follows.
fn call(name: &str, hook: impl FnOnce(), follows: &str) {
    if catch_unwind(AssertUnwindSafe(hook)).is_err() {
        log::error!("{name} panicked: {follows}");
    }
    if process::threads().is_ok_and(|threads| threads > 1) {
        log::error!(
            "{name} left a thread running in the manager, which cannot fork workers any more: start threads in a worker or in \
             the master"
        );
    }
}
