//! The readings at the edges of the window: the processor time of the server's processes, and of this
//! thread.

use std::io;

use super::cost::{Cost, Generator, Server};
use super::crowd::TICK;
use super::schedule::Window;
use super::{Failure, Plan};
use crate::process::own_time;

pub(super) struct Edges {
    /// The process that `--pid` names, and its server.
    server: Option<(i32, Server)>,
    /// This thread's own times at the beginning and at the end; `None` where the kernel does not keep
    /// them.
    own: [Option<[u64; 2]>; 2],
    /// Messages that were answered before each reading. A reading may be late: the cost is that of the
    /// messages answered between the readings, and not of those within the window.
    answered: [u64; 2],
    stage: Stage,
    /// The time of the next edge, in nanoseconds of the run.
    next: u64,
    /// Length of the window, in nanoseconds.
    duration: u64,
    /// Why the last reading of the server failed.
    problem: Option<io::Error>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    WarmUp,
    /// The server's processes are listed; the window is about to begin.
    Listed,
    Counting,
    Over,
}

impl Edges {
    /// # Errors
    /// When `--pid` names a process that does not exist, or that this user may not examine.
    pub(super) fn new(plan: &Plan) -> Result<Edges, Failure> {
        let server = match plan.pid {
            Some(pid) => Some((pid, Server::find(pid).map_err(failed(pid))?)),
            None => None,
        };
        Ok(Edges {
            server,
            own: [None; 2],
            answered: [0; 2],
            stage: Stage::WarmUp,
            next: plan.warm_up.as_nanos() as u64,
            duration: plan.duration.as_nanos() as u64,
            problem: None,
        })
    }

    /// The warm-up begins now.
    pub(super) fn start(&mut self, now: u64) {
        self.next += now;
    }

    /// Returns the time of the next edge.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Takes a reading if it is due; `answered` messages were answered until now. Returns the window when
    /// it begins: with the first reading, however late that is, and with its full length.
    pub(super) fn pass(&mut self, now: u64, answered: u64) -> Result<Option<Window>, Failure> {
        match self.stage {
            Stage::WarmUp if now + TICK.as_nanos() as u64 >= self.next => {
                if let Some((pid, server)) = &mut self.server {
                    server.list().map_err(failed(*pid))?;
                }
                self.stage = Stage::Listed;
            }
            Stage::Listed if now >= self.next => {
                if let Some((pid, server)) = &mut self.server {
                    server.begin().map_err(failed(*pid))?;
                }
                self.own[0] = own_time().ok();
                self.answered[0] = answered;
                self.stage = Stage::Counting;
                self.next = now + self.duration;
                return Ok(Some(Window {
                    begin: now,
                    end: self.next,
                }));
            }
            Stage::Counting if now >= self.next => self.end(answered)?,
            Stage::WarmUp | Stage::Listed | Stage::Counting | Stage::Over => {}
        }
        Ok(None)
    }

    /// Takes the last reading, although the window may not have begun.
    pub(super) fn end(&mut self, answered: u64) -> Result<(), Failure> {
        self.own[1] = own_time().ok();
        self.answered[1] = answered;
        if self.stage == Stage::Counting {
            if let Some((_, server)) = &mut self.server {
                self.problem = server.end().err();
            }
        } else {
            self.own[0] = self.own[1];
            self.server = None;
        }
        self.stage = Stage::Over;
        Ok(())
    }

    /// Whether the window has begun, and is not over.
    pub(super) fn is_counting(&self) -> bool {
        self.stage == Stage::Counting
    }

    pub(super) fn are_passed(&self) -> bool {
        self.stage == Stage::Over
    }

    pub(super) fn generator(&self, seconds: f64) -> Option<Generator> {
        let [before, after] = self.own;
        Some(Generator::between(before?, after?, seconds))
    }

    pub(super) fn cost(self) -> Result<Option<Cost>, Failure> {
        let messages = self.answered[1] - self.answered[0];
        match (self.server, self.problem) {
            (Some((pid, _)), Some(problem)) => Err(failed(pid)(problem)),
            (Some((pid, server)), None) => server.cost(messages).map(Some).map_err(failed(pid)),
            (None, _) => Ok(None),
        }
    }
}

fn failed(pid: i32) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::new(&format!("examine process {pid}"), error)
}
