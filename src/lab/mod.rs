//! Experiments with TCP's ways to go wrong: each sets up both ends, drives them, looks at the
//! kernel's own socket table, explains what is seen, and checks that it is so.
//!
//! Runs in a process of its own, with the servers that it needs as its children. Its one rule:
//! whatever an experiment has started ends with it, however it ends.

mod end;
mod experiments;
mod lesson;
mod page;
mod palette;
pub(crate) mod picture;
mod record;
mod server;
mod stop;
mod text;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::end::{End, Ends, Expected};
pub(crate) use self::end::{Listening, Sharing};
pub(crate) use self::experiments::{EXPERIMENTS, Experiment};
pub(crate) use self::lesson::Lesson;
use self::lesson::{Check, Finding, Row, Step};
pub(crate) use self::page::{Setting, page};
pub(crate) use self::picture::Picture;
use self::picture::{Chart, Side};
use self::record::Recorder;
use self::server::LabServer;
pub(crate) use self::stop::Stop;
use self::stop::Trying;
pub(crate) use self::text::Text;
use crate::inspect::owners::{Owner, Owners};
use crate::inspect::process::descendants;
use crate::inspect::sockets::{Socket, SocketTable};
use crate::sys::options;

/// How long an experiment waits for what the kernel is to show. It shows most of it within 50 ms, and
/// what it has to send again within a second or two; a machine that is busy takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sockets of one step that are shown.
const MOST_ROWS: usize = 20;

/// Any free port of this machine's own network.
pub(crate) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Who is told what happens, as it happens.
pub(crate) trait Voice {
    fn begins(&mut self, lesson: &Lesson);
    /// The step with this number, from 1, begins. May take as long as a reader likes.
    fn step(&mut self, number: usize, step: &Step) -> io::Result<()>;
    fn finds(&mut self, finding: &Finding);
    fn ends(&mut self, lesson: &Lesson);
}

/// Says nothing.
pub(crate) struct Silence;

impl Voice for Silence {
    fn begins(&mut self, _: &Lesson) {}
    fn step(&mut self, _: usize, _: &Step) -> io::Result<()> {
        Ok(())
    }
    fn finds(&mut self, _: &Finding) {}
    fn ends(&mut self, _: &Lesson) {}
}

/// What an experiment works with.
pub(crate) struct Lab<'a> {
    voice: &'a mut dyn Voice,
    interrupted: Arc<AtomicBool>,
    /// Seconds for which real timers are waited for, if they are.
    pub(crate) slow: Option<Duration>,
    lesson: Lesson,
    table: SocketTable,
    /// The servers' ports, whose sockets are shown.
    ports: Vec<u16>,
    recorder: Option<Recorder>,
}

/// Runs one experiment to its end, whatever that is.
pub(crate) fn run(
    experiment: &Experiment,
    voice: &mut dyn Voice,
    slow: Option<Duration>,
    interrupted: Arc<AtomicBool>,
) -> (Lesson, Result<(), Stop>) {
    let begin = Instant::now();
    let lesson = Lesson {
        name: experiment.name,
        title: experiment.title,
        question: experiment.question,
        steps: Vec::new(),
        advice: Vec::new(),
        pictures: Vec::new(),
        held: false,
        took: Duration::ZERO,
    };
    let table = match SocketTable::open().trying("ask the kernel about its sockets (sock_diag)") {
        Ok(table) => table,
        Err(stop) => return (lesson, Err(stop)),
    };
    voice.begins(&lesson);
    let mut lab = Lab {
        voice,
        interrupted,
        slow,
        lesson,
        table,
        ports: Vec::new(),
        recorder: None,
    };
    let outcome = (experiment.run)(&mut lab);
    let Lab {
        mut lesson, voice, ..
    } = lab;
    lesson.held = outcome.is_ok();
    lesson.took = begin.elapsed();
    voice.ends(&lesson);
    (lesson, outcome)
}

/// What is said.
impl Lab<'_> {
    /// Begins a step.
    pub(crate) fn step(&mut self, did: &str) -> Result<(), Stop> {
        self.go_on()?;
        let step = Step {
            did: did.to_owned(),
            findings: Vec::new(),
        };
        let number = self.lesson.steps.len() + 1;
        let told = self.voice.step(number, &step);
        self.lesson.steps.push(step);
        self.go_on()?;
        told.trying("wait for Enter")
    }

    fn find(&mut self, finding: Finding) {
        self.voice.finds(&finding);
        if let Some(step) = self.lesson.steps.last_mut() {
            step.findings.push(finding);
        }
    }

    /// Says what that means.
    pub(crate) fn means(&mut self, meaning: &str) {
        self.find(Finding::Meaning(meaning.to_owned()));
    }

    /// Shows a command that was run, as a reader can run it.
    pub(crate) fn ran(&mut self, command: &str) {
        self.find(Finding::Command(command.to_owned()));
    }

    /// Shows what a program has printed.
    pub(crate) fn printed(&mut self, line: &str) {
        self.find(Finding::Printed(line.to_owned()));
    }

    /// Says what to do about it, at the end of the lesson.
    pub(crate) fn advise(&mut self, advice: &str) {
        self.lesson.advice.push(advice.to_owned());
    }

    /// # Errors
    /// `Differs` if it does not hold.
    pub(crate) fn check(&mut self, claim: &str, held: bool, seen: &str) -> Result<(), Stop> {
        self.find(Finding::Check(Check {
            claim: claim.to_owned(),
            held,
            seen: (!seen.is_empty()).then(|| seen.to_owned()),
        }));
        if held { Ok(()) } else { Err(Stop::Differs) }
    }

    pub(crate) fn draw(&mut self, chart: Chart) {
        self.lesson.pictures.push(Picture::Chart(chart));
    }

    /// Draws the life of a connection that was followed.
    pub(crate) fn draw_life(&mut self, title: &str, ends: Ends) {
        let name = |side: Side, owners: &[String]| match owners.first() {
            Some(owner) => owner.clone(),
            None => match side {
                Side::Client => "client".to_owned(),
                Side::Server => "server".to_owned(),
            },
        };
        let owner_of = |local: SocketAddr| {
            let findings = self.lesson.steps.iter().flat_map(|step| &step.findings);
            let mut rows = findings.filter_map(|finding| match finding {
                Finding::Sockets(rows) => Some(rows),
                _ => None,
            });
            let mut found = rows.find_map(|rows| {
                let is_it = |row: &&Row| {
                    let is_end = [ends.client, ends.server].contains(&row.remote);
                    row.local == local && is_end && !row.owners.is_empty()
                };
                rows.iter().find(is_it).map(|row| row.owners.clone())
            });
            found.take().unwrap_or_default()
        };
        let names = [
            name(Side::Client, &owner_of(ends.client)),
            name(Side::Server, &owner_of(ends.server)),
        ];
        if let Some(recorder) = &self.recorder {
            let ladder = recorder.ladder(title, ends, names);
            self.lesson.pictures.push(Picture::Ladder(ladder));
        }
    }
}

/// What is seen.
impl Lab<'_> {
    /// # Errors
    /// `Interrupted`, if a signal has come.
    pub(crate) fn go_on(&self) -> Result<(), Stop> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Stop::Interrupted);
        }
        Ok(())
    }

    /// Lets time pass.
    pub(crate) fn wait(&self, time: Duration) -> Result<(), Stop> {
        let begin = Instant::now();
        loop {
            self.go_on()?;
            match time.checked_sub(begin.elapsed()) {
                Some(left) if !left.is_zero() => {
                    std::thread::sleep(left.min(Duration::from_millis(20)));
                }
                _ => return Ok(()),
            }
        }
    }

    /// Looks again and again until something is found, for some time.
    pub(crate) fn look_for<T>(
        &mut self,
        patience: Duration,
        mut find: impl FnMut(&mut Self) -> Result<Option<T>, Stop>,
    ) -> Result<Option<T>, Stop> {
        let begin = Instant::now();
        loop {
            if let Some(found) = find(self)? {
                return Ok(Some(found));
            }
            if begin.elapsed() > patience {
                return Ok(None);
            }
            self.wait(Duration::from_millis(2))?;
        }
    }

    /// Waits for something that has to come, and says what did not come if it does not.
    pub(crate) fn await_some<T>(
        &mut self,
        what: &str,
        mut find: impl FnMut() -> io::Result<Option<T>>,
    ) -> Result<T, Stop> {
        let found = self.look_for(PATIENCE, |_| find().trying(what))?;
        found.ok_or_else(|| {
            let seconds = PATIENCE.as_secs();
            Stop::Cannot(format!(
                "cannot {what}: it did not happen within {seconds} s"
            ))
        })
    }

    /// Waits until all of these ends are as expected at the same time, and shows the sockets.
    pub(crate) fn see(&mut self, claim: &str, expected: &[Expected]) -> Result<(), Stop> {
        self.see_within(PATIENCE, claim, expected)
    }

    pub(crate) fn see_within(
        &mut self,
        patience: Duration,
        claim: &str,
        expected: &[Expected],
    ) -> Result<(), Stop> {
        let held = self.look_for(patience, |lab| {
            for end in expected {
                if !lab.is_so(end)? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })?;
        self.show()?;
        let mut seen = Vec::new();
        for end in expected {
            let state = self.socket(end.local, end.remote)?.map(|it| it.state);
            seen.push(Expected { state, ..*end }.to_string());
        }
        let seen = match held {
            Some(()) => String::new(),
            None => seen.join(", "),
        };
        self.check(claim, held.is_some(), &seen)
    }

    fn is_so(&mut self, end: &Expected) -> Result<bool, Stop> {
        let found = self.socket(end.local, end.remote)?;
        if found.as_ref().map(|socket| socket.state) != end.state {
            return Ok(false);
        }
        let (Some(role), Some(socket)) = (end.holder, found) else {
            return Ok(true);
        };
        let owners = Owners::of(&self.pids());
        let mut holders = owners.holders(socket.inode).iter();
        Ok(holders.any(|owner| owner.role() == Some(role)))
    }

    /// One end of a connection.
    pub(crate) fn socket(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<Socket>, Stop> {
        self.table
            .find(local, remote)
            .trying("ask the kernel about a socket")
    }

    /// Whether the server has read all that the client has sent.
    pub(crate) fn is_all_read(&mut self, ends: Ends) -> Result<bool, Stop> {
        let client = self.socket(ends.client, ends.server)?;
        let server = self.socket(ends.server, ends.client)?;
        Ok(client.is_some_and(|end| end.send_q == 0) && server.is_some_and(|end| end.recv_q == 0))
    }

    fn listeners(&mut self, at: SocketAddr) -> Result<Vec<Socket>, Stop> {
        let listeners = self.table.listeners();
        let mut listeners = listeners.trying("ask the kernel about its listeners")?;
        listeners.retain(|socket| socket.local == at);
        Ok(listeners)
    }

    /// How many wait in the queues of the listeners at that address.
    pub(crate) fn queues(&mut self, at: SocketAddr) -> Result<Vec<u32>, Stop> {
        let listeners = self.listeners(at)?;
        Ok(listeners.into_iter().map(|it| it.recv_q).collect())
    }

    /// Shows the listeners at that address alone: how many wait in each one's queue is Recv-Q.
    pub(crate) fn show_listeners(&mut self, at: SocketAddr) -> Result<(), Stop> {
        let listeners = self.listeners(at)?;
        let rows = self.rows(&listeners);
        self.find(Finding::Sockets(rows));
        Ok(())
    }

    /// Every socket that has one of the experiment's ports.
    pub(crate) fn sockets(&mut self) -> Result<Vec<Socket>, Stop> {
        let mut sockets = Vec::new();
        for port in self.ports.clone() {
            let of_port = self.table.of_port(port);
            sockets.extend(of_port.trying("ask the kernel about its sockets")?);
        }
        Ok(sockets)
    }

    /// The processes that may have sockets of the experiment open: this one, and those it has
    /// started.
    fn pids(&self) -> Vec<i32> {
        let own = std::process::id() as i32;
        // Without them the table has no owners, and says so.
        let mut pids = descendants(own).unwrap_or_default();
        pids.push(own);
        pids
    }

    /// Shows the sockets in play.
    pub(crate) fn show(&mut self) -> Result<(), Stop> {
        let mut sockets = self.sockets()?;
        // A listener, then its connections by the client's state, the client's end of each first.
        let is_servers = |socket: &Socket| self.ports.contains(&socket.local.port());
        let clients: HashMap<_, _> = sockets
            .iter()
            .filter(|socket| !is_servers(socket))
            .map(|socket| (socket.ends(), socket.state))
            .collect();
        sockets.sort_by_key(|socket| {
            let (server, client) = match is_servers(socket) {
                true => (socket.local, socket.remote),
                false => (socket.remote, socket.local),
            };
            let state = clients.get(&(client, server)).copied();
            let state = state.unwrap_or(socket.state);
            (
                !socket.is_listener(),
                server.port(),
                state,
                client,
                is_servers(socket),
            )
        });
        let shown = &sockets[..sockets.len().min(MOST_ROWS)];
        let rows = self.rows(shown);
        self.find(Finding::Sockets(rows));
        if let Some(more) = sockets
            .len()
            .checked_sub(MOST_ROWS)
            .filter(|more| *more > 0)
        {
            self.printed(&format!("… and {more} more"));
        }
        Ok(())
    }
}

impl Lab<'_> {
    fn rows(&self, sockets: &[Socket]) -> Vec<Row> {
        let (own, owners) = (std::process::id() as i32, Owners::of(&self.pids()));
        let row = |socket: &Socket| {
            let holders = owners.holders(socket.inode).iter();
            let name = |owner: &Owner| {
                if owner.pid != own {
                    return owner.to_string();
                }
                let is_servers = self.ports.contains(&socket.local.port());
                let part = if is_servers { "server" } else { "client" };
                format!("{part}[{own}]")
            };
            Row::new(socket, holders.map(name).collect())
        };
        sockets.iter().map(row).collect()
    }
}

/// What is done.
impl Lab<'_> {
    /// Starts a tine server with these arguments, and shows the command.
    pub(crate) fn serve(&mut self, arguments: &str) -> Result<LabServer, Stop> {
        self.ran(&format!("tine serve {arguments}"));
        let arguments: Vec<&str> = arguments.split_ascii_whitespace().collect();
        let server = LabServer::start(&arguments).trying("start a server")?;
        self.watch_port(server.address.port())?;
        Ok(server)
    }

    /// A listener of this process.
    pub(crate) fn listen(&mut self, backlog: i32, sharing: Sharing) -> Result<Listening, Stop> {
        let listening = Listening::bind(LOOPBACK, backlog, sharing).trying("listen")?;
        self.watch_port(listening.address.port())?;
        Ok(listening)
    }

    /// From here on other ports matter: what was before is not shown any more.
    pub(crate) fn turn_the_page(&mut self) {
        self.ports.clear();
        self.recorder = None;
    }

    /// From here on the sockets of this port are shown and written down.
    pub(crate) fn watch_port(&mut self, port: u16) -> Result<(), Stop> {
        if !self.ports.contains(&port) {
            self.ports.push(port);
        }
        self.recorder = Some(Recorder::start(port)?);
        Ok(())
    }

    /// Connects from any port, and waits until that is done.
    pub(crate) fn connect(&mut self, server: SocketAddr) -> Result<End, Stop> {
        self.connect_from(LOOPBACK, server)
    }

    pub(crate) fn connect_from(
        &mut self,
        from: SocketAddr,
        server: SocketAddr,
    ) -> Result<End, Stop> {
        let client = End::client(from, server).trying("make a client")?;
        self.connected(client)
    }

    /// Connects with buffers that are soon full.
    pub(crate) fn connect_narrow(&mut self, server: SocketAddr) -> Result<End, Stop> {
        let client = End::client(LOOPBACK, server).trying("make a client")?;
        options::narrow(&client).trying("set the size of a socket's buffers")?;
        self.connected(client)
    }

    fn connected(&mut self, client: End) -> Result<End, Stop> {
        self.follow(client.ends);
        client.connect().trying("connect")?;
        self.await_some("connect", || Ok(client.is_connected()?.then_some(())))?;
        Ok(client)
    }

    /// Sends until neither kernel takes more.
    pub(crate) fn fill(&mut self, end: &End) -> Result<(), Stop> {
        let (local, remote) = end.ends.of(end.side);
        let page = [b'x'; 512];
        let mut last = None;
        let full = self.look_for(PATIENCE, |lab| {
            loop {
                match end.send(&page) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).trying("send"),
                }
            }
            // The peer's kernel may take some of it a moment later.
            let queue = lab.socket(local, remote)?.map(|socket| socket.send_q);
            let is_same = queue.is_some_and(|queue| queue > 0) && queue == last;
            last = queue;
            Ok(is_same.then_some(()))
        })?;
        full.ok_or_else(|| Stop::Cannot("cannot fill the buffers of a connection".to_owned()))
    }

    /// Writes down from now on what happens to this connection.
    pub(crate) fn follow(&mut self, ends: Ends) {
        if let Some(recorder) = &mut self.recorder {
            recorder.follow(ends);
        }
    }

    pub(crate) fn accept(&mut self, at: &Listening) -> Result<End, Stop> {
        self.await_some("accept", || at.accept())
    }

    /// Notes for the picture what is done now.
    pub(crate) fn did(&mut self, side: impl Into<Option<Side>>, text: &str) {
        if let Some(recorder) = &mut self.recorder {
            recorder.did(side.into(), text);
        }
    }

    /// From here on that end takes in no segment.
    pub(crate) fn deafen(&mut self, end: &End) -> Result<(), Stop> {
        options::drop_all(end).trying("make a socket drop what comes (SO_ATTACH_FILTER)")?;
        self.mark_deaf(end, true);
        Ok(())
    }

    pub(crate) fn undeafen(&mut self, end: &End) -> Result<(), Stop> {
        self.mark_deaf(end, false);
        options::drop_none(end).trying("make a socket take in what comes")
    }

    fn mark_deaf(&mut self, end: &End, deaf: bool) {
        if let Some(recorder) = &mut self.recorder {
            recorder.is_deaf(end.ends.of(end.side).0, deaf);
        }
    }

    /// Reads so many bytes.
    pub(crate) fn read(&mut self, end: &End, count: usize) -> Result<Vec<u8>, Stop> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let mut buffer = vec![0; count - bytes.len()];
            let size = self.await_some("read", || end.read(&mut buffer))?;
            if size == 0 {
                return Err(Stop::Cannot("cannot read: the peer has closed".to_owned()));
            }
            bytes.extend_from_slice(&buffer[..size]);
        }
        Ok(bytes)
    }

    /// What ends the reading: the peer's FIN, or an error.
    pub(crate) fn read_end(&mut self, end: &End) -> Result<io::Result<()>, Stop> {
        let mut buffer = [0; 4096];
        let found = self.look_for(PATIENCE, |_| match end.read(&mut buffer) {
            Ok(Some(0)) => Ok(Some(Ok(()))),
            Ok(Some(_) | None) => Ok(None),
            Err(error) => Ok(Some(Err(error))),
        })?;
        found.ok_or_else(|| Stop::Cannot("cannot read to the end: nothing came".to_owned()))
    }

    pub(crate) fn send(&mut self, end: &End, bytes: &[u8]) -> Result<(), Stop> {
        match end.send(bytes).trying("send")? {
            sent if sent == bytes.len() => Ok(()),
            sent => Err(Stop::Cannot(format!(
                "cannot send: {sent} bytes were taken"
            ))),
        }
    }
}
