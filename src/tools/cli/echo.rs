//! The handlers `echo` and `copy`: both send back each message, after `--work` milliseconds, unless a
//! fault strikes first.

use std::time::Duration;

use tine::{Closed, Conn, Context, Handler, Result};

use super::fault::{Event, Fault};

/// One worker's handler.
pub(crate) struct Echo {
    pub(crate) work: Duration,
    pub(crate) faults: Vec<Fault>,
    /// Logs each callback.
    pub(crate) logs: bool,
    /// The buffer for the copy, for the handler `copy`.
    pub(crate) copy: Option<Vec<u8>>,
}

impl Echo {
    /// Commits the faults of `worker_start`, and returns the handler if the worker survives them.
    pub(crate) fn started(self) -> Echo {
        self.begin(Event::WorkerStart);
        self
    }

    /// Begins a callback, which may go wrong.
    fn begin(&self, event: Event) {
        if self.logs {
            log_callback(event.name());
        }
        for fault in &self.faults {
            fault.commit_in(event);
        }
    }
}

/// Logs a callback; the line begins with the process that runs it.
pub(crate) fn log_callback(name: &str) {
    log::info!("callback {name}");
}

impl Handler for Echo {
    fn connect(&mut self, _: &mut Context<'_>, _: &mut Conn<'_>) -> Result {
        self.begin(Event::Connect);
        Ok(())
    }

    fn receive(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, message: &[u8]) -> Result {
        self.begin(Event::Receive);
        if !self.work.is_zero() {
            std::thread::sleep(self.work);
        }
        match &mut self.copy {
            None => conn.send(message)?,
            Some(copy) => {
                copy.clear();
                copy.extend_from_slice(message);
                conn.send(copy)?;
            }
        }
        Ok(())
    }

    fn close(&mut self, _: &mut Context<'_>, _: &mut Conn<'_>, _: Closed) -> Result {
        self.begin(Event::Close);
        Ok(())
    }
}
