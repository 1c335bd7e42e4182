//! The handler `echo`: sends back what it receives, after so much work, unless a fault comes in
//! between.

use std::time::Duration;

use crate::{Closed, Conn, Handler, Outcome, Worker};

use super::fault::{Event, Fault};

/// What one worker runs.
pub(crate) struct Echo {
    pub(crate) work: Duration,
    pub(crate) faults: Vec<Fault>,
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
        Ok(conn.send(message)?)
    }

    fn close(&mut self, _: &mut Conn<'_>, _: Closed) -> Outcome {
        self.go_wrong(Event::Close);
        Ok(())
    }
}
