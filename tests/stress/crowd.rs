//! Many clients in one thread, so that they leave the processors to the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::asker::Asker;
use super::speech::Speech;
use super::tally::{Harm, Tally};
use crate::common::{SOON, eventually};

/// No two connections of one run have the same number, so that an answer to another connection shows.
static NEXT_CONNECTION: AtomicU32 = AtomicU32::new(1);

const BUFFER: usize = 256 << 10;
/// The time between two checks of an idle crowd for orders, in milliseconds.
const GLANCE: u8 = 10;

/// The properties of all clients of a crowd.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    /// Bytes of a question.
    pub(crate) size: usize,
    /// Outstanding questions on each connection.
    pub(crate) depth: usize,
    pub(crate) habit: Habit,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Habit {
    /// One connection for all questions.
    Stay,
    /// A new connection after this many questions.
    Leave { after: u64 },
    /// All outstanding questions at once, then a FIN before their answers, and a new connection.
    HalfClose,
}

/// An order to a crowd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Task {
    /// Keep asking.
    Ask,
    /// Read the outstanding answers, then close.
    Finish,
    /// The server is about to end. Stop asking; all questions have to be answered.
    Pause,
    /// The server is about to end. Keep asking; questions that have reached it by now have to be answered.
    GoOn,
}

/// The handle of a crowd.
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    thread: JoinHandle<Tally>,
    connections: usize,
}

struct Shared {
    task: AtomicU32,
    answered: AtomicU64,
    /// The questions that the server has to answer before it ends are known.
    held: AtomicBool,
}

struct Members {
    plan: Plan,
    server: SocketAddr,
    /// The server cuts bytes into messages: no answer may be incomplete.
    framed: bool,
    shared: Arc<Shared>,
    askers: Vec<Asker>,
    tally: Tally,
}

impl Crowd {
    pub(crate) fn start(server: SocketAddr, framed: bool, plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            task: AtomicU32::new(Task::Ask as u32),
            answered: AtomicU64::new(0),
            held: AtomicBool::new(false),
        });
        let members = Members {
            plan,
            server,
            framed,
            shared: Arc::clone(&shared),
            askers: Vec::new(),
            tally: Tally::default(),
        };
        Self {
            shared,
            thread: thread::spawn(move || members.live()),
            connections: plan.connections,
        }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits until there is an answer for each connection.
    #[track_caller]
    pub(crate) fn is_under_way(&self) {
        eventually(SOON, "the clients are answered", || {
            self.answered() >= self.connections as u64 || self.thread.is_finished()
        });
    }

    pub(crate) fn turn_to(&self, task: Task) {
        self.shared.task.store(task as u32, Ordering::Release);
    }

    /// Waits until the questions that the server has to answer are known.
    #[track_caller]
    pub(crate) fn is_held(&self) {
        eventually(SOON, "what was asked has reached the server", || {
            self.shared.held.load(Ordering::Acquire) || self.thread.is_finished()
        });
    }

    /// Waits until its last connection has ended.
    #[track_caller]
    pub(crate) fn end(self) -> Tally {
        self.thread.join().expect("a crowd does not panic")
    }
}

impl Shared {
    fn task(&self) -> Task {
        let task = self.task.load(Ordering::Acquire);
        let all = [Task::Ask, Task::Finish, Task::Pause, Task::GoOn];
        all.into_iter()
            .find(|known| *known as u32 == task)
            .unwrap_or(Task::Finish)
    }
}

/// Waits for events, at most a moment. Returns those that have come, with the index of each.
pub(crate) fn ready(mut watched: Vec<PollFd<'_>>) -> Vec<(usize, PollFlags)> {
    match poll(&mut watched, GLANCE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => panic!("poll: {error}"),
    }
    let ready = |(index, watched): (usize, &PollFd<'_>)| {
        let flags = watched.revents().filter(|flags| !flags.is_empty())?;
        Some((index, flags))
    };
    watched.iter().enumerate().filter_map(ready).collect()
}

impl Members {
    fn live(mut self) -> Tally {
        let mut buffer = vec![0; BUFFER];
        (0..self.plan.connections).for_each(|_| self.enter());
        while !self.askers.is_empty() {
            let task = self.shared.task();
            self.speak(task);
            let ready = self.wait();
            self.listen(&ready, task, &mut buffer);
        }
        self.tally
    }

    /// Opens a connection, and sends its first questions.
    fn enter(&mut self) {
        let connection = NEXT_CONNECTION.fetch_add(1, Ordering::Relaxed);
        let speech = Speech::new(connection, self.plan.size);
        match Asker::connect(self.server, speech, self.plan.depth) {
            Ok(mut asker) => {
                asker.ask();
                self.askers.push(asker);
            }
            Err(error) => {
                let error = Some(error);
                self.tally
                    .note(connection, &Harm::Dropped { owed: 0, error });
            }
        }
    }

    fn speak(&mut self, task: Task) {
        let habit = self.plan.habit;
        match task {
            Task::Ask => self.askers.iter_mut().for_each(|asker| match habit {
                Habit::Leave { after } if asker.asked() >= after => asker.leave(),
                Habit::Stay | Habit::Leave { .. } => asker.ask(),
                Habit::HalfClose => asker.leave_early(),
            }),
            Task::Finish => self.askers.iter_mut().for_each(Asker::leave),
            Task::Pause => {
                if self.askers.iter().all(Asker::has_arrived) {
                    self.hold();
                }
            }
            Task::GoOn => {
                self.hold();
                self.askers.iter_mut().for_each(Asker::ask);
            }
        }
    }

    /// From here on connections may end, and the outstanding answers are known.
    fn hold(&mut self) {
        if !self.shared.held.load(Ordering::Relaxed) {
            self.tally.outstanding = self.askers.iter_mut().map(Asker::hold_to).sum();
            self.shared.held.store(true, Ordering::Release);
        }
    }

    /// Waits for events of the connections, at most a moment. Returns the ready ones.
    fn wait(&self) -> Vec<(usize, PollFlags)> {
        let watch = |asker| PollFd::new(Asker::fd(asker), Asker::interest(asker));
        ready(self.askers.iter().map(watch).collect())
    }

    fn listen(&mut self, ready: &[(usize, PollFlags)], task: Task, buffer: &mut [u8]) {
        let mut ended = Vec::new();
        for (index, flags) in ready {
            let asker = &mut self.askers[*index];
            if flags.contains(PollFlags::POLLOUT) {
                asker.write();
            }
            if !flags.intersects(!PollFlags::POLLOUT) {
                continue;
            }
            let heard = asker.hear(buffer, self.framed);
            self.tally.answered += heard.answers;
            self.tally.longest_gap = self.tally.longest_gap.max(heard.longest_gap);
            self.shared
                .answered
                .fetch_add(heard.answers, Ordering::Relaxed);
            if let Some(end) = heard.end {
                ended.push((asker.connection(), end));
            }
        }
        let now = Instant::now();
        let overdue = |asker: &Asker| Some((asker.connection(), Err(asker.overdue(now)?)));
        ended.extend(self.askers.iter().filter_map(overdue));
        self.dismiss(ended, task);
    }

    fn dismiss(&mut self, ended: Vec<(u32, Result<(), Harm>)>, task: Task) {
        for (connection, end) in ended {
            self.askers.retain(|asker| asker.connection() != connection);
            match end {
                Ok(()) if task == Task::Ask && self.plan.habit != Habit::Stay => self.enter(),
                Ok(()) => {}
                Err(harm) => self.tally.note(connection, &harm),
            }
        }
    }
}
