//! Experiment `vanished`: what ends a connection without its program. Keepalive, deadlines for
//! acknowledgements, and the connections that nothing ends.

use std::time::Duration;

use super::Experiment;
use crate::lab::end::{End, Ends, Listening, Sharing};
use crate::lab::picture::Side;
use crate::lab::stop::Trying;
use crate::lab::{Lab, Stop};
use crate::sockets::State::{CloseWait, Established, FinWait2};
use crate::sockets::{Timer, TimerKind};
use crate::sys::namespace::Link;
use crate::sys::options;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "vanished",
    title: "keepalive: what ends a connection whose peer is gone, and what never does",
    question: "A client's machine lost its power a week ago, and its connection is still there. What \
               would have ended it, and when?",
    run,
};

/// Longest time for which bytes may be unacknowledged, on one of the connections.
const UNACKNOWLEDGED: Duration = Duration::from_secs(2);

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    nothing_asks(lab)?;
    keepalive_in_close_wait(lab)?;
    let cut = lab.apart(the_link_is_cut)?;
    if cut.is_none() {
        lab.step("The link to the other machine is cut.")?;
        lab.means(
            "This can't be shown here: to cut a link takes a network namespace of its own, and to make \
             one takes CAP_SYS_ADMIN. With it, connections without keepalive stay ESTABLISHED on both \
             sides, and a probe that is not answered ends the others with ETIMEDOUT.",
        );
    }
    lab.advise(
        "A connection on which nobody sends has no timer: it ends by a segment of the peer, or never. \
         A server needs one of two things: SO_KEEPALIVE, which finds peers that are gone, or a deadline \
         for silence, which also ends those that are there and say nothing.",
    );
    lab.advise(
        "SO_KEEPALIVE is off by default, and slow where it is only turned on: the first probe comes \
         after two hours (net.ipv4.tcp_keepalive_time), the end eleven minutes later (nine probes, 75 s \
         apart; tcp(7)). TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT set it for one socket. \
         `tine doctor` names connections without it that have long been silent.",
    );
    lab.advise(
        "Keepalive asks the kernel, not the program: a peer whose program hangs answers every probe. It \
         ends no CLOSE_WAIT as long as the peer's kernel remembers the connection, and its answers arrive.",
    );
    Ok(())
}

fn nothing_asks(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("A connection on which nobody sends, with the defaults of the kernel.")?;
    let (client, _server, _listening) = lab.connection()?;
    let ends = client.ends;
    let timers = [
        timer(lab, ends, Side::Client)?,
        timer(lab, ends, Side::Server)?,
    ];
    lab.check(
        "neither end has a timer",
        timers == [None, None],
        &timers.map(in_words).join(", "),
    )?;
    lab.means(
        "TCP sends nothing on its own. If the peer's machine loses its power now, no segment tells, and \
         this end stays ESTABLISHED for as long as its process lives.",
    );
    Ok(())
}

fn keepalive_in_close_wait(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "A server that never closes, with SO_KEEPALIVE: it probes after one second, and each second. \
         The client sends its FIN, and keeps its descriptor.",
    )?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    options::keep_fin_wait2_for(&client, 1).trying("set TCP_LINGER2")?;
    lab.keep_alive(&server)?;
    lab.did(Side::Client, "closes its side");
    client.finish_writing().trying("close")?;
    lab.see(
        "the server is in CLOSE_WAIT, the client in FIN_WAIT2",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;
    let timer = timer(lab, ends, Side::Server)?;
    lab.check(
        "the server's kernel has a timer for the next probe",
        timer.is_some_and(|timer| timer.kind == TimerKind::Keepalive),
        &in_words(timer),
    )?;
    lab.wait(Duration::from_millis(2500))?;
    lab.see(
        "2.5 s later both ends are as they were: the client's kernel answers the probes",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;

    lab.step("The client closes its descriptor. Its kernel is told to forget it after a second.")?;
    lab.did(Side::Client, "closes its descriptor");
    drop(client);
    lab.see(
        "both ends are gone: the next probe was answered with RST",
        &[ends.client_is(None), ends.server_is(None)],
    )?;
    lab.check_error(
        &server,
        "the server's program is told EPIPE, if it asks (SO_ERROR)",
        libc::EPIPE,
    )?;
    lab.means(
        "So keepalive ends a CLOSE_WAIT, once the peer's kernel has forgotten the connection. It does \
         not free the descriptor, which the program still has to close. Bytes that the server sends \
         have the same effect: `tine lab half-close`.",
    );
    lab.draw_life(
        "Keepalive ends a CLOSE_WAIT that the client's kernel has forgotten",
        ends,
    );
    Ok(())
}

/// The connections of the server, and what each has that may end it.
struct Doomed {
    nothing: [End; 2],
    close_wait: [End; 2],
    asked: [End; 2],
    keepalive: [End; 2],
    bytes: [End; 2],
    deadline: [End; 2],
}

fn connections(lab: &mut Lab<'_>) -> Result<(Doomed, Listening), Stop> {
    let listening = lab.listen(16, Sharing::default())?;
    let pair = |lab: &mut Lab<'_>| -> Result<[End; 2], Stop> {
        let client = lab.connect(listening.address)?;
        let server = lab.accept(&listening)?;
        Ok([client, server])
    };
    let all = Doomed {
        nothing: pair(lab)?,
        close_wait: pair(lab)?,
        asked: pair(lab)?,
        keepalive: pair(lab)?,
        bytes: pair(lab)?,
        deadline: pair(lab)?,
    };
    Ok((all, listening))
}

fn the_link_is_cut(lab: &mut Lab<'_>, link: &Link) -> Result<(), Stop> {
    lab.step(
        "A network of its own, whose link can be cut, and six connections. On the first four nobody \
         sends, and the clients of the second and the third have closed their side. The server has keepalive \
         on the third and the fourth, as before. It will send on the last two, of which the sixth has a \
         deadline of 2 s for the acknowledgement (TCP_USER_TIMEOUT).",
    )?;
    let (all, _listening) = connections(lab)?;
    for pair in [&all.close_wait, &all.asked] {
        pair[0].finish_writing().trying("close")?;
    }
    let [half, asked] = [&all.close_wait, &all.asked].map(|pair| pair[0].ends);
    lab.see(
        "the second and the third are in FIN_WAIT2 and CLOSE_WAIT, the others are ESTABLISHED",
        &[
            half.client_is(FinWait2),
            half.server_is(CloseWait),
            asked.client_is(FinWait2),
            asked.server_is(CloseWait),
        ],
    )?;
    lab.keep_alive(&all.asked[1])?;
    lab.keep_alive(&all.keepalive[1])?;
    options::expect_acknowledgement_within(&all.deadline[1], UNACKNOWLEDGED)
        .trying("set TCP_USER_TIMEOUT")?;

    lab.step("The link is cut. The server sends 5 bytes on each of the last two.")?;
    link.cut().trying("cut the link")?;
    lab.send(&all.bytes[1], b"hello")?;
    lab.send(&all.deadline[1], b"hello")?;
    let [nothing, keepalive, bytes, deadline] =
        [&all.nothing, &all.keepalive, &all.bytes, &all.deadline].map(|pair| pair[0].ends);
    lab.see(
        "the server's ends with keepalive and with a deadline are gone, all others are as they were",
        &[
            nothing.client_is(Established),
            nothing.server_is(Established),
            half.client_is(FinWait2),
            half.server_is(CloseWait),
            asked.client_is(FinWait2),
            asked.server_is(None),
            keepalive.client_is(Established),
            keepalive.server_is(None),
            bytes.client_is(Established),
            bytes.server_is(Established),
            deadline.client_is(Established),
            deadline.server_is(None),
        ],
    )?;
    told(lab, &all)?;
    never(lab, [nothing, half, keepalive], bytes)
}

/// Checks the errors of the connections that have ended.
fn told(lab: &mut Lab<'_>, all: &Doomed) -> Result<(), Stop> {
    for (pair, name) in [(&all.keepalive, "keepalive"), (&all.deadline, "a deadline")] {
        let read = lab.read_end(&pair[1])?;
        let seen = read
            .as_ref()
            .map_or_else(ToString::to_string, |()| "end of file".to_owned());
        let is_lost = matches!(&read, Err(error) if matches!(
            error.raw_os_error(),
            Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH)
        ));
        lab.check(
            &format!("with {name}, the server's read fails: the peer is gone"),
            is_lost,
            &seen,
        )?;
    }
    Ok(())
}

/// Checks that no timer will end the connections without a sender, and that one will end the other one.
fn never(lab: &mut Lab<'_>, silent: [Ends; 3], sends: Ends) -> Result<(), Stop> {
    let [nothing, half, keepalive] = silent;
    let timers = [
        timer(lab, nothing, Side::Client)?,
        timer(lab, nothing, Side::Server)?,
        timer(lab, half, Side::Client)?,
        timer(lab, half, Side::Server)?,
        timer(lab, keepalive, Side::Client)?,
    ];
    lab.check(
        "the ends that do not send have no timer: while the link is cut, only their processes end them",
        timers == [None; 5],
        &timers.map(in_words).join(", "),
    )?;
    let resends = timer(lab, sends, Side::Server)?;
    lab.check(
        "the end that has sent has one, and gives up after net.ipv4.tcp_retries2 attempts",
        resends.is_some_and(|timer| timer.kind == TimerKind::Retransmit),
        &in_words(resends),
    )?;
    lab.means(
        "15 attempts are the default of tcp_retries2, which take 924.6 s at least (ip-sysctl.rst of the \
         kernel). So a connection with bytes under way ends after a quarter of an hour or more, and one \
         without bytes and without keepalive never, be it ESTABLISHED, CLOSE_WAIT, or FIN_WAIT2 with an open descriptor. The \
         client's ends stay too: to them, the server is the peer that has vanished.",
    );
    Ok(())
}

fn timer(lab: &mut Lab<'_>, ends: Ends, side: Side) -> Result<Option<Timer>, Stop> {
    let (local, remote) = ends.of(side);
    // The acknowledgement of the last segment may still have one, for 40 ms.
    let found = lab.look_for(Duration::from_millis(500), |lab| {
        let timer = lab.socket(local, remote)?.and_then(|socket| socket.timer);
        Ok(timer.is_none().then_some(()))
    })?;
    match found {
        Some(()) => Ok(None),
        None => Ok(lab.socket(local, remote)?.and_then(|socket| socket.timer)),
    }
}

fn in_words(timer: Option<Timer>) -> String {
    timer.map_or("none".to_owned(), |timer| {
        format!("{:?} in {:.1} s", timer.kind, timer.left.as_secs_f64()).to_lowercase()
    })
}
