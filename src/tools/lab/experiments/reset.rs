//! Experiment `reset`: the causes of ECONNRESET, EPIPE and ECONNREFUSED.

use std::io;

use super::Experiment;
use crate::lab::end::{End, Ends, Sharing};
use crate::lab::picture::Side;
use crate::lab::stop::Trying;
use crate::lab::{LOOPBACK, Lab, PATIENCE, Stop};
use crate::sockets::State::{CloseWait, Established, FinWait2};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "reset",
    title: "the causes of \"Connection reset by peer\", told apart",
    question: "A log says ECONNRESET, EPIPE or ECONNREFUSED. What did the other side do?",
    run,
};

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    closed_with_unread_bytes(lab)?;
    refused_and_closed(lab)?;
    closed_with_linger_zero(lab)?;
    write_to_a_closed_peer(lab)?;
    listener_closed(lab)?;
    no_listener(lab)?;
    told_apart(lab)?;
    lab.advise(
        "ECONNRESET on read: the peer closed or died with bytes of yours unread, or avoided TIME_WAIT \
         (SO_LINGER 0), or no longer has the connection (it was restarted, or a firewall or NAT in \
         between has forgotten it).",
    );
    lab.advise(
        "EPIPE, or SIGPIPE, on write: you already know, or could have known by reading, that the \
         peer is gone. Read before you write again, watch for EPOLLRDHUP, and set MSG_NOSIGNAL or \
         ignore SIGPIPE. After a failed write, read what has arrived: it may tell the reason.",
    );
    lab.advise(
        "A client that keeps connections open meets this when the server's idle timeout is shorter \
         than its own: make the client's timeout the shorter one, and repeat only requests that may \
         be executed twice.",
    );
    lab.advise(
        "ECONNREFUSED on connect: the host answers, and no process listens on that port. A full \
         accept queue does not refuse, it stays silent: `tine lab backlog`.",
    );
    lab.advise(
        "To answer and then close on a client that still sends: shutdown(SHUT_WR), read and discard \
         bytes until end of file or a deadline, then close(). tine does that after `conn.close()`.",
    );
    Ok(())
}

/// The errors of all steps: call, error, segments in their order, cause.
const ERRORS: [[&str; 4]; 6] = [
    [
        "connect",
        "ECONNREFUSED",
        "SYN, RST",
        "no process listens on that port",
    ],
    [
        "read",
        "end of file",
        "FIN",
        "the peer has closed, or sends nothing more",
    ],
    [
        "read, write",
        "ECONNRESET",
        "RST, no FIN",
        "closed: unread bytes, SO_LINGER 0, or its listener",
    ],
    [
        "write",
        "none",
        "FIN, data, RST",
        "the peer has closed; these bytes are lost",
    ],
    [
        "write",
        "EPIPE",
        "FIN, data, RST",
        "the same, at the next write",
    ],
    [
        "write",
        "EPIPE",
        "RST, no FIN",
        "an ECONNRESET that an earlier call returned",
    ],
];

fn told_apart(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("All of them once more, side by side.")?;
    let head = ["call", "error", "on the wire", "cause"];
    for [call, error, wire, what] in [head].into_iter().chain(ERRORS) {
        lab.printed(&format!("{call:12} {error:13} {wire:15} {what}"));
    }
    lab.means(
        "The error tells little, the segments tell all: an RST before any FIN was sent on purpose, \
         or by a kernel with unread bytes, or for a listener that was closed, or by a machine that does \
         not know the connection; an RST after a FIN answers data that arrived too late. A process that is killed is not a case of its own: its kernel closes for it, with FIN, or \
         with RST if bytes are unread (`tine lab base-crashed`).",
    );
    Ok(())
}

fn closed_with_unread_bytes(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The server closes without having read all bytes of the client.")?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    lab.did(Side::Client, "sends 9 bytes");
    lab.send(&client, b"unwelcome")?;
    await_unread(lab, ends, 9)?;
    lab.did(Side::Server, "closes");
    drop(server);
    gone(lab, ends)?;
    read_fails(
        lab,
        &client,
        libc::ECONNRESET,
        "the client's read fails with ECONNRESET",
    )?;
    lab.means(
        "The server's kernel had acknowledged these bytes; the RST says that they were never read.",
    );
    reported_once(lab, &client)?;
    lab.draw_life("close() with unread bytes", ends);
    Ok(())
}

/// Goes on after the error.
fn reported_once(lab: &mut Lab<'_>, client: &End) -> Result<(), Stop> {
    let read = lab.read_end(client)?;
    lab.check(
        "a second read finds end of file, as if all were well",
        read.is_ok(),
        &ending(&read),
    )?;
    let write = client.send(b"hello?");
    lab.check(
        "and a write fails with EPIPE",
        is(&write, libc::EPIPE),
        &written(&write),
    )?;
    lab.means(
        "The kernel reports a reset once, to the first call. A program that ignores that error sees \
         an ordinary end, or another error, and its log names the wrong one.",
    );
    Ok(())
}

fn refused_and_closed(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "The server refuses with 3 bytes and closes, while the rest of a long request is unread. The \
         client goes on sending.",
    )?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    lab.did(Side::Client, "sends the request");
    lab.send(&client, &[b'x'; 1000])?;
    await_unread(lab, ends, 1000)?;
    lab.did(Side::Server, "refuses, and closes");
    lab.send(&server, b"no\n")?;
    drop(server);
    gone(lab, ends)?;
    lab.did(Side::Client, "sends the rest");
    let write = client.send(b"the rest");
    lab.check(
        "the client's next write fails with ECONNRESET",
        is(&write, libc::ECONNRESET),
        &written(&write),
    )?;
    let refusal = lab.read(&client, 3)?;
    lab.check(
        "the refusal, which arrived before the RST, can still be read",
        refusal == b"no\n",
        "",
    )?;
    lab.means(
        "So it is when a server refuses a request by its first lines, with 413 or 401, and closes \
         while the rest still arrives. Linux keeps the bytes that had arrived, so that a client that \
         reads after the failed write learns the reason; one that gives up at the write does not. RFC \
         9112 (9.6) warns of kernels that discard these bytes; and bytes that had not arrived yet are \
         lost anyway.",
    );
    lab.draw_life("A refusal, and close() with unread bytes", ends);
    Ok(())
}

fn closed_with_linger_zero(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The server closes with SO_LINGER set to zero seconds.")?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    lab.did(Side::Server, "closes, SO_LINGER 0");
    server.close_with_reset().trying("set SO_LINGER")?;
    gone(lab, ends)?;
    read_fails(
        lab,
        &client,
        libc::ECONNRESET,
        "the client's read fails with ECONNRESET",
    )?;
    lab.means(
        "An RST on purpose, for example to avoid TIME_WAIT. `tine lab time-wait` shows the price.",
    );
    lab.draw_life("close() with SO_LINGER of zero", ends);
    Ok(())
}

fn write_to_a_closed_peer(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The server has closed with no byte unread. The client does not read, and writes.")?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    lab.did(Side::Server, "closes");
    drop(server);
    lab.see(
        "the client is in CLOSE_WAIT, the server's end in FIN_WAIT2 without a process",
        &[ends.client_is(CloseWait), ends.server_is(FinWait2)],
    )?;
    lab.did(Side::Client, "writes");
    let first = client.send(b"hello?");
    lab.check(
        "the first write succeeds",
        matches!(first, Ok(6)),
        &written(&first),
    )?;
    gone(lab, ends)?;
    lab.means(
        "The FIN could have been a half-close, so the client's kernel sends the bytes. The server's \
         kernel has no process to give them to, and answers RST.",
    );
    let second = client.send(b"hello??");
    lab.check(
        "the second write fails with EPIPE (and SIGPIPE, which Rust programs ignore)",
        is(&second, libc::EPIPE),
        &written(&second),
    )?;
    let read = lab.read_end(&client)?;
    lab.check(
        "a read finds end of file: the FIN arrived first",
        read.is_ok(),
        &ending(&read),
    )?;
    lab.means(
        "A reset of a connection in CLOSE_WAIT is reported as EPIPE, not as ECONNRESET: the FIN had \
         announced that the peer was done. A program that reads before it writes sees the end of \
         file in time; one that only writes loses its first message without an error.",
    );
    lab.draw_life("Writing to a peer that has closed", ends);
    Ok(())
}

fn listener_closed(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("A client waits in the accept queue, and the listener is closed.")?;
    lab.forget_ports();
    let listening = lab.listen(16, Sharing::default())?;
    let client = lab.connect(listening.address)?;
    let ends = client.ends;
    lab.see(
        "both ends are ESTABLISHED, though no process has accepted",
        &[ends.client_is(Established), ends.server_is(Established)],
    )?;
    lab.did(Side::Server, "the listener is closed");
    drop(listening);
    gone(lab, ends)?;
    read_fails(
        lab,
        &client,
        libc::ECONNRESET,
        "the client's read fails with ECONNRESET",
    )?;
    lab.means(
        "For the client the connection was established: the kernel completes the handshake before \
         the program accepts. So a restart that closes the listener resets the clients in its queue. \
         Accept queued connections before you close a listener, or hand the listener to the new \
         process.",
    );
    lab.draw_life(
        "The listener is closed while a client waits in its queue",
        ends,
    );
    Ok(())
}

fn no_listener(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("A client connects to a port on which no process listens.")?;
    lab.forget_ports();
    let listening = lab.listen(16, Sharing::default())?;
    let mut client = End::client(LOOPBACK, listening.address).trying("make a client")?;
    let ends = client.ends;
    lab.follow(&mut client);
    drop(listening);
    lab.did(Side::Client, "connects");
    let refused = client.connect().and_then(|()| client.is_connected());
    let refused = match refused {
        Ok(false) => lab.look_for(PATIENCE, |_| Ok(client.is_connected().err()))?,
        Ok(true) => None,
        Err(error) => Some(error),
    };
    let is_refused =
        matches!(&refused, Some(error) if error.raw_os_error() == Some(libc::ECONNREFUSED));
    let seen = refused.map_or_else(|| "it connects".to_owned(), |error| error.to_string());
    lab.check("connect() fails with ECONNREFUSED", is_refused, &seen)?;
    lab.means(
        "On the wire it is the same RST, in answer to a SYN. No data was sent yet, so that it is safe \
         to try again.",
    );
    lab.draw_life("No process listens", ends);
    Ok(())
}

fn await_unread(lab: &mut Lab<'_>, ends: Ends, bytes: u32) -> Result<(), Stop> {
    let unread = lab.look_for(PATIENCE, |lab| {
        let server = lab.socket(ends.server, ends.client)?;
        Ok(server.filter(|server| server.recv_q == bytes).map(drop))
    })?;
    lab.show()?;
    lab.check(
        &format!("{bytes} bytes are unread (Recv-Q)"),
        unread.is_some(),
        "",
    )
}

fn gone(lab: &mut Lab<'_>, ends: Ends) -> Result<(), Stop> {
    lab.see(
        "both ends are gone at once, without TIME_WAIT",
        &[ends.client_is(None), ends.server_is(None)],
    )
}

fn read_fails(lab: &mut Lab<'_>, end: &End, code: i32, claim: &str) -> Result<(), Stop> {
    let found = lab.read_end(end)?;
    lab.check(claim, is(&found, code), &ending(&found))
}

fn is<T>(found: &io::Result<T>, code: i32) -> bool {
    matches!(found, Err(error) if error.raw_os_error() == Some(code))
}

fn written(write: &io::Result<usize>) -> String {
    match write {
        Ok(size) => format!("{size} bytes"),
        Err(error) => error.to_string(),
    }
}

fn ending(read: &io::Result<()>) -> String {
    match read {
        Ok(()) => "end of file".to_owned(),
        Err(error) => error.to_string(),
    }
}
