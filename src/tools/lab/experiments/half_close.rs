//! Experiment `half-close`: a client that stops writing and still reads.

use std::io::ErrorKind;

use super::Experiment;
use crate::lab::picture::Side;
use crate::lab::stop::Trying;
use crate::lab::{Lab, Stop};
use crate::sockets::State::{CloseWait, FinWait2, TimeWait};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "half-close",
    title: "a client that stops writing but still reads",
    question: "The client has closed its side and waits for the answer. Is the connection over?",
    run,
};

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    one_direction_at_a_time(lab)?;
    a_server_that_takes_it_for_the_end(lab)?;
    a_client_that_has_closed(lab)?;
    tine_answers(lab, "process")?;
    tine_answers(lab, "base")?;
    lab.advise(
        "End of file (a read of zero bytes) means that the peer sends nothing more. It does not mean \
         that the peer is gone: finish its requests, send the answers, then close.",
    );
    lab.advise(
        "The FIN does not tell whether the peer still reads: shutdown(SHUT_WR) and close() send the \
         same segment. Write the answer, and let an RST tell that the peer did not want it: one \
         wasted answer is cheaper than a missing one for every half-closed client. A deadline ends \
         connections whose peers neither read nor close.",
    );
    lab.advise(
        "Programs that half-close: `nc -N` (nc(1)), socat (socat(1)), and all that send a stream of \
         unknown length and have no other way to mark its end. A server on tine need not care: the messages that \
         arrived before the FIN are finished, and their replies sent, before the connection is \
         closed.",
    );
    lab.advise(
        "An answer that ends with the connection may be cut off, and no client notices. Let the \
         protocol say how long it is.",
    );
    Ok(())
}

fn one_direction_at_a_time(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("A client sends a question, and closes its side: shutdown(SHUT_WR).")?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    lab.did(Side::Client, "asks, and stops writing");
    lab.send(&client, b"question")?;
    client.finish_writing().trying("stop writing")?;
    let question = lab.read(&server, 8)?;
    lab.check("the server reads the question", question == b"question", "")?;
    let end = lab.read_end(&server)?;
    lab.check("and then end of file", end.is_ok(), "")?;
    lab.see(
        "the client is in FIN_WAIT2, the server in CLOSE_WAIT",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;

    lab.step("The server answers, in three pieces.")?;
    lab.did(Side::Server, "answers");
    for piece in [&b"one "[..], b"two ", b"three"] {
        lab.send(&server, piece)?;
    }
    let answer = lab.read(&client, 13)?;
    lab.check(
        "the client reads all of them",
        answer == b"one two three",
        "",
    )?;
    lab.see(
        "the states are the same: this is half of a connection, and it works",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;
    lab.means(
        "CLOSE_WAIT is not a fault by itself. It says that the peer sends nothing more; the program \
         decides how long to stay in it. No timer ends this FIN_WAIT2 either: the client's process \
         still holds the socket.",
    );

    lab.step("The server closes.")?;
    lab.did(Side::Server, "closes");
    drop(server);
    let end = lab.read_end(&client)?;
    lab.check("the client reads end of file", end.is_ok(), "")?;
    lab.see(
        "the client is in TIME_WAIT, the server's end is gone",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    lab.draw_life(
        "A half-closed connection: the answer comes after the client's FIN",
        ends,
    );
    Ok(())
}

fn a_server_that_takes_it_for_the_end(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "A server that takes end of file for the end: it closes at once, and does not answer.",
    )?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    lab.did(Side::Client, "asks, and stops writing");
    lab.send(&client, b"question")?;
    client.finish_writing().trying("stop writing")?;
    lab.read(&server, 8)?;
    lab.read_end(&server)?.trying("read")?;
    lab.did(Side::Server, "closes");
    drop(server);
    let mut answer = [0; 16];
    let end = lab.await_some("read", || client.read(&mut answer))?;
    lab.check(
        "the client reads end of file instead of an answer",
        end == 0,
        "",
    )?;
    lab.see(
        "the connection is closed properly, and nothing shows that an answer is missing",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    lab.means(
        "The states are the same as after the answer. There is no error on either side, and nothing \
         in a log: only the client's program can notice, if it knows which answer to expect.",
    );
    lab.draw_life("The same, with a server that takes a FIN for the end", ends);
    Ok(())
}

fn a_client_that_has_closed(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("A client asks and closes: close() instead of shutdown(SHUT_WR).")?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    lab.did(Side::Client, "asks, and closes");
    lab.send(&client, b"question")?;
    drop(client);
    lab.read(&server, 8)?;
    let end = lab.read_end(&server)?;
    lab.check("the server reads end of file", end.is_ok(), "")?;
    lab.see(
        "the states are those of the half-closed connection",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;
    lab.means(
        "The FIN is the same, and the server cannot tell the two apart. Only the socket table of the \
         client's machine shows it: no process holds this FIN_WAIT2, and a timer ends it.",
    );
    lab.did(Side::Server, "answers");
    lab.send(&server, b"answer")?;
    lab.see(
        "the late answer ends it: the client's kernel has no process to give it to, and sends RST",
        &[ends.client_is(None), ends.server_is(None)],
    )?;
    let next = server.send(b"more");
    let seen = match &next {
        Ok(size) => format!("the kernel took {size} bytes"),
        Err(error) => error.to_string(),
    };
    lab.check(
        "the server's next write fails with EPIPE",
        matches!(&next, Err(error) if error.kind() == ErrorKind::BrokenPipe),
        &seen,
    )?;
    lab.draw_life(
        "A client that has closed: the same FIN, and an RST for the answer",
        ends,
    );
    Ok(())
}

fn tine_answers(lab: &mut Lab<'_>, mode: &str) -> Result<(), Stop> {
    lab.step(&format!(
        "tine in {mode} mode. Its callback takes a second, so that the client's FIN arrives long \
         before the answer."
    ))?;
    lab.forget_ports();
    let server = lab.serve(&format!(
        "--mode {mode} --workers 1 --fault receive:sleep=1"
    ))?;
    let client = lab.connect(server.address)?;
    let ends = client.ends;
    lab.did(Side::Client, "asks, and stops writing");
    lab.send(&client, b"question")?;
    client.finish_writing().trying("stop writing")?;
    lab.see(
        "the client is in FIN_WAIT2, the server in CLOSE_WAIT",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;
    let answer = lab.read(&client, 8)?;
    lab.check(
        "the whole answer arrives: the question itself, since this server echoes",
        answer == b"question",
        &format!("{} of 8 bytes", answer.len()),
    )?;
    let end = lab.read_end(&client)?;
    lab.check("and then end of file", end.is_ok(), "")?;
    lab.see(
        "the client is in TIME_WAIT, the server's end is gone",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    lab.means(match mode {
        "process" => {
            "The master read the FIN while the worker was busy, and kept the connection open for the \
             answer."
        }
        _ => {
            "The worker reads the FIN only after the answer. Until then the kernel keeps it, and \
             CLOSE_WAIT is its only sign."
        }
    });
    lab.draw_life(
        &format!("tine in {mode} mode answers a client that has half-closed"),
        ends,
    );
    Ok(())
}
