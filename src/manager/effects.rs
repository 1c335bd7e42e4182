//! Carries out the decisions of the [`roster`](super::roster): forks, signals, orders in shared memory,
//! news to the master, the user's callbacks, and log lines.

use std::io;

use nix::sys::signal::Signal;

use super::Manager;
use super::exit::WorkerExit;
use super::roster::{Effect, Event, Line, ReloadLine, Verdict};
use crate::control::{self, News};
use crate::error::Error;
use crate::ipc::sync::Ordering;
use crate::sys::process::ExitStatus;
use crate::words;
use crate::worker::Incarnation;

/// Why supervision ends early. Normally it ends when every worker has left as asked.
pub(super) enum End {
    /// The roster has given up.
    Decided(Verdict),
    /// The master is dead.
    Orphaned,
    /// A system call failed without which the manager can't go on.
    Failed(Error),
    /// This process is a new worker.
    Child(Box<Incarnation>),
}

/// The result of a step of supervision; `Err` ends it.
pub(super) type Supervised<T = ()> = Result<T, End>;

/// For `map_err`: names the operation that failed.
pub(super) fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> End {
    move |source| End::Failed(Error::system(operation)(source))
}

impl Manager<'_> {
    /// Passes an event to the roster, and carries out the effects that it asks for.
    pub(super) fn happened(&mut self, event: Event) -> Supervised {
        self.roster.happened(event, self.time.now());
        while let Some(effect) = self.roster.next_effect() {
            self.carry_out(effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Supervised {
        match effect {
            Effect::Fork {
                slot,
                seat,
                generation,
            } => return self.fork_and_answer(slot, seat, generation),
            Effect::Kill { slot } => {
                if let Some(handle) = &self.slots[slot].handle {
                    handle.pid.kill();
                }
            }
            Effect::AskToLeave { slot, generation } => {
                self.close_passage(slot);
                let memory = &self.slots[slot].memory;
                memory.orders.leave.store(generation, Ordering::Relaxed);
                memory.bell.ring();
            }
            Effect::AssignSeat { slot, seat } => {
                let orders = &self.slots[slot].memory.orders;
                orders.seat.store(seat as u32 + 1, Ordering::Relaxed);
            }
            Effect::Wake { slot } => self.slots[slot].memory.bell.ring(),
            Effect::AnnounceStop => self.announce_stop(),
            Effect::Tell(news) => self.tell(news),
            Effect::CallAllReady => {
                self.hooks.all_ready();
                self.supervisor.ready(&self.status());
            }
            Effect::CallWorkerExit(exit) => self.hooks.worker_exit(&exit),
            Effect::Log(line) => self.log(&line),
            Effect::End(verdict) => return Err(End::Decided(verdict)),
        }
        Ok(())
    }

    /// Forks, and passes the outcome to the roster; the effects of that are carried out next.
    fn fork_and_answer(&mut self, slot: usize, seat: Option<usize>, generation: u32) -> Supervised {
        let answer = match self.fork(slot, seat, generation) {
            Ok(handle) => {
                let pid = handle.pid.get();
                self.slots[slot].handle = Some(handle);
                Event::Forked { slot, pid }
            }
            Err(End::Failed(error)) => Event::ForkFailed { slot, error },
            Err(end) => return Err(end),
        };
        self.roster.happened(answer, self.time.now());
        Ok(())
    }

    fn announce_stop(&mut self) {
        if self.master.is_none() {
            self.supervisor.stopping();
            words::log_stop(self.config.shutdown_deadline, self.connections());
        }
        self.stop_listening();
        for slot in &self.slots {
            slot.memory.orders.stopping.store(1, Ordering::Relaxed);
        }
    }

    /// Ends the server by force, in base mode.
    pub(super) fn kill(&mut self, why: &str) -> Supervised {
        words::log_force(why, self.connections());
        self.happened(Event::KillRequested)
    }

    /// Returns the number of open connections, in base mode.
    fn connections(&self) -> usize {
        let words = self.slots.iter().map(|slot| &slot.memory.words);
        // A number for the log alone: it is as new as the workers' last turns.
        words
            .map(|words| words.connections.load(Ordering::Relaxed))
            .fold(0, |sum, some| sum.saturating_add(some as usize))
    }

    /// Sends news to the master, if there is one. That a master is dead is noticed by the end of its
    /// orders.
    pub(super) fn tell(&mut self, news: News) {
        if let Some(master) = &self.master
            && let Err(error) = control::tell(&master.news, news)
        {
            log::error!("cannot send the master the news {news:?}: {error}");
        }
    }

    fn log(&mut self, line: &Line) {
        let cause = if let Line::AbnormalExit { exit, was_killed } = line {
            self.cause_of_death(exit, *was_killed)
        } else {
            String::new()
        };
        log::log!(line.level(), "{line}{cause}");
        if let Line::Reload(reload) = line {
            self.tell_reload(reload);
        }
    }

    /// Tells the supervisor, or the master who does, that a reload begins or has ended.
    fn tell_reload(&mut self, line: &ReloadLine) {
        let begins = match line {
            ReloadLine::Started { .. } => true,
            ReloadLine::Finished | ReloadLine::Failed { .. } => false,
            ReloadLine::Refused | ReloadLine::NotReplaced { .. } => return,
        };
        match (&self.master, begins) {
            (Some(_), true) => self.tell(News::Reloading),
            (Some(_), false) => self.tell(News::Reloaded),
            (None, true) => self.supervisor.reloading(),
            (None, false) => self.supervisor.ready(&self.status()),
        }
    }

    /// Returns what the supervisor shows of a server of base mode that serves.
    fn status(&self) -> String {
        let workers = words::Count(self.config.workers, "worker");
        format!("serving (base mode, {workers})")
    }

    /// Returns the cause of a death if it is known: the kernel's OOM killer, or user code that has called
    /// exit(3).
    fn cause_of_death(&mut self, exit: &WorkerExit, was_killed: bool) -> String {
        let exited_in = self.exited_in.take();
        if exit.exit == ExitStatus::Code(0) {
            return match exited_in {
                Some(callback) => format!(" (exit(0) in {callback})"),
                None => " (exit(0) outside of a callback)".to_owned(),
            };
        }
        let by_sigkill = exit.exit == ExitStatus::Signal(Signal::SIGKILL as i32);
        // Also taken for a worker that the manager has killed, so that its kill is not held to explain
        // the next death.
        let is_oom_kill = by_sigkill && self.oom_kills.explains_one();
        if is_oom_kill && !was_killed {
            " (out of memory: the kernel's OOM killer killed a process of this control group)"
                .to_owned()
        } else {
            String::new()
        }
    }
}
