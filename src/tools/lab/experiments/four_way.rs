//! Every state of a close, held still.

use std::time::Duration;

use super::Experiment;
use crate::lab::end::{End, Sharing};
use crate::lab::picture::Side;
use crate::lab::stop::Trying;
use crate::lab::{Lab, Stop};
use crate::sockets::State::{
    CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, TimeWait,
};
use crate::sys::options;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "four-way",
    title: "every state of a close, held still",
    question: "Closing a connection takes four segments and up to seven states, and is over within \
               50 microseconds. What are these states, and who is waiting for whom in each?",
    run,
};

/// How an end is kept from taking in the peer's FIN.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// It drops whatever comes. Linux 6.18.44 wants CAP_NET_ADMIN for that, older ones do not.
    Deaf,
    /// It has no room for more, and the FIN stands behind what it has no room for.
    Full,
}

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let hold = match options::may_drop() {
        Ok(true) => Hold::Deaf,
        Ok(false) => Hold::Full,
        Err(error) => return Err(error).trying("make a socket"),
    };
    one_after_the_other(lab, hold)?;
    both_at_once(lab, hold)?;
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
        "FIN_WAIT1, CLOSING and LAST_ACK wait for an acknowledgement from the peer's kernel. Many \
         of them mean that segments are lost, that peers have vanished without a word, or that \
         peers do not read: then Send-Q is not 0, for the FIN stands behind these bytes.",
    );
    lab.advise("TIME_WAIT is no fault: `tine lab time-wait` says what it is for.");
    Ok(())
}

impl Hold {
    /// What is done to that end, in words.
    fn words(self, side: Side) -> String {
        let (this, other) = match side {
            Side::Client => ("client", "server"),
            Side::Server => ("server", "client"),
        };
        match self {
            Hold::Deaf => {
                format!("The {this}'s socket is made deaf: it drops every segment that comes.")
            }
            Hold::Full => format!(
                "The {other} sends until the {this}'s kernel takes no more; the {this} does not read."
            ),
        }
    }

    /// From here on `end` takes in nothing from `peer`.
    fn begin(self, lab: &mut Lab<'_>, end: &End, peer: &End) -> Result<(), Stop> {
        match self {
            Hold::Deaf => lab.deafen(end),
            Hold::Full => {
                lab.did(peer.side, "sends until nothing fits");
                lab.fill(peer)
            }
        }
    }

    fn ends_by(self, side: Side) -> String {
        let (this, other) = match side {
            Side::Client => ("client", "server"),
            Side::Server => ("server", "client"),
        };
        match self {
            Hold::Deaf => format!("The {this} hears again. The {other}'s next FIN arrives."),
            Hold::Full => format!("The {this} reads to the end. The {other}'s FIN arrives."),
        }
    }

    fn end(self, lab: &mut Lab<'_>, end: &End) -> Result<(), Stop> {
        match self {
            Hold::Deaf => lab.undeafen(end),
            Hold::Full => {
                lab.did(end.side, "reads to the end");
                lab.read_end(end)?.trying("read")
            }
        }
    }

    /// Why the FIN is not acknowledged.
    fn reason(self) -> &'static str {
        match self {
            Hold::Deaf => "The kernel sends it again, as the timer says.",
            Hold::Full => "It stands behind the bytes that the peer has no room for (Send-Q).",
        }
    }
}

/// A connection, both ends of it in this process.
fn connection(lab: &mut Lab<'_>) -> Result<(End, End), Stop> {
    let listening = lab.listen(16, Sharing::default())?;
    options::narrow(&listening).trying("set the size of a socket's buffers")?;
    let client = lab.connect_narrow(listening.address)?;
    let server = lab.accept(&listening)?;
    for end in [&client, &server] {
        // However long a state is held, its end is seen soon. An older kernel takes longer.
        let _ = options::resend_within(end, Duration::from_secs(1));
    }
    let ends = client.ends;
    lab.see(
        "both ends are ESTABLISHED",
        &[ends.client_is(Established), ends.server_is(Established)],
    )?;
    Ok((client, server))
}

fn one_after_the_other(lab: &mut Lab<'_>, hold: Hold) -> Result<(), Stop> {
    lab.step("A client connects, and the server accepts.")?;
    let (client, server) = connection(lab)?;
    let ends = client.ends;

    lab.step(&format!(
        "{} Then the client closes its side.",
        hold.words(Side::Server)
    ))?;
    hold.begin(lab, &server, &client)?;
    lab.did(Side::Client, "closes its side");
    client.finish_writing().trying("close")?;
    lab.see(
        "the client is in FIN_WAIT1, the server still ESTABLISHED",
        &[ends.client_is(FinWait1), ends.server_is(Established)],
    )?;
    lab.means(&format!(
        "FIN_WAIT1: the client has closed, and its FIN is not acknowledged. {} The server's program \
         knows nothing.",
        hold.reason()
    ));

    lab.step(&hold.ends_by(Side::Server))?;
    hold.end(lab, &server)?;
    lab.see(
        "the server is in CLOSE_WAIT, the client in FIN_WAIT2",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;
    lab.means(
        "The server's kernel has acknowledged the FIN by itself; its program finds end of file, if \
         it reads. From here on it is the program's turn: CLOSE_WAIT lasts until it closes. \
         FIN_WAIT2 waits for that.",
    );

    lab.step(&format!(
        "{} Then the server closes.",
        hold.words(Side::Client)
    ))?;
    hold.begin(lab, &client, &server)?;
    lab.did(Side::Server, "closes");
    drop(server);
    lab.see(
        "the server is in LAST_ACK, the client still in FIN_WAIT2",
        &[ends.client_is(FinWait2), ends.server_is(LastAck)],
    )?;
    lab.means(&format!(
        "LAST_ACK: the server's FIN is not acknowledged. {} No process holds the socket any more.",
        hold.reason()
    ));

    lab.step(&hold.ends_by(Side::Client))?;
    hold.end(lab, &client)?;
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

fn both_at_once(lab: &mut Lab<'_>, hold: Hold) -> Result<(), Stop> {
    lab.step("A second connection.")?;
    lab.forget_ports();
    let (client, server) = connection(lab)?;
    let ends = client.ends;

    lab.step("The same is done to both sides, and both close.")?;
    hold.begin(lab, &server, &client)?;
    hold.begin(lab, &client, &server)?;
    lab.did(Side::Client, "closes its side");
    client.finish_writing().trying("close")?;
    lab.did(Side::Server, "closes its side");
    server.finish_writing().trying("close")?;
    lab.see(
        "both ends are in FIN_WAIT1",
        &[ends.client_is(FinWait1), ends.server_is(FinWait1)],
    )?;

    lab.step(&hold.ends_by(Side::Server))?;
    hold.end(lab, &server)?;
    // One that is deaf does not hear that its FIN has arrived; one that is full does.
    let (claim, client_is) = match hold {
        Hold::Deaf => (
            "the server is in CLOSING, the client in FIN_WAIT1",
            FinWait1,
        ),
        Hold::Full => (
            "the server is in CLOSING, the client in FIN_WAIT2",
            FinWait2,
        ),
    };
    lab.see(claim, &[ends.client_is(client_is), ends.server_is(Closing)])?;
    lab.means(
        "CLOSING: the peer's FIN has come, and the acknowledgement of the own one has not. It needs \
         two FINs that cross each other on their way, and is rarely seen.",
    );

    lab.step(&hold.ends_by(Side::Client))?;
    hold.end(lab, &client)?;
    lab.see(
        "both ends are in TIME_WAIT: both have closed first",
        &[ends.client_is(TimeWait), ends.server_is(TimeWait)],
    )?;
    lab.draw_life("Both sides close at once", ends);
    Ok(())
}
