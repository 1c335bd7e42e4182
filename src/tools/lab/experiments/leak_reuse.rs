//! Experiment `leak-reuse`: a new connection from the port of a leaked one.

use std::time::Instant;

use super::Experiment;
use crate::lab::end::Ends;
use crate::lab::picture::Side;
use crate::lab::server::LabServer;
use crate::lab::stop::Trying;
use crate::lab::{Lab, PATIENCE, Stop};
use crate::sockets::State::{CloseWait, Established};
use crate::sys::options;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "leak-reuse",
    title: "a new connection from a leaked connection's port",
    question: "The server still has a connection that its client has long forgotten. What happens \
               when that client connects again and gets the same port by chance?",
    run,
};

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "A server that leaks: its workers die in the close callback, and the master keeps the \
         connection.",
    )?;
    let server = lab.serve(
        "--workers 2 --fault close:exit=255 --on-crash keep --close-deadline never --keepalive never",
    )?;
    let ends = leak(lab, &server)?;
    connect_again(lab, &server, ends)?;
    lab.advise(
        "A leaked connection does not lock its client out: the first SYN from its port removes it. \
         But that happens by accident. The fewer ports a client has, the sooner it comes back to the \
         same one: behind a proxy or NAT with few ports, leaks may seem to heal by themselves.",
    );
    lab.advise(
        "It takes the challenge ACK and the RST: where a firewall or a load balancer drops either, \
         connect() can only time out. If clients see that now and then, look for CLOSE_WAIT on the \
         server: `tine doctor PORT`.",
    );
    Ok(())
}

/// Leaves a connection on the server that its client's kernel has forgotten.
fn leak(lab: &mut Lab<'_>, server: &LabServer) -> Result<Ends, Stop> {
    lab.step("A client connects and closes. Its kernel is told to forget it after a second.")?;
    let client = lab.connect(server.address)?;
    let ends = client.ends;
    lab.see(
        "the connection is ESTABLISHED, and the master holds it",
        &[
            ends.client_is(Established),
            ends.server_is(Established).held_by("master"),
        ],
    )?;
    options::keep_fin_wait2_for(&client, 1).trying("set TCP_LINGER2")?;
    lab.did(Side::Client, "closes");
    drop(client);
    let line = lab.look_for(PATIENCE, |_| Ok(server.logged(&["abnormal exit"])))?;
    lab.check("the worker dies in the close callback", line.is_some(), "")?;
    lab.see(
        "the client's end is gone, the server's is in CLOSE_WAIT: a leak",
        &[ends.client_is(None), ends.server_is(CloseWait)],
    )?;
    Ok(ends)
}

fn connect_again(lab: &mut Lab<'_>, server: &LabServer, ends: Ends) -> Result<(), Stop> {
    lab.step("The client connects again, from the same port.")?;
    lab.did(Side::Client, "connects again");
    let begin = Instant::now();
    let again = lab.connect_from(ends.client, server.address)?;
    let took = begin.elapsed();
    lab.see(
        "both ends are ESTABLISHED again: a new connection with the same addresses and ports",
        &[
            ends.client_is(Established),
            ends.server_is(Established).held_by("master"),
        ],
    )?;
    lab.means(&format!(
        "connect() took {:.1} ms.",
        took.as_secs_f64() * 1000.0
    ));
    lab.send(&again, b"hello")?;
    let answer = lab.read(&again, 5)?;
    lab.check("the server answers on it", answer == b"hello", "")?;
    lab.means(
        "To the server's kernel the SYN belonged to the old connection, and made no sense there: it \
         answered with an ACK that tells the expected sequence number (a challenge ACK, RFC 5961, \
         4.2). The client's kernel does not know that connection, and answered RST. That ended the \
         leaked connection, and the client's next SYN found the port free. Linux sends that one after \
         two ticks of its clock, since 5.6; an older kernel sends it after a second.",
    );
    lab.draw_life("A new connection from its port ends a leak", ends);
    Ok(())
}
