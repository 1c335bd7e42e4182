//! All clients of a run, in one thread: they come, warm up, are counted, and get what they are owed.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::bytes::{PIECE, Stream};
use super::client::{Client, Loss};
use super::edges::Edges;
use super::report::Report;
use super::schedule::Schedule;
use super::tally::Tally;
use super::{Failure, GRACE, LONGEST_GRACE, MOST_OWED, Pace, Plan, limits};

/// The token of the timer.
const TIMER: u64 = u64::MAX;

/// Bytes, or the end of them.
const REPLIES: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP);
/// And room for more messages.
pub(super) const REPLIES_AND_ROOM: EpollFlags = REPLIES.union(EpollFlags::EPOLLOUT);
/// Told once each time, so that the timer need not be read.
const RING: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);
/// Nothing more can be sent or received.
pub(super) const BROKEN: EpollFlags = EpollFlags::EPOLLHUP.union(EpollFlags::EPOLLERR);

/// How often it is told how far it is.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// How many messages that are due are sent before replies are looked at: who is late does not get
/// later by not listening.
const AT_ONCE: usize = 256;

/// Does what the plan says. `tell` hears now and then what part of it is done, 0 to 1.
///
/// # Errors
/// When it can't be measured: not everybody is let in, the generator is too slow for the rate, or the
/// kernel has no room. What goes wrong with single connections is in the report.
pub(crate) fn run(plan: &Plan, tell: &mut dyn FnMut(f64)) -> Result<Report, Failure> {
    let all = plan.clients + plan.idle;
    if let Pace::Closed { depth } = plan.pace
        && plan.clients as u64 * depth as u64 > MOST_OWED
    {
        return Err(Failure(format!(
            "{} clients with {depth} messages each are more than {MOST_OWED} messages on their way",
            plan.clients
        )));
    }
    limits::raise_open_files(all as u64 + 64).map_err(|allowed| {
        Failure(format!(
            "{all} connections need as many open files, and {allowed} are allowed: raise the hard limit \
             (ulimit -Hn)"
        ))
    })?;
    let mut crowd = Crowd::new(plan)?;
    crowd.let_in()?;
    crowd.talk(tell)?;
    crowd.settle()?;
    crowd.report()
}

pub(super) struct Crowd<'a> {
    pub(super) plan: &'a Plan,
    stream: Stream,
    pub(super) epoll: Epoll,
    /// Room for the events of one wait.
    events: Vec<EpollEvent>,
    timer: TimerFd,
    start: Instant,
    /// By the token of their events. `None` for one that was lost.
    pub(super) clients: Vec<Option<Client>>,
    /// How many clients there were, each with bytes of its own.
    pub(super) numbers: usize,
    buffer: Vec<u8>,
    pub(super) tally: Tally,
    /// What is due in an open loop.
    schedule: Option<Schedule>,
    edges: Edges,
    /// When something came from the server for the last time.
    heard: u64,
}

impl<'a> Crowd<'a> {
    fn new(plan: &'a Plan) -> Result<Crowd<'a>, Failure> {
        let watch = |error: Errno| Failure::new("watch sockets", io::Error::from(error));
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC);
        let timer = timer.map_err(watch)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(watch)?;
        let ring = EpollEvent::new(RING, TIMER);
        epoll.add(&timer, ring).map_err(watch)?;
        Ok(Crowd {
            plan,
            stream: Stream::new(),
            epoll,
            events: vec![EpollEvent::empty(); 256],
            timer,
            start: Instant::now(),
            clients: Vec::new(),
            numbers: 0,
            buffer: vec![0; PIECE],
            tally: Tally::new()?,
            schedule: None,
            edges: Edges::new(plan)?,
            heard: 0,
        })
    }

    fn now(&self) -> u64 {
        nanoseconds(self.start)
    }

    // They talk.

    fn talk(&mut self, tell: &mut dyn FnMut(f64)) -> Result<(), Failure> {
        let begin = self.now();
        let whole = (self.plan.warm_up + self.plan.duration).as_nanos() as u64;
        self.edges.start(begin);
        match self.plan.pace {
            Pace::Closed { depth } => {
                for token in 0..self.plan.clients {
                    self.ask_again(token, depth)?;
                }
            }
            Pace::Open { per_second } => {
                self.schedule = Some(Schedule {
                    begin,
                    end: begin + whole,
                    per_second,
                    next: 0,
                });
            }
        }
        let mut told = begin;
        loop {
            let now = self.now();
            if let Some(window) = self.edges.pass(now, self.tally.answered_in_all)? {
                self.tally.window = window;
                if let Some(schedule) = &mut self.schedule {
                    schedule.end = window.end;
                }
            }
            if self.edges.are_passed() {
                return Ok(());
            }
            self.ask_what_is_due(now)?;
            self.wait_for_work(self.edges.next())?;
            if !self.anybody_talks() {
                self.tally.window.cut(self.now());
                self.schedule = None;
                return self.edges.end(self.tally.answered_in_all);
            }
            if now - told > TICK.as_nanos() as u64 {
                told = now;
                tell(((now - begin) as f64 / whole as f64).min(1.0));
            }
        }
    }

    fn anybody_talks(&self) -> bool {
        // Looking at all of them each time would be slow; one that is there is enough.
        self.clients[..self.plan.clients]
            .iter()
            .any(Option::is_some)
    }

    /// Open loop: sends what is due, as far as it is.
    fn ask_what_is_due(&mut self, now: u64) -> Result<(), Failure> {
        if self.tally.owed() > MOST_OWED {
            return Err(Failure(format!(
                "more than {MOST_OWED} messages wait for a reply: the rate is far beyond what the server \
                 does"
            )));
        }
        for _ in 0..AT_ONCE {
            let Some(schedule) = &mut self.schedule else {
                return Ok(());
            };
            let Some(due) = schedule.due().filter(|due| *due <= now) else {
                return Ok(());
            };
            let token = (schedule.next % self.plan.clients as u64) as usize;
            schedule.next += 1;
            let Some(client) = &mut self.clients[token] else {
                self.tally.asked_in_vain();
                continue;
            };
            client.ask(due);
            self.tally.asked();
            if client.is_done() {
                self.replace(token)?;
            } else if !client.wants_room {
                self.send(token)?;
            }
        }
        Ok(())
    }

    /// Closed loop: so many more messages of a client, as far as it may send any.
    fn ask_again(&mut self, token: usize, messages: usize) -> Result<(), Failure> {
        let now = self.now();
        let Some(client) = &mut self.clients[token] else {
            return Ok(());
        };
        for _ in 0..client.left().min(messages as u64) {
            client.ask(now);
            self.tally.asked();
        }
        self.send(token)
    }

    fn send(&mut self, token: usize) -> Result<(), Failure> {
        let Some(client) = &mut self.clients[token] else {
            return Ok(());
        };
        if !client.is_open {
            return Ok(());
        }
        match client.send(&self.stream) {
            Ok(()) => self.watch(token),
            Err(loss) => {
                self.lose(token, loss);
                Ok(())
            }
        }
    }

    /// Has epoll tell of room to write, if it is wanted, and only then.
    pub(super) fn watch(&mut self, token: usize) -> Result<(), Failure> {
        let Some(client) = &mut self.clients[token] else {
            return Ok(());
        };
        let wants_room = !client.all_is_sent();
        if wants_room != client.wants_room {
            client.wants_room = wants_room;
            let flags = match wants_room {
                true => REPLIES_AND_ROOM,
                false => REPLIES,
            };
            self.epoll
                .modify(client.fd(), &mut EpollEvent::new(flags, token as u64))
                .map_err(|error| Failure::new("watch a connection", io::Error::from(error)))?;
        }
        Ok(())
    }

    fn ready(&mut self, event: EpollEvent) -> Result<(), Failure> {
        let token = event.data() as usize;
        let Some(client) = &mut self.clients[token] else {
            return Ok(());
        };
        if !client.is_open {
            if let Err(loss) = client.opened() {
                self.lose(token, loss);
                return Ok(());
            }
            return self.send(token);
        }
        if event.events().contains(EpollFlags::EPOLLOUT) && !client.all_is_sent() {
            self.send(token)?;
        }
        if event.events().intersects(EpollFlags::EPOLLIN | BROKEN) {
            self.receive(token)?;
        }
        Ok(())
    }

    fn receive(&mut self, token: usize) -> Result<(), Failure> {
        let Some(client) = &mut self.clients[token] else {
            return Ok(());
        };
        let answered = match client.receive(&self.stream, &mut self.buffer) {
            Ok(answered) => answered,
            Err(loss) => {
                self.lose(token, loss);
                return Ok(());
            }
        };
        let now = nanoseconds(self.start);
        self.heard = now;
        if answered == 0 {
            return Ok(());
        }
        self.tally.answered(client.take(answered), now);
        let (is_done, is_over) = (client.is_done(), self.edges.are_passed());
        match self.plan.pace {
            // Others wait for whoever comes next.
            _ if is_done && client.owed() > 0 => self.replace(token),
            _ if is_over => Ok(()),
            _ if is_done => self.replace(token),
            Pace::Closed { .. } => self.ask_again(token, answered),
            Pace::Open { .. } => Ok(()),
        }
    }

    /// One has said all that it had to say: it closes, and another comes, who has what was due
    /// meanwhile.
    fn replace(&mut self, token: usize) -> Result<(), Failure> {
        let due = self.clients[token].take().map(Client::close);
        self.connect(token, due.unwrap_or_default())?;
        if self.clients[token].is_some() {
            self.tally.came_again(self.now());
        }
        match self.plan.pace {
            Pace::Closed { depth } => self.ask_again(token, depth),
            Pace::Open { .. } => Ok(()),
        }
    }

    pub(super) fn lose(&mut self, token: usize, loss: Loss) {
        let owed = self.clients[token].take().map_or(0, |client| client.owed());
        self.tally.lost(token, loss, owed);
    }

    // They get what they are owed.

    /// Waits for what is on its way, so that the slowest replies are counted, too; and sends what was
    /// due and could not be sent in time.
    fn settle(&mut self) -> Result<(), Failure> {
        let begin = self.now();
        self.heard = begin;
        let (grace, longest) = (GRACE.as_nanos() as u64, LONGEST_GRACE.as_nanos() as u64);
        loop {
            let now = self.now();
            let late = self.schedule.as_ref().map_or(0, Schedule::left);
            if self.tally.owed() == 0 && late == 0 {
                break;
            }
            if late > 0 && now - begin > grace {
                return Err(Failure(format!(
                    "this generator is too slow for the rate: {late} messages were not sent {} s after \
                     all were due",
                    GRACE.as_secs()
                )));
            }
            if now - self.heard > grace || now - begin > longest {
                break;
            }
            self.ask_what_is_due(now)?;
            self.wait_for_work(now + TICK.as_nanos() as u64)?;
        }
        // Whoever has more to say than was asked, and has said it by now.
        self.wait(Duration::ZERO, |crowd, event| crowd.ready(event))?;
        self.tally.close();
        Ok(())
    }

    // How it waits.

    /// Until something is ready, or due, or it is that time.
    fn wait_for_work(&mut self, end: u64) -> Result<(), Failure> {
        let now = self.now();
        let due = self.schedule.as_ref().and_then(Schedule::due);
        let left = Duration::from_nanos(end.saturating_sub(now));
        let timeout = match due {
            Some(due) if due <= now => Duration::ZERO,
            Some(due) => {
                self.wake_in(Duration::from_nanos(due - now))?;
                left.min(TICK)
            }
            None => left.min(TICK),
        };
        self.wait(timeout, |crowd, event| crowd.ready(event))
    }

    /// Waits for events, for so long at most, and has `act` deal with each. Milliseconds are rounded
    /// up, so that a deadline has passed when its wait ends.
    pub(super) fn wait(
        &mut self,
        timeout: Duration,
        mut act: impl FnMut(&mut Self, EpollEvent) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let timeout = timeout.as_nanos().div_ceil(1_000_000);
        let timeout = u16::try_from(timeout).unwrap_or(u16::MAX);
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(Failure::new("wait for events", io::Error::from(error))),
        };
        for index in 0..count {
            let event = self.events[index];
            if event.data() != TIMER {
                act(self, event)?;
            }
        }
        Ok(())
    }

    /// Ends the next wait then: epoll_wait(2) knows milliseconds alone.
    fn wake_in(&mut self, time: Duration) -> Result<(), Failure> {
        let expiration = Expiration::OneShot(TimeSpec::from_duration(time));
        self.timer
            .set(expiration, TimerSetTimeFlags::empty())
            .map_err(|error| Failure::new("set a timer", error))
    }

    fn report(self) -> Result<Report, Failure> {
        let seconds = self.tally.window.seconds();
        let generator = self.edges.generator(seconds);
        let cost = match self.edges.cost() {
            // A server that has ended cost its clients their connections, which says more.
            Err(_) if !self.tally.faults.is_none() => None,
            cost => cost?,
        };
        Ok(Report::new(self.plan, seconds, self.tally, cost, generator))
    }
}

fn nanoseconds(since: Instant) -> u64 {
    since.elapsed().as_nanos() as u64
}
