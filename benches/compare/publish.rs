//! The processor time of what is published to a group of 10,000 members, against a bare loop that calls send(2) for
//! each of its 10,000 sockets. Both servers are this program, started again with a role.
//!
//! The members are read on the other core, and the next message is published when all of them have the last.

use std::env;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use tine::{Conn, Context, Handler, Listener, Protocol, Server};

use crate::Effort;
use crate::common::SOON;
use crate::common::launch::Launch;
use crate::common::server::Server as Started;
use crate::cores::{self, Place};
use crate::table::Spread;
use crate::targets::Target;

pub(crate) const NAME: &str = "publish";

const MEMBERS: usize = 10_000;

const SIZES: [(usize, &str); 2] = [(64, "64 B"), (4096, "4 KiB")];

/// The most of the bare loop's processor time.
const MOST: f64 = 1.15;

/// The arguments with which this program is one of the servers.
pub(crate) const BARE: &str = "--serve=publish-bare";
pub(crate) const TINE: &str = "--serve=publish";

/// How many messages warm a server up, and how many are measured.
const WARM: usize = 3;
const MEASURED: usize = 20;

pub(crate) fn measure(effort: Effort) -> Vec<Target> {
    let mut ratios = SIZES.map(|_| Vec::new());
    let mut bares = SIZES.map(|_| Vec::new());
    for round in 0..effort.rounds {
        let order = match round % 2 {
            0 => [BARE, TINE],
            _ => [TINE, BARE],
        };
        let mut spent = order.map(|role| (role, of_role(role)));
        spent.sort_by_key(|(role, _)| *role);
        let [(_, bare), (_, tine)] = spent;
        for size in 0..SIZES.len() {
            ratios[size].push(tine[size] / bare[size]);
            bares[size].push(bare[size]);
        }
    }
    let mut targets = Vec::new();
    for ((_, size), (ratios, bares)) in SIZES.iter().zip(ratios.into_iter().zip(bares)) {
        let one = spread(bares).median * 1e6 / MEMBERS as f64;
        let what = format!(
            "process mode, publish of {size} to {MEMBERS} members: CPU against send(2) in a bare loop ({one:.2} µs each)"
        );
        targets.push(Target::ratio(what, spread(ratios), MOST, false));
    }
    targets
}

pub(crate) fn spread(mut found: Vec<f64>) -> Spread {
    found.sort_by(f64::total_cmp);
    Spread {
        median: found[found.len() / 2],
        least: found[0],
        most: found[found.len() - 1],
    }
}

/// Returns the processor time of one message of each size, in seconds.
fn of_role(role: &str) -> [f64; 2] {
    let program = env::current_exe().expect("this program has a path");
    let launch = || Launch::listening(&program, &[role]).start();
    let mut server = cores::at(Place::Servers, launch);
    let spent = cores::at(Place::Generators, || {
        let mut crowd = Crowd::connect(server.address());
        SIZES.map(|(size, _)| {
            crowd.publish(size, WARM);
            let before = run_time(&server);
            crowd.publish(size, MEASURED);
            (run_time(&server) - before) / MEASURED as f64
        })
    });
    server.signal(Signal::SIGTERM);
    server.ended(SOON);
    spent
}

pub(crate) fn run_time(server: &Started) -> f64 {
    let processes = server.processes().into_iter();
    processes.map(|it| it.run_time().as_secs_f64()).sum()
}

/// The members, and a client that asks for messages.
struct Crowd {
    asks: TcpStream,
    members: Vec<TcpStream>,
    epoll: Epoll,
}

impl Crowd {
    fn connect(server: SocketAddr) -> Crowd {
        let connect = || TcpStream::connect(server).expect("the server accepts");
        let asks = connect();
        let epoll = Epoll::new(EpollCreateFlags::empty()).expect("an epoll");
        let members: Vec<TcpStream> = (0..MEMBERS).map(|_| connect()).collect();
        for (index, member) in members.iter().enumerate() {
            member.set_nonblocking(true).expect("a socket");
            let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
            epoll.add(member, event).expect("it can be watched");
        }
        let mut crowd = Crowd {
            asks,
            members,
            epoll,
        };
        // Nothing is published before all are members: one that joins meanwhile may get it.
        while crowd.ask(0) < MEMBERS {}
        crowd
    }

    /// Asks for a message, and waits until it was published. Returns the number of members.
    fn ask(&mut self, size: usize) -> usize {
        let question = format!("{size}\n");
        self.asks
            .write_all(question.as_bytes())
            .expect("it is read");
        let mut answer = [0; 8];
        self.asks.read_exact(&mut answer).expect("an answer");
        let members = u64::from_ne_bytes(answer) as usize;
        self.read(members * size);
        members
    }

    fn publish(&mut self, size: usize, times: usize) {
        for _ in 0..times {
            assert_eq!(self.ask(size), MEMBERS);
        }
    }

    /// Reads so many bytes from the members together.
    fn read(&mut self, bytes: usize) {
        let mut events = vec![EpollEvent::empty(); 512];
        let mut buffer = vec![0; 64 << 10];
        let mut left = bytes;
        while left > 0 {
            let timeout = EpollTimeout::try_from(SOON).expect("it is short");
            let count = self.epoll.wait(&mut events, timeout).expect("events");
            assert!(count > 0, "{left} bytes of {bytes} do not come");
            for event in &events[..count] {
                let member = &mut self.members[event.data() as usize];
                let n = member.read(&mut buffer).expect("bytes");
                left = left
                    .checked_sub(n.max(1))
                    .expect("no more than there should be");
            }
        }
    }
}

/// Returns the size that a client has asked for.
fn size_of(question: &[u8]) -> usize {
    let text = std::str::from_utf8(question).ok();
    let size = text.and_then(|text| text.trim_end().parse().ok());
    size.expect("a number in a line")
}

struct Publisher;

impl Handler for Publisher {
    fn connect(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
        Ok(conn.join("all")?)
    }

    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
        // The one that asks is no member.
        conn.leave("all")?;
        let asks = usize::from(conn.message_number() == Some(0));
        let members = cx.group_size("all")? - asks;
        conn.send(&(members as u64).to_ne_bytes())?;
        Ok(cx.publish("all", &vec![b'x'; size_of(line)], Some(conn.id()))?)
    }
}

pub(crate) fn tine() {
    let listener = Listener::tcp("127.0.0.1:0").protocol(Protocol::lines());
    Server::new()
        .listen(listener)
        .workers(1)
        .reactors(1)
        .on_start(|started| println!("{started}"))
        .run(|_| Publisher)
        .expect("the server runs");
}

/// Accepts clients. The first one asks; its messages go to all others.
pub(crate) fn bare() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let pid = std::process::id();
    println!("tine: listening on {address} (base mode, 1 worker, pid {pid})");
    let (mut asks, _) = listener.accept().expect("a client");
    listener.set_nonblocking(true).expect("a socket");
    let mut members = Vec::new();
    loop {
        let mut ready =
            [&listener.as_fd(), &asks.as_fd()].map(|it| PollFd::new(*it, PollFlags::POLLIN));
        poll(&mut ready, PollTimeout::NONE).expect("events");
        match listener.accept() {
            Ok((member, _)) => {
                member.set_nonblocking(true).expect("a socket");
                member.set_nodelay(true).expect("a socket");
                members.push(member);
                continue;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let mut question = [0; 16];
        let len = asks.read(&mut question).expect("a question");
        if len == 0 {
            return;
        }
        let message = vec![b'x'; size_of(&question[..len])];
        for mut member in &members {
            // send(2), with MSG_NOSIGNAL.
            let sent = member.write(&message).expect("there is room");
            assert_eq!(sent, message.len());
        }
        let count = members.len() as u64;
        asks.write_all(&count.to_ne_bytes()).expect("it is read");
    }
}
