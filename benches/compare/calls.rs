//! System calls per message, of all processes of a server, in steady state. perf(1) counts them in the
//! kernel, without slowing the server. Without perf, or without the right to use it, a line says so.
//!
//! The same perf counts the messages at the same time: each answer is so short that one call sends it.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::Effort;
use crate::common::launch::PROGRAM;
use crate::common::{SOON, c};
use crate::cores::{self, Place};
use crate::peers::{BARE, PROCESS, Server};
use crate::rows::ONE;
use crate::targets::Target;

pub(crate) const NAME: &str = "system calls";

const CLIENTS: &str = "100";
const SIZE: &str = "64";

const ALL: &str = "raw_syscalls:sys_enter";
const ANSWERS: &str = "syscalls:sys_exit_sendto";

/// System calls per message that process mode may make beyond the bare loop's.
const MORE: f64 = 0.1;

pub(crate) fn measure(servers: &[Server], effort: Effort) -> Vec<Target> {
    if let Err(problem) = perf(&[], &["true"]) {
        println!("{NAME}: SKIPPED, perf can't count them: {problem}");
        return Vec::new();
    }
    let of = |name: &str| {
        let server = servers.iter().find(|server| server.name == name);
        let mut rounds: Vec<f64> = (0..effort.rounds)
            .map(|_| for_a_message(server.expect("it is always there"), effort))
            .collect();
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    };
    let (bare, process) = (of(BARE), of(PROCESS));
    vec![Target::at_most(
        format!("{PROCESS}, 64 B x {CLIENTS}: {NAME} for a message ({BARE}: {bare:.3})"),
        process,
        bare + MORE,
    )]
}

fn for_a_message(server: &Server, effort: Effort) -> f64 {
    let more = if server.is_tine_program() { ONE } else { &[] };
    let mut running = cores::at(Place::Servers, || c::start(server.launch(more), "process"));
    let address = running.address().to_string();
    let mut load = Command::new(PROGRAM);
    // Longer than perf runs: the load is killed after it.
    load.args(["load", &address, "--clients", CLIENTS, "--size", SIZE])
        .args(["--warm-up", "0", "--duration", "600"])
        .stdout(Stdio::null());
    let load = cores::at(Place::Generators, || load.spawn());
    let mut load = load.expect("the generator starts");
    thread::sleep(Duration::from_secs_f64(effort.warm_up));
    let processes = running.processes();
    let pids: Vec<String> = processes.iter().map(|it| it.pid.to_string()).collect();
    let seconds = effort.seconds.to_string();
    let counted = perf(&["-p", &pids.join(",")], &["sleep", &seconds]);
    let ended = load.try_wait().expect("the generator is a child");
    assert!(ended.is_none(), "{}: the generator: {ended:?}", server.name);
    load.kill().expect("a child can be killed");
    load.wait().expect("a child can be waited for");
    running.signal(Signal::SIGTERM);
    running.ended(SOON);
    let (calls, answers) = counted.unwrap_or_else(|problem| panic!("{}: {problem}", server.name));
    assert!(answers > 0.0, "{} has answered nothing", server.name);
    calls / answers
}

/// Returns the numbers of system calls and of answers while a command ran.
fn perf(of: &[&str], command: &[&str]) -> Result<(f64, f64), String> {
    let whole = format!("ret == {SIZE}");
    let mut perf = Command::new("perf");
    perf.env("LC_ALL", "C")
        .args([
            "stat", "-x", ",", "-e", ALL, "-e", ANSWERS, "--filter", &whole,
        ])
        .args(of)
        .arg("--")
        .args(command);
    let output = perf.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(text.lines().next().unwrap_or_default().to_owned());
    }
    // A line has the count, an empty unit, the event, and more.
    let count = |event: &str| {
        let line = text.lines().find(|line| line.contains(event));
        let number = line.and_then(|line| line.split(',').next()?.parse().ok());
        number.ok_or_else(|| format!("{event} is not counted: {text:?}"))
    };
    Ok((count(ALL)?, count(ANSWERS)?))
}
