//! Row 4: workers that are replaced, by reload and by recycling, while others are killed.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use super::Scale;
use super::chaos::{KILLED, for_a_while, kill_while, reload_for};
use super::crowd::{Habit, Plan};
use super::report::Report;
use super::trial::{Framing, Outcome, Trial};
use crate::common::process::Process;

const TIME: Duration = Duration::from_secs(4);

const CLIENTS: [Plan; 3] = [
    Plan {
        connections: 16,
        size: 200,
        depth: 4,
        habit: Habit::Stay,
    },
    Plan {
        connections: 8,
        size: 4 << 10,
        depth: 2,
        habit: Habit::Leave { after: 50 },
    },
    Plan {
        connections: 4,
        size: 200 << 10,
        depth: 4,
        habit: Habit::Stay,
    },
];

/// The treatment of the workers of one row.
#[derive(Clone, Copy)]
struct Fate {
    name: &'static str,
    reload: bool,
    recycle: bool,
    kill: bool,
}

impl Fate {
    fn flags(self) -> &'static [&'static str] {
        match self.recycle {
            true => &["--max-requests", "100"],
            false => &[],
        }
    }
}

const FATES: [Fate; 4] = [
    Fate {
        name: "reload",
        reload: true,
        recycle: false,
        kill: false,
    },
    Fate {
        name: "max-requests",
        reload: false,
        recycle: true,
        kill: false,
    },
    Fate {
        name: "reload and SIGKILL",
        reload: true,
        recycle: false,
        kill: true,
    },
    Fate {
        name: "reload, max-requests and SIGKILL",
        reload: true,
        recycle: true,
        kill: true,
    },
];

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for framing in Framing::BOTH {
        for fate in FATES {
            let name = format!("{}, {}", fate.name, framing.word());
            report.row(4, &name, || {
                run(fate, Trial::start(framing, fate.flags()), scale)
            });
        }
    }
    for framing in Framing::BOTH {
        for fate in FATES.into_iter().filter(|fate| !fate.kill) {
            let name = format!("base mode, {}, {}", fate.name, framing.word());
            report.row(4, &name, || {
                run(fate, Trial::start_base(framing, fate.flags()), scale)
            });
        }
    }
}

fn run(fate: Fate, mut trial: Trial, scale: Scale) -> Outcome {
    if fate.kill {
        trial.expect_deaths();
    }
    trial.join(&CLIENTS);
    let seen = bring_about(fate, &trial, TIME * scale.0 as u32);
    let done = count(fate, &mut trial, seen, scale);
    trial.end(done)
}

/// Returns the number of workers so far.
fn bring_about(fate: Fate, trial: &Trial, time: Duration) -> usize {
    let (manager, begin) = (trial.manager, Instant::now());
    thread::scope(|scope| {
        if fate.kill {
            scope.spawn(move || kill_while(manager, || begin.elapsed() < time));
        }
        if fate.reload {
            let server = &trial.server;
            scope.spawn(move || reload_for(time, server));
        }
        let mut seen: HashSet<Process> = HashSet::new();
        for_a_while(time, || {
            seen.extend(manager.children());
            thread::sleep(Duration::from_millis(10));
        });
        seen.len()
    })
}

/// Returns the treatment in words. There must have been enough of it.
fn count(fate: Fate, trial: &mut Trial, seen: usize, scale: Scale) -> String {
    let reloads = trial.server.log().with(&["reloading 2 workers"]).len();
    let kills = trial.deaths(KILLED);
    let least = 5 * scale.0;
    let mut done = vec![format!("{seen} workers")];
    trial.demand(seen >= least, "workers come and go");
    if fate.reload {
        done.push(format!("{reloads} reloads"));
        // A reload that is requested during another one is delayed, and joined with the next.
        let least = if fate.recycle { 1 } else { least };
        trial.demand(reloads >= least, "reloads come to an end");
    }
    if fate.kill {
        done.push(format!("{kills} kills"));
        trial.demand(kills >= least, "workers are killed");
    }
    done.join(", ")
}
