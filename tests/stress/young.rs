//! Row 12: the worker is killed as soon as it waits for work, again and again. That is no crash loop: a client that comes in
//! between waits for one start at most.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Scale;
use super::chaos::for_a_while;
use super::report::Report;
use super::tally::Tally;
use super::trial::Outcome;
use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually_some};

const TIME: Duration = Duration::from_secs(4);

/// The kills before each question: enough for any back-off to show.
const IN_A_ROW: u32 = 15;

/// The longest time to an answer, on a machine of which this test has only a share. A back-off would be longer.
const WAIT: Duration = Duration::from_millis(1000);

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for mode in ["process", "base"] {
        for standby in ["0", "1"] {
            let name = format!("SIGKILL when young and idle, {mode}, standby {standby}");
            report.row(12, &name, || {
                kill_the_young(mode, standby, TIME * scale.0 as u32)
            });
        }
    }
}

fn kill_the_young(mode: &str, standby: &str, time: Duration) -> Outcome {
    let mut server = Launch::serve(&["--mode", mode, "--workers", "1", "--standby", standby])
        .and(&["--fail-on-crash-loop", "1"])
        .start();
    let (mut tally, mut kills) = (Tally::default(), 0);
    for_a_while(time, || {
        (0..IN_A_ROW).for_each(|_| kill_the_next(&server));
        kills += IN_A_ROW;
        let begin = Instant::now();
        Client::connect(server.address()).echo(b"a question");
        tally.answered += 1;
        tally.longest_gap = tally.longest_gap.max(begin.elapsed());
    });
    if tally.longest_gap > WAIT {
        tally.complain(format!("a client waited for {:?}", tally.longest_gap));
    }
    for line in server.log().with(&["keeps dying"]) {
        tally.complain(line);
    }
    server.signal(Signal::SIGTERM);
    let status = server.ended(SOON);
    if !status.success() {
        tally.complain(format!("the server has ended with {status}"));
    }
    Outcome {
        done: format!("{kills} kills"),
        tally,
    }
}

/// Kills the worker of the seat as soon as it waits for work.
#[track_caller]
fn kill_the_next(server: &Server) {
    let worker = eventually_some(SOON, "a worker that waits for work", || {
        let mut workers = server.named("tine worker#0");
        workers.pop().filter(|worker| worker.waits_for_events())
    });
    worker.signal(Signal::SIGKILL);
}
