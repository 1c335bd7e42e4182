//! All clients of a run, in one thread: they connect, warm up, are measured, and await the outstanding
//! replies.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::bytes::{PIECE, Stream};
use super::client::{Client, Loss};
use super::edges::Edges;
use super::report::{End, Report};
use super::schedule::Schedule;
use super::tally::Tally;
use super::{Failure, GRACE, LONGEST_GRACE, MAX_OUTSTANDING, Pace, Plan, limits};

/// The token of the timer.
const TIMER: u64 = u64::MAX;

/// Bytes, or end of file.
const REPLIES: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP);
/// And room to send more.
pub(super) const REPLIES_AND_ROOM: EpollFlags = REPLIES.union(EpollFlags::EPOLLOUT);
/// Edge-triggered, so that the timer need not be read.
const RING: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);
/// The connection is closed or has failed.
pub(super) const BROKEN: EpollFlags = EpollFlags::EPOLLHUP.union(EpollFlags::EPOLLERR);

/// Longest wait for events, and the interval of progress reports.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Number of due messages that are sent before replies are read: a late generator must not get later by
/// leaving replies unread.
const AT_ONCE: usize = 256;

/// Runs the plan. Calls `progress` now and then with the share that is done, 0 to 1. When `interrupted` is set,
/// the measurement ends, and the second time it also stops waiting for replies.
///
/// # Errors
/// When the measurement fails: not all clients could connect, the generator is too slow for the rate, or
/// the kernel refuses resources. Faults of single connections are in the report.
pub(crate) fn run(
    plan: &Plan,
    interrupted: &AtomicBool,
    progress: &mut dyn FnMut(f64),
) -> Result<Report, Failure> {
    let all = plan.clients + plan.idle;
    if let Pace::Closed { depth } = plan.pace
        && plan.clients as u64 * depth as u64 > MAX_OUTSTANDING
    {
        return Err(Failure(format!(
            "{} clients with {depth} messages each are more than {MAX_OUTSTANDING} outstanding messages",
            plan.clients
        )));
    }
    limits::raise_open_files(all as u64 + 64).map_err(|allowed| {
        Failure(format!(
            "{all} connections need as many open files, but only {allowed} are allowed: raise the hard \
             limit (ulimit -Hn)"
        ))
    })?;
    let mut crowd = Crowd::new(plan, interrupted)?;
    crowd.connect_all()?;
    crowd.put_load(progress)?;
    crowd.settle()?;
    crowd.report()
}

pub(super) struct Crowd<'a> {
    pub(super) plan: &'a Plan,
    /// Set by a signal.
    interrupted: &'a AtomicBool,
    is_interrupted: bool,
    stream: Stream,
    pub(super) epoll: Epoll,
    /// Room for the events of one wait.
    events: Vec<EpollEvent>,
    timer: TimerFd,
    start: Instant,
    /// Indexed by the token of their events. `None` for a client that was lost.
    pub(super) clients: Vec<Option<Client>>,
    /// Number of clients made so far: the next one's number.
    pub(super) numbers: usize,
    buffer: Vec<u8>,
    pub(super) tally: Tally,
    /// The messages of an open loop.
    schedule: Option<Schedule>,
    edges: Edges,
    /// The time when the server's last bytes arrived.
    last_received: u64,
    /// The time until which replies were awaited.
    awaited_until: u64,
}

impl<'a> Crowd<'a> {
    fn new(plan: &'a Plan, interrupted: &'a AtomicBool) -> Result<Crowd<'a>, Failure> {
        let watch = |error: Errno| Failure::new("watch sockets", io::Error::from(error));
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC);
        let timer = timer.map_err(watch)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(watch)?;
        let ring = EpollEvent::new(RING, TIMER);
        epoll.add(&timer, ring).map_err(watch)?;
        Ok(Crowd {
            plan,
            interrupted,
            is_interrupted: false,
            stream: Stream::new(),
            epoll,
            events: vec![EpollEvent::empty(); 256],
            timer,
            start: Instant::now(),
            clients: Vec::new(),
            numbers: 0,
            buffer: vec![0; PIECE],
            tally: Tally::new(plan.duration)?,
            schedule: None,
            edges: Edges::new(plan)?,
            last_received: 0,
            awaited_until: 0,
        })
    }

    pub(super) fn now(&self) -> u64 {
        nanoseconds(self.start)
    }

    // The load.

    fn put_load(&mut self, progress: &mut dyn FnMut(f64)) -> Result<(), Failure> {
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
        let mut reported = begin;
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
            self.ask_due(now)?;
            self.wait_for_work(self.edges.next())?;
            if self.takes_interruption() {
                self.is_interrupted = true;
                if !self.edges.is_counting() {
                    return Err(Failure::interrupted());
                }
            }
            if self.is_interrupted || !self.has_clients() {
                self.tally.window.cut(self.now());
                self.schedule = None;
                return self.edges.end(self.tally.answered_in_all);
            }
            if now - reported > TICK.as_nanos() as u64 {
                reported = now;
                progress(((now - begin) as f64 / whole as f64).min(1.0));
            }
        }
    }

    /// Whether a signal has come since the last call.
    pub(super) fn takes_interruption(&self) -> bool {
        self.interrupted.swap(false, Ordering::Relaxed)
    }

    /// Whether a client that sends messages is left.
    fn has_clients(&self) -> bool {
        // Stops at the first one: counting all of them each time would be slow.
        self.clients[..self.plan.clients]
            .iter()
            .any(Option::is_some)
    }

    /// Open loop: sends messages that are due.
    fn ask_due(&mut self, now: u64) -> Result<(), Failure> {
        if self.tally.outstanding() > MAX_OUTSTANDING {
            return Err(Failure(format!(
                "more than {MAX_OUTSTANDING} messages are outstanding: the rate is far beyond the server's \
                 throughput"
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
                self.tally.asked_without_client(due);
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

    /// Closed loop: sends up to `messages` more messages of a client.
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

    /// Sets EPOLLOUT while bytes are unsent, and only then.
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
        self.last_received = now;
        if answered == 0 {
            return Ok(());
        }
        self.tally.answered(client.take(answered), now);
        let (is_done, is_over) = (client.is_done(), self.edges.are_passed());
        match self.plan.pace {
            // Due messages wait for the client that takes this one's place.
            _ if is_done && client.outstanding() > 0 => self.replace(token),
            _ if is_over => Ok(()),
            _ if is_done => self.replace(token),
            Pace::Closed { .. } => self.ask_again(token, answered),
            Pace::Open { .. } => Ok(()),
        }
    }

    /// Closes a client that is done, and connects a new one, which takes over the messages that were due
    /// meanwhile.
    fn replace(&mut self, token: usize) -> Result<(), Failure> {
        let due = self.clients[token].take().map(Client::close);
        self.connect(token, due.unwrap_or_default())?;
        if self.clients[token].is_some() {
            self.tally.replaced(self.now());
        }
        match self.plan.pace {
            Pace::Closed { depth } => self.ask_again(token, depth),
            Pace::Open { .. } => Ok(()),
        }
    }

    pub(super) fn lose(&mut self, token: usize, loss: Loss) {
        let due = self.clients[token].take().map(Client::close);
        let due = due.unwrap_or_default().into_iter();
        self.tally.lost(token, loss, due, nanoseconds(self.start));
    }

    // After the load.

    /// Waits for outstanding replies, so that the slowest replies are counted too; and sends messages that
    /// were due and could not be sent in time.
    fn settle(&mut self) -> Result<(), Failure> {
        let begin = self.now();
        self.last_received = begin;
        let mut is_cut_short = false;
        let (grace, longest) = (GRACE.as_nanos() as u64, LONGEST_GRACE.as_nanos() as u64);
        loop {
            let now = self.now();
            let late = self.schedule.as_ref().map_or(0, Schedule::left);
            if self.tally.outstanding() == 0 && late == 0 {
                break;
            }
            if late > 0 && now - begin > grace {
                return Err(Failure(format!(
                    "this generator is too slow for the rate: {late} messages were still unsent {} s after \
                     the last was due",
                    GRACE.as_secs()
                )));
            }
            is_cut_short = self.takes_interruption();
            if is_cut_short || now - self.last_received > grace || now - begin > longest {
                break;
            }
            self.ask_due(now)?;
            self.wait_for_work(now + TICK.as_nanos() as u64)?;
        }
        // A server may have sent more bytes than it received: those that have arrived are compared.
        self.wait(Duration::ZERO, |crowd, event| crowd.ready(event))?;
        self.awaited_until = self.now();
        let outstanding = self.clients.iter().flatten().flat_map(Client::unanswered);
        self.tally
            .close(outstanding, is_cut_short, self.awaited_until);
        Ok(())
    }

    // Waiting.

    /// Waits until an event is ready, a message is due, or `end` has come.
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

    /// Waits for events, for `timeout` at most, and calls `act` with each. The timeout is rounded up to
    /// milliseconds, so that a deadline has passed when its wait ends.
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

    /// Ends the next wait after `time`: the timeout of epoll_wait(2) has only milliseconds.
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
            // A server that has ended has lost its clients' connections, and those faults say more.
            Err(_) if !self.tally.faults.is_none() => None,
            cost => cost?,
        };
        let end = End {
            awaited_until: self.awaited_until,
            is_interrupted: self.is_interrupted,
        };
        Ok(Report::new(self.plan, end, self.tally, cost, generator))
    }
}

fn nanoseconds(since: Instant) -> u64 {
    since.elapsed().as_nanos() as u64
}
