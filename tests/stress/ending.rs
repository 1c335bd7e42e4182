//! Row 6: the server is shut down while its clients ask.
//!
//! A client knows which bytes the server's kernel had acknowledged before the signal. Their questions have to be answered
//! in full, also on connections that are not accepted yet. Later questions may stay unanswered, but if the server knows the
//! protocol, no answer is cut in two.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Scale;
use super::chaos::{kill_while, pause};
use super::crowd::{Crowd, Habit, Plan, Task};
use super::report::Report;
use super::tally::Tally;
use super::trial::{Framing, Outcome, Trial};

/// The number of servers that are shut down for a row.
const ENDS: usize = 6;

/// The way in which the server is shut down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Term,
    /// Workers are killed meanwhile.
    Kill,
    /// Several signals within milliseconds, which are one request.
    Burst,
}

impl End {
    fn words(self) -> &'static str {
        match self {
            Self::Term => "SIGTERM",
            Self::Kill => "SIGTERM and SIGKILL",
            Self::Burst => "SIGINT and SIGTERM in a burst",
        }
    }
}

const BURST: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGINT,
];
/// An interrupt half a second after the first one ends the server by force: a burst on a busy machine is cut off before.
const BURST_ENDS: Duration = Duration::from_millis(250);

/// Half of the clients stop asking before the signal, and the others go on.
const CLIENTS: [(Plan, Task); 4] = [
    (clients(16, 1000, 16), Task::Pause),
    (clients(16, 1000, 4), Task::GoOn),
    (clients(3, 200 << 10, 4), Task::Pause),
    (clients(3, 200 << 10, 4), Task::GoOn),
];
/// These clients connect and ask just before it.
const LATECOMERS: Plan = clients(24, 100, 1);

const fn clients(connections: usize, size: usize, depth: usize) -> Plan {
    Plan {
        connections,
        size,
        depth,
        habit: Habit::Stay,
    }
}

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for framing in Framing::BOTH {
        for (work, end) in [
            ("0", End::Term),
            ("1", End::Term),
            ("1", End::Kill),
            ("0", End::Burst),
        ] {
            let name = format!("{}, work {work} ms, {}", end.words(), framing.word());
            report.row(6, &name, || {
                let mut tally = Tally::default();
                for _ in 0..ENDS * scale.0 {
                    tally.add(end_one(framing, work, end));
                }
                if tally.outstanding == 0 {
                    tally.complain("no answer was outstanding: the row shows nothing".to_owned());
                }
                let done = format!(
                    "{} ends, {} answers outstanding",
                    ENDS * scale.0,
                    tally.outstanding
                );
                Outcome { done, tally }
            });
        }
    }
}

fn end_one(framing: Framing, work: &str, end: End) -> Tally {
    let mut trial = Trial::start(framing, &["--work", work]);
    if end == End::Kill {
        trial.expect_deaths();
    }
    let mut crowds: Vec<(Crowd, Task)> = CLIENTS
        .into_iter()
        .map(|(plan, task)| (trial.crowd(plan), task))
        .collect();
    crowds.iter().for_each(|(crowd, _)| crowd.is_under_way());
    pause(20..200);
    crowds.push((trial.crowd(LATECOMERS), Task::Pause));
    for (crowd, task) in &crowds {
        crowd.turn_to(*task);
    }
    crowds.iter().for_each(|(crowd, _)| crowd.is_held());
    match end {
        End::Term | End::Kill => trial.server.signal(Signal::SIGTERM),
        End::Burst => burst(&trial),
    }
    thread::scope(|scope| {
        let (manager, master) = (trial.manager, trial.server.root);
        if end == End::Kill {
            scope.spawn(move || kill_while(manager, || master.is_running()));
        }
        for (crowd, _) in crowds {
            trial.tally.add(crowd.end());
        }
        trial.ended();
    });
    trial.tally
}

fn burst(trial: &Trial) {
    let begin = Instant::now();
    for signal in BURST {
        if begin.elapsed() < BURST_ENDS {
            trial.server.signal(signal);
        }
        pause(1..20);
    }
}
