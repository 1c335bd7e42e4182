//! Experiment `time-wait`: which side has TIME_WAIT, for how long, and the price of avoiding it.

use std::io;
use std::time::{Duration, Instant};

use super::Experiment;
use crate::lab::end::{End, Ends};
use crate::lab::picture::Side;
use crate::lab::stop::Trying;
use crate::lab::{Lab, PATIENCE, Stop};
use crate::sockets::State::TimeWait;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "time-wait",
    title: "TIME_WAIT: the side that closes first has it, for a minute",
    question: "There are thousands of sockets in TIME_WAIT. Which side has them, how long do they \
               stay, and is there a way around them?",
    run,
};

/// `TCP_TIMEWAIT_LEN`, a constant of the kernel.
const MINUTE: Duration = Duration::from_secs(60);

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let ends = client_first(lab)?;
    how_long(lab, ends)?;
    server_first(lab)?;
    reset_instead(lab)?;
    price_of_a_reset(lab)?;
    lab.advise(
        "TIME_WAIT is not a fault and costs little: no descriptor, no process, and a few hundred bytes \
         of kernel memory (tw_sock_TCP in /proc/slabinfo). What it is for is shown by `tine lab \
         last-ack`. But the side that connects can run out of ports: `tine lab ports-exhausted`; and \
         it can keep a server from restarting: `tine lab addr-in-use`.",
    );
    lab.advise(
        "The side that closes first has it. Let the clients close first where there are many of them, \
         or keep connections open: a connection that stays open has no TIME_WAIT.",
    );
    lab.advise(
        "net.ipv4.tcp_fin_timeout does not shorten it, though many pages say so: it is for FIN_WAIT2 (`tine \
         lab ports-exhausted` tries it). tcp_tw_reuse is for ports of outgoing connections. tcp_tw_recycle broke clients behind NAT \
         and was removed in Linux 4.12.",
    );
    lab.advise(
        "Do not use SO_LINGER 0 to avoid it: bytes that you have sent and the peer has not received \
         are lost, without an error on your side.",
    );
    Ok(())
}

fn client_first(lab: &mut Lab<'_>) -> Result<Ends, Stop> {
    lab.step("The client closes first, then the server.")?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    lab.did(Side::Client, "closes first");
    drop(client);
    lab.read_end(&server)?.trying("read")?;
    lab.did(Side::Server, "closes");
    drop(server);
    lab.see(
        "the client's end is in TIME_WAIT, the server's is gone",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    lab.means(
        "The client's last acknowledgement may be lost; then the server sends its FIN again, and the \
         client's kernel has to answer it. And a late segment of this connection must not be taken \
         for one of the next connection with the same addresses (RFC 9293, 3.3.2). `tine lab last-ack` \
         and `tine lab late-segment` show both.",
    );
    lab.draw_life("The client closes first", ends);
    Ok(ends)
}

fn how_long(lab: &mut Lab<'_>, ends: Ends) -> Result<(), Stop> {
    let begin = left(lab, ends)?;
    if lab.slow.is_some_and(|slow| slow >= MINUTE) {
        lab.step("The minute passes, in real time.")?;
        let patience = MINUTE + PATIENCE;
        let waited = Instant::now();
        lab.see_within(
            patience,
            "the client's end is gone",
            &[ends.client_is(None)],
        )?;
        let waited = waited.elapsed();
        return lab.check(
            "it took the minute that the timer announced",
            starts_at_a_minute(begin) && waited + Duration::from_secs(5) > begin,
            &format!(
                "{:.0} s were left; it took {:.0} s",
                begin.as_secs_f64(),
                waited.as_secs_f64()
            ),
        );
    }
    lab.step("Two seconds pass. (The short form: `--slow 60` waits for the end.)")?;
    lab.wait(Duration::from_secs(2))?;
    lab.see(
        "the client's end is still in TIME_WAIT",
        &[ends.client_is(TimeWait)],
    )?;
    let now = left(lab, ends)?;
    let counts = begin.saturating_sub(now);
    lab.check(
        "the kernel counts down from 60 s",
        starts_at_a_minute(begin) && counts >= Duration::from_millis(1500),
        &format!(
            "{:.0} s were left, now {:.0} s are",
            begin.as_secs_f64(),
            now.as_secs_f64()
        ),
    )?;
    lab.means(
        "Why a minute? RFC 9293 (3.4.2) takes two minutes for the longest time that a segment can be \
         on its way, the maximum segment lifetime, or MSL; and TIME_WAIT has to last two of them \
         (3.6.1): one for the last acknowledgement to arrive or be lost, and one for the FIN that \
         is then sent again. That would be four minutes. Linux uses one, a constant \
         (TCP_TIMEWAIT_LEN, include/net/tcp.h), without a sysctl; it is as if the MSL were 30 s. The \
         two minutes of the RFC are \"an engineering choice\", in its own words.",
    );
    Ok(())
}

/// Whether the timer began at a minute, less the time until it was read.
fn starts_at_a_minute(left: Duration) -> bool {
    left <= MINUTE + Duration::from_secs(1) && left > MINUTE - PATIENCE
}

/// Returns the time left in the client's TIME_WAIT.
fn left(lab: &mut Lab<'_>, ends: Ends) -> Result<Duration, Stop> {
    let socket = lab.socket(ends.client, ends.server)?;
    let timer = socket
        .and_then(|socket| socket.timer)
        .map(|timer| timer.left);
    timer.ok_or_else(|| Stop::Cannot("cannot read the timer of a TIME_WAIT".to_owned()))
}

fn server_first(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The server closes first, then the client.")?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    lab.did(Side::Server, "closes first");
    drop(server);
    lab.read_end(&client)?.trying("read")?;
    lab.did(Side::Client, "closes");
    drop(client);
    lab.see(
        "now the server's end is in TIME_WAIT, and the client's is gone",
        &[ends.client_is(None), ends.server_is(TimeWait)],
    )?;
    lab.means(
        "It does not matter which side is client or server, only which one sends the first FIN. A \
         server that ends idle connections, or answers \"Connection: close\", has the TIME_WAITs.",
    );
    lab.draw_life("The server closes first", ends);
    Ok(())
}

fn reset_instead(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The client closes first, with SO_LINGER set to zero seconds.")?;
    let (client, server, _listening) = lab.connection()?;
    let ends = client.ends;
    lab.did(Side::Client, "closes, SO_LINGER 0");
    client.close_with_reset().trying("set SO_LINGER")?;
    lab.see(
        "both ends are gone: no TIME_WAIT",
        &[ends.client_is(None), ends.server_is(None)],
    )?;
    let end = lab.read_end(&server)?;
    lab.check(
        "the server's read fails with ECONNRESET",
        is_reset(&end),
        &ending(&end),
    )?;
    lab.means(
        "So it works. But the peer cannot tell it from a crash with unread bytes (`tine lab \
         base-crashed`), and that is not the worst of it.",
    );
    lab.draw_life("SO_LINGER 0: RST instead of FIN", ends);
    Ok(())
}

fn price_of_a_reset(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(
        "Its price. The client sends as many bytes as both kernels accept, and the server does not \
         read yet. First with a normal close().",
    )?;
    let letter = a_letter(lab, false)?;
    lab.check(
        "every byte arrives, though the client closed before the server read any",
        letter.came == letter.sent,
        &letter.count(),
    )?;
    lab.check(
        "and then end of file",
        letter.end.is_ok(),
        &ending(&letter.end),
    )?;
    lab.means(
        "After close() the kernel goes on: it sends the queued bytes, and the FIN after them.",
    );

    lab.step("The same, and the client closes with SO_LINGER set to zero.")?;
    let letter = a_letter(lab, true)?;
    lab.check(
        "bytes that the server's kernel had acknowledged arrive; bytes that waited in Send-Q do not",
        letter.came < letter.sent && letter.sent - letter.came <= letter.queued,
        &letter.count(),
    )?;
    lab.check(
        "and then the server's read fails with ECONNRESET",
        is_reset(&letter.end),
        &ending(&letter.end),
    )?;
    lab.means(
        "send() had returned their number: for the client they were sent. The reset has discarded \
         them, and no call of the client has failed.",
    );
    Ok(())
}

/// A transfer from a client that closes to a server that reads late.
struct Letter {
    /// Bytes that the client sent.
    sent: usize,
    /// Bytes that were not acknowledged when the client closed.
    queued: usize,
    /// Bytes that the server read.
    came: usize,
    /// The end of the server's reading.
    end: io::Result<()>,
}

impl Letter {
    fn count(&self) -> String {
        format!("{} of {} bytes", self.came, self.sent)
    }
}

fn a_letter(lab: &mut Lab<'_>, with_reset: bool) -> Result<Letter, Stop> {
    let (client, server, _listening) = lab.connection()?;
    let sent = fill(lab, &client)?;
    lab.show()?;
    let ends = client.ends;
    let queue = lab.socket(ends.client, ends.server)?;
    let queued = queue.map_or(0, |socket| socket.send_q as usize);
    if with_reset {
        client.close_with_reset().trying("set SO_LINGER")?;
    } else {
        drop(client);
    }
    let (mut came, mut buffer) = (0, vec![0; 64 << 10]);
    let end = lab.look_for(PATIENCE, |lab| {
        loop {
            match server.read(&mut buffer) {
                Ok(Some(0)) => return Ok(Some(Ok(()))),
                Ok(Some(size)) => came += size,
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(Err(error))),
            }
            lab.go_on()?;
        }
    })?;
    let end =
        end.ok_or_else(|| Stop::Cannot("cannot read to the end: it did not arrive".to_owned()))?;
    Ok(Letter {
        sent,
        queued,
        came,
        end,
    })
}

/// Sends until the buffers of both kernels are full, and returns the number of bytes.
fn fill(lab: &mut Lab<'_>, client: &End) -> Result<usize, Stop> {
    let page = vec![b'x'; 64 << 10];
    let (mut sent, ends) = (0, client.ends);
    let mut unread = None;
    let queue = lab.look_for(PATIENCE, |lab| {
        loop {
            match client.send(&page) {
                Ok(size) => sent += size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).trying("send"),
            }
            lab.go_on()?;
        }
        // The buffers are full once the server's kernel has received nothing more for some time.
        lab.wait(Duration::from_millis(50))?;
        let before = unread;
        unread = lab.socket(ends.server, ends.client)?.map(|end| end.recv_q);
        let queue = lab
            .socket(ends.client, ends.server)?
            .map_or(0, |end| end.send_q);
        Ok((queue > 0 && unread == before).then_some(queue))
    })?;
    lab.check(
        "some of the bytes wait in the client's kernel (Send-Q)",
        queue.is_some(),
        &format!("{} of {sent} bytes", queue.unwrap_or(0)),
    )?;
    Ok(sent)
}

fn is_reset(end: &io::Result<()>) -> bool {
    matches!(end, Err(error) if error.raw_os_error() == Some(libc::ECONNRESET))
}

fn ending(end: &io::Result<()>) -> String {
    match end {
        Ok(()) => "end of file".to_owned(),
        Err(error) => error.to_string(),
    }
}
