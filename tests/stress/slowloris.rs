//! Row 8: slowloris. Ten thousand clients send a message byte by byte and never end it: all are gone at the message
//! deadline, and others are served meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::Scale;
use super::asker::{PATIENCE, new_socket};
use super::crowd::{Habit, Plan};
use super::report::Report;
use super::trial::{Framing, Outcome, Trial};

const CLIENTS: u32 = 10_000;

/// The message deadline, in seconds.
const DEADLINE: u64 = 4;

/// The time that the end of all of them may take, beside the deadline.
const SLACK: Duration = Duration::from_secs(3);

/// The longest time for which another client may wait for an answer.
const WAIT: Duration = Duration::from_millis(1000);

/// Descriptors beside those of the slow clients.
const SPARE: u64 = 500;

const GOOD: Plan = Plan {
    connections: 20,
    size: 1000,
    depth: 1,
    habit: Habit::Stay,
};

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    let name = "slowloris, 10000 clients";
    if !report.wants(8) {
        return;
    }
    let needed = u64::from(CLIENTS) + SPARE;
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(needed.min(hard)), hard).map(|()| hard)
    });
    match raised {
        Ok(hard) if hard >= needed => report.row(8, name, || drip(scale.0)),
        Ok(hard) => report.skip(
            8,
            name,
            &format!("it needs {needed} descriptors, {hard} are allowed"),
        ),
        Err(error) => report.skip(8, name, &format!("the limit of descriptors: {error}")),
    }
}

struct Slow {
    socket: TcpStream,
    begin: Instant,
    /// How long it was open.
    lasted: Option<Duration>,
}

fn drip(times: usize) -> Outcome {
    let deadline = DEADLINE.to_string();
    let mut trial = Trial::start(Framing::Length, &["--message-deadline", &deadline]);
    trial.join(&[GOOD]);
    let (mut shortest, mut longest) = (Duration::MAX, Duration::ZERO);
    for _ in 0..times {
        let mut crowd: Vec<Slow> = (0..CLIENTS).map(|number| connect(&trial, number)).collect();
        while crowd.iter().any(|slow| slow.lasted.is_none()) {
            crowd.iter_mut().for_each(Slow::drip);
            let latest = crowd.iter().map(|slow| slow.begin.elapsed()).min();
            if latest.is_some_and(|time| time > PATIENCE) {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        for slow in &crowd {
            let lasted = slow.lasted.unwrap_or(PATIENCE);
            (shortest, longest) = (shortest.min(lasted), longest.max(lasted));
        }
    }
    // The clock of a loop shows whole milliseconds.
    let least = Duration::from_secs(DEADLINE) - Duration::from_millis(1);
    let in_time = shortest >= least && longest <= least + SLACK;
    let what = format!("all are gone at the deadline: after {shortest:?} to {longest:?}");
    trial.demand(in_time, &what);
    trial.finish();
    let gap = trial.tally.longest_gap;
    trial.demand(gap <= WAIT, &format!("others are served within {WAIT:?}"));
    let (from, to) = (shortest.as_secs_f64(), longest.as_secs_f64());
    trial.end(format!(
        "{} gone after {from:.1} to {to:.1} s",
        CLIENTS as usize * times
    ))
}

#[track_caller]
fn connect(trial: &Trial, number: u32) -> Slow {
    let begin = Instant::now();
    let connect = || {
        let socket = new_socket(number)?;
        socket.connect_timeout(&trial.server.address().into(), PATIENCE)?;
        let mut socket = TcpStream::from(socket);
        // The first byte of the length.
        socket.write_all(&[0])?;
        socket.set_nonblocking(true)?;
        std::io::Result::Ok(socket)
    };
    let socket = connect().unwrap_or_else(|error| panic!("client {number}: {error}"));
    Slow {
        socket,
        begin,
        lasted: None,
    }
}

impl Slow {
    /// Sends a byte, unless the server has ended the connection.
    fn drip(&mut self) {
        if self.lasted.is_some() {
            return;
        }
        let is_open = match self.socket.read(&mut [0]) {
            Err(error) => error.kind() == ErrorKind::WouldBlock,
            Ok(_) => false,
        };
        // A message of 64 KiB is announced, of which a byte comes now and then.
        if !is_open || self.socket.write(&[1]).is_err() {
            self.lasted = Some(self.begin.elapsed());
        }
    }
}
