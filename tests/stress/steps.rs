//! Row 9: a worker is killed after N instructions of one message, from the end of its sleep to the next one.
//!
//! The message is answered once, whole, whatever N is, and the next worker answers the next message. N takes the values
//! from 0 to the steps of a message, all of them if there is time, otherwise evenly spread; the seed says where it begins.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::Scale;
use super::chaos::random;
use super::report::Report;
use super::speech::Speech;
use super::tally::Tally;
use super::tracer::{IS_KNOWN_MACHINE, Traced};
use super::trial::Outcome;
use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::{SOON, eventually_some};

const TIME: Duration = Duration::from_secs(15);

/// Fewer kills show nothing.
const LEAST: u64 = 50;

/// More instructions than any message takes.
const MOST: u64 = 1_000_000;

/// Bytes of a message for `tine serve`.
const SIZE: usize = 100;

/// One handler, and the messages for it.
#[derive(Clone, Copy)]
enum Deed {
    /// A part of the message, which is not copied.
    Echo,
    /// Bytes of the worker's own.
    Copy,
    /// Output for another connection, the close of a third one, a user id, and output.
    Records,
    /// The same with a call of the server.
    Reload,
}

const DEEDS: [(Deed, &str); 4] = [
    (Deed::Echo, "echo"),
    (Deed::Copy, "copy"),
    (Deed::Records, "records"),
    (Deed::Reload, "records with a reload"),
];

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for (deed, words) in DEEDS {
        let name = format!("SIGKILL after N instructions, {words}");
        if !report.wants(9) {
            continue;
        }
        if !IS_KNOWN_MACHINE {
            report.skip(9, &name, "registers are known on x86_64 and aarch64 alone");
            continue;
        }
        let server = Launch::serve(&["--workers", "1"]).start();
        match Traced::seize(server.workers()[0]) {
            Ok(traced) => traced.kill(),
            Err(error @ (Errno::EPERM | Errno::ENOSYS)) => {
                report.skip(9, &name, &format!("no process may be traced: {error}"));
                continue;
            }
            Err(error) => panic!("ptrace: {error}"),
        }
        report.row(9, &name, || Scene::new(deed).play(TIME * scale.0 as u32));
    }
}

/// A server with one worker, and its clients.
struct Scene {
    deed: Deed,
    server: Server,
    manager: Process,
    asker: Client,
    /// The client that gets output of the asker's messages as well.
    other: Client,
    /// The number of the next message.
    number: u64,
    kills: u64,
    /// The steps of the last one.
    last: u64,
    tally: Tally,
}

impl Scene {
    fn new(deed: Deed) -> Self {
        let serve = |handler| {
            Launch::serve(&["--workers", "1", "--reactors", "1", "--handler", handler]).and(&[
                "--protocol",
                "length=4",
                "--on-crash",
                "redeliver=255",
            ])
        };
        let server = match deed {
            Deed::Echo => serve("echo"),
            Deed::Copy => serve("copy"),
            Deed::Records | Deed::Reload => Launch::testbed("relay", "process").and(&[
                "workers=1",
                "reactors=1",
                "on-crash=redeliver=255",
            ]),
        };
        let server = server.start();
        Self {
            deed,
            manager: server.manager(),
            asker: Client::connect(server.address()),
            other: Client::connect(server.address()),
            server,
            number: 0,
            kills: 0,
            last: 0,
            tally: Tally::default(),
        }
    }

    /// Returns the worker, as soon as it is alone.
    #[track_caller]
    fn worker(&self) -> Process {
        eventually_some(SOON, "one worker", || match self.manager.children()[..] {
            [worker] => Some(worker),
            _ => None,
        })
    }

    fn play(mut self, time: Duration) -> Outcome {
        let all = (0..3).map(|_| self.strike(MOST)).max().unwrap_or(0);
        let what = format!("a message takes some instructions and not {MOST}: {all}");
        self.demand((1..MOST).contains(&all), &what);
        let (seed, stride) = (random(0..all + 1), stride(all + 1));
        let (begin, first) = (Instant::now(), self.kills);
        while begin.elapsed() < time && self.kills - first <= all && self.tally.notes.is_empty() {
            self.strike((seed + (self.kills - first) * stride) % (all + 1));
        }
        let kills = self.kills - first;
        self.demand(kills >= LEAST.min(all), "there are enough kills");
        self.end();
        Outcome {
            done: format!("{kills} kills in {all} steps, seed {seed}"),
            tally: self.tally,
        }
    }

    fn demand(&mut self, is_so: bool, what: &str) {
        if !is_so {
            self.tally.complain(format!("not so: {what}"));
        }
    }

    /// Kills the worker after so many steps of a message. Returns how many it took, fewer if it slept before.
    fn strike(&mut self, steps: u64) -> u64 {
        self.kills += 1;
        let begin = Instant::now();
        let (taken, judged) = match self.deed {
            Deed::Echo | Deed::Copy => self.strike_echo(steps),
            Deed::Records | Deed::Reload => self.strike_records(steps),
        };
        self.tally.longest_gap = self.tally.longest_gap.max(begin.elapsed());
        let last = std::mem::replace(&mut self.last, taken);
        match judged {
            Ok(()) => self.tally.answered += 1,
            Err(what) => {
                let what = format!("killed after {taken} steps, and before after {last}: {what}");
                self.tally.complain(what);
            }
        }
        taken
    }

    fn strike_echo(&mut self, steps: u64) -> (u64, Result<(), String>) {
        let mut said = [Vec::new(), Vec::new()];
        for said in &mut said {
            Speech::new(1, SIZE).say(self.number, said);
            self.number += 1;
        }
        let asked = self.asker.try_send(&said[0]);
        if let Err(what) = asked
            .map_err(|error| error.to_string())
            .and_then(|()| answers(&mut self.asker, &said[0]))
        {
            return (0, Err(format!("the next message: {what}")));
        }
        let taken = self.lead_and_kill(&said[1], steps);
        (taken, answers(&mut self.asker, &said[1]))
    }

    fn strike_records(&mut self, steps: u64) -> (u64, Result<(), String>) {
        let mut third = Client::connect(self.server.address());
        let (to, end) = (self.other.ask("0?"), third.ask("0?"));
        let (number, reload) = (self.number, matches!(self.deed, Deed::Reload));
        self.number += 1;
        let call = if reload { "yes" } else { "no" };
        let said = format!("0!{number} {to} {end} {call}\n");
        let taken = self.lead_and_kill(said.as_bytes(), steps);
        let answer = format!("{number} is done\n");
        let told = format!("{number} is told\n");
        let judged = answers(&mut self.asker, answer.as_bytes())
            .and_then(|()| answers(&mut self.other, told.as_bytes()))
            .and_then(|()| ends(&mut third));
        if reload {
            // Each message is one reload: another one is counted at the end.
            let done = usize::try_from(self.number).unwrap_or(usize::MAX);
            self.server.logged(done, &["reload finished"]);
        }
        (taken, judged)
    }

    fn lead_and_kill(&mut self, message: &[u8], steps: u64) -> u64 {
        let worker = self.worker();
        let mut lead = || {
            let mut traced = Traced::seize(worker)?;
            self.asker.send(message);
            traced.wakes()?;
            let taken = traced.lead(steps);
            traced.kill();
            taken
        };
        lead().unwrap_or_else(|error| panic!("ptrace of {worker:?}: {error}"))
    }

    /// Nothing comes beyond what was judged.
    fn end(&mut self) {
        for (client, name) in [(&mut self.asker, "asker"), (&mut self.other, "other")] {
            let shut = client.try_half_close().map_err(|error| error.to_string());
            if let Err(what) = shut.and_then(|()| ends(client)) {
                self.tally.complain(format!("{name}: {what}"));
            }
        }
        let reloads = self.server.log().with(&["reloading 1 worker"]).len();
        let wanted = match self.deed {
            Deed::Reload => usize::try_from(self.number).unwrap_or(usize::MAX),
            Deed::Echo | Deed::Copy | Deed::Records => 0,
        };
        self.demand(reloads == wanted, &format!("{wanted} reloads: {reloads}"));
        self.server.signal(Signal::SIGTERM);
        let status = self.server.ended(SOON);
        self.demand(status.success(), &format!("ended in order: {status}"));
    }
}

/// Reads one answer, which must be this.
fn answers(client: &mut Client, expected: &[u8]) -> Result<(), String> {
    let (mut came, mut buffer) = (Vec::new(), [0; 4096]);
    while came.len() < expected.len() {
        match client.try_read(&mut buffer) {
            Ok(0) => return Err(format!("end of file after {} bytes", came.len())),
            Ok(read) => came.extend_from_slice(&buffer[..read]),
            Err(error) => return Err(format!("{} bytes, then {error}", came.len())),
        }
    }
    match came == expected {
        true => Ok(()),
        false => Err(format!(
            "{:?} in the place of {:?}",
            String::from_utf8_lossy(&came),
            String::from_utf8_lossy(expected)
        )),
    }
}

/// Reads the end of file, before which there must be nothing.
fn ends(client: &mut Client) -> Result<(), String> {
    match client.try_read(&mut [0; 4096]) {
        Ok(0) => Ok(()),
        Ok(read) => Err(format!("{read} bytes before the end")),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns a stride with which every number below `all` comes once, evenly spread at any time: near the golden section.
fn stride(all: u64) -> u64 {
    let golden = all * 618 / 1000;
    let is_prime_to = |stride: &u64| greatest_common_divisor(*stride, all) == 1;
    (golden.max(1)..all).find(is_prime_to).unwrap_or(1)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        _ => greatest_common_divisor(b, a % b),
    }
}
