//! What is done to the server's workers, at random.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::trial::Trial;
use crate::common::process::Process;
use crate::common::server::Server;

/// What the manager logs of a worker that was killed.
pub(crate) const KILLED: &str = "status=0, signal=9";

/// How long the workers are left alone between two kills, in milliseconds.
const BETWEEN_KILLS: Range<u64> = 20..60;
/// How long a stopped worker stays so.
const STOPPED: Range<u64> = 5..50;

pub(crate) fn random(range: Range<u64>) -> u64 {
    range.start + RandomState::new().hash_one(()) % (range.end - range.start)
}

pub(crate) fn pause(milliseconds: Range<u64>) {
    thread::sleep(Duration::from_millis(random(milliseconds)));
}

/// Kills a worker now and then, until so many have died of it. Returns how many.
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

/// Kills a worker now and then, while it goes on.
pub(crate) fn kill_while(manager: Process, goes_on: impl Fn() -> bool) {
    while goes_on() {
        pause(BETWEEN_KILLS);
        signal_one(manager, Signal::SIGKILL);
    }
}

/// Stops a worker now and then, and lets it go on, for so long. Returns how often.
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

/// Has all workers replaced every 200 ms, for so long.
pub(crate) fn reload_for(time: Duration, server: &Server) {
    for_a_while(time, || {
        server.signal(Signal::SIGUSR1);
        thread::sleep(Duration::from_millis(200));
    });
}

/// Acts again and again, the last time before `time` has passed.
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
