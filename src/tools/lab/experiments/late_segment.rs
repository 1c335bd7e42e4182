//! Experiment `late-segment`: the second purpose of TIME_WAIT. A copy of a segment comes late: to TIME_WAIT, and to
//! the next connection with the same addresses and ports.

use std::fs;
use std::time::Duration;

use super::Experiment;
use crate::lab::end::{End, Ends, Listening, Sharing};
use crate::lab::picture::{Segment, Side};
use crate::lab::record::Copied;
use crate::lab::stop::Trying;
use crate::lab::{LOOPBACK, Lab, PATIENCE, Stop};
use crate::sockets::State::{Established, TimeWait};
use crate::sockets::counters;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "late-segment",
    title: "what TIME_WAIT is for: a segment comes late",
    question: "A segment was held up on the way, and arrives when its connection is long closed. Who \
               gets its bytes?",
    run,
};

/// The bytes of the segment that comes late, and those of the next connection.
const STALE: &[u8] = b"stale";
const FRESH: &[u8] = b"fresh";

/// Of the network namespace.
const TIMESTAMPS: &str = "/proc/sys/net/ipv4/tcp_timestamps";

/// The number of the SYN of both connections, where the lab sets it.
const FIRST: u32 = 1_000_000;

/// Two connections are begun so often until the server's numbers are close to each other: its kernel takes them
/// from a clock.
const TRIES: usize = 50;

/// The number of bytes that the server sends first, on both connections, which is less than the client's first window.
/// A segment is discarded if it acknowledges something else than this connection has sent, or what lies further back
/// than the largest window of the peer (RFC 5961, 5.2; `tcp_ack`). So it is also the largest distance of the server's
/// numbers.
const ANSWER: usize = 60_000;

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    if lab.apart(|lab, _| inside(lab))?.is_none() {
        lab.step("The server sends the first FIN.")?;
        let (client, server, _listening) = lab.connection()?;
        let ends = client.ends;
        close_by_server(lab, client, server)?;
        lab.see(
            "the server's end is in TIME_WAIT",
            &[ends.server_is(TimeWait)],
        )?;
        cannot(
            lab,
            "a network of its own takes CAP_SYS_ADMIN and CAP_NET_ADMIN, and a copy of a segment takes CAP_NET_RAW",
        );
    }
    lab.advise(
        "Do not end connections by RST to get rid of TIME_WAIT (SO_LINGER of zero): it is TIME_WAIT that \
         keeps late segments from the next connection with the same addresses and ports. \
         `tine lab time-wait` tells what else there is.",
    );
    lab.advise(
        "Leave net.ipv4.tcp_timestamps on, as it is by default. It also lets the kernel use a port in \
         TIME_WAIT again (net.ipv4.tcp_tw_reuse), since a late segment has an older timestamp.",
    );
    Ok(())
}

fn cannot(lab: &mut Lab<'_>, why: &str) {
    lab.means(&format!(
        "There is no picture of a late segment here: {why}. Where it can, the lab sends a copy of a segment \
         again: TIME_WAIT acknowledges and discards it, and without TIME_WAIT the next connection \
         may read its bytes as its own."
    ));
}

fn inside(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "A network of its own, without timestamps (net.ipv4.tcp_timestamps=0). The client sends 5 bytes, and \
         the server reads them and sends the first FIN.",
    )?;
    if let Err(error) = fs::write(TIMESTAMPS, "0") {
        cannot(lab, &format!("{TIMESTAMPS} can't be written ({error})"));
        return Ok(());
    }
    let (client, server, listening) = lab.connection()?;
    let ends = client.ends;
    lab.send(&client, STALE)?;
    lab.read(&server, STALE.len())?;
    close_by_server(lab, client, server)?;
    lab.see(
        "the server's end is in TIME_WAIT, the client's is gone",
        &[ends.client_is(None), ends.server_is(TimeWait)],
    )?;
    let Some(stale) = lab.copy(ends, Side::Client) else {
        cannot(lab, "to capture and send a segment takes CAP_NET_RAW");
        return Ok(());
    };
    comes_to_time_wait(lab, &stale)?;
    comes_to_the_next(lab, &listening, &stale)?;
    fits(lab)?;
    has_a_timestamp(lab)
}

fn close_by_server(lab: &mut Lab<'_>, client: End, server: End) -> Result<(), Stop> {
    lab.did(Side::Server, "closes first");
    drop(server);
    lab.read_end(&client)?.trying("read")?;
    lab.did(Side::Client, "closes");
    drop(client);
    Ok(())
}

fn comes_to_time_wait(lab: &mut Lab<'_>, stale: &Copied) -> Result<(), Stop> {
    lab.step(
        "The segment with the 5 bytes comes once more, as if a copy of it had been held up on the way: the \
         lab has captured it, and sends it again from a raw socket.",
    )?;
    let answered = lab.send_late(stale)?;
    lab.check(
        "TIME_WAIT answers it with an acknowledgement, and no program gets the bytes",
        answered,
        "",
    )?;
    lab.see(
        "and it ends early: the client's kernel, which has forgotten, has answered RST",
        &[stale.ends.server_is(None)],
    )?;
    lab.means(
        "RFC 1337 calls this the assassination of a TIME_WAIT, and lists its hazards. \
         net.ipv4.tcp_rfc1337=1 makes TIME_WAIT ignore the RST; 0 is the default.",
    );
    lab.draw_life("A late segment comes to TIME_WAIT", stale.ends);
    Ok(())
}

fn comes_to_the_next(lab: &mut Lab<'_>, listening: &Listening, stale: &Copied) -> Result<(), Stop> {
    lab.step(
        "TIME_WAIT is over. A new connection with the same addresses and ports, and the copy comes to that.",
    )?;
    let ends = stale.ends;
    let client = lab.connect_from(ends.client, ends.server)?;
    let server = lab.accept(listening)?;
    lab.see(
        "both ends are ESTABLISHED",
        &[ends.client_is(Established), ends.server_is(Established)],
    )?;
    let answered = lab.send_late(stale)?;
    let read = server.read(&mut [0; 16]).trying("read")?;
    lab.check(
        "it is acknowledged and discarded: the server reads nothing",
        answered && read.is_none(),
        "",
    )?;
    let begun = numbers(lab, ends, Side::Client);
    let ahead = begun.last().map(|it| it.wrapping_sub(stale.segment.end()));
    lab.check(
        "the client's first number is after those of the connection before",
        ahead.is_some_and(|ahead| ahead < 1 << 31),
        &ahead.map_or("none".to_owned(), |ahead| format!("by {ahead}")),
    )?;
    lab.means(
        "The late segment lies before the window. That is no luck: the kernel takes the first number of a \
         connection from a clock, to which it adds a secret offset for these addresses and ports (RFC 9293, \
         3.4.1; RFC 6528). The clock of Linux ticks every 64 ns (net/core/secure_seq.c), so that its 32 bits \
         wrap after 4.6 minutes; those of a fast connection wrap sooner.",
    );
    abort(client, server)
}

/// Two connections with the same numbers, the first of which is ended by RST: no TIME_WAIT is between them.
fn fits(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "Two connections, one after the other, with the same addresses, ports and numbers: the first is ended \
         by RST, which leaves no TIME_WAIT, and the lab sets the first number of both clients \
         (TCP_REPAIR). On both the server sends 60,000 bytes. On the first, the client then sends 5 bytes, of \
         which a copy comes late.",
    )?;
    let title = "Without TIME_WAIT a late segment is read by the next connection";
    let Some([client, server]) = again(lab)? else {
        lab.means(&format!(
            "There is no picture \"{title}\": this machine is too busy. The server's first number is of a \
             clock, and the second connection has to follow within 3.8 ms."
        ));
        return Ok(());
    };
    let ends = client.ends;
    lab.see(
        "both ends of the second connection are ESTABLISHED",
        &[ends.client_is(Established), ends.server_is(Established)],
    )?;
    let stale = lab.copy(ends, Side::Client);
    let stale = stale.ok_or_else(|| Stop::Cannot("cannot find the segment".to_owned()))?;
    let answered = lab.send_late(&stale)?;
    let read = lab.read(&server, STALE.len())?;
    lab.check(
        "the server reads 5 bytes that the client has never sent on this connection",
        answered && read == STALE,
        &String::from_utf8_lossy(&read),
    )?;
    lab.did(Side::Client, "sends \"fresh\"");
    lab.send(&client, FRESH)?;
    let known = lab.look_for(PATIENCE, |lab| {
        let socket = lab.socket(ends.client, ends.server)?;
        Ok(socket.filter(|it| it.send_q == 0).map(drop))
    })?;
    let read = server.read(&mut [0; 16]).trying("read")?;
    lab.check(
        "then the client sends 5 bytes of its own: they are acknowledged, and the server never reads them",
        known.is_some() && read.is_none(),
        "",
    )?;
    lab.means(
        "To the server's kernel these are a repetition: their numbers were used by the late segment. Neither \
         program is told. That is the second purpose of TIME_WAIT: when it ends, no segment of the old \
         connection is on its way any more. Without it there are two guards, which the lab had to get past: \
         the client's first number, as above, and the server's. A segment is discarded if it acknowledges \
         what this connection has not sent, or what lies more than a window back (RFC 5961, 5.2): here the \
         server has sent that many bytes again, and the connections are less than 4 ms apart.",
    );
    lab.draw_life(title, ends);
    abort(client, server)
}

/// Returns both ends of the second of two such connections; `None` if the server's numbers were too far from each
/// other each time.
fn again(lab: &mut Lab<'_>) -> Result<Option<[End; 2]>, Stop> {
    for _ in 0..TRIES {
        lab.forget_ports();
        let listening = lab.listen(16, Sharing::default())?;
        let [client, server] = twice(lab, &listening, Duration::ZERO)?;
        let begun = numbers(lab, client.ends, Side::Server);
        if let [first, second] = begun.as_slice()
            && (second.wrapping_sub(*first) as usize) < ANSWER
        {
            return Ok(Some([client, server]));
        }
        abort(client, server)?;
    }
    Ok(None)
}

/// Makes a connection on which the client sends [`STALE`], ends it by RST, and makes another one after that time. On
/// both the server sends [`ANSWER`] bytes first.
fn twice(lab: &mut Lab<'_>, listening: &Listening, after: Duration) -> Result<[End; 2], Stop> {
    let client = lab.connect_with(FIRST, LOOPBACK, listening.address)?;
    let from = client.ends.client;
    let server = lab.accept(listening)?;
    answer(lab, &server, &client)?;
    lab.send(&client, STALE)?;
    lab.read(&server, STALE.len())?;
    lab.did(Side::Client, "closes with RST");
    abort(client, server)?;
    lab.wait(after)?;
    lab.did(Side::Client, "connects again");
    let client = lab.connect_with(FIRST, from, listening.address)?;
    let server = lab.accept(listening)?;
    answer(lab, &server, &client)?;
    Ok([client, server])
}

fn answer(lab: &mut Lab<'_>, server: &End, client: &End) -> Result<(), Stop> {
    lab.send(server, &[b'x'; ANSWER])?;
    lab.read(client, ANSWER).map(drop)
}

fn has_a_timestamp(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The same with timestamps, the second connection 20 ms after the first.")?;
    fs::write(TIMESTAMPS, "1").trying("set net.ipv4.tcp_timestamps")?;
    lab.forget_ports();
    let listening = lab.listen(16, Sharing::default())?;
    let [client, server] = twice(lab, &listening, Duration::from_millis(20))?;
    let stale = lab.copy(client.ends, Side::Client);
    let stale = stale.ok_or_else(|| Stop::Cannot("cannot find the segment".to_owned()))?;
    let rejected = || counters::of_thread("PAWSEstab").trying("read the counters of TCP");
    let before = rejected()?;
    let answered = lab.send_late(&stale)?;
    let read = server.read(&mut [0; 16]).trying("read")?;
    let count = rejected()?.saturating_sub(before);
    lab.check(
        "the server's kernel rejects the copy for its old timestamp, and the server reads nothing",
        answered && read.is_none() && count == 1,
        &format!("PAWSEstab grew by {count}"),
    )?;
    lab.means(
        "PAWS, protection against wrapped sequence numbers (RFC 7323, 5): a segment whose timestamp is older \
         than the last one of the connection is acknowledged and discarded. That guards a connection whose \
         numbers wrap, and the one after it, if both sides use timestamps.",
    );
    abort(client, server)
}

/// Ends a connection by RST.
fn abort(client: End, server: End) -> Result<(), Stop> {
    client.close_with_reset().trying("set SO_LINGER")?;
    drop(server);
    Ok(())
}

/// Returns the numbers of this side's SYNs.
fn numbers(lab: &Lab<'_>, ends: Ends, side: Side) -> Vec<u32> {
    let sent = lab.segments(ends).unwrap_or_default();
    let syns = sent
        .into_iter()
        .filter(|it: &(Side, Segment)| it.0 == side && it.1.syn);
    syns.map(|it| it.1.seq).collect()
}
