//! Row 15: SIGKILL to a random worker or to its program, again and again, where programs answer (`tine serve --exec`).

use nix::sys::signal::Signal;

use super::Scale;
use super::chaos::{KILLED, pause, random};
use super::crowd::{Habit, Plan};
use super::report::Report;
use super::trial::{Framing, Outcome, Trial};

/// Kills of workers for each of the formats, and of programs.
const KILLS: usize = 12;

/// Sends each message back.
const FRAMES: &str = r#"python3 -c '
import sys
questions, answers = sys.stdin.buffer, sys.stdout.buffer
for head in questions:
    message = questions.read(int(head.split(b"=")[-1]))
    answers.write(b"send %d\n%sdone\n" % (len(message), message))
    answers.flush()
'"#;
const JSON: &str = r#"python3 -c '
import json, sys
for line in sys.stdin:
    event = json.loads(line)
    answer = {name: event[of] for name, of in (("send", "data"), ("base64", "base64")) if of in event}
    print(json.dumps(answer | {"done": True}), flush=True)
'"#;

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for (format, program) in [("frames", FRAMES), ("json", JSON)] {
        for depth in [1, 16] {
            let name = format!("SIGKILL to workers and programs, {format} x {depth}");
            report.row(15, &name, || kill_both(format, program, depth, scale));
        }
    }
}

fn kill_both(format: &str, program: &str, depth: usize, scale: Scale) -> Outcome {
    let flags = ["--exec", program, "--exec-format", format];
    let mut trial = Trial::start(Framing::Length, &flags);
    trial.expect_deaths();
    let plans = [(16, 16), (4 << 10, 8), (200 << 10, 2)];
    let plan = |(size, connections)| Plan {
        connections,
        size,
        depth,
        habit: Habit::Stay,
    };
    trial.join(&plans.map(plan));
    for _ in 0..KILLS * scale.0 {
        // Longer than a worker and its program take to start: those that die young are started later and later.
        pause(200..400);
        signal_one(&trial, true);
        pause(200..400);
        signal_one(&trial, false);
    }
    // The log has a line for each program that was killed before its worker.
    let of_programs = trial
        .server
        .log()
        .with(&["program[pid=", "was killed by signal 9"]);
    let (workers, programs) = (trial.deaths(KILLED), of_programs.len());
    let least = KILLS * scale.0 / 2;
    trial.demand(workers >= least && programs >= least, "kills of both kinds");
    trial.end(format!("{workers} workers, {programs} programs killed"))
}

/// Kills a worker whose program runs, or that program.
fn signal_one(trial: &Trial, is_program: bool) {
    let mut workers = trial.manager.children();
    workers.retain(|worker| !worker.children().is_empty());
    let one = usize::try_from(random(0..workers.len().max(1) as u64)).unwrap_or(0);
    // There is none while all wait to be started again.
    let Some(worker) = workers.get(one) else {
        return;
    };
    match is_program {
        true => worker
            .children()
            .into_iter()
            .for_each(|it| it.signal(Signal::SIGKILL)),
        false => worker.signal(Signal::SIGKILL),
    }
}
