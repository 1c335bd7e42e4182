//! Row 13: states, timers of connections and of the server, promised answers, posts, tasks and rooms of a server whose
//! workers are killed every 50 ms, replaced by reloads and recycled. Each takes effect once, in order, and none early; all
//! members of a room hear the same, in the same order.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// The rooms, and the members of each.
const ROOMS: usize = 10;
const MEMBERS: usize = 50;

const BETWEEN_KILLS: Duration = Duration::from_millis(50);
const BETWEEN_RELOADS: Duration = Duration::from_secs(3);

/// The longest delay of a timer or a task, in milliseconds.
const LONGEST: u64 = 50;

/// The tags of timers of the server that each client has.
const TAGS_EACH: u64 = 1_000_000;

/// What lasts longer than one callback, and how often it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    State,
    Timer,
    /// A timer of the server.
    Server,
    Promise,
    Post,
    Task,
    Publish,
    Member,
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

/// 5,000 changes of states, 1,000 timers of connections and 500 of the server, 500 promises, 500 posts, 500 tasks and 200 publishes in a second.
const LOADS: [Load; 7] = [
    Load::new(Kind::State, "states", 10, 10, 20),
    Load::new(Kind::Timer, "timers", 10, 10, 100),
    Load::new(Kind::Server, "timers of the server", ROOMS, 5, 100),
    Load::new(Kind::Promise, "promised answers", 20, 3, 120),
    Load::new(Kind::Post, "posts", 5, 10, 100),
    Load::new(Kind::Task, "tasks", 10, 5, 100),
    Load::new(Kind::Publish, "publishes", 2 * ROOMS, 1, 100),
];

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    if !report.wants(13) {
        return;
    }
    for reactors in [1, 2] {
        let (server, mut tallies) = run(reactors, TIME * scale.0 as u32);
        let kinds = LOADS.iter().map(|load| (load.kind, load.name));
        for (kind, name) in kinds.chain([(Kind::Member, "what members hear")]) {
            let name = format!("{name}, reactors={reactors}");
            let tally = tallies.remove(&kind).unwrap_or_default();
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
    let mut rooms: Vec<Room> = (0..ROOMS).map(|room| Room::open(address, room)).collect();
    let (is_over, begin) = (&AtomicBool::new(false), Instant::now());
    let published: &[AtomicU64; ROOMS] = &Default::default();
    let is_said = &AtomicBool::new(false);
    let (mut tallies, kills, reloads) = thread::scope(|scope| {
        let goes_on = move || begin.elapsed() < time;
        let clients: Vec<_> = LOADS
            .iter()
            .flat_map(|load| (0..load.clients).map(move |nth| (load, nth % ROOMS)))
            .map(|(load, room)| {
                let ask = move || ask(address, load, (room, &published[room]), goes_on);
                (load.kind, scope.spawn(ask))
            })
            .collect();
        let rooms: Vec<_> = (rooms.iter_mut().zip(published))
            .map(|(room, said)| scope.spawn(move || room.listen(said, is_said)))
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
        is_said.store(true, Ordering::Relaxed);
        for room in rooms {
            let tally = room.join().expect("members do not panic");
            tallies.entry(Kind::Member).or_default().add(tally);
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

/// The members of a room.
struct Room {
    members: Vec<Lines>,
}

impl Room {
    #[track_caller]
    fn open(server: SocketAddr, room: usize) -> Room {
        let member = |_| {
            let mut client = Client::connect(server);
            let joined = format!("j {room}");
            assert_eq!(client.ask(&joined), joined);
            Lines::of(client)
        };
        Room {
            members: (0..MEMBERS).map(member).collect(),
        }
    }

    /// Hears what is published, until all is said. What the first member hears, all others must hear too, in this order.
    fn listen(&mut self, said: &AtomicU64, is_said: &AtomicBool) -> Tally {
        let (mut tally, mut heard) = (Tally::default(), 0);
        let mut last: HashMap<String, u64> = HashMap::new();
        loop {
            let all_said = is_said.load(Ordering::Relaxed);
            if heard == said.load(Ordering::Relaxed) {
                if all_said {
                    break;
                }
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            if let Err((member, harm)) = self.hear_one(&mut last) {
                tally.note(member as u32, &harm);
                return tally;
            }
            heard += 1;
            tally.answered += MEMBERS as u64;
        }
        for (nth, member) in self.members.iter_mut().enumerate() {
            let more = member.say("x\n").and_then(|()| member.hear());
            match more.as_deref() {
                Ok("x") => {}
                Ok(line) => tally.complain(format!("member {nth}: {line} is too much")),
                Err(harm) => tally.complain(format!("member {nth}: {harm}")),
            }
        }
        tally
    }

    /// Hears the next line with every member.
    fn hear_one(&mut self, last: &mut HashMap<String, u64>) -> Result<(), (usize, Harm)> {
        let mut first: Option<String> = None;
        for (nth, member) in self.members.iter_mut().enumerate() {
            let line = member.hear().map_err(|harm| (nth, harm))?;
            match &first {
                None => first = Some(line),
                Some(first) if *first == line => {}
                Some(_) => return Err((nth, Harm::Wrong(Wrong::Corrupt))),
            }
        }
        // ROOM CONNECTION NUMBER: the numbers of each connection rise by one.
        let line = first.unwrap_or_default();
        let words = line.rsplit_once(' ');
        let number = words.and_then(|(_, number)| number.parse::<u64>().ok());
        let (Some((speaker, _)), Some(number)) = (words, number) else {
            return Err((0, Harm::Wrong(Wrong::Corrupt)));
        };
        let next = last.entry(speaker.to_owned()).or_default();
        if number < *next {
            return Err((0, Harm::Wrong(Wrong::Duplicated)));
        }
        if number > *next {
            let by = number - *next;
            return Err((0, Harm::Wrong(Wrong::Skipped { by })));
        }
        *next += 1;
        Ok(())
    }
}

/// The lines of a connection.
struct Lines {
    socket: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Lines {
    #[track_caller]
    fn of(client: Client) -> Lines {
        let socket = client.into_socket();
        let lines = socket
            .set_nonblocking(false)
            .and_then(|()| socket.set_read_timeout(Some(SOON)))
            .and_then(|()| socket.try_clone());
        Lines {
            lines: BufReader::new(lines.expect("the socket of a client")),
            socket,
        }
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

/// A client, and what it expects.
struct Asker<'a> {
    load: &'a Load,
    socket: Lines,
    /// The room to which it publishes, and how much was published there.
    room: (usize, &'a AtomicU64),
    /// The number of the next line.
    next: u64,
    hash: u64,
    tally: Tally,
}

/// Asks as long as that goes on, and checks every answer.
fn ask(
    server: SocketAddr,
    load: &Load,
    room: (usize, &AtomicU64),
    goes_on: impl Fn() -> bool,
) -> Tally {
    let mut asker = Asker {
        load,
        socket: Lines::of(Client::connect(server)),
        room,
        next: match load.kind {
            Kind::Server => room.0 as u64 * TAGS_EACH,
            _ => 0,
        },
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
        self.socket.say("x\n")?;
        match self.socket.hear()?.as_str() {
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
                Kind::Server => writeln!(text, "s {delay} {number}"),
                Kind::Promise => writeln!(text, "l {} {number}", delay / 5),
                Kind::Post => writeln!(text, "p {seat} {number}"),
                Kind::Task => writeln!(text, "k {delay} {number}"),
                Kind::Publish => writeln!(text, "g {} {number}", self.room.0),
                // They only hear.
                Kind::Member => Ok(()),
            };
            expected.push(number);
        }
        self.socket.say(&text)?;
        while !expected.is_empty() {
            let line = self.socket.hear()?;
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
            if matches!(self.load.kind, Kind::Timer | Kind::Server | Kind::Task) && is_early {
                self.tally.complain(format!("{line} is early"));
            }
            if self.load.kind == Kind::Publish {
                self.room.1.fetch_add(1, Ordering::Relaxed);
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
            Kind::Server => ("s ", false),
            Kind::Promise => ("l ", true),
            Kind::Post => ("p ", false),
            Kind::Task => ("k ", false),
            Kind::Publish | Kind::Member => ("g ", true),
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
}
