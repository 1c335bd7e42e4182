//! Experiment `callbacks`: which callback runs in which process, in both modes.

use super::Experiment;
use crate::lab::server::LabServer;
use crate::lab::{Lab, PATIENCE, Stop};
use crate::sockets::State::Established;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "callbacks",
    title: "which callback runs in which process",
    question: "A server consists of several processes. Which of them runs the code that blocks or \
               crashes, and which one loses its connections by it?",
    run,
};

/// The callbacks of the handler, as `tine serve --log-callbacks` names them.
const OF_A_CONNECTION: [&str; 3] = ["connect", "receive", "close"];

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    in_mode(lab, "process", "master")?;
    lab.means(
        "The process that owns the sockets runs no callback of a connection, and so none can block or \
         end it. A worker that blocks keeps its messages waiting, and no socket: `tine lab backlog`. \
         But the worker cannot close a socket either, only ask for it: a close callback that does not \
         return leaks (`tine lab close-wait-blocked`), unless another process bounds it.",
    );
    in_mode(lab, "base", "worker#0")?;
    lab.means(
        "One process accepts, reads, runs every callback and closes. While a callback blocks, it does \
         none of the others; when it dies, its connections end: `tine lab base-crashed`.",
    );
    lab.advise(
        "Before you put code into a callback, ask which process runs it, and which clients wait for that \
         process. `ps -e -o pid,args --forest` shows the processes of a tine server by their roles, `ss \
         -tnp` the one that holds a connection; `tine serve --log-callbacks` logs the process of each \
         callback.",
    );
    lab.advise(
        "on_start runs in the process that takes the signals, once: the master, or the manager in base \
         mode. What it opens is not the workers': open files and connections to databases in the worker, \
         when it starts.",
    );
    Ok(())
}

fn in_mode(lab: &mut Lab<'_>, mode: &str, owner: &'static str) -> Result<(), Stop> {
    lab.step(&format!(
        "A server in {mode} mode with one worker, which logs the process of each callback."
    ))?;
    lab.forget_ports();
    let server = lab.serve(&format!("--mode {mode} --workers 1 --log-callbacks"))?;
    runs_in(lab, &server, "on_start", server.pid())?;
    let worker = lab.look_for(PATIENCE, |_| Ok(server.process("worker#0")))?;
    let worker = worker.ok_or_else(|| Stop::Cannot("cannot find worker#0".to_owned()))?;
    runs_in(lab, &server, "worker_start", worker)?;

    lab.step("A client connects, sends 5 bytes and gets them back, and closes.")?;
    let client = lab.connect(server.address)?;
    let ends = client.ends;
    lab.see(
        &format!("{owner} holds the connection"),
        &[
            ends.client_is(Established),
            ends.server_is(Established).held_by(owner),
        ],
    )?;
    lab.send(&client, b"hello")?;
    let answer = lab.read(&client, 5)?;
    lab.check("the answer comes", answer == b"hello", "")?;
    drop(client);
    for callback in OF_A_CONNECTION {
        runs_in(lab, &server, callback, worker)?;
    }
    lab.see("the server's end is gone", &[ends.server_is(None)])?;
    let is_same = server.process("worker#0") == Some(worker);
    lab.check("it is the same worker as at the start", is_same, "")
}

/// Checks that the log names this process for a callback.
fn runs_in(lab: &mut Lab<'_>, server: &LabServer, callback: &str, pid: i32) -> Result<(), Stop> {
    let what = format!("callback {callback}");
    let line = lab.look_for(PATIENCE, |_| Ok(server.logged(&[&what])))?;
    let line = line.unwrap_or_default();
    lab.printed(&line);
    let role = server.role(pid).unwrap_or_default();
    lab.check(
        &format!("{callback} runs in {role}[{pid}]"),
        !role.is_empty() && line.contains(&format!("[{pid}] {what}")),
        "",
    )
}
