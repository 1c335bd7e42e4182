//! Row 10: clients of every reactor pass lines on to clients of another one at full speed, while the workers that do it are
//! killed. Every line comes once and in order, the master's memory stays in its budget, and clients of another worker are
//! answered meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;

use super::Scale;
use super::asker::PATIENCE;
use super::chaos::{KILLED, for_a_while, pause};
use super::crowd::ready;
use super::report::Report;
use super::speech::Wrong;
use super::tally::{Harm, Tally};
use super::trial::Outcome;
use crate::common::SOON;
use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;

const TIME: Duration = Duration::from_secs(8);

/// The clients of each reactor, which pass lines on.
const TALKERS: usize = 2;

/// The master's budget for unsent output, and its memory beside that: tables, buffers, and free memory of its allocator.
const BUDGET: u64 = 32 << 20;
const BESIDES: u64 = 16 << 20;

/// The seats whose workers pass lines on, and are killed. The next seat is the bystanders'.
const RELAYS: usize = 2;
const BYSTANDERS: usize = RELAYS;

/// The time from one kill to the next, in milliseconds.
const BETWEEN_KILLS: std::ops::Range<u64> = 40..120;

/// The longest time for which a bystander may wait, on a machine of which this test has only a share. On an idle one it is
/// below 100 ms.
const WAIT: Duration = Duration::from_secs(1);

/// The bytes of lines that are made at once.
const SHARE: usize = 64 << 10;

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for reactors in [1, 2, 4] {
        let name = format!("relays and SIGKILL, {reactors} reactors");
        report.row(10, &name, || relay(reactors, TIME * scale.0 as u32));
    }
}

/// A client that passes lines on to another one, and gets those of a third one.
struct Talker {
    socket: TcpStream,
    /// The beginning of its lines: the seat that passes them on, and the other client.
    head: String,
    said: u64,
    unsent: Vec<u8>,
    /// The number of the talker whose lines come here.
    speaker: usize,
    heard: u64,
    /// The beginning of a line.
    pending: Vec<u8>,
    last: Instant,
    /// All has come, or the connection has ended.
    is_through: bool,
}

fn relay(reactors: usize, time: Duration) -> Outcome {
    let budget = format!("memory-budget={BUDGET}");
    let (workers, number) = (RELAYS + 1, reactors);
    let started = Launch::testbed("relay", "process")
        .and(&[&format!("workers={workers}"), &format!("reactors={number}")])
        .and(&["dispatch=route", "on-crash=redeliver=255", &budget])
        .and(&["output-limit=8388608", "max-message=65536"])
        .start();
    let mut talkers = Talker::of_every_reactor(&started, reactors);
    let bystanders: Vec<Client> = clients(&started, reactors, 1)
        .into_iter()
        .map(|(client, _)| client)
        .collect();
    let before = started.master().memory().private;
    let (is_over, server) = (&AtomicBool::new(false), &started);
    let mut tally = Tally::default();
    let (peak, waits) = thread::scope(|scope| {
        let goes_on = || !is_over.load(Ordering::Relaxed);
        scope.spawn(move || kill_relays(server, goes_on));
        let waits = scope.spawn(move || stand_by(bystanders, goes_on));
        let talk = scope.spawn(|| talk(&mut talkers, time));
        let mut peak = 0;
        let watch = |peak: &mut u64| {
            let memory = server.master().memory();
            *peak = (*peak).max(memory.private).max(memory.private_peak);
            thread::sleep(Duration::from_millis(20));
        };
        for_a_while(time, || watch(&mut peak));
        while !talk.is_finished() {
            watch(&mut peak);
        }
        is_over.store(true, Ordering::Relaxed);
        tally.add(talk.join().expect("the talkers do not panic"));
        (peak, waits.join().expect("bystanders are answered"))
    });
    tally.longest_gap = waits;
    judge(started, tally, peak.saturating_sub(before))
}

/// Adds the bounds, and lets the server end.
fn judge(mut server: Server, mut tally: Tally, took: u64) -> Outcome {
    let kills = server.log().with(&["abnormal exit", KILLED]).len();
    let mut demand = |is_so: bool, what: String| {
        if !is_so {
            tally.complain(format!("not so: {what}"));
        }
    };
    demand(kills >= 10, format!("there are enough kills: {kills}"));
    let most = BUDGET + BESIDES;
    demand(
        took <= most,
        format!("{took} bytes of memory, {most} at most"),
    );
    server.signal(Signal::SIGTERM);
    let status = server.ended(SOON);
    demand(
        status.success(),
        format!("the server ends in order: {status}"),
    );
    let wait = tally.longest_gap;
    if wait > WAIT {
        tally.complain(format!("a bystander waited for {wait:?}"));
    }
    let done = format!("{kills} kills, +{} MiB", took >> 20);
    Outcome { done, tally }
}

/// Returns `each` clients of each reactor, in the order of the reactors, with their ids.
#[track_caller]
fn clients(server: &Server, reactors: usize, each: usize) -> Vec<(Client, u64)> {
    let mut found: Vec<Vec<(Client, u64)>> = Vec::new();
    found.resize_with(reactors, Vec::new);
    // They are spread over the reactors, so that a few rounds are enough.
    for _ in 0..reactors * each * 100 {
        if found.iter().all(|some| some.len() >= each) {
            break;
        }
        let mut client = Client::connect(server.address());
        let id: u64 = client.ask("0?").parse().expect("an id is a number");
        // The upper 10 bits are the owner's.
        let some = &mut found[usize::try_from(id >> 54).unwrap_or(0)];
        if some.len() < each {
            some.push((client, id));
        }
    }
    let found: Vec<_> = found.into_iter().flatten().collect();
    assert_eq!(found.len(), reactors * each, "clients of every reactor");
    found
}

/// Kills the workers that pass lines on, now and then.
fn kill_relays(server: &Server, goes_on: impl Fn() -> bool) {
    for seat in (0..RELAYS).cycle() {
        if !goes_on() {
            return;
        }
        pause(BETWEEN_KILLS);
        for worker in server.named(&format!("tine worker#{seat}")) {
            worker.signal(Signal::SIGKILL);
        }
    }
}

/// Asks again and again. Returns the longest time to an answer.
fn stand_by(mut clients: Vec<Client>, goes_on: impl Fn() -> bool) -> Duration {
    let mut longest = Duration::ZERO;
    while goes_on() {
        for client in &mut clients {
            let begin = Instant::now();
            client.echo(format!("{BYSTANDERS}=a question\n").as_bytes());
            longest = longest.max(begin.elapsed());
            thread::sleep(Duration::from_millis(1));
        }
    }
    longest
}

/// Lets them talk for a time, and hear everything.
fn talk(talkers: &mut [Talker], time: Duration) -> Tally {
    let (mut tally, begin) = (Tally::default(), Instant::now());
    let mut buffer = vec![0; 256 << 10];
    while talkers.iter().any(|talker| !talker.is_through) {
        let goes_on = begin.elapsed() < time;
        for (nth, ready) in wait(talkers, goes_on) {
            let talker = &mut talkers[nth];
            if ready.contains(PollFlags::POLLOUT) {
                talker.say(goes_on);
            }
            if ready.intersects(!PollFlags::POLLOUT)
                && let Err(harm) = talker.hear(&mut buffer)
            {
                tally.note(nth as u32, &harm);
                talker.is_through = true;
            }
        }
        let said: Vec<u64> = talkers.iter().map(|talker| talker.said).collect();
        for (nth, talker) in talkers.iter_mut().enumerate() {
            let owed = said[talker.speaker].saturating_sub(talker.heard);
            if !goes_on && owed == 0 && talker.unsent.is_empty() {
                talker.is_through = true;
            } else if !talker.is_through && owed > 0 && talker.last.elapsed() > PATIENCE {
                tally.note(nth as u32, &Harm::Late { owed });
                talker.is_through = true;
            }
        }
    }
    tally.answered = talkers.iter().map(|talker| talker.heard).sum();
    tally
}

/// Waits for events of the talkers, at most a moment.
fn wait(talkers: &[Talker], goes_on: bool) -> Vec<(usize, PollFlags)> {
    let watch = |talker: &Talker| {
        let mut interest = PollFlags::POLLIN;
        interest.set(PollFlags::POLLOUT, goes_on || !talker.unsent.is_empty());
        interest
    };
    let (numbers, watched): (Vec<usize>, Vec<PollFd<'_>>) = (talkers.iter().enumerate())
        .filter(|(_, talker)| !talker.is_through)
        .map(|(nth, talker)| (nth, PollFd::new(talker.socket.as_fd(), watch(talker))))
        .unzip();
    let ready = ready(watched).into_iter();
    ready
        .map(|(index, flags)| (numbers[index], flags))
        .collect()
}

impl Talker {
    /// Returns clients of every reactor. Each passes lines on to one of the next reactor.
    fn of_every_reactor(server: &Server, reactors: usize) -> Vec<Self> {
        let clients = clients(server, reactors, TALKERS);
        let all = clients.len();
        let next = if reactors == 1 { 1 } else { TALKERS };
        let ids: Vec<u64> = clients.iter().map(|(_, id)| *id).collect();
        let talker = |(nth, (client, _)): (usize, (Client, u64))| Self {
            socket: client.into_socket(),
            head: format!("{}@{} ", nth % RELAYS, ids[(nth + next) % all]),
            speaker: (nth + all - next) % all,
            said: 0,
            unsent: Vec::new(),
            heard: 0,
            pending: Vec::new(),
            last: Instant::now(),
            is_through: false,
        };
        clients.into_iter().enumerate().map(talker).collect()
    }

    /// Writes what the kernel takes of the lines that were begun, and of new ones.
    fn say(&mut self, goes_on: bool) {
        while goes_on && self.unsent.len() < SHARE {
            // Writing to a Vec does not fail.
            let _ = writeln!(self.unsent, "{}{}", self.head, self.said);
            self.said += 1;
        }
        // A connection that was broken is noticed by reading.
        if let Ok(written) = self.socket.write(&self.unsent) {
            self.unsent.drain(..written);
        }
    }

    /// Reads what has come: numbers, each one more than the last.
    fn hear(&mut self, buffer: &mut [u8]) -> Result<(), Harm> {
        let dropped = |error| Harm::Dropped { owed: 1, error };
        let read = match self.socket.read(buffer) {
            Ok(0) => return Err(dropped(None)),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(dropped(Some(error))),
        };
        self.last = Instant::now();
        self.pending.extend_from_slice(&buffer[..read]);
        let end = self.pending.iter().rposition(|byte| *byte == b'\n');
        let Some(end) = end else { return Ok(()) };
        for line in self.pending[..end].split(|byte| *byte == b'\n') {
            let number = std::str::from_utf8(line)
                .ok()
                .and_then(|it| it.parse::<u64>().ok());
            match number {
                Some(number) if number == self.heard => self.heard += 1,
                Some(number) if number > self.heard => {
                    let by = number - self.heard;
                    return Err(Harm::Wrong(Wrong::Skipped { by }));
                }
                Some(_) => return Err(Harm::Wrong(Wrong::Duplicated)),
                None => return Err(Harm::Wrong(Wrong::Corrupt)),
            }
        }
        self.pending.drain(..=end);
        Ok(())
    }
}
