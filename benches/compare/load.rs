//! One measurement: starts a server, puts the load on it, and ends it.

use std::process::Command;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::Effort;
use crate::common::launch::PROGRAM;
use crate::common::{SOON, c, eventually};
use crate::cores::{self, Place};
use crate::peers::Server;
use crate::rows::Row;

/// The figures of one measurement. Times are in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// Processor time of all the server's processes for one message.
    pub(crate) cpu: f64,
    /// Bytes, at the end of the load, with all clients connected.
    pub(crate) memory: u64,
    /// Near 1 the generator was the slow side, or waited for a processor.
    pub(crate) generator_busy: f64,
    pub(crate) generator_without_processor: f64,
}

/// The fields of `tine load --json` that are used here.
#[derive(Deserialize)]
struct Report {
    messages_per_second: f64,
    latency: Latency,
    cost: Cost,
    generator_busy: Option<f64>,
    generator_without_processor: Option<f64>,
}

#[derive(Deserialize)]
struct Cost {
    cpu_per_message: f64,
    memory: u64,
}

#[derive(Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
}

/// # Errors
/// The output of `tine load`, if it failed or found a fault of the server.
pub(crate) fn measure(row: &Row, server: &Server, effort: Effort) -> Result<Measured, String> {
    let more = if server.is_tine_program() {
        row.serve
    } else {
        &[]
    };
    let mut running = cores::at(row.place, || c::start(server.launch(more), "process"));
    let processes = running.processes();
    if row.stuck {
        let worker = processes
            .iter()
            .find(|process| process.name() == "tine worker#0");
        worker.expect("a worker").signal(Signal::SIGSTOP);
    }
    let address = running.address().to_string();
    let mut load = Command::new(PROGRAM);
    load.args(["load", &address, "--json"]).args(row.load);
    load.args([
        "--duration",
        &effort.seconds.to_string(),
        "--warm-up",
        &effort.warm_up.to_string(),
    ]);
    load.args(["--pid", &running.root.pid.to_string()]);
    let place = match row.place {
        Place::Servers => Place::Generators,
        elsewhere => elsewhere,
    };
    let output = cores::at(place, || load.output()).expect("the generator starts");
    if !output.status.success() {
        let (printed, errors) = (&output.stdout, &output.stderr);
        return Err(String::from_utf8_lossy(&[&printed[..], errors].concat()).into_owned());
    }
    let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
    for process in &processes {
        process.signal(Signal::SIGCONT);
    }
    running.signal(Signal::SIGTERM);
    running.ended(SOON);
    eventually(SOON, "the server has ended", || {
        processes.iter().all(|process| !process.is_running())
    });
    Ok(Measured {
        per_second: report.messages_per_second,
        p50: report.latency.p50,
        p99: report.latency.p99,
        p999: report.latency.p999,
        cpu: report.cost.cpu_per_message,
        memory: report.cost.memory,
        generator_busy: report.generator_busy.unwrap_or(0.0),
        generator_without_processor: report.generator_without_processor.unwrap_or(0.0),
    })
}
