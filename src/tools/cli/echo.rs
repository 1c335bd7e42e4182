//! The handlers `echo` and `copy`: both send back what they receive, after so much work, unless a
//! fault comes in between.

use std::time::Duration;

use tine::{Closed, Conn, Handler, Outcome, Worker};

use super::fault::{Event, Fault};

/// What one worker runs.
pub(crate) struct Echo {
    pub(crate) work: Duration,
    pub(crate) faults: Vec<Fault>,
    /// Where a copy of the message is made, if a copy is sent.
    pub(crate) copy: Option<Vec<u8>>,
}

impl Echo {
    fn go_wrong(&self, event: Event) {
        for fault in &self.faults {
            fault.commit_in(event);
        }
    }
}

impl Handler for Echo {
    fn worker_start(&mut self, _: Worker) -> Outcome {
        self.go_wrong(Event::WorkerStart);
        Ok(())
    }

    fn connect(&mut self, _: &mut Conn<'_>) -> Outcome {
        self.go_wrong(Event::Connect);
        Ok(())
    }

    fn receive(&mut self, conn: &mut Conn<'_>, message: &[u8]) -> Outcome {
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

    fn close(&mut self, _: &mut Conn<'_>, _: Closed) -> Outcome {
        self.go_wrong(Event::Close);
        Ok(())
    }
}
