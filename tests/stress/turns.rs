//! Row 11: turns. Clients of several reactors share the workers, and none waits for much longer than in a single queue.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Scale;
use super::crowd::{Crowd, Habit, Plan, Task};
use super::report::Report;
use super::trial::Outcome;
use crate::common::SOON;
use crate::common::launch::Launch;

const TIME: Duration = Duration::from_secs(4);

const CLIENTS: Plan = Plan {
    connections: 40,
    size: 100,
    depth: 1,
    habit: Habit::Stay,
};

/// Workers, reactors, and the milliseconds of a callback.
const SHAPES: [(u32, u32, u32); 3] = [(1, 2, 1), (8, 4, 20), (2, 4, 5)];

/// What a client may wait beyond twice a single queue's time, on a machine of which this test has only a share.
const SLACK: Duration = Duration::from_millis(400);

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for (workers, reactors, work) in SHAPES {
        for dispatch in ["least-busy", "round-robin"] {
            let name = format!("turns, {dispatch}, {workers} x {work} ms, {reactors} reactors");
            report.row(11, &name, || {
                let counts = [workers, reactors, work].map(|count| count.to_string());
                let [workers_flag, reactors_flag, work_flag] = &counts;
                let server = Launch::serve(&["--protocol", "length=4", "--dispatch", dispatch])
                    .and(&["--workers", workers_flag, "--reactors", reactors_flag])
                    .and(&["--work", work_flag]);
                let work = Duration::from_millis(u64::from(work));
                let queue = work * CLIENTS.connections as u32 / workers;
                share(server, queue, TIME * scale.0 as u32)
            });
        }
    }
}

/// `queue`: the longest wait in a single queue.
fn share(server: Launch, queue: Duration, time: Duration) -> Outcome {
    let mut server = server.start();
    let crowd = Crowd::start(server.address(), true, CLIENTS);
    thread::sleep(time);
    crowd.turn_to(Task::Finish);
    let mut tally = crowd.end();
    let (longest, most) = (tally.longest_gap, queue * 2 + SLACK);
    if longest > most {
        tally.complain(format!("a client waited for {longest:?}, {most:?} at most"));
    }
    server.signal(Signal::SIGTERM);
    let status = server.ended(SOON);
    if !status.success() {
        tally.complain(format!("the server has ended with {status}"));
    }
    Outcome {
        done: format!("a single queue: {} ms", queue.as_millis()),
        tally,
    }
}
