//! CLOSE_WAIT because the worker dies in its close callback, in process mode.

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
        "A server in process mode whose close callback ends the worker with status 255. The master \
         says nothing about it to the client, which is what Swoole's does.",
    )?;
    let server =
        lab.serve("--workers 2 --fault close:exit=255 --on-crash keep --close-deadline never")?;
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
        "When a process dies the kernel closes its descriptors. But this socket was never the \
         worker's: it belongs to the master, which lives, and which waits for word that the callback \
         is through. The one that owed it that word is dead, and its successor knows nothing.",
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
        "The manager has reaped the worker and tells the master so. The master knows which frames \
         that worker had not finished: it closes the socket at once, and has the callback run once \
         more, by another worker, so that nothing of it is lost.",
    );
    lab.draw_life(
        "The worker dies in its close callback, default policy",
        ends,
    );
    lab.advise(
        "If the process that owns a socket is not the one that runs your code, ask what happens to \
         the socket when the latter dies. Restarting workers is not enough: what they owed has to \
         be known to somebody else.",
    );
    lab.advise(
        "In tine: `--on-crash` says what becomes of a message or a close under way (close, \
         redeliver, reply, keep); `--on-crash keep` exists for this experiment.",
    );
    Ok(())
}

/// A client connects and closes, a worker dies of it, and another takes its seat.
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
    lab.check("the manager has seen it", !line.is_empty(), "")?;
    lab.printed(&line);
    lab.did(None, "the worker dies");
    let role = seat_in(&line).unwrap_or("worker#0").to_owned();
    let is_new = |pid: &i32| !before.contains(pid);
    let new = lab.look_for(PATIENCE, |_| Ok(server.process(&role).filter(is_new)))?;
    let seen = new.map_or("no new process".to_owned(), |pid| format!("process {pid}"));
    lab.check(&format!("{role} was started again"), new.is_some(), &seen)?;
    Ok((ends, line))
}

/// Of "… worker#0[pid=26286] abnormal exit, …".
fn seat_in(line: &str) -> Option<&str> {
    let begin = line.find("worker#")?;
    let (seat, _) = line[begin..].split_once('[')?;
    Some(seat)
}
