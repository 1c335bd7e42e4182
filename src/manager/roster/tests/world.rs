//! A world for the roster's tests: processes that live and die at the test's command, a master that receives
//! the news, and a clock that the test moves. It carries out every effect, and fails the test as soon as
//! the roster breaks an invariant.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use super::rules::Holder;
use crate::control::{News, Note, NoteSet};
use crate::error::Error;
use crate::manager::roster::{Effect, Event, Line, Plan, ReloadLine, Roster, Verdict};
use crate::role::Role;
use crate::sys::process::ExitStatus;

pub(super) const KILLED: ExitStatus = ExitStatus::Signal(9);

/// No more workers than this are forked for one seat within [`PACE`]. What may come together in one
/// instant: a successor that dies, once more for each other seat whose turn ends then; a worker that
/// follows a useful one, one that follows the first useless one, and another one of these when the old
/// worker of a seat that has changed hands leaves.
const BURST: usize = 6;
const PACE: Duration = Duration::from_millis(10);

/// A process that has not been reaped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) generation: u32,
    /// The seat that it was forked for, or was given since.
    pub(super) seat: Option<usize>,
    /// When it got ready; for a former standby worker, when it got its seat.
    pub(super) ready_at: Option<Instant>,
    pub(super) served: bool,
    /// It was given its seat on standby, and its `seated` callback has not returned.
    pub(super) is_moving: bool,
    pub(super) is_asked: bool,
    pub(super) is_killed: bool,
}

/// The number of effects of each kind so far.
#[derive(Default, Debug)]
pub(super) struct Counts {
    pub(super) deaths: usize,
    pub(super) exit_calls: usize,
    pub(super) reloads: usize,
    pub(super) finished: usize,
    pub(super) failed: usize,
    pub(super) all_ready: usize,
}

pub(super) struct World {
    pub(super) roster: Roster,
    pub(super) plan: Plan,
    pub(super) now: Instant,
    pub(super) processes: Vec<Option<Process>>,
    /// By slot: the generation of a dead worker that was not reported to the master yet.
    pub(super) untold: Vec<Option<u32>>,
    pub(super) holders: Vec<Option<Holder>>,
    /// Every generation so far.
    generations: HashSet<u32>,
    /// The newest of them, and the newest before the last event.
    newest: u32,
    newest_before: u32,
    /// By seat: when the last workers were forked.
    forks: Vec<VecDeque<Instant>>,
    /// The number of forks that will fail.
    pub(super) failing_forks: usize,
    pub(super) is_stopping: bool,
    pub(super) is_killing: bool,
    pub(super) counts: Counts,
    /// The newest generation before the event that has begun the last reload.
    pub(super) reload_mark: u32,
    pub(super) verdict: Option<Verdict>,
    /// Every effect as text, for the stories.
    told: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(plan: Plan) -> World {
        let now = Instant::now();
        let slots = plan.slots;
        World {
            roster: Roster::new(plan, now),
            plan,
            now,
            processes: vec![None; slots],
            untold: vec![None; slots],
            holders: vec![None; plan.workers],
            generations: HashSet::new(),
            newest: 0,
            newest_before: 0,
            forks: vec![VecDeque::new(); plan.workers],
            failing_forks: 0,
            is_stopping: false,
            is_killing: false,
            counts: Counts::default(),
            reload_mark: 0,
            verdict: None,
            told: None,
        }
    }

    /// Keeps effects as text from now on.
    pub(super) fn telling(mut self) -> World {
        self.told = Some(Vec::new());
        self
    }

    /// Returns the effects since the last call, as text.
    pub(super) fn told(&mut self) -> Vec<String> {
        self.told.as_mut().map(std::mem::take).unwrap_or_default()
    }

    // Events

    /// Plays an event, and then `TimePassed`, which ends each turn of the manager's loop.
    pub(super) fn happened(&mut self, event: Event) {
        match event {
            Event::StopRequested => self.is_stopping = true,
            Event::KillRequested => (self.is_stopping, self.is_killing) = (true, true),
            // Seats in back-off are filled at once.
            Event::RefillRequested => self.forks.iter_mut().for_each(VecDeque::clear),
            _ => {}
        }
        self.take(event);
        if self.verdict.is_none() {
            self.take(Event::TimePassed);
        }
        if self.verdict.is_none() {
            let due = self.roster.next_deadline();
            assert!(due.is_none_or(|at| at > self.now), "a deadline stays due");
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.happened(Event::TimePassed);
    }

    /// Lets time pass until the next deadline; false if there is none.
    pub(super) fn pass_until_due(&mut self) -> bool {
        let due = self.roster.next_deadline();
        if let Some(at) = due {
            self.pass(at - self.now);
        }
        due.is_some()
    }

    pub(super) fn note(&mut self, slot: usize, note: Note) {
        self.notes(slot, NoteSet::EMPTY.with(note));
    }

    pub(super) fn notes(&mut self, slot: usize, notes: NoteSet) {
        self.handle_notes(slot, notes);
        self.happened(Event::Noted { slot, notes });
    }

    /// Records the notes, to check later effects against them.
    fn handle_notes(&mut self, slot: usize, notes: NoteSet) {
        let process = self.processes[slot].as_mut().expect("a process");
        if notes.has(Note::Ready) {
            process.ready_at.get_or_insert(self.now);
        }
        process.served |= notes.has(Note::Served);
        if notes.has(Note::Seated) {
            process.is_moving = false;
        }
    }

    /// A process ends, with these notes left in its pipe.
    pub(super) fn dies(&mut self, slot: usize, exit: ExitStatus, notes: NoteSet) {
        self.handle_notes(slot, notes);
        self.take(Event::NotesAtExit { slot, notes });
        // As the manager of base mode does: a callback's calls to the server come before the exit.
        if notes.has(Note::StopServer) && self.verdict.is_none() {
            self.is_stopping = true;
            self.take(Event::StopRequested);
        }
        if notes.has(Note::ReloadServer) && self.verdict.is_none() {
            self.take(Event::ReloadRequested);
        }
        let process = self.processes[slot].take().expect("a process");
        self.untold[slot] = Some(process.generation);
        self.counts.deaths += 1;
        self.happened(Event::Exited { slot, exit });
    }

    // Actions of the processes

    pub(super) fn leaves(&mut self, slot: usize) {
        let left = NoteSet::EMPTY.with(Note::Left);
        self.dies(slot, ExitStatus::Code(0), left);
    }

    /// Every process does its next regular step. Returns whether there was one.
    pub(super) fn all_behave(&mut self) -> bool {
        let mut some = false;
        for slot in 0..self.processes.len() {
            let Some(process) = self.processes[slot].filter(|_| self.verdict.is_none()) else {
                continue;
            };
            match process {
                _ if process.is_killed => self.dies(slot, KILLED, NoteSet::EMPTY),
                _ if process.is_asked => self.leaves(slot),
                _ if process.ready_at.is_none() => self.note(slot, Note::Ready),
                _ if process.is_moving => self.note(slot, Note::Seated),
                _ => continue,
            }
            some = true;
        }
        some
    }

    // Effects

    /// Passes an event to the roster, and carries out its effects.
    fn take(&mut self, event: Event) {
        self.newest_before = self.newest;
        self.roster.happened(event, self.now);
        while let Some(effect) = self.roster.next_effect() {
            if let Some(told) = &mut self.told {
                told.push(text(&effect));
            }
            self.carry_out(effect);
            if self.verdict.is_some() {
                return;
            }
        }
        self.check();
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Fork {
                slot,
                seat,
                generation,
            } => self.fork(slot, seat, generation),
            Effect::Kill { slot } => {
                let process = self.processes[slot].as_mut().expect("one to kill");
                assert!(!process.is_killed, "killed twice");
                process.is_killed = true;
            }
            Effect::AskToLeave { slot, generation } => {
                let process = self.processes[slot].as_mut().expect("one to ask");
                assert_eq!(process.generation, generation);
                process.is_asked = true;
            }
            Effect::AssignSeat { slot, seat } => {
                let process = self.processes[slot].as_mut().expect("one to seat");
                process.is_moving = process.seat.is_none();
                if process.is_moving {
                    process.ready_at = Some(self.now);
                }
                assert!(process.seat.is_none_or(|its| its == seat));
                process.seat = Some(seat);
            }
            Effect::Wake { slot } => assert!(self.processes[slot].is_some(), "one to wake"),
            Effect::AnnounceStop => assert!(self.is_stopping),
            Effect::Tell(news) => self.handle_news(news),
            Effect::CallAllReady => assert_eq!(self.counts.all_ready, 1),
            Effect::CallWorkerExit(_) => self.counts.exit_calls += 1,
            Effect::Log(line) => self.read(&line),
            Effect::End(verdict) => {
                self.check_verdict(&verdict);
                self.verdict = Some(verdict);
            }
        }
    }

    fn fork(&mut self, slot: usize, seat: Option<usize>, generation: u32) {
        assert!(!self.is_stopping, "a fork while the server stops");
        assert!(self.processes[slot].is_none(), "the slot is in use");
        assert_eq!(self.untold[slot], None, "the last death is not told");
        assert!(self.generations.insert(generation), "used before");
        self.newest = self.newest.max(generation);
        if self.failing_forks > 0 {
            self.failing_forks -= 1;
            let operation = "fork a worker";
            let source = io::ErrorKind::WouldBlock.into();
            let error = Error::system(operation)(source);
            let failed = Event::ForkFailed { slot, error };
            return self.roster.happened(failed, self.now);
        }
        if let Some(forks) = seat.map(|seat| &mut self.forks[seat]) {
            forks.push_back(self.now);
            if forks.len() > BURST
                && let Some(first) = forks.pop_front()
            {
                let took = self.now - first;
                assert!(took >= PACE, "a burst of forks for a seat in {took:?}");
            }
        }
        self.processes[slot] = Some(Process {
            generation,
            seat,
            ready_at: None,
            served: false,
            is_moving: false,
            is_asked: false,
            is_killed: false,
        });
        let pid = generation as i32;
        self.roster.happened(Event::Forked { slot, pid }, self.now);
    }

    /// Takes a log line.
    fn read(&mut self, line: &Line) {
        match line {
            Line::AbnormalExit { exit, .. } => assert!(exit.is_abnormal()),
            Line::NoSlot { .. } => panic!("no slot is free"),
            Line::Reload(ReloadLine::Started { .. }) => {
                self.counts.reloads += 1;
                self.reload_mark = self.newest_before;
            }
            Line::Reload(ReloadLine::Finished) => {
                self.counts.finished += 1;
                for holder in self.holders.iter().flatten() {
                    assert!(holder.generation > self.reload_mark, "{holder:?} is old");
                }
            }
            Line::Reload(ReloadLine::Failed { .. }) => self.counts.failed += 1,
            Line::Ready(_)
            | Line::CannotFork { .. }
            | Line::NotReady { .. }
            | Line::NotGone { .. }
            | Line::NotSeated(_)
            | Line::KeepsDying { .. }
            | Line::Reload(ReloadLine::Refused)
            | Line::Reload(ReloadLine::NotReplaced { .. })
            | Line::TooLarge { .. }
            | Line::MuchTooLarge { .. } => {}
        }
    }
}

/// An effect as the stories tell it.
fn text(effect: &Effect) -> String {
    let role = |seat: &Option<usize>| Role::of_worker(*seat);
    match effect {
        Effect::Fork { slot, seat, .. } => format!("fork {} in {slot}", role(seat)),
        Effect::Kill { slot } => format!("kill {slot}"),
        Effect::AskToLeave { slot, .. } => format!("ask {slot} to leave"),
        Effect::AssignSeat { slot, seat } => format!("assign seat {seat} to {slot}"),
        Effect::Wake { slot } => format!("wake {slot}"),
        Effect::AnnounceStop => "announce stop".to_owned(),
        Effect::Tell(news) => match news {
            News::AllReady => "tell all ready".to_owned(),
            News::Emptied { slot, .. } => format!("tell {slot} emptied"),
            News::Vacant { seat } => format!("tell seat {seat} vacant"),
            News::Taken { seat, slot, .. } => format!("tell seat {seat} taken by {slot}"),
            News::Ready { seat } => format!("tell seat {seat} ready"),
            News::CannotStart { .. }
            | News::CrashLoop
            | News::Forked { .. }
            | News::Reloading
            | News::Reloaded
            | News::Pong => {
                format!("tell {news:?}")
            }
        },
        Effect::CallAllReady => "call all_ready".to_owned(),
        Effect::CallWorkerExit(exit) => format!("call worker_exit: {exit}"),
        Effect::Log(line) => {
            let by_manager = match line {
                Line::AbnormalExit { was_killed, .. } if *was_killed => " (killed by the manager)",
                _ => "",
            };
            format!("log {}: {line}{by_manager}", line.level())
        }
        Effect::End(verdict) => format!("end {verdict:?}"),
    }
}
