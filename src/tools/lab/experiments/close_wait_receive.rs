//! Experiment `close-wait-receive`: CLOSE_WAIT because the receive callback blocks, so that the close callback
//! is not reached; in process mode and in base mode.

use super::Experiment;
use super::close_wait_blocked::culprit;
use crate::lab::end::Ends;
use crate::lab::picture::Side;
use crate::lab::server::LabServer;
use crate::lab::{Lab, PATIENCE, Stop};
use crate::sockets::State::{CloseWait, Established, FinWait2, TimeWait};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "close-wait-receive",
    title: "a receive callback that blocks leaks connections too",
    question: "The close callback does nothing, and connections stay in CLOSE_WAIT all the same. What \
               else keeps a server from closing?",
    run,
};

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    in_process_mode(lab)?;
    with_a_deadline(lab)?;
    in_base_mode(lab)?;
    with_a_limit(lab)?;
    lab.advise(
        "CLOSE_WAIT says that the program has not closed, and not why: the code that blocks may be any \
         that runs before close(), such as the answer to the last message. `tine doctor PORT` names \
         the process, and for a tine server the worker and its callback.",
    );
    lab.advise(
        "Give every call in a callback that may block a timeout: a query, a lock, another server. In \
         tine, the close deadline (`--close-deadline`) bounds the CLOSE_WAIT in process mode, and \
         `--callback-limit SECONDS --on-limit kill` ends a blocked worker in both modes.",
    );
    Ok(())
}

fn in_process_mode(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "A server in process mode, without a close deadline and without keepalive. Its receive \
         callback sleeps for 1,000 seconds, its close callback returns at once.",
    )?;
    let server = lab
        .serve("--workers 1 --fault receive:sleep=1000 --close-deadline never --keepalive never")?;
    let ends = ask_and_leave(lab, &server, "master")?;
    lab.see(
        "the server is in CLOSE_WAIT, the client in FIN_WAIT2",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;
    unread(
        lab,
        ends,
        0,
        "the master has read the message and the end of file (Recv-Q is 0)",
    )?;
    lab.means(
        "The callbacks of a connection run one after the other: close comes after receive, and \
         receive has not returned. So the master, which knows that the client has closed, waits, as \
         it does for a close callback that blocks.",
    );
    culprit(lab, &server, ends)?;
    lab.draw_life("The receive callback blocks, and nothing ends it", ends);
    Ok(())
}

fn with_a_deadline(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The same with a close deadline of one second.")?;
    lab.forget_ports();
    let server = lab.serve("--workers 1 --fault receive:sleep=1000 --close-deadline 1")?;
    let ends = ask_and_leave(lab, &server, "master")?;
    lab.see(
        "the server has closed its end; the client, which closed first, is in TIME_WAIT",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    let worker = server.process("worker#0").is_some();
    lab.check("the worker still runs, and sleeps", worker, "")?;
    lab.draw_life(
        "The receive callback blocks, and the close deadline passes",
        ends,
    );
    Ok(())
}

fn in_base_mode(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The same fault in base mode, where the worker owns the connection.")?;
    lab.forget_ports();
    let server =
        lab.serve("--mode base --workers 1 --fault receive:sleep=1000 --close-deadline 1")?;
    let ends = ask_and_leave(lab, &server, "worker#0")?;
    lab.see(
        "the server is in CLOSE_WAIT, the client in FIN_WAIT2",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;
    unread(
        lab,
        ends,
        1,
        "no process has read the end of file (Recv-Q is 1: the FIN counts as a byte)",
    )?;
    lab.wait(std::time::Duration::from_millis(1500))?;
    lab.see(
        "the close deadline of a second has passed, and the server is still in CLOSE_WAIT",
        &[ends.server_is(CloseWait).held_by("worker#0")],
    )?;
    lab.means(
        "The only process that holds the socket sleeps. It has not seen that the client has closed, \
         and no other process can close for it.",
    );
    Ok(())
}

fn with_a_limit(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("Base mode, with a limit of one second for each callback.")?;
    lab.forget_ports();
    let server = lab.serve(
        "--mode base --workers 1 --fault receive:sleep=1000 --callback-limit 1 --on-limit kill",
    )?;
    let ends = ask_and_leave(lab, &server, "worker#0")?;
    let line = lab.look_for(PATIENCE, |_| {
        Ok(server.logged(&["abnormal exit", "signal=9"]))
    })?;
    lab.check("the manager has killed the worker", line.is_some(), "")?;
    lab.printed(&line.unwrap_or_default());
    lab.see(
        "the server's end is gone, the client's is in TIME_WAIT",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    lab.means(
        "The kernel closes the descriptors of a process that ends, so that this ends the CLOSE_WAIT, \
         and every other connection of that worker with it.",
    );
    lab.draw_life("Base mode: the blocked worker is killed", ends);
    Ok(())
}

/// A client connects, sends a message, and closes once the server has read it.
fn ask_and_leave(
    lab: &mut Lab<'_>,
    server: &LabServer,
    holder: &'static str,
) -> Result<Ends, Stop> {
    lab.step("A client connects, sends 5 bytes, and closes.")?;
    let client = lab.connect(server.address)?;
    let ends = client.ends;
    lab.see(
        &format!("the connection is ESTABLISHED, and {holder} holds it"),
        &[
            ends.client_is(Established),
            ends.server_is(Established).held_by(holder),
        ],
    )?;
    lab.did(Side::Client, "sends 5 bytes");
    lab.send(&client, b"hello")?;
    let read = lab.look_for(PATIENCE, |lab| Ok(lab.is_all_read(ends)?.then_some(())))?;
    lab.check("the server has read the message", read.is_some(), "")?;
    lab.did(Side::Client, "closes");
    drop(client);
    Ok(ends)
}

/// Checks the number of bytes in the server's receive queue, the FIN included.
fn unread(lab: &mut Lab<'_>, ends: Ends, bytes: u32, claim: &str) -> Result<(), Stop> {
    let found = lab.look_for(PATIENCE, |lab| {
        let server = lab.socket(ends.server, ends.client)?;
        Ok(server.filter(|it| it.recv_q == bytes).map(drop))
    })?;
    lab.check(claim, found.is_some(), "")
}
