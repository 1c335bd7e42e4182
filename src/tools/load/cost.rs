//! The cost of a server on this machine: processor time and memory of a process and its descendants. And
//! the processor time of this generator.

use std::io;

use serde::Serialize;

use crate::process::{descendants, proportional_memory, run_time};

/// The cost within the window.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    /// The number of processes at the end.
    pub(crate) processes: usize,
    /// Processor time of all processes for one message, in microseconds.
    pub(crate) cpu_per_message: f64,
    /// Bytes at the end: each process's private memory, and its share of the shared memory.
    pub(crate) memory: u64,
}

/// A server's processes. Walking through /proc takes milliseconds, in which no client is served: only
/// [`begin`](Self::begin) and [`end`](Self::end), which are quick, may be called within a run.
pub(super) struct Server {
    root: i32,
    pids: Vec<i32>,
    /// Nanoseconds that they had run at the beginning, and at the end.
    before: u64,
    after: u64,
}

impl Server {
    /// # Errors
    /// When there is no such process, or this user may not examine it.
    pub(super) fn find(root: i32) -> io::Result<Server> {
        let mut server = Server {
            root,
            pids: Vec::new(),
            before: 0,
            after: 0,
        };
        server.list()?;
        // An error that would end the run later ends it now.
        run_time(root)?;
        proportional_memory(root)?;
        Ok(server)
    }

    /// Lists the processes.
    pub(super) fn list(&mut self) -> io::Result<()> {
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

    /// Returns the cost of `messages` messages. A process that started after the beginning has run for
    /// this load alone. The time of a process that has ended is in the process that has waited for it.
    pub(super) fn cost(mut self, messages: u64) -> io::Result<Cost> {
        let known = std::mem::take(&mut self.pids);
        self.list()?;
        let mut new = self.pids.clone();
        new.retain(|pid| !known.contains(pid));
        let ran = (self.after + self.sum(&new, run_time)?).saturating_sub(self.before);
        Ok(Cost {
            processes: self.pids.len(),
            cpu_per_message: ran as f64 / 1000.0 / messages.max(1) as f64,
            memory: self.sum(&self.pids, proportional_memory)?,
        })
    }

    /// Sums over the processes. One that has ended meanwhile adds nothing, but the root must live.
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

/// How this generator spent its time: shares of it, 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generator {
    pub(super) busy: f64,
    pub(super) without_processor: f64,
}

impl Generator {
    /// Returns the shares between two readings of `own_time`, `seconds` apart.
    pub(super) fn between(before: [u64; 2], after: [u64; 2], seconds: f64) -> Generator {
        let part = |index: usize| {
            let time = after[index].saturating_sub(before[index]) as f64 / 1e9;
            if seconds > 0.0 { time / seconds } else { 0.0 }
        };
        Generator {
            // The readings are slightly later than the times they stand for.
            busy: (part(0) + part(1)).min(1.0),
            without_processor: part(1).min(1.0),
        }
    }
}
