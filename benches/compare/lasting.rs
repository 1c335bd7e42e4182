//! What lasts longer than a callback: the processor time of a timer, the round trip of a post and the rate of tasks, with
//! echoes of `tine serve` in the same round to compare with. The server is this program, started again.
//!
//! Posts and tasks go round within the server: a callback sends the next one, so that no client is in between.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tine::{Conn, ConnId, Context, Handler, Listener, NewTask, Protocol, Server, Task, To};

use crate::Effort;
use crate::common::SOON;
use crate::common::launch::Launch;
use crate::common::server::Server as Started;
use crate::cores::{self, Place};
use crate::load;
use crate::peers::{self, PROCESS};
use crate::publish::{run_time, spread};
use crate::rows::ROWS;
use crate::targets::Target;

pub(crate) const NAME: &str = "lasting";

/// The argument with which this program is such a server.
pub(crate) const ROLE: &str = "--serve=lasting";

/// 1,200 timers of 10 ms, which are set again when they fire: more than 100,000 in a second.
const TIMED: usize = 120;
const TIMERS_EACH: u64 = 10;
const INTERVAL: Duration = Duration::from_millis(10);

/// What a timer counts against the memory budget.
const TIMER_BYTES: f64 = 192.0;

/// How many tasks are on their way at a time, as the messages of as many clients are.
const TASKS: usize = 100;

pub(crate) fn measure(servers: &[peers::Server], effort: Effort) -> Vec<Target> {
    let mut found: [Vec<f64>; 3] = Default::default();
    let echo = servers.iter().find(|it| it.name == PROCESS);
    let echo = echo.expect("the program is measured");
    for _ in 0..effort.rounds {
        for (all, one) in found.iter_mut().zip(round(echo, effort)) {
            all.push(one);
        }
    }
    let [timers, posts, tasks] = found.map(spread);
    let (memory, among) = among_a_million(effort);
    let timer = "process mode, a timer set and fired at 100,000/s: CPU of all processes, in µs";
    let post = "process mode, post from seat to seat and back: p50 against an echo of 64 B";
    let task = "process mode, tasks against messages, 64 B x 100: rate";
    vec![
        Target::ratio(timer.to_owned(), timers, 2.0, false),
        Target::ratio(post.to_owned(), posts, 1.2, false),
        Target::ratio(task.to_owned(), tasks, 0.8, true),
        Target::at_most(
            "process mode, one of a million timers: bytes of the master".to_owned(),
            memory,
            TIMER_BYTES,
        ),
        Target::at_most(
            "process mode, the same timer among a million that wait: CPU of all processes, in µs"
                .to_owned(),
            among,
            2.0,
        ),
    ]
}

/// Returns the processor time of a timer in microseconds, and the two ratios.
fn round(echo: &peers::Server, effort: Effort) -> [f64; 3] {
    let [one, many] = ["64 B x 1", "64 B x 100"].map(|name| {
        let row = ROWS.iter().find(|row| row.name == name).expect("a row");
        load::measure(row, echo, effort).expect("the program bears it")
    });
    let program = std::env::current_exe().expect("this program has a path");
    let mut server = cores::at(Place::Servers, || {
        Launch::listening(&program, &[ROLE]).start()
    });
    let found = cores::at(Place::Generators, || {
        let seconds = Duration::from_secs_f64(effort.seconds);
        let address = server.address();
        let post = Client::connect(address).asks("posts 2000");
        let tasks = tasks_per_second(address, seconds);
        let timer = timer_cost(&server, seconds);
        println!(
            "  a post there and back in {:.1} µs, {tasks:.0} tasks/s",
            post / 1e3
        );
        [timer, post / 1e3 / one.p50, tasks / many.per_second]
    });
    server.signal(Signal::SIGTERM);
    server.ended(SOON);
    found
}

/// Returns the memory of one of a million timers, and the processor time of others that are set and fire meanwhile.
fn among_a_million(effort: Effort) -> (f64, f64) {
    let program = std::env::current_exe().expect("this program has a path");
    let mut server = Launch::listening(&program, &[ROLE]).start();
    let mut clients: Vec<Client> = (0..1_000)
        .map(|_| Client::connect(server.address()))
        .collect();
    for client in &mut clients {
        client.asks("0");
    }
    let memory = || server.root.proportional_memory();
    let before = memory();
    for client in &mut clients {
        client.asks("wait");
    }
    let each = memory().saturating_sub(before) as f64 / 1e6;
    let cost = timer_cost(&server, Duration::from_secs_f64(effort.seconds));
    server.signal(Signal::SIGTERM);
    server.ended(SOON);
    (each, cost)
}

/// A client that asks by lines.
struct Client {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Client {
    fn connect(server: SocketAddr) -> Client {
        let stream = TcpStream::connect(server).expect("the server accepts");
        stream.set_nodelay(true).expect("a socket");
        Client {
            stream: BufReader::new(stream),
            line: String::new(),
        }
    }

    fn send(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .expect("it is read");
    }

    /// Reads a line.
    fn hears(&mut self) -> &str {
        self.line.clear();
        self.stream.read_line(&mut self.line).expect("an answer");
        self.line.trim_end()
    }

    /// Returns the number that is the answer.
    fn asks(&mut self, line: &str) -> f64 {
        self.send(line);
        self.hears().parse().expect("a number")
    }
}

fn tasks_per_second(server: SocketAddr, time: Duration) -> f64 {
    let mut client = Client::connect(server);
    let begin = Instant::now();
    let done = client.asks(&format!("tasks {}", time.as_millis()));
    done / begin.elapsed().as_secs_f64()
}

/// Returns the processor time of a timer that is set and fires, in microseconds.
fn timer_cost(server: &Started, time: Duration) -> f64 {
    let address = server.address();
    let mut timed: Vec<Client> = (0..TIMED).map(|_| Client::connect(address)).collect();
    for client in &mut timed {
        client.asks("timers");
    }
    // One in each worker, since a client goes to the worker that has fewer.
    let mut asks = [Client::connect(address), Client::connect(address)];
    let mut look = || {
        let fired: f64 = asks.iter_mut().map(|client| client.asks("fired")).sum();
        (fired, run_time(server))
    };
    let before = look();
    thread::sleep(time);
    let after = look();
    let fired = after.0 - before.0;
    println!("  {:.0} timers/s", fired / time.as_secs_f64());
    (after.1 - before.1) / fired * 1e6
}

/// The handler. What it counts is in the memory of its worker: no worker ends meanwhile.
#[derive(Default)]
struct Lasting {
    fired: u64,
    /// The client of a row of posts, how many are to come, when the last one began, and what each took, in nanoseconds.
    posts: Option<(ConnId, usize)>,
    began: Option<Instant>,
    took: Vec<f64>,
    /// How many tasks have ended, and whether the last one has.
    tasks: u64,
    is_over: bool,
}

impl Lasting {
    /// Sends a post to the other seat, with the number of this one.
    fn send_post(&mut self, cx: &mut Context<'_>) -> tine::Result {
        let seat = cx
            .worker()
            .seat()
            .ok_or("a worker with connections has a seat")?;
        self.began = Some(Instant::now());
        Ok(cx.post(To::Seat(1 - seat), &[seat as u8; 64])?)
    }

    /// Queues tasks that go round until the time is over.
    fn begin_tasks(cx: &mut Context<'_>, conn: ConnId, millis: u64) -> tine::Result {
        for _ in 0..TASKS {
            cx.task(&[b'x'; 64])?;
        }
        let last = conn.as_u64().to_ne_bytes();
        Ok(cx.task(NewTask::new(&last).after(Duration::from_millis(millis)))?)
    }
}

impl Handler for Lasting {
    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
        let text = std::str::from_utf8(line)?.trim_end();
        let (word, number) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "posts" => {
                self.posts = Some((conn.id(), number.parse()?));
                self.send_post(cx)
            }
            "tasks" => Lasting::begin_tasks(cx, conn.id(), number.parse()?),
            "timers" => {
                for tag in 0..TIMERS_EACH {
                    conn.after(INTERVAL, tag)?;
                }
                Ok(conn.send(b"0\n")?)
            }
            "wait" => {
                for tag in 0..1_000 {
                    conn.after(Duration::from_secs(3600), tag)?;
                }
                Ok(conn.send(b"0\n")?)
            }
            "fired" => Ok(conn.send(format!("{}\n", self.fired).as_bytes())?),
            _ => Ok(conn.send(line)?),
        }
    }

    fn timer(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, tag: u64) -> tine::Result {
        self.fired += 1;
        Ok(conn.after(INTERVAL, tag)?)
    }

    fn post(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> tine::Result {
        let Some((conn, left)) = self.posts else {
            // This is the other seat: back to the first.
            return Ok(cx.post(To::Seat(bytes[0].into()), bytes)?);
        };
        let began = self.began.expect("a post was sent");
        self.took.push(began.elapsed().as_nanos() as f64);
        if left > 1 {
            self.posts = Some((conn, left - 1));
            return self.send_post(cx);
        }
        self.posts = None;
        let median = spread(std::mem::take(&mut self.took)).median;
        Ok(cx.conn(conn).send(format!("{median}\n").as_bytes())?)
    }

    fn task(&mut self, cx: &mut Context<'_>, task: &mut Task<'_>) -> tine::Result {
        self.tasks += 1;
        if let Ok(conn) = task.bytes().try_into() {
            // The last one.
            let conn = ConnId::from_u64(u64::from_ne_bytes(conn)).ok_or("no connection")?;
            let done = format!("{}\n", self.tasks);
            self.is_over = true;
            return Ok(cx.conn(conn).send(done.as_bytes())?);
        }
        match self.is_over {
            true => Ok(()),
            false => Ok(cx.task(task.bytes())?),
        }
    }
}

pub(crate) fn serve() {
    let listener = Listener::tcp("127.0.0.1:0").protocol(Protocol::lines());
    Server::new()
        .listen(listener)
        .workers(2)
        .task_workers(1)
        .reactors(1)
        .memory_budget(1 << 30)
        .on_start(|started| println!("{started}"))
        .run(|_| Lasting::default())
        .expect("the server runs");
}

/// Echoes messages of connections that have 1 KiB of state.
struct WithState;

impl Handler for WithState {
    fn connect(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
        Ok(conn.set_state(&[b's'; 1024])?)
    }

    fn receive(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, bytes: &[u8]) -> tine::Result {
        Ok(conn.send(bytes)?)
    }
}

/// The argument with which this program echoes with state.
pub(crate) const STATE: &str = "--serve=state";

pub(crate) fn serve_with_state() {
    Server::new()
        .listen("127.0.0.1:0")
        .workers(1)
        .reactors(1)
        .on_start(|started| println!("{started}"))
        .run(|_| WithState)
        .expect("the server runs");
}
