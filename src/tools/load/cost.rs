//! What a server on this machine takes for its work: processor time and memory of a process and all
//! that descend from it. And what this generator takes for its own.

use std::io;

use serde::Serialize;

use crate::process::{descendants, proportional_memory, run_time};

/// What was taken within the time that counts.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    /// Those that are there at the end.
    pub(crate) processes: usize,
    /// Processor time in microseconds, of all processes, for one message.
    pub(crate) cpu_per_message: f64,
    /// Bytes at the end: what each process has alone, and its part of what they share.
    pub(crate) memory: u64,
}

/// A server's processes. Walking through /proc takes milliseconds, in which no client is served: only
/// [`begin`](Self::begin) and [`end`](Self::end), which are quick, have their place within a run.
pub(super) struct Server {
    root: i32,
    pids: Vec<i32>,
    /// Nanoseconds that they had run at the beginning, and at the end.
    before: u64,
    after: u64,
}

impl Server {
    /// # Errors
    /// When there is no such process, or it may not be looked into.
    pub(super) fn find(root: i32) -> io::Result<Server> {
        let mut server = Server {
            root,
            pids: Vec::new(),
            before: 0,
            after: 0,
        };
        server.look()?;
        // What would fail at the end fails now.
        run_time(root)?;
        proportional_memory(root)?;
        Ok(server)
    }

    /// Which processes there are.
    pub(super) fn look(&mut self) -> io::Result<()> {
        self.pids = vec![self.root];
        self.pids.extend(descendants(self.root)?);
        Ok(())
    }

    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.before = self.sum(&self.pids, run_time)?;
        Ok(())
    }

    pub(super) fn end(&mut self) -> io::Result<()> {
        self.after = self.sum(&self.pids, run_time)?;
        Ok(())
    }

    /// Who has come since the beginning has run for this load alone. The time of one that has ended
    /// is with the one that has waited for it.
    pub(super) fn cost(mut self, messages: u64) -> io::Result<Cost> {
        let known = std::mem::take(&mut self.pids);
        self.look()?;
        let mut new = self.pids.clone();
        new.retain(|pid| !known.contains(pid));
        let ran = (self.after + self.sum(&new, run_time)?).saturating_sub(self.before);
        Ok(Cost {
            processes: self.pids.len(),
            cpu_per_message: ran as f64 / 1000.0 / messages.max(1) as f64,
            memory: self.sum(&self.pids, proportional_memory)?,
        })
    }

    /// Over all processes. One that has ended meanwhile adds nothing, unless all descend from it.
    fn sum(&self, pids: &[i32], of: impl Fn(i32) -> io::Result<u64>) -> io::Result<u64> {
        let mut sum = 0;
        for pid in pids {
            match of(*pid) {
                Ok(value) => sum += value,
                Err(error) if *pid != self.root && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }
}

/// What this generator did with its time: parts of it, 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generator {
    pub(super) busy: f64,
    pub(super) without_processor: f64,
}

impl Generator {
    /// Between two looks at `own_time`, which were `seconds` apart.
    pub(super) fn between(before: [u64; 2], after: [u64; 2], seconds: f64) -> Generator {
        let part = |index: usize| {
            let time = after[index].saturating_sub(before[index]) as f64 / 1e9;
            if seconds > 0.0 { time / seconds } else { 0.0 }
        };
        Generator {
            // The looks are a little later than what they are for.
            busy: (part(0) + part(1)).min(1.0),
            without_processor: part(1).min(1.0),
        }
    }
}
