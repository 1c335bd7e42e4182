//! Kills, stops and reloads of the server's workers, at random.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::trial::Trial;
use crate::common::process::Process;
use crate::common::server::Server;

/// The manager's log line for a killed worker.
pub(crate) const KILLED: &str = "status=0, signal=9";

/// The pause between two kills, in milliseconds.
const BETWEEN_KILLS: Range<u64> = 20..60;
/// How long a worker is stopped.
const STOPPED: Range<u64> = 5..50;

pub(crate) fn random(range: Range<u64>) -> u64 {
    range.start + RandomState::new().hash_one(()) % (range.end - range.start)
}

pub(crate) fn pause(milliseconds: Range<u64>) {
    thread::sleep(Duration::from_millis(random(milliseconds)));
}

/// Kills a worker now and then, until `count` have died of it. Returns their number.
#[track_caller]
pub(crate) fn kill_until(trial: &Trial, deaths: usize) -> usize {
    let (begin, patience) = (Instant::now(), Duration::from_millis(1000) * deaths as u32);
    while trial.deaths(KILLED) < deaths {
        pause(BETWEEN_KILLS);
        signal_one(trial.manager, Signal::SIGKILL);
        assert!(
            begin.elapsed() < patience,
            "not {deaths} kills in {patience:?}"
        );
    }
    trial.deaths(KILLED)
}

/// Kills a worker now and then, while the other step goes on.
pub(crate) fn kill_while(manager: Process, goes_on: impl Fn() -> bool) {
    while goes_on() {
        pause(BETWEEN_KILLS);
        signal_one(manager, Signal::SIGKILL);
    }
}

/// Stops a worker now and then, and lets it go on, for `time`. Returns how many times.
pub(crate) fn stop_for(time: Duration, manager: Process) -> usize {
    let mut stops = 0;
    for_a_while(time, || {
        pause(STOPPED);
        if let Some(worker) = signal_one(manager, Signal::SIGSTOP) {
            pause(STOPPED);
            worker.signal(Signal::SIGCONT);
            stops += 1;
        }
    });
    stops
}

/// Reloads the server every 200 ms, for `time`.
pub(crate) fn reload_for(time: Duration, server: &Server) {
    for_a_while(time, || {
        server.signal(Signal::SIGUSR1);
        thread::sleep(Duration::from_millis(200));
    });
}

/// Calls `act` again and again, the last time before `time` has passed.
pub(crate) fn for_a_while(time: Duration, mut act: impl FnMut()) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        act();
    }
}

/// Signals one of the workers. `None` while there is none.
fn signal_one(manager: Process, signal: Signal) -> Option<Process> {
    let workers = manager.children();
    let one = usize::try_from(random(0..workers.len().max(1) as u64)).unwrap_or(0);
    let worker = workers.get(one).copied()?;
    worker.signal(signal);
    Some(worker)
}
