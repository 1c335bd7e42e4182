//! Experiment `last-ack`: what TIME_WAIT is for. The last acknowledgement of a close is lost, with and without
//! a socket that remembers the connection; and a segment comes late.

use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::Experiment;
use crate::lab::end::{Ends, Listening};
use crate::lab::picture::{Segment, Side};
use crate::lab::stop::Trying;
use crate::lab::{Lab, PATIENCE, Stop};
use crate::sockets::State::{CloseWait, Established, FinWait2, LastAck, TimeWait};
use crate::sys::forged::{self, Numbers};
use crate::sys::options;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "last-ack",
    title: "what TIME_WAIT is for: a lost acknowledgement, and a late segment",
    question: "Both sides have closed, and one kernel still keeps the connection for a minute. What \
               would go wrong without that?",
    run,
};

/// `TCP_TIMEWAIT_LEN`, a constant of the kernel.
const MINUTE: Duration = Duration::from_secs(60);

/// Time for which the server hears nothing: its FIN is sent again several times.
const DEAF: Duration = Duration::from_millis(1200);

/// The bytes of the segment that comes late.
const STALE: &[u8] = b"stale";

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    match options::may_drop() {
        Ok(true) => remembered(lab)?,
        Ok(false) => lab_cannot_lose(lab)?,
        Err(error) => return Err(error).trying("make a socket"),
    }
    forgotten(lab)?;
    late(lab)?;
    lab.advise(
        "TIME_WAIT protects the other side, and the next connection: leave it alone. If there are too \
         many of them, use fewer connections (`tine lab ports-exhausted`), or let the other side close \
         first (`tine lab time-wait`).",
    );
    lab.advise(
        "A program that calls close() is not told of an RST that comes for its FIN. One that has to know \
         whether its last bytes arrived uses shutdown(SHUT_WR) instead, reads to the end of file, and \
         closes then.",
    );
    Ok(())
}

fn lab_cannot_lose(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The last acknowledgement is lost, while the client's end is in TIME_WAIT.")?;
    lab.means(
        "This can't be shown here: to lose a segment on purpose takes SO_ATTACH_FILTER, for which \
         this kernel demands CAP_NET_ADMIN. With it, the server's FIN comes again, and TIME_WAIT \
         answers it.",
    );
    Ok(())
}

fn remembered(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "The client closes first. Then the server's socket is made deaf, so that it drops every \
         segment that arrives, and the server closes its side.",
    )?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    // Keeps retransmissions frequent. An older kernel takes longer.
    let _ = options::resend_within(&server, Duration::from_secs(1));
    lab.did(Side::Client, "closes first");
    drop(client);
    lab.read_end(&server)?.trying("read")?;
    lab.see(
        "the client is in FIN_WAIT2, the server in CLOSE_WAIT",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;
    lab.deafen(&server)?;
    lab.did(Side::Server, "closes its side");
    let closed = Instant::now();
    server.finish_writing().trying("close")?;
    lab.see(
        "the client is in TIME_WAIT, the server still in LAST_ACK",
        &[ends.client_is(TimeWait), ends.server_is(LastAck)],
    )?;
    lab.means(
        "The client's kernel has everything, and has acknowledged it. The acknowledgement is lost. \
         The server's kernel cannot know which of the two was lost, its FIN or the answer: it sends \
         the FIN again.",
    );
    lab.wait(DEAF)?;

    lab.step("The server receives again.")?;
    lab.undeafen(&server)?;
    lab.see(
        "the server's end is gone: its FIN came again, and TIME_WAIT has answered it",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    let left = lab.socket(ends.client, ends.server)?;
    let left = left
        .and_then(|it| it.timer)
        .map_or(Duration::ZERO, |it| it.left);
    let since = closed.elapsed();
    lab.check(
        "the FIN that came again has restarted the minute (RFC 9293, 3.10.7.4)",
        left + since > MINUTE + DEAF / 2,
        &format!(
            "{:.1} s after the close, {:.1} s are left",
            since.as_secs_f64(),
            left.as_secs_f64()
        ),
    )?;
    lab.draw_life(
        "The last acknowledgement is lost, and TIME_WAIT answers again",
        ends,
    );
    Ok(())
}

fn forgotten(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "The same FIN comes to a kernel that does not remember the connection: the client's was told \
         to wait for it for one second only (TCP_LINGER2).",
    )?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    options::keep_fin_wait2_for(&client, 1).trying("set TCP_LINGER2")?;
    lab.did(Side::Client, "closes first");
    drop(client);
    lab.read_end(&server)?.trying("read")?;
    lab.see(
        "the client's kernel has forgotten, the server is in CLOSE_WAIT",
        &[ends.client_is(None), ends.server_is(CloseWait)],
    )?;
    lab.did(Side::Server, "closes its side");
    server.finish_writing().trying("close")?;
    lab.see(
        "both ends are gone",
        &[ends.client_is(None), ends.server_is(None)],
    )?;
    lab.check_error(
        &server,
        "the server's socket has the error ECONNRESET (SO_ERROR)",
        libc::ECONNRESET,
    )?;
    lab.means(
        "A kernel answers a FIN that it does not know with RST. So an orderly close looks like a \
         failure: the server cannot tell whether the client has its last bytes. That is the first \
         purpose of TIME_WAIT.",
    );
    lab.draw_life(
        "A FIN comes to a kernel that has forgotten the connection",
        ends,
    );
    Ok(())
}

fn late(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The server sends 5 bytes, the client reads them, and both close.")?;
    let (client, server, listening) = lab.connection()?;
    let ends = client.ends;
    lab.send(&server, STALE)?;
    lab.read(&client, STALE.len())?;
    drop(client);
    lab.read_end(&server)?.trying("read")?;
    drop(server);
    lab.see(
        "the client's end is in TIME_WAIT, the server's is gone",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    let Some(sent) = lab.segments(ends) else {
        lab.means(
            "What comes of a late copy of these 5 bytes can't be shown here: to send one takes a raw \
             socket, which demands CAP_NET_RAW.",
        );
        return Ok(());
    };
    let is_stale = |it: &&(Side, Segment)| it.0 == Side::Server && it.1.length == STALE.len();
    let stale = sent.iter().find(is_stale).map(|it| it.1);
    let stale = stale.ok_or_else(|| Stop::Cannot("cannot find the segment".to_owned()))?;
    if comes_to_time_wait(lab, ends, stale)? {
        comes_to_the_next(lab, &listening, ends, stale)?;
    }
    Ok(())
}

/// Sends the late segment to a TIME_WAIT. Returns whether that has ended by it.
fn comes_to_time_wait(lab: &mut Lab<'_>, ends: Ends, stale: Segment) -> Result<bool, Stop> {
    lab.step(
        "The segment with the 5 bytes comes once more, as if a copy of it had been held up on the way: \
         the lab sends it from a raw socket.",
    )?;
    let answered = comes_late(lab, ends, stale)?;
    lab.check(
        "TIME_WAIT answers it with an acknowledgement, and no program gets the bytes",
        answered,
        "",
    )?;
    let protects = fs::read_to_string("/proc/sys/net/ipv4/tcp_rfc1337");
    if protects.is_ok_and(|value| value.trim() != "0") {
        lab.see("TIME_WAIT goes on", &[ends.client_is(TimeWait)])?;
        return Ok(false);
    }
    lab.see(
        "and it ends early: the server's kernel, which has forgotten, has answered RST",
        &[ends.client_is(None)],
    )?;
    lab.means(
        "RFC 1337 calls this the assassination of a TIME_WAIT, and lists its hazards. \
         net.ipv4.tcp_rfc1337=1 makes TIME_WAIT ignore the RST; 0 is the default.",
    );
    Ok(true)
}

fn comes_to_the_next(
    lab: &mut Lab<'_>,
    listening: &Listening,
    ends: Ends,
    stale: Segment,
) -> Result<(), Stop> {
    lab.step("Without TIME_WAIT: a new connection with the same addresses and ports, and the copy comes.")?;
    let client = lab.connect_from(ends.client, ends.server)?;
    let server = lab.accept(listening)?;
    lab.see(
        "both ends are ESTABLISHED",
        &[ends.client_is(Established), ends.server_is(Established)],
    )?;
    let answered = comes_late(lab, ends, stale)?;
    let read = client.read(&mut [0; 16]).trying("read")?;
    lab.check(
        "it is acknowledged and discarded: the client reads nothing",
        answered && read.is_none(),
        "",
    )?;
    lab.means(
        "Its sequence number lies before the window. That is no luck: the kernel takes the \
         first number of a connection from a clock (RFC 9293, 3.4.1; RFC 6528), so that it is higher \
         than those of the connection before.",
    );

    lab.step(
        "The same bytes once more, with a number that fits, as after 4 GiB, when the numbers wrap.",
    )?;
    let fits = fitting(lab, ends)?;
    comes_late(lab, ends, fits)?;
    let read = lab.read(&client, STALE.len())?;
    lab.check(
        "the client reads 5 bytes that the server never sent on this connection",
        read == STALE,
        &String::from_utf8_lossy(&read),
    )?;
    lab.means(
        "That is the second purpose of TIME_WAIT: when it ends, no segment of the old connection is on \
         its way any more. Timestamps are another guard, where both sides use them: a segment with an \
         old one is discarded (RFC 7323, 5). This copy had none.",
    );
    for end in [client, server] {
        end.close_with_reset().trying("set SO_LINGER")?;
    }
    Ok(())
}

/// Returns a segment of the server that the client expects next.
fn fitting(lab: &Lab<'_>, ends: Ends) -> Result<Segment, Stop> {
    let sent = lab.segments(ends).unwrap_or_default();
    let syn = |side: Side| {
        let found = sent.iter().rfind(|it| it.0 == side && it.1.syn);
        found.map(|it| it.1.end())
    };
    match (syn(Side::Server), syn(Side::Client)) {
        (Some(seq), Some(acknowledges)) => Ok(Segment {
            seq,
            acknowledges,
            ..Segment::default()
        }),
        _ => Err(Stop::Cannot("cannot find the handshake".to_owned())),
    }
}

/// Sends a copy of a segment of the server, with [`STALE`] as its data. Returns whether the client's kernel
/// answers it.
fn comes_late(lab: &mut Lab<'_>, ends: Ends, it: Segment) -> Result<bool, Stop> {
    let before = lab.segments(ends).map_or(0, |sent| sent.len());
    let numbers = Numbers {
        seq: it.seq,
        acknowledges: it.acknowledges,
    };
    let sent = forged::send(v4(ends.server)?, v4(ends.client)?, numbers, STALE);
    sent.trying("send from a raw socket")?;
    let answered = lab.look_for(PATIENCE, |lab| {
        let sent = lab.segments(ends).unwrap_or_default();
        let mut later = sent.iter().skip(before);
        Ok(later
            .any(|it| it.0 == Side::Client && it.1.ack && !it.1.syn)
            .then_some(()))
    })?;
    Ok(answered.is_some())
}

fn v4(address: SocketAddr) -> Result<SocketAddrV4, Stop> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => Err(Stop::Cannot(format!("cannot use {address}: not IPv4"))),
    }
}
