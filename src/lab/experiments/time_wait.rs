//! TIME_WAIT: who has it, for how long, and what it costs to be spared it.

use std::time::{Duration, Instant};

use super::Experiment;
use crate::inspect::sockets::State::{Established, TimeWait};
use crate::lab::end::{End, Ends, Sharing};
use crate::lab::picture::Side;
use crate::lab::stop::Trying;
use crate::lab::{Lab, PATIENCE, Stop};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "time-wait",
    title: "TIME_WAIT: who closes first has it, for a minute",
    question: "There are thousands of sockets in TIME_WAIT. Whose are they, how long do they stay, \
               and is there a way around them?",
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
        "TIME_WAIT is no fault and costs almost nothing: about 250 bytes of kernel memory, no \
         descriptor, no process. What can run out is ports, on the side that connects: \
         `tine lab ports-exhausted`; and a restart may meet it: `tine lab addr-in-use`.",
    );
    lab.advise(
        "Who closes first has it. Let the clients close first where there are many of them, or \
         keep connections open: the cheapest TIME_WAIT is the one of a connection that was not closed.",
    );
    lab.advise(
        "net.ipv4.tcp_fin_timeout does not shorten it, whatever is written: that is for FIN_WAIT2. \
         tcp_tw_reuse is for ports of outgoing connections. tcp_tw_recycle broke clients behind NAT \
         and is gone since Linux 4.12.",
    );
    lab.advise(
        "Do not use SO_LINGER 0 to be rid of it: what you have sent and the peer has not \
         received is lost, without an error on your side.",
    );
    Ok(())
}

fn connection(lab: &mut Lab<'_>) -> Result<(End, End), Stop> {
    lab.turn_the_page();
    let listening = lab.listen(16, Sharing::default())?;
    let client = lab.connect(listening.address)?;
    let server = lab.accept(&listening)?;
    let ends = client.ends;
    lab.see(
        "the connection is ESTABLISHED",
        &[ends.client_is(Established), ends.server_is(Established)],
    )?;
    Ok((client, server))
}

fn client_first(lab: &mut Lab<'_>) -> Result<Ends, Stop> {
    lab.step("The client closes first, then the server.")?;
    let (client, server) = connection(lab)?;
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
        "Its last acknowledgement may be lost; then the server sends its FIN again, and somebody has to \
         be there to answer. And a late segment of this connection must not be taken for one of the \
         next that has the same addresses (RFC 9293, 3.6.1).",
    );
    lab.draw_life("The client closes first", ends);
    Ok(ends)
}

fn how_long(lab: &mut Lab<'_>, ends: Ends) -> Result<(), Stop> {
    let begin = left(lab, ends)?;
    if lab.slow.is_some_and(|slow| slow >= MINUTE) {
        lab.step("It is waited for, in real time.")?;
        let patience = MINUTE + PATIENCE;
        let waited = Instant::now();
        lab.see_within(
            patience,
            "the client's end is gone",
            &[ends.client_is(None)],
        )?;
        let waited = waited.elapsed();
        return lab.check(
            "it took what the timer had said, and no sysctl had a say in it",
            waited + Duration::from_secs(5) > begin,
            &format!("{:.0} s", waited.as_secs_f64()),
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
        "the kernel counts down from 60 s, a constant: no sysctl changes it",
        begin <= MINUTE + Duration::from_secs(1) && counts >= Duration::from_millis(1500),
        &format!(
            "{:.0} s were left, now {:.0} s",
            begin.as_secs_f64(),
            now.as_secs_f64()
        ),
    )
}

/// How long its TIME_WAIT will last.
fn left(lab: &mut Lab<'_>, ends: Ends) -> Result<Duration, Stop> {
    let socket = lab.socket(ends.client, ends.server)?;
    let timer = socket
        .and_then(|socket| socket.timer)
        .map(|timer| timer.left);
    timer.ok_or_else(|| Stop::Cannot("cannot see the timer of a TIME_WAIT".to_owned()))
}

fn server_first(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The server closes first, then the client.")?;
    let (client, server) = connection(lab)?;
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
    lab.draw_life("The server closes first", ends);
    Ok(())
}

fn reset_instead(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("The client closes first, with SO_LINGER set to zero seconds.")?;
    let (client, server) = connection(lab)?;
    let ends = client.ends;
    lab.did(Side::Client, "closes, SO_LINGER 0");
    client.close_with_reset().trying("set SO_LINGER")?;
    lab.see(
        "both ends are gone: no TIME_WAIT",
        &[ends.client_is(None), ends.server_is(None)],
    )?;
    let end = lab.read_end(&server)?;
    let is_reset = matches!(&end, Err(error) if error.raw_os_error() == Some(libc::ECONNRESET));
    let seen = end.map_or_else(|error| error.to_string(), |()| "end of file".to_owned());
    lab.check("the server's read fails with ECONNRESET", is_reset, &seen)?;
    lab.draw_life("SO_LINGER 0: RST instead of FIN", ends);
    Ok(())
}

/// Enough for some of it to wait in the sender's kernel: more than a receiver that does not read
/// takes in.
const LETTER: usize = 4 << 20;

fn price_of_a_reset(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("What it costs. The client sends as much as its kernel takes, the server does not read yet.")?;
    let (sent, came) = a_letter(lab, false)?;
    lab.check(
        "after a normal close() every byte arrives",
        came == sent,
        &format!("{came} of {sent}"),
    )?;

    lab.step("The same, and the client closes with SO_LINGER of zero.")?;
    let (sent, came) = a_letter(lab, true)?;
    lab.check(
        "bytes that the client has sent never arrive",
        came < sent,
        &format!("{came} of {sent}"),
    )?;
    lab.means(
        "send() had returned their number: to the client they were sent. They stood in its kernel's \
         send queue, and the reset has thrown them away.",
    );
    Ok(())
}

/// How many bytes the client has sent, and how many the server reads once the client has closed.
fn a_letter(lab: &mut Lab<'_>, with_reset: bool) -> Result<(usize, usize), Stop> {
    let (client, server) = connection(lab)?;
    let page = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while sent < LETTER {
        match client.send(&page) {
            Ok(size) => sent += size,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).trying("send"),
        }
    }
    let ends = client.ends;
    let queue = lab
        .socket(ends.client, ends.server)?
        .map_or(0, |socket| socket.send_q);
    lab.show()?;
    lab.check(
        "some of it waits in the client's kernel (Send-Q)",
        queue > 0,
        "",
    )?;
    if with_reset {
        client.close_with_reset().trying("set SO_LINGER")?;
    } else {
        drop(client);
    }
    let (mut came, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        // An error is an end here, and the count says what came before it.
        match lab.await_some("read", || Ok(server.read(&mut buffer).unwrap_or(Some(0))))? {
            0 => return Ok((sent, came)),
            size => came += size,
        }
    }
}
