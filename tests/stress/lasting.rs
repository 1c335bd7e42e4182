//! Row 13: states, timers, promised answers, posts and tasks of a server whose workers are killed every 50 ms, replaced by
//! reloads and recycled. Each takes effect once, in order, and none early.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Scale;
use super::report::Report;
use super::speech::Wrong;
use super::tally::{Harm, Tally};
use super::trial::Outcome;
use crate::common::SOON;
use crate::common::client::Client;
use crate::common::launch::Launch;

const TIME: Duration = Duration::from_secs(12);

/// The workers for clients.
const WORKERS: usize = 3;

const BETWEEN_KILLS: Duration = Duration::from_millis(50);
const BETWEEN_RELOADS: Duration = Duration::from_secs(3);

/// The longest delay of a timer or a task, in milliseconds.
const LONGEST: u64 = 50;

/// What lasts longer than one callback, and how often it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    State,
    Timer,
    Promise,
    Post,
    Task,
}

struct Load {
    kind: Kind,
    name: &'static str,
    clients: usize,
    /// The lines that a client sends at once.
    batch: u64,
    /// The time from one batch to the next.
    pause: Duration,
}

impl Load {
    const fn new(kind: Kind, name: &'static str, clients: usize, batch: u64, pause: u64) -> Load {
        Load {
            kind,
            name,
            clients,
            batch,
            pause: Duration::from_millis(pause),
        }
    }
}

/// 5,000 changes of states, 1,000 timers, 500 promises, 500 posts and 500 tasks in a second.
const LOADS: [Load; 5] = [
    Load::new(Kind::State, "states", 10, 10, 20),
    Load::new(Kind::Timer, "timers", 10, 10, 100),
    Load::new(Kind::Promise, "promised answers", 20, 3, 120),
    Load::new(Kind::Post, "posts", 5, 10, 100),
    Load::new(Kind::Task, "tasks", 10, 5, 100),
];

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    if !report.wants(13) {
        return;
    }
    for reactors in [1, 2] {
        let (server, mut tallies) = run(reactors, TIME * scale.0 as u32);
        for load in &LOADS {
            let name = format!("{}, {reactors} reactors", load.name);
            let tally = tallies.remove(&load.kind).unwrap_or_default();
            let done = server.clone();
            report.row(13, &name, || Outcome { done, tally });
        }
    }
}

/// Returns what was done to the server, and the outcome by kind.
fn run(reactors: usize, time: Duration) -> (String, HashMap<Kind, Tally>) {
    let numbers = [format!("workers={WORKERS}"), format!("reactors={reactors}")];
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let mut server = Launch::testbed("lasting", "process")
        .and(&numbers)
        .and(&["on-crash=redeliver=255", "post-attempts=255"])
        .and(&["task-workers=2", "task-attempts=255", "max-requests=5000"])
        .start();
    let address = server.address();
    let (is_over, begin) = (&AtomicBool::new(false), Instant::now());
    let (mut tallies, kills, reloads) = thread::scope(|scope| {
        let goes_on = move || begin.elapsed() < time;
        let clients: Vec<_> = LOADS
            .iter()
            .flat_map(|load| (0..load.clients).map(move |_| load))
            .map(|load| (load.kind, scope.spawn(move || ask(address, load, goes_on))))
            .collect();
        let server = &server;
        let kills =
            scope.spawn(|| server.kill_workers(BETWEEN_KILLS, || !is_over.load(Ordering::Relaxed)));
        let mut reloads = 0;
        while goes_on() {
            thread::sleep(BETWEEN_RELOADS.min(time));
            server.signal(Signal::SIGUSR1);
            reloads += 1;
        }
        let mut tallies: HashMap<Kind, Tally> = HashMap::new();
        for (kind, client) in clients {
            let tally = client.join().expect("clients do not panic");
            tallies.entry(kind).or_default().add(tally);
        }
        is_over.store(true, Ordering::Relaxed);
        (tallies, kills.join().expect("no panic"), reloads)
    });
    server.signal(Signal::SIGTERM);
    let status = server.ended(SOON);
    for tally in tallies.values_mut() {
        if !status.success() || kills < 20 {
            tally.complain(format!("{kills} kills, and the server ends with {status}"));
        }
    }
    (format!("{kills} kills, {reloads} reloads"), tallies)
}

/// A client, and what it expects.
struct Asker<'a> {
    load: &'a Load,
    socket: TcpStream,
    lines: BufReader<TcpStream>,
    /// The number of the next line.
    next: u64,
    hash: u64,
    tally: Tally,
}

/// Asks as long as that goes on, and checks every answer.
fn ask(server: SocketAddr, load: &Load, goes_on: impl Fn() -> bool) -> Tally {
    let socket = Client::connect(server).into_socket();
    let lines = socket
        .set_nonblocking(false)
        .and_then(|()| socket.set_read_timeout(Some(SOON)))
        .and_then(|()| socket.try_clone());
    let mut asker = Asker {
        load,
        socket,
        lines: BufReader::new(lines.expect("the socket of a client")),
        next: 0,
        hash: 0xcbf2_9ce4_8422_2325,
        tally: Tally::default(),
    };
    if let Err(harm) = asker.rounds(goes_on) {
        asker.tally.note(0, &harm);
    }
    asker.tally
}

impl Asker<'_> {
    fn rounds(&mut self, goes_on: impl Fn() -> bool) -> Result<(), Harm> {
        let mut due = Instant::now();
        while goes_on() {
            self.round()?;
            due += self.load.pause;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // A server that is slower than the pace is not asked for more.
            due = due.max(Instant::now());
        }
        // Nothing may come twice, or late.
        thread::sleep(Duration::from_millis(2 * LONGEST));
        self.say("x\n")?;
        match self.hear()?.as_str() {
            "x" => Ok(()),
            line => Err(self.wrong(line)),
        }
    }

    /// Sends a batch, and reads its answers.
    fn round(&mut self) -> Result<(), Harm> {
        let begin = Instant::now();
        let (first, mut text) = (self.next, String::new());
        self.next += self.load.batch;
        let mut expected = Vec::new();
        for number in first..self.next {
            let delay = (number * 7) % LONGEST;
            let seat = number % WORKERS as u64;
            // Writing to a String does not fail.
            let _ = match self.load.kind {
                Kind::State => writeln!(text, "h {number}"),
                Kind::Timer => writeln!(text, "t {delay} {number}"),
                Kind::Promise => writeln!(text, "l {} {number}", delay / 5),
                Kind::Post => writeln!(text, "p {seat} {number}"),
                Kind::Task => writeln!(text, "k {delay} {number}"),
            };
            expected.push(number);
        }
        self.say(&text)?;
        while !expected.is_empty() {
            let line = self.hear()?;
            let number = self.number(&line, &expected)?;
            let at = expected.iter().position(|it| *it == number);
            let Some(at) = at else {
                return Err(match number < self.next {
                    true => Harm::Wrong(Wrong::Duplicated),
                    false => Harm::Wrong(Wrong::Corrupt),
                });
            };
            expected.remove(at);
            let delay = Duration::from_millis((number * 7) % LONGEST);
            let is_early = begin.elapsed() < delay;
            if matches!(self.load.kind, Kind::Timer | Kind::Task) && is_early {
                self.tally.complain(format!("{line} is early"));
            }
            self.tally.answered += 1;
            self.tally.longest_gap = self.tally.longest_gap.max(begin.elapsed());
        }
        Ok(())
    }

    /// Returns the number of the answer, which is one of the expected ones if it is right.
    fn number(&mut self, line: &str, expected: &[u64]) -> Result<u64, Harm> {
        let found = line.get(2..).and_then(|number| number.parse::<u64>().ok());
        let (kind, found) = (line.get(..2), found.ok_or_else(|| self.wrong(line))?);
        let (own, is_in_order) = match self.load.kind {
            Kind::State => {
                let number = expected[0];
                for byte in number.to_string().bytes() {
                    self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
                }
                return match kind == Some("h ") && found == self.hash {
                    true => Ok(number),
                    false => Err(self.wrong(line)),
                };
            }
            Kind::Timer => ("t ", false),
            Kind::Promise => ("l ", true),
            Kind::Post => ("p ", false),
            Kind::Task => ("k ", false),
        };
        if kind != Some(own) {
            return Err(self.wrong(line));
        }
        if is_in_order && found > expected[0] {
            let by = found - expected[0];
            return Err(Harm::Wrong(Wrong::Skipped { by }));
        }
        Ok(found)
    }

    fn wrong(&mut self, line: &str) -> Harm {
        self.tally.complain(format!("{line:?} came"));
        Harm::Wrong(Wrong::Corrupt)
    }

    fn say(&mut self, text: &str) -> Result<(), Harm> {
        let said = self.socket.write_all(text.as_bytes());
        said.map_err(|error| Harm::Dropped {
            owed: 1,
            error: Some(error),
        })
    }

    fn hear(&mut self) -> Result<String, Harm> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => Err(Harm::Dropped {
                owed: 1,
                error: None,
            }),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(Harm::Late { owed: 1 })
            }
            Err(error) => Err(Harm::Dropped {
                owed: 1,
                error: Some(error),
            }),
        }
    }
}
