//! Every state of a close, held still.

use std::time::Duration;

use super::Experiment;
use crate::inspect::sockets::State::{
    CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, TimeWait,
};
use crate::lab::end::{End, Sharing};
use crate::lab::picture::Side;
use crate::lab::stop::Trying;
use crate::lab::{Lab, Stop};
use crate::sys::options;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "four-way",
    title: "every state of a close, held still",
    question: "Closing a connection takes four segments and up to seven states, and is over within \
               50 microseconds. What are these states, and who is waiting for whom in each?",
    run,
};

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    one_after_the_other(lab)?;
    both_at_once(lab)?;
    lab.advise(
        "CLOSE_WAIT is the only state here that ends by nothing but a program: the peer has closed, \
         and this side has not called close(). Many of them, or old ones, are a bug or a blocked \
         process on this machine. `tine doctor` names the process, `tine lab close-wait-blocked` \
         shows how it comes about.",
    );
    lab.advise(
        "FIN_WAIT2 is the same leak seen from the other machine: this side has closed, the peer has \
         not. If this side's program has let go of the socket, the kernel forgets it after \
         net.ipv4.tcp_fin_timeout; if it keeps the descriptor (shutdown() without close()), never.",
    );
    lab.advise(
        "FIN_WAIT1, CLOSING and LAST_ACK wait for an acknowledgement from the network. Many of \
         them mean that segments are lost, or that peers have vanished without a word.",
    );
    lab.advise("TIME_WAIT is no fault: `tine lab time-wait` says what it is for.");
    Ok(())
}

/// A connection, both ends of it in this process.
fn connection(lab: &mut Lab<'_>) -> Result<(End, End), Stop> {
    let listening = lab.listen(16, Sharing::default())?;
    let client = lab.connect(listening.address)?;
    let server = lab.accept(&listening)?;
    for end in [&client, &server] {
        // However long a state is held, its end is seen soon. An older kernel takes longer.
        let _ = options::resend_within(end, Duration::from_secs(1));
    }
    Ok((client, server))
}

fn one_after_the_other(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("A client connects, and the server accepts.")?;
    let (client, server) = connection(lab)?;
    let ends = client.ends;
    lab.see(
        "both ends are ESTABLISHED",
        &[ends.client_is(Established), ends.server_is(Established)],
    )?;

    lab.step(
        "The server's socket is made deaf: it drops every segment that comes. Then the client \
         closes its side.",
    )?;
    lab.deafen(&server)?;
    lab.did(Side::Client, "closes its side");
    client.finish_writing().trying("close")?;
    lab.see(
        "the client is in FIN_WAIT1, the server still ESTABLISHED",
        &[ends.client_is(FinWait1), ends.server_is(Established)],
    )?;
    lab.means(
        "FIN_WAIT1: the FIN is sent and not acknowledged. The kernel sends it again, as the timer \
         says; the server's program knows nothing.",
    );

    lab.step("The server hears again. The client's next FIN arrives.")?;
    lab.undeafen(&server)?;
    lab.see(
        "the server is in CLOSE_WAIT, the client in FIN_WAIT2",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;
    lab.means(
        "The server's kernel has acknowledged the FIN by itself; its program finds end of file, if \
         it reads. From here on it is the program's turn: CLOSE_WAIT lasts until it closes. \
         FIN_WAIT2 waits for that.",
    );

    lab.step("The client is made deaf. Then the server closes.")?;
    lab.deafen(&client)?;
    lab.did(Side::Server, "closes");
    drop(server);
    lab.see(
        "the server is in LAST_ACK, the client still in FIN_WAIT2",
        &[ends.client_is(FinWait2), ends.server_is(LastAck)],
    )?;
    lab.means(
        "LAST_ACK: the server's FIN is sent and not acknowledged. No process holds the socket any \
         more; the kernel sends the FIN again until it is.",
    );

    lab.step("The client hears again. The server's next FIN arrives.")?;
    lab.undeafen(&client)?;
    lab.see(
        "the server's end is gone, the client's is in TIME_WAIT",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    lab.means(
        "Who has closed first keeps the connection in mind for a minute, in case its last \
         acknowledgement is lost and the other side's FIN comes once more.",
    );
    lab.draw_life("A close, one side after the other", ends);
    Ok(())
}

fn both_at_once(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("A second connection.")?;
    lab.turn_the_page();
    let (client, server) = connection(lab)?;
    let ends = client.ends;
    lab.see(
        "both ends are ESTABLISHED",
        &[ends.client_is(Established), ends.server_is(Established)],
    )?;

    lab.step("Both sides are made deaf, and both close.")?;
    for end in [&client, &server] {
        lab.deafen(end)?;
    }
    lab.did(Side::Client, "closes its side");
    client.finish_writing().trying("close")?;
    lab.did(Side::Server, "closes its side");
    server.finish_writing().trying("close")?;
    lab.see(
        "both ends are in FIN_WAIT1",
        &[ends.client_is(FinWait1), ends.server_is(FinWait1)],
    )?;

    lab.step("The server hears again, the client does not.")?;
    lab.undeafen(&server)?;
    lab.see(
        "the server is in CLOSING, the client in FIN_WAIT1",
        &[ends.client_is(FinWait1), ends.server_is(Closing)],
    )?;
    lab.means(
        "CLOSING: the peer's FIN has come, and the acknowledgement of the own one has not. It needs \
         two FINs that cross each other on their way, and is rarely seen.",
    );

    lab.step("The client hears again.")?;
    lab.undeafen(&client)?;
    lab.see(
        "both ends are in TIME_WAIT: both have closed first",
        &[ends.client_is(TimeWait), ends.server_is(TimeWait)],
    )?;
    lab.draw_life("Both sides close at once", ends);
    Ok(())
}
