//! Row 5: good clients among bad ones. The good ones notice nothing, the master's memory stays in its budget, and no
//! descriptor is left behind.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::Scale;
use super::chaos::{KILLED, for_a_while, kill_while};
use super::crowd::{Habit, Plan};
use super::report::Report;
use super::strangers::{MANNERS, Mischief};
use super::trial::{Framing, Outcome, Trial};
use crate::common::{SOON, eventually};

const TIME: Duration = Duration::from_secs(6);

/// Well below the output for clients that do not read: 1 MiB for a connection before reading pauses, 8 MiB before it is
/// closed, 16 MiB for all.
const SETTINGS: [&str; 8] = [
    "--output-high-water",
    "1048576",
    "--output-limit",
    "8388608",
    "--memory-budget",
    "16777216",
    "--max-message",
    "65536",
];
const BUDGET: u64 = 16 << 20;
/// The master's memory beside unsent output: its tables, its buffers, and free memory of its allocator. After seventy
/// thousand bad clients it is 10 MiB, and no longer grows.
const BESIDES: u64 = 14 << 20;

const GOOD: [Plan; 3] = [
    Plan {
        connections: 16,
        size: 1000,
        depth: 4,
        habit: Habit::Stay,
    },
    Plan {
        connections: 8,
        size: 4 << 10,
        depth: 2,
        habit: Habit::Leave { after: 20 },
    },
    // They shut their side with 16 answers outstanding, and have to get them all.
    Plan {
        connections: 4,
        size: 5000,
        depth: 16,
        habit: Habit::HalfClose,
    },
];

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for framing in Framing::BOTH {
        for kill in [false, true] {
            let deed = if kill {
                "bad clients and SIGKILL"
            } else {
                "bad clients"
            };
            let name = format!("{deed}, {}", framing.word());
            report.row(5, &name, || {
                among_strangers(framing, kill, TIME * scale.0 as u32)
            });
        }
    }
}

fn among_strangers(framing: Framing, kill: bool, time: Duration) -> Outcome {
    let mut trial = Trial::start(framing, &SETTINGS);
    if kill {
        trial.expect_deaths();
    }
    // After this, all descriptors that are opened once and kept are open.
    trial.join(&GOOD);
    trial.finish();
    trial.no_connection_is_left();
    let descriptors = descriptors(&trial);
    let before = trial.server.master().memory().private;

    trial.join(&GOOD);
    let mischief = Mischief::default();
    let (peak, troubles) = bear(&mut trial, &mischief, kill, time);
    troubles.iter().for_each(|what| trial.demand(false, what));
    let (took, unread) = (
        peak.saturating_sub(before),
        mischief.unread.load(Ordering::Relaxed),
    );
    let budget = format!("{took} bytes of memory are within the budget");
    trial.demand(took <= BUDGET + BESIDES, &budget);
    trial.demand(unread > BUDGET, "more is asked for than may be held");
    let kills = trial.deaths(KILLED);
    let (least, most) = if kill { (10, usize::MAX) } else { (0, 0) };
    trial.demand(
        (least..=most).contains(&kills),
        "workers die if they are killed, and only then",
    );

    trial.no_connection_is_left();
    let what = format!("as many descriptors as before, {descriptors:?}");
    eventually(SOON, what, || self::descriptors(&trial) == descriptors);
    let strangers = mischief.made.load(Ordering::Relaxed);
    let kills = if kill {
        format!(", {kills} kills")
    } else {
        String::new()
    };
    trial.end(format!("{strangers} strangers, +{} MiB{kills}", took >> 20))
}

/// Runs strangers for a time. Returns the most memory of the master meanwhile, and what kept strangers from their
/// work.
fn bear(trial: &mut Trial, mischief: &Mischief, kill: bool, time: Duration) -> (u64, Vec<String>) {
    let (server, manager, master) = (trial.server.address(), trial.manager, trial.server.master());
    let goes_on = || !mischief.is_over.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let behave = |(name, manner): (&'static str, super::strangers::Manner)| {
            scope.spawn(move || Some(format!("{name}: {}", manner(server, mischief).err()?)))
        };
        let strangers = MANNERS.map(behave);
        if kill {
            scope.spawn(|| kill_while(manager, goes_on));
        }
        let mut peak = 0;
        for_a_while(time, || {
            let memory = master.memory();
            peak = peak.max(memory.private).max(memory.private_peak);
            thread::sleep(Duration::from_millis(20));
        });
        // While the strangers are still connected.
        trial.finish();
        mischief.is_over.store(true, Ordering::Relaxed);
        let join = |stranger: thread::ScopedJoinHandle<'_, _>| stranger.join().ok().flatten();
        (peak, strangers.into_iter().filter_map(join).collect())
    })
}

/// Returns the descriptors of the master, the manager, and each worker.
fn descriptors(trial: &Trial) -> Vec<usize> {
    let mut workers: Vec<_> = trial
        .server
        .workers()
        .iter()
        .map(|worker| worker.descriptors())
        .collect();
    workers.sort_unstable();
    let mut all = vec![
        trial.server.master().descriptors(),
        trial.manager.descriptors(),
    ];
    all.extend(workers);
    all
}
