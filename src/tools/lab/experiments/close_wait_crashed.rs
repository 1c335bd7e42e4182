//! Experiment `close-wait-crashed`: CLOSE_WAIT because the worker dies in its close callback, in process
//! mode.

use std::time::Duration;

use super::Experiment;
use crate::lab::end::Ends;
use crate::lab::picture::Side;
use crate::lab::server::LabServer;
use crate::lab::{Lab, PATIENCE, Stop};
use crate::sockets::State::{CloseWait, Established, FinWait2, TimeWait};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "close-wait-crashed",
    title: "a worker that dies in its close callback leaks the connection",
    question: "The worker process has crashed and was replaced. Why is the connection that it was \
               closing still there?",
    run,
};

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "A server in process mode whose close callback ends the worker with status 255. Its master \
         does nothing about the connection then, like Swoole's, and has no keepalive.",
    )?;
    let server = lab.serve(
        "--workers 2 --fault close:exit=255 --on-crash keep --close-deadline never --keepalive never",
    )?;
    let (ends, _) = a_client_closes(lab, &server)?;
    lab.see(
        "the server is in CLOSE_WAIT, the client in FIN_WAIT2",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;

    lab.step("A second passes.")?;
    lab.wait(Duration::from_secs(1))?;
    lab.see(
        "the server is still in CLOSE_WAIT",
        &[ends.server_is(CloseWait)],
    )?;
    lab.means(
        "When a process dies, the kernel closes its descriptors. But this socket was never the \
         worker's: it belongs to the master, which lives, and waits for the callback to return. The \
         worker that should report that is dead, and its successor does not know of the connection.",
    );
    lab.draw_life("The worker dies in its close callback, policy keep", ends);
    drop(server);

    lab.step("The same fault with the defaults of tine.")?;
    lab.forget_ports();
    let server = lab.serve("--workers 2 --fault close:exit=255")?;
    let (ends, _) = a_client_closes(lab, &server)?;
    lab.see(
        "the server's end is gone, the client's is in TIME_WAIT",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    lab.means(
        "The manager has reaped the worker, and tells the master. The master knows which frames that \
         worker had not finished: it closes the socket at once, and has a worker run the callback \
         once more.",
    );
    let line = lab.look_for(PATIENCE, |_| Ok(server.logged(&["close runs again"])))?;
    lab.check("the callback is run again", line.is_some(), "")?;
    lab.printed(&line.unwrap_or_default());
    lab.draw_life(
        "The worker dies in its close callback, default policy",
        ends,
    );
    lab.advise(
        "If one process owns the socket and another one runs your code, ask what happens to the \
         socket when the second one dies. Restarting workers is not enough: another process has to \
         know which work they had not finished.",
    );
    lab.advise(
        "In tine, `--on-crash` declares the fate of a message or a close under way (close, redeliver, \
         reply, keep); `--on-crash keep` exists for this experiment.",
    );
    Ok(())
}

/// A client connects and closes, the worker in the callback dies, and another one takes its seat.
fn a_client_closes(lab: &mut Lab<'_>, server: &LabServer) -> Result<(Ends, String), Stop> {
    lab.step("A client connects, and closes. The worker that runs the callback dies.")?;
    let client = lab.connect(server.address)?;
    let ends = client.ends;
    lab.see(
        "the connection is ESTABLISHED, and the master holds it",
        &[
            ends.client_is(Established),
            ends.server_is(Established).held_by("master"),
        ],
    )?;
    let before = server.pids();
    lab.did(Side::Client, "closes");
    drop(client);
    let line = lab.look_for(PATIENCE, |_| {
        Ok(server.logged(&["abnormal exit", "status=255, signal=0"]))
    })?;
    let line = line.unwrap_or_default();
    lab.check("the manager logs the death", !line.is_empty(), "")?;
    lab.printed(&line);
    lab.did(None, "the worker dies");
    let role = seat_in(&line).unwrap_or("worker#0").to_owned();
    let is_new = |pid: &i32| !before.contains(pid);
    let new = lab.look_for(PATIENCE, |_| Ok(server.process(&role).filter(is_new)))?;
    let seen = new.map_or("no new process".to_owned(), |pid| format!("process {pid}"));
    lab.check(
        &format!("a new process takes the seat {role}"),
        new.is_some(),
        &seen,
    )?;
    Ok((ends, line))
}

/// Returns the seat in a line such as "… worker#0[pid=26286] abnormal exit, …".
fn seat_in(line: &str) -> Option<&str> {
    let begin = line.find("worker#")?;
    let (seat, _) = line[begin..].split_once('[')?;
    Some(seat)
}
