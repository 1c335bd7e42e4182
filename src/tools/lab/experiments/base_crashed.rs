//! Experiment `base-crashed`: the kernel closes the connections of a worker that dies, in base mode.

use super::Experiment;
use crate::lab::picture::Side;
use crate::lab::server::LabServer;
use crate::lab::stop::Trying;
use crate::lab::{Lab, PATIENCE, Stop};
use crate::sockets::State::{CloseWait, Established, FinWait2, TimeWait};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "base-crashed",
    title: "a worker that dies in base mode: the kernel sends FIN, or RST",
    question: "The process that owned a connection has died. What does the client see?",
    run,
};

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    dies_while_closing(lab)?;
    dies_having_read_everything(lab)?;
    dies_with_unread_bytes(lab)?;
    lab.advise(
        "A client cannot tell the FIN of a dying process from that of a program that was done. Where \
         an answer may be cut off, the protocol has to say how long it is (a length, a last chunk).",
    );
    lab.advise(
        "\"Connection reset by peer\" in a client's log may mean just this: the server closed, or \
         died, with bytes from the client unread. `tine lab reset` shows the other causes.",
    );
    lab.advise(
        "In process mode the connection survives its worker: with `tine serve --mode process \
         --on-crash redeliver` another worker answers the message.",
    );
    Ok(())
}

fn dies_while_closing(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "A server in base mode: each worker owns the connections that it has accepted. Its close \
         callback ends the process with status 255.",
    )?;
    let server = lab.serve("--mode base --workers 1 --fault close:exit=255")?;
    let client = lab.connect(server.address)?;
    let ends = client.ends;
    lab.see(
        "the connection is ESTABLISHED, and the worker holds it",
        &[
            ends.client_is(Established),
            ends.server_is(Established).held_by("worker#0"),
        ],
    )?;

    lab.step(
        "The client closes. The worker dies in the callback, before it has closed the socket.",
    )?;
    lab.did(Side::Client, "closes");
    drop(client);
    logs_abnormal_exit(lab, &server, "status=255, signal=0")?;
    lab.see(
        "the server's end is gone, the client's is in TIME_WAIT",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    lab.means(
        "No CLOSE_WAIT is left: the socket belonged to the dead process, and the kernel closes the \
         descriptors of a process that ends. In process mode the same fault can leak: `tine lab \
         close-wait-crashed`.",
    );
    lab.draw_life("The worker dies in its close callback", ends);
    Ok(())
}

fn dies_having_read_everything(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "The worker dies while it handles a message. It has read every byte that has arrived.",
    )?;
    lab.forget_ports();
    let server = lab.serve("--mode base --workers 1 --fault receive:exit=255")?;
    let client = lab.connect(server.address)?;
    let ends = client.ends;
    lab.see(
        "the connection is ESTABLISHED",
        &[
            ends.client_is(Established),
            ends.server_is(Established).held_by("worker#0"),
        ],
    )?;
    lab.did(Side::Client, "sends 5 bytes");
    lab.send(&client, b"hello")?;
    logs_abnormal_exit(lab, &server, "status=255, signal=0")?;
    lab.see(
        "the kernel has sent a FIN: the client is in CLOSE_WAIT, the server's end in FIN_WAIT2 \
         without a process",
        &[ends.client_is(CloseWait), ends.server_is(FinWait2)],
    )?;
    let end = lab.read_end(&client)?;
    let seen = end
        .as_ref()
        .map_or_else(ToString::to_string, |()| "end of file".to_owned());
    lab.check("the client reads end of file", end.is_ok(), &seen)?;
    lab.means("To the client it looks as if the server had sent everything, and closed.");
    lab.draw_life("The worker dies with no byte unread: FIN", ends);
    Ok(())
}

fn dies_with_unread_bytes(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "The worker blocks in a message, more bytes arrive, and the worker is killed before it has \
         read them.",
    )?;
    lab.forget_ports();
    let server = lab.serve("--mode base --workers 1 --fault receive:sleep=1000")?;
    let client = lab.connect(server.address)?;
    let ends = client.ends;
    lab.see(
        "the connection is ESTABLISHED",
        &[
            ends.client_is(Established),
            ends.server_is(Established).held_by("worker#0"),
        ],
    )?;
    lab.did(Side::Client, "sends 5 bytes");
    lab.send(&client, b"hello")?;
    // Once it has read the message it is in the callback, which sleeps.
    let is_read = lab.look_for(PATIENCE, |lab| {
        let read = lab.is_all_read(ends)?;
        Ok(read.then_some(()))
    })?;
    lab.check("the worker has read the message", is_read.is_some(), "")?;
    lab.did(Side::Client, "sends 5 more");
    lab.send(&client, b"world")?;
    lab.look_for(PATIENCE, |lab| {
        let end = lab.socket(ends.server, ends.client)?;
        Ok(end.filter(|end| end.recv_q == 5).map(drop))
    })?;
    lab.show()?;
    let unread = lab.socket(ends.server, ends.client)?.map(|end| end.recv_q);
    lab.check("5 bytes are unread (Recv-Q)", unread == Some(5), "")?;
    let worker = server.process("worker#0");
    let worker = worker.ok_or_else(|| Stop::Cannot("cannot find worker#0".to_owned()))?;
    lab.did(Side::Server, "is killed");
    lab.ran(&format!("kill -KILL {worker}"));
    server.kill(worker).trying("kill the worker")?;
    logs_abnormal_exit(lab, &server, "status=0, signal=9")?;
    lab.see(
        "both ends are gone at once",
        &[ends.client_is(None), ends.server_is(None)],
    )?;
    let end = lab.read_end(&client)?;
    let is_reset = matches!(&end, Err(error) if error.raw_os_error() == Some(libc::ECONNRESET));
    let seen = end.map_or_else(|error| error.to_string(), |()| "end of file".to_owned());
    lab.check("the client's read fails with ECONNRESET", is_reset, &seen)?;
    lab.means(
        "RST instead of FIN: bytes that were acknowledged will never be read, and the kernel should not \
         pretend that they were (RFC 1122, 4.2.2.13). There is no TIME_WAIT after an RST.",
    );
    lab.draw_life("The worker is killed with unread bytes: RST", ends);
    Ok(())
}

/// Checks that the manager logs the worker's death.
fn logs_abnormal_exit(lab: &mut Lab<'_>, server: &LabServer, how: &str) -> Result<(), Stop> {
    let line = lab.look_for(PATIENCE, |_| Ok(server.logged(&["abnormal exit", how])))?;
    lab.check(
        &format!("the manager logs the worker's death ({how})"),
        line.is_some(),
        "",
    )?;
    lab.printed(&line.unwrap_or_default());
    Ok(())
}
