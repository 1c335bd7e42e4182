//! The handlers `echo` and `copy`: both send back each message, after `--work` milliseconds, unless a
//! fault strikes first.

use std::time::Duration;

use tine::{Closed, Conn, Context, Handler, Result};

use super::fault::{Event, Fault};

/// One worker's handler.
pub(crate) struct Echo {
    pub(crate) work: Duration,
    pub(crate) faults: Vec<Fault>,
    /// The buffer for the copy, for the handler `copy`.
    pub(crate) copy: Option<Vec<u8>>,
}

impl Echo {
    /// Commits the faults of `worker_start`, and returns the handler if the worker survives them.
    pub(crate) fn started(self) -> Echo {
        self.go_wrong(Event::WorkerStart);
        self
    }

    fn go_wrong(&self, event: Event) {
        for fault in &self.faults {
            fault.commit_in(event);
        }
    }
}

impl Handler for Echo {
    fn connect(&mut self, _: &mut Context<'_>, _: &mut Conn<'_>) -> Result {
        self.go_wrong(Event::Connect);
        Ok(())
    }

    fn receive(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, message: &[u8]) -> Result {
        self.go_wrong(Event::Receive);
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
        self.go_wrong(Event::Close);
        Ok(())
    }
}
