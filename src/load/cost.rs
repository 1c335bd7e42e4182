//! What a server on this machine takes for its work: processor time and memory of a process and all
//! that descend from it.

use std::io;

use serde::Serialize;

use crate::inspect::process::{descendants, proportional_memory, run_time};

/// What was taken within the time that counts.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) processes: usize,
    /// Processor time in microseconds, of all processes, for one message.
    pub(crate) cpu_per_message: f64,
    /// Bytes at the end: what each process has alone, and its part of what they share.
    pub(crate) memory: u64,
}

/// A server's processes, as they were when it was first looked at.
pub(super) struct Server {
    pids: Vec<i32>,
    /// Nanoseconds that they had run at the beginning.
    before: u64,
}

impl Server {
    /// # Errors
    /// When there is no such process, or it may not be looked into.
    pub(super) fn begin(pid: i32) -> io::Result<Server> {
        let mut pids = vec![pid];
        pids.extend(descendants(pid)?);
        let before = run_times(&pids)?;
        Ok(Server { pids, before })
    }

    pub(super) fn end(&self, messages: u64) -> io::Result<Cost> {
        let ran = run_times(&self.pids)?.saturating_sub(self.before);
        let memory = self.pids.iter().map(|pid| proportional_memory(*pid));
        Ok(Cost {
            processes: self.pids.len(),
            cpu_per_message: ran as f64 / 1000.0 / messages.max(1) as f64,
            memory: memory.sum::<io::Result<u64>>()?,
        })
    }
}

fn run_times(pids: &[i32]) -> io::Result<u64> {
    pids.iter().map(|pid| run_time(*pid)).sum()
}
