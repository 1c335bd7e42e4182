//! Experiment `last-ack`: the first purpose of TIME_WAIT. The last acknowledgement of a close is lost, with and
//! without a socket that remembers the connection.

use std::time::{Duration, Instant};

use super::Experiment;
use crate::lab::picture::Side;
use crate::lab::stop::Trying;
use crate::lab::{Lab, Stop};
use crate::sockets::State::{CloseWait, FinWait2, LastAck, TimeWait};
use crate::sys::options;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "last-ack",
    title: "what TIME_WAIT is for: the last acknowledgement is lost",
    question: "Both sides have closed, and one kernel still keeps the connection for a minute. What \
               would go wrong without that?",
    run,
};

/// `TCP_TIMEWAIT_LEN`, a constant of the kernel.
const MINUTE: Duration = Duration::from_secs(60);

/// Time for which the server hears nothing: its FIN is sent again several times.
const DEAF: Duration = Duration::from_millis(1200);

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    match options::may_drop() {
        Ok(true) => remembered(lab)?,
        Ok(false) => lab_cannot_lose(lab)?,
        Err(error) => return Err(error).trying("make a socket"),
    }
    forgotten(lab)?;
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
         purpose of TIME_WAIT; `tine lab late-segment` shows the second.",
    );
    lab.draw_life(
        "A FIN comes to a kernel that has forgotten the connection",
        ends,
    );
    Ok(())
}
