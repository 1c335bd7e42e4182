//! The user's callbacks of the manager process. Whatever one of them does, the manager goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::handle::WorkerExit;
use crate::sys::process;

/// A callback that is told how a worker ended.
pub(crate) type OnWorkerExit = Box<dyn FnMut(&WorkerExit)>;

#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) manager_start: Option<Box<dyn FnOnce()>>,
    pub(crate) manager_stop: Option<Box<dyn FnOnce()>>,
    pub(crate) worker_exit: Option<OnWorkerExit>,
    /// Every worker is ready. In process mode the master has a hook of its own for that.
    pub(crate) all_ready: Option<Box<dyn FnOnce()>>,
}

impl Hooks {
    pub(super) fn manager_start(&mut self) {
        if let Some(hook) = self.manager_start.take() {
            call("on_manager_start", hook);
        }
    }

    pub(super) fn manager_stop(&mut self) {
        if let Some(hook) = self.manager_stop.take() {
            call("on_manager_stop", hook);
        }
    }

    pub(super) fn worker_exit(&mut self, exit: &WorkerExit) {
        if let Some(hook) = &mut self.worker_exit {
            call("on_worker_exit", || hook(exit));
        }
    }

    pub(super) fn all_ready(&mut self) {
        if let Some(hook) = self.all_ready.take() {
            call("on_start", hook);
        }
    }
}

/// Runs a callback. A panic in it is logged, and goes no further.
fn call(name: &str, hook: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(hook)).is_err() {
        log::error!("{name} has panicked");
    }
    if process::threads().is_ok_and(|threads| threads > 1) {
        log::error!("{name} has started a thread in the manager, which can't fork any more");
    }
}
