//! Row 2: workers that crash in a callback, in each possible way, and workers that are stopped for a while.

use std::time::Duration;

use super::Scale;
use super::chaos::stop_for;
use super::crowd::{Habit, Plan};
use super::report::Report;
use super::trial::{Framing, Trial};

const TIME: Duration = Duration::from_secs(5);
/// How many times a row is prolonged for faults that have not come [`EACH`] times.
const ROUNDS: usize = 5;

/// Each fault of `receive`, with its log line.
const ENDINGS: [(&str, &str); 4] = [
    ("abort", "status=0, signal=6"),
    ("segv", "status=0, signal=11"),
    ("panic", "status=101, signal=0"),
    ("exit=3", "status=3, signal=0"),
];
const EACH: usize = 5;
/// The same for `connect` and `close`, which need clients that come and go.
const OTHERS: [(&str, &str); 2] = [
    ("connect:exit=4@0.05", "status=4, signal=0"),
    ("close:exit=5@0.05", "status=5, signal=0"),
];

/// Clients that stay and clients that come and go, with short messages and long ones.
const CLIENTS: [Plan; 3] = [
    Plan {
        connections: 16,
        size: 200,
        depth: 4,
        habit: Habit::Stay,
    },
    Plan {
        connections: 8,
        size: 1000,
        depth: 2,
        habit: Habit::Leave { after: 6 },
    },
    Plan {
        connections: 4,
        size: 200 << 10,
        depth: 2,
        habit: Habit::Stay,
    },
];

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for framing in Framing::BOTH {
        // Callbacks without work run many times as often, so faults come sooner.
        for (work, probability) in [("0", "0.0005"), ("1", "0.005")] {
            // Each dispatch mode with short callbacks and with long ones.
            let dispatch = match (framing, work) {
                (Framing::Raw, "0") | (Framing::Length, "1") => "least-connections",
                _ => "least-busy",
            };
            let name = format!("faults, SIGSTOP, {work} ms, {}, {dispatch}", framing.word());
            report.row(2, &name, || {
                let faults = faults(probability);
                let mut flags = vec!["--work", work, "--dispatch", dispatch];
                flags.extend(faults.iter().flat_map(|fault| ["--fault", fault]));
                let mut trial = Trial::start(framing, &flags);
                trial.expect_deaths();
                trial.join(&CLIENTS);
                let time = TIME * scale.0 as u32;
                let mut stops = stop_for(time, trial.manager);
                for _ in 1..ROUNDS {
                    if rarest(&trial) < EACH * scale.0 {
                        stops += stop_for(time, trial.manager);
                    }
                }
                trial.demand(rarest(&trial) >= EACH * scale.0, "each fault comes");
                let faults: usize = counts(&trial).sum();
                trial.end(format!("{faults} faults, {stops} stops"))
            });
        }
    }
}

fn faults(probability: &str) -> Vec<String> {
    let receive = |(action, _): &(&str, &str)| format!("receive:{action}@{probability}");
    let others = OTHERS.iter().map(|(fault, _)| (*fault).to_owned());
    ENDINGS.iter().map(receive).chain(others).collect()
}

/// Returns how many workers have died of each fault.
fn counts(trial: &Trial) -> impl Iterator<Item = usize> {
    let endings = ENDINGS.iter().chain(&OTHERS);
    endings.map(|(_, ending)| trial.deaths(ending))
}

fn rarest(trial: &Trial) -> usize {
    counts(trial).min().unwrap_or(0)
}
