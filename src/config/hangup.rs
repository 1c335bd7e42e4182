//! What a server does at SIGHUP.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The type of `on_hangup`.
pub(crate) type HangupFn = dyn Fn() + Send + Sync;

/// The log file is opened again, and the user's callback is called.
#[derive(Clone)]
pub(crate) struct Hangup(pub(super) Option<Arc<HangupFn>>);

impl Hangup {
    /// SIGHUP came to the process that handles signals.
    pub(crate) fn came(&self) {
        #[cfg(feature = "logger")]
        crate::logger::reopen();
        if let Some(callback) = &self.0
            && catch_unwind(AssertUnwindSafe(|| callback())).is_err()
        {
            log::error!("on_hangup panicked: the server goes on");
        }
    }
}

impl fmt::Debug for Hangup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_set = self.0.is_some();
        f.debug_tuple("Hangup").field(&is_set).finish()
    }
}
