//! All clients of a run, in one thread: they come, warm up, are counted, and get what they are owed.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::bytes::{PIECE, Stream};
use super::client::{Client, Loss, Progress};
use super::cost::{Cost, Server};
use super::report::{Faults, Latency, Report, part};
use super::{Failure, GRACE, Pace, Plan};
use crate::sys::epoll::{Event, Events, Interest, Poller};
use crate::sys::limits;

/// How many connections are begun before the first of them has to stand: no more than a queue holds.
const AT_ONCE: usize = 256;

/// How long everybody may take to be let in.
const ENTRY: Duration = Duration::from_secs(30);

/// The token of the timer.
const TIMER: u64 = u64::MAX;

/// How often it is told how far it is.
const TICK: Duration = Duration::from_millis(100);

/// Does what the plan says. `tell` hears now and then what part of it is done, 0 to 1.
///
/// # Errors
/// When it can't be measured: nobody is let in, nobody is left, or the kernel has no room. What goes
/// wrong with single connections is in the report.
pub(crate) fn run(plan: &Plan, tell: &mut dyn FnMut(f64)) -> Result<Report, Failure> {
    let all = plan.clients + plan.idle;
    limits::raise_open_files(all as u64 + 64).map_err(|allowed| {
        Failure(format!(
            "{all} connections need as many open files, and {allowed} are allowed: raise the hard limit \
             (ulimit -Hn)"
        ))
    })?;
    let mut crowd = Crowd::new(plan).map_err(|error| Failure::new("watch sockets", error))?;
    crowd.let_in()?;
    let begin = crowd.now();
    let window = Window {
        begin: begin + plan.warm_up.as_nanos() as u64,
        end: begin + (plan.warm_up + plan.duration).as_nanos() as u64,
    };
    crowd.window = window;
    crowd.talk(tell)?;
    crowd.settle()?;
    Ok(crowd.report())
}

/// What is counted: from when to when, in nanoseconds of the run.
#[derive(Clone, Copy)]
struct Window {
    begin: u64,
    end: u64,
}

impl Window {
    fn has(self, time: u64) -> bool {
        (self.begin..self.end).contains(&time)
    }
}

struct Crowd<'a> {
    plan: &'a Plan,
    stream: Stream,
    poller: Poller,
    events: Events,
    timer: TimerFd,
    start: Instant,
    /// By the token of their events. `None` for one that was lost.
    clients: Vec<Option<Client>>,
    /// How many of `clients` talk: the first ones.
    talking: usize,
    /// How many clients there were, each with bytes of its own.
    numbers: usize,
    buffer: Vec<u8>,
    window: Window,
    latency: Histogram<u64>,
    messages: u64,
    connections: u64,
    /// Messages of the window that have no answer yet.
    owed: u64,
    /// Time within the window in which there was nothing to do.
    waited: Duration,
    /// The server's processes, from the beginning of the window on.
    server: Option<Server>,
    cost: Option<Cost>,
    faults: Faults,
    /// Nobody sends anything new.
    is_over: bool,
}

impl<'a> Crowd<'a> {
    fn new(plan: &'a Plan) -> io::Result<Crowd<'a>> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        let poller = Poller::new()?;
        poller.add(&timer, TIMER, Interest::BELL)?;
        // From a nanosecond to an hour, to three digits: what is longer counts as an hour.
        let mut latency = Histogram::new_with_bounds(1, HOUR, 3).map_err(io::Error::other)?;
        latency.auto(false);
        Ok(Crowd {
            plan,
            stream: Stream::new(),
            poller,
            events: Events::with_capacity(256),
            timer,
            start: Instant::now(),
            clients: Vec::new(),
            talking: plan.clients,
            numbers: 0,
            buffer: Vec::with_capacity(PIECE),
            window: Window {
                begin: u64::MAX,
                end: u64::MAX,
            },
            latency,
            messages: 0,
            connections: 0,
            owed: 0,
            waited: Duration::ZERO,
            server: None,
            cost: None,
            faults: Faults::default(),
            is_over: false,
        })
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    // They come.

    /// Everybody connects, a part at a time.
    fn let_in(&mut self) -> Result<(), Failure> {
        let all = self.plan.clients + self.plan.idle;
        let begin = Instant::now();
        while self.clients.len() < all {
            let more = AT_ONCE.min(all - self.clients.len());
            let first = self.clients.len();
            for _ in 0..more {
                let client = self.connect(self.clients.len())?;
                self.clients.push(Some(client));
            }
            while self.clients[first..]
                .iter()
                .flatten()
                .any(|client| !client.is_open)
            {
                self.wait(Some(TICK), |crowd, event| crowd.open(event))?;
                if begin.elapsed() > ENTRY {
                    return Err(Failure(format!(
                        "the server has let in {} of {all} clients within {} s",
                        self.clients
                            .iter()
                            .flatten()
                            .filter(|client| client.is_open)
                            .count(),
                        ENTRY.as_secs()
                    )));
                }
            }
        }
        match &self.faults.first {
            Some(first) => Err(Failure(format!("not everybody was let in: {first}"))),
            None => Ok(()),
        }
    }

    fn connect(&mut self, token: usize) -> Result<Client, Failure> {
        let number = self.numbers;
        self.numbers += 1;
        let client = Client::connect(self.plan.server, number)
            .map_err(|error| Failure::new("connect", error))?;
        self.poller
            .add(
                client.fd(),
                token as u64,
                Interest::READ.and(Interest::WRITE),
            )
            .map_err(|error| Failure::new("watch a connection", error))?;
        Ok(client)
    }

    /// A connection stands, or does not.
    fn open(&mut self, event: Event) -> Result<(), Failure> {
        let token = event.token as usize;
        let Some(client) = &mut self.clients[token] else {
            return Ok(());
        };
        if client.is_open {
            return match event.hung_up() || event.peer_closed() {
                true => self.lose(token, Loss::Closed),
                false => Ok(()),
            };
        }
        match client.opened() {
            Ok(()) => self.watch(token),
            Err(loss) => self.lose(token, loss),
        }
    }

    // They talk.

    fn talk(&mut self, tell: &mut dyn FnMut(f64)) -> Result<(), Failure> {
        let begin = self.now();
        let whole = (self.window.end - begin).max(1);
        let mut told = begin;
        let mut schedule = match self.plan.pace {
            Pace::Closed { depth } => {
                for token in 0..self.talking {
                    for _ in 0..depth {
                        self.ask(token, begin);
                    }
                    self.send(token)?;
                }
                None
            }
            Pace::Open { per_second } => Some(Schedule {
                begin,
                per_second,
                next: 0,
            }),
        };
        loop {
            let now = self.now();
            self.look_at_the_server(now)?;
            if now >= self.window.end {
                return Ok(());
            }
            if let Some(schedule) = &mut schedule {
                while schedule.due() <= now {
                    let token = schedule.next as usize % self.talking;
                    self.ask(token, schedule.due());
                    self.send(token)?;
                    schedule.next += 1;
                }
                self.wake_at(schedule.due().min(self.window.end))?;
            }
            let left = Duration::from_nanos(self.window.end - now).min(TICK);
            self.wait(Some(left), |crowd, event| crowd.ready(event))?;
            if self.talking_now() == 0 {
                let first = self.faults.first.clone().unwrap_or_default();
                return Err(Failure(format!("no client is left: {first}")));
            }
            if now - told > TICK.as_nanos() as u64 {
                told = now;
                tell((now - begin) as f64 / whole as f64);
            }
        }
    }

    /// At the beginning and at the end of what is counted.
    fn look_at_the_server(&mut self, now: u64) -> Result<(), Failure> {
        let Some(pid) = self.plan.pid else {
            return Ok(());
        };
        let failed = |error| Failure::new(&format!("look at process {pid}"), error);
        match &self.server {
            None if now >= self.window.begin => {
                self.server = Some(Server::begin(pid).map_err(failed)?);
            }
            Some(server) if now >= self.window.end => {
                self.cost = Some(server.end(self.messages).map_err(failed)?);
            }
            None | Some(_) => {}
        }
        Ok(())
    }

    fn talking_now(&self) -> usize {
        // Looking at all of them each time would be slow; one that is there is enough.
        usize::from(self.clients[..self.talking].iter().any(Option::is_some))
    }

    fn ask(&mut self, token: usize, due: u64) {
        if let Some(client) = &mut self.clients[token] {
            client.ask(self.plan.size, due);
            self.owed += u64::from(self.window.has(due));
        }
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
            Err(loss) => self.lose(token, loss),
        }
    }

    /// Has epoll tell of room to write, if it is wanted, and only then.
    fn watch(&mut self, token: usize) -> Result<(), Failure> {
        let Some(client) = &mut self.clients[token] else {
            return Ok(());
        };
        let wants_room = !client.all_is_sent();
        if wants_room != client.wants_room {
            client.wants_room = wants_room;
            let interest = match wants_room {
                true => Interest::READ.and(Interest::WRITE),
                false => Interest::READ,
            };
            self.poller
                .modify(client.fd(), token as u64, interest)
                .map_err(|error| Failure::new("watch a connection", error))?;
        }
        Ok(())
    }

    fn ready(&mut self, event: Event) -> Result<(), Failure> {
        let token = event.token as usize;
        let Some(client) = &mut self.clients[token] else {
            return Ok(());
        };
        if !client.is_open {
            if let Err(loss) = client.opened() {
                return self.lose(token, loss);
            }
            return self.send(token);
        }
        if event.writable() && !client.all_is_sent() {
            self.send(token)?;
        }
        if event.readable() || event.hung_up() {
            self.receive(token)?;
        }
        Ok(())
    }

    fn receive(&mut self, token: usize) -> Result<(), Failure> {
        let now = self.now();
        let Some(client) = &mut self.clients[token] else {
            return Ok(());
        };
        let (window, latency, owed) = (self.window, &mut self.latency, &mut self.owed);
        let progress = client.receive(&self.stream, self.plan.size, &mut self.buffer, |due| {
            if window.has(due) {
                *owed -= 1;
                latency.saturating_record((now - due).max(1));
            }
        });
        let answered = match progress {
            Progress::Answered(answered) => answered,
            Progress::Lost(loss) => return self.lose(token, loss),
        };
        if self.window.has(now) {
            self.messages += answered as u64;
        }
        if self.is_over || answered == 0 {
            return Ok(());
        }
        let answered_in_all = client.answered;
        if self
            .plan
            .messages_each
            .is_some_and(|each| answered_in_all >= each)
        {
            return self.replace(token);
        }
        if let Pace::Closed { .. } = self.plan.pace {
            (0..answered).for_each(|_| self.ask(token, now));
            self.send(token)?;
        }
        Ok(())
    }

    /// One has said all that it had to say: it closes, and another comes.
    fn replace(&mut self, token: usize) -> Result<(), Failure> {
        // What it was still owed is not owed any more.
        let gone = self.clients[token].take();
        self.owed -= gone.map_or(0, |client| client.owed_since(self.window.begin)) as u64;
        let now = self.now();
        let client = self.connect(token)?;
        self.clients[token] = Some(client);
        self.connections += u64::from(self.window.has(now));
        if let Pace::Closed { depth } = self.plan.pace {
            (0..depth).for_each(|_| self.ask(token, now));
        }
        Ok(())
    }

    fn lose(&mut self, token: usize, loss: Loss) -> Result<(), Failure> {
        let faults = &mut self.faults;
        let (count, words) = match loss {
            Loss::Refused(error) => (&mut faults.refused, format!("not let in: {}", error.desc())),
            Loss::Closed => (&mut faults.closed, "closed by the server".to_owned()),
            Loss::Broken(error) => (&mut faults.broken, error.desc().to_owned()),
            Loss::Wrong(at) => (&mut faults.wrong, format!("wrong from byte {at} on")),
        };
        *count += 1;
        faults
            .first
            .get_or_insert_with(|| format!("client {token}: {words}"));
        self.clients[token] = None;
        Ok(())
    }

    // They get what they are owed.

    /// Waits for what is on its way, so that the slowest replies are counted, too.
    fn settle(&mut self) -> Result<(), Failure> {
        self.is_over = true;
        let begin = Instant::now();
        while self.owed > 0 && begin.elapsed() < GRACE {
            let before = self.owed;
            self.wait(Some(TICK), |crowd, event| crowd.ready(event))?;
            // Those who were lost are owed for good.
            if self.owed == before && self.clients.iter().all(Option::is_none) {
                break;
            }
        }
        self.faults.unanswered = self.owed;
        Ok(())
    }

    // How it waits.

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        mut act: impl FnMut(&mut Self, Event) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let before = Instant::now();
        self.poller
            .wait(&mut self.events, timeout)
            .map_err(|error| Failure::new("wait for events", error))?;
        if self.window.has(self.now()) {
            self.waited += before.elapsed();
        }
        for index in 0..self.events.len() {
            let event = self.events.get(index);
            if event.token != TIMER {
                act(self, event)?;
            }
        }
        Ok(())
    }

    /// Ends the next wait at this time: epoll_wait(2) knows milliseconds alone.
    fn wake_at(&mut self, time: u64) -> Result<(), Failure> {
        let in_time = Duration::from_nanos(time.saturating_sub(self.now()).max(1));
        let expiration = Expiration::OneShot(TimeSpec::from_duration(in_time));
        self.timer
            .set(expiration, TimerSetTimeFlags::empty())
            .map_err(|error| Failure::new("set a timer", error))
    }

    fn report(self) -> Report {
        let plan = self.plan;
        let seconds = plan.duration.as_secs_f64();
        let (depth, rate) = match plan.pace {
            Pace::Closed { depth } => (Some(depth), None),
            Pace::Open { per_second } => (None, Some(per_second)),
        };
        Report {
            server: plan.server.to_string(),
            clients: plan.clients,
            idle: plan.idle,
            size: plan.size,
            depth,
            rate,
            seconds,
            messages: self.messages,
            messages_per_second: self.messages as f64 / seconds,
            connections: self.connections,
            connections_per_second: self.connections as f64 / seconds,
            latency: Latency::of(&self.latency),
            cost: self.cost,
            generator_busy: 1.0 - part(self.waited, plan.duration),
            faults: self.faults,
        }
    }
}

const HOUR: u64 = 3_600_000_000_000;

/// When messages are due in an open loop.
struct Schedule {
    begin: u64,
    per_second: u64,
    /// The next message, counted from the first.
    next: u64,
}

impl Schedule {
    fn due(&self) -> u64 {
        let since = u128::from(self.next) * 1_000_000_000 / u128::from(self.per_second);
        self.begin + since as u64
    }
}
