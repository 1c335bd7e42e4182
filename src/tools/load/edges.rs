//! What is looked at when counting begins and when it ends: what the server's processes have taken until
//! then, and what this thread did with its time.

use std::io;

use super::cost::{Cost, Generator, Server};
use super::crowd::TICK;
use super::schedule::Window;
use super::{Failure, Plan};
use crate::process::own_time;

pub(super) struct Edges {
    /// The process that was named, and the server that it is.
    server: Option<(i32, Server)>,
    /// What this thread had done with its time at the beginning, and at the end; where the kernel
    /// does not count it, nothing.
    own: [Option<[u64; 2]>; 2],
    /// Messages that were answered until then. A look may be late: what it shows is for those that
    /// were answered between the looks, and not for those of the window.
    answered: [u64; 2],
    stage: Stage,
    /// When the next edge is, in nanoseconds of the run.
    next: u64,
    /// What is counted, in nanoseconds.
    duration: u64,
    /// Why the server could not be looked at in the end.
    problem: Option<io::Error>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    WarmUp,
    /// The server's processes are known; it is about to begin.
    Known,
    Counting,
    Over,
}

impl Edges {
    /// # Errors
    /// When a process was named that is not there, or may not be looked into.
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

    /// They talk from now on: it warms up.
    pub(super) fn start(&mut self, now: u64) {
        self.next += now;
    }

    /// When it is next time to look.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Looks, if it is time to. So many messages were `answered` until now. What counts begins when
    /// one has looked, however late that is, and is as long as it should be: it is returned then.
    pub(super) fn pass(&mut self, now: u64, answered: u64) -> Result<Option<Window>, Failure> {
        match self.stage {
            Stage::WarmUp if now + TICK.as_nanos() as u64 >= self.next => {
                if let Some((pid, server)) = &mut self.server {
                    server.look().map_err(failed(*pid))?;
                }
                self.stage = Stage::Known;
            }
            Stage::Known if now >= self.next => {
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
            Stage::WarmUp | Stage::Known | Stage::Counting | Stage::Over => {}
        }
        Ok(None)
    }

    /// Counting ends, although it may not have begun.
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
    move |error| Failure::new(&format!("look at process {pid}"), error)
}
