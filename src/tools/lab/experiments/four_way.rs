//! Experiment `four-way`: every state of a close, held still.

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
    question: "Closing a connection takes four segments at most if none is lost, and has six states. Over \
               loopback five of them may be over before a program can look; the sixth lasts a minute. What \
               are they, and which side waits for which in each?",
    run,
};

/// How an end is kept from receiving the peer's FIN.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// It drops every segment. Linux 6.18.44 demands CAP_NET_ADMIN for that, older kernels do not.
    Deaf,
    /// Its receive buffer is full, and the FIN waits behind bytes that do not fit.
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
        "CLOSE_WAIT waits for a program: the peer has closed, and this side has not called close(). \
         It has no timer of its own. Besides the program, only an RST ends it, which a kernel sends when it \
         is asked, or that keepalive probes or sent bytes are not answered at all: `tine lab vanished`. Many of them, or old ones, mean a bug or a blocked process on this \
         machine. `tine doctor` names the process, `tine lab close-wait-blocked` shows how it comes \
         about.",
    );
    lab.advise(
        "FIN_WAIT2 is the same leak seen from the other machine: this side has closed, the peer has \
         not. If this side's program has closed its descriptor, the kernel forgets the socket after \
         net.ipv4.tcp_fin_timeout, tcp(7); if it keeps the descriptor (shutdown() without close()), no \
         timer but that of keepalive ends it.",
    );
    lab.advise(
        "FIN_WAIT1, CLOSING and LAST_ACK wait for an acknowledgement from the peer's kernel. Many \
         of them mean that segments are lost, that peers have vanished without closing, or that \
         peers do not read: then Send-Q is more than 1, because the FIN, which counts as a byte, waits \
         behind others.",
    );
    lab.advise(
        "TIME_WAIT is not a fault: `tine lab last-ack` and `tine lab late-segment` show its purposes.",
    );
    Ok(())
}

impl Hold {
    /// Describes how that end is held.
    fn words(self, side: Side) -> String {
        let (this, other) = match side {
            Side::Client => ("client", "server"),
            Side::Server => ("server", "client"),
        };
        match self {
            Hold::Deaf => {
                format!("The {this}'s socket is made deaf: it drops every segment that arrives.")
            }
            Hold::Full => format!(
                "The {other} sends until the {this}'s kernel accepts no more; the {this} does not read."
            ),
        }
    }

    /// Keeps `end` from receiving anything more from `peer`.
    fn begin(self, lab: &mut Lab<'_>, end: &End, peer: &End) -> Result<(), Stop> {
        match self {
            Hold::Deaf => lab.deafen(end),
            Hold::Full => {
                lab.did(peer.side, "sends until nothing more fits");
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
            Hold::Deaf => {
                format!("The {this} receives again. The {other}'s next FIN arrives.")
            }
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

    /// Explains why the FIN is not acknowledged.
    fn reason(self) -> &'static str {
        match self {
            Hold::Deaf => "The kernel sends it again when the timer ends.",
            Hold::Full => "It waits behind the bytes for which the peer has no room (Send-Q).",
        }
    }
}

/// Makes a connection with both ends in this process and small buffers.
fn connection(lab: &mut Lab<'_>) -> Result<(End, End), Stop> {
    let listening = lab.listen(16, Sharing::default())?;
    options::narrow(&listening).trying("set the size of a socket's buffers")?;
    let client = lab.connect_narrow(listening.address)?;
    let server = lab.accept(&listening)?;
    for end in [&client, &server] {
        // Keeps retransmissions frequent, however long a state is held. An older kernel takes longer.
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
    client_closes(lab, hold, &client, &server)?;
    server_closes(lab, hold, &client, server)?;
    lab.draw_life("A close, one side after the other", ends);
    Ok(())
}

fn client_closes(lab: &mut Lab<'_>, hold: Hold, client: &End, server: &End) -> Result<(), Stop> {
    let ends = client.ends;
    lab.step(&format!(
        "{} Then the client closes its side.",
        hold.words(Side::Server)
    ))?;
    hold.begin(lab, server, client)?;
    lab.did(Side::Client, "closes its side");
    client.finish_writing().trying("close")?;
    lab.see(
        "the client is in FIN_WAIT1, the server still ESTABLISHED",
        &[ends.client_is(FinWait1), ends.server_is(Established)],
    )?;
    lab.means(&format!(
        "FIN_WAIT1: the client has closed, and its FIN is not acknowledged. {} The server's program \
         does not know of it yet.",
        hold.reason()
    ));

    lab.step(&hold.ends_by(Side::Server))?;
    hold.end(lab, server)?;
    lab.see(
        "the server is in CLOSE_WAIT, the client in FIN_WAIT2",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;
    lab.means(
        "The server's kernel has acknowledged the FIN by itself; its program finds end of file, if \
         it reads. Now it is the program's turn: CLOSE_WAIT lasts until it closes, and FIN_WAIT2 \
         waits for that.",
    );
    Ok(())
}

fn server_closes(lab: &mut Lab<'_>, hold: Hold, client: &End, server: End) -> Result<(), Stop> {
    let ends = client.ends;
    lab.step(&format!(
        "{} Then the server closes.",
        hold.words(Side::Client)
    ))?;
    hold.begin(lab, client, &server)?;
    lab.did(Side::Server, "closes");
    drop(server);
    lab.see(
        "the server is in LAST_ACK, the client still in FIN_WAIT2",
        &[ends.client_is(FinWait2), ends.server_is(LastAck)],
    )?;
    lab.means(&format!(
        "LAST_ACK: the server's FIN is not acknowledged. {} No process holds the socket now.",
        hold.reason()
    ));

    lab.step(&hold.ends_by(Side::Client))?;
    hold.end(lab, client)?;
    lab.see(
        "the server's end is gone, the client's is in TIME_WAIT",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    lab.means(
        "The side that has closed first remembers the connection for a minute, in case its last \
         acknowledgement is lost and the other side sends its FIN again: `tine lab last-ack`.",
    );
    Ok(())
}

fn both_at_once(lab: &mut Lab<'_>, hold: Hold) -> Result<(), Stop> {
    lab.step("A second connection.")?;
    lab.forget_ports();
    let (client, server) = connection(lab)?;
    let ends = client.ends;

    lab.step("Both sides are held in this way, and both close.")?;
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
    // A deaf end does not receive the acknowledgement of its FIN; a full one does.
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
        "CLOSING: the peer's FIN has arrived, but the acknowledgement of this side's FIN has not. It \
         takes two FINs that cross on the way (RFC 9293, figure 13).",
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
