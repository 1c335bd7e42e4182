//! Experiment `close-wait-blocked`: CLOSE_WAIT because the close callback blocks, in process mode.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::Experiment;
use crate::lab::end::Ends;
use crate::lab::picture::{Chart, Series, Side, Style};
use crate::lab::server::LabServer;
use crate::lab::stop::Trying;
use crate::lab::{Lab, PATIENCE, Stop};
use crate::sockets::State::{CloseWait, Established, FinWait2, TimeWait};
use crate::sockets::counters::Settings;
use crate::sys::options;
use tine::status::{self, Unclosed};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "close-wait-blocked",
    title: "a close callback that blocks leaks connections",
    question: "A client closed its connection long ago. Why is it still in CLOSE_WAIT on the server, \
               and why does no timeout end that?",
    run,
};

/// Nothing ends a close callback that hangs, and the kernel does not ask the peer.
const LEAKY: &str = "--workers 2 --fault close:sleep=1000 --close-deadline never --keepalive never";
const CAREFUL: &str = "--workers 2 --fault close:sleep=1000 --close-deadline 1";

/// Another loopback address: all of 127.0.0.0/8 is.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 0);

/// Clients that connect and close for the chart, and the time between two of them.
const CLIENTS: usize = 6;
const PACE: Duration = Duration::from_millis(250);

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let leak = a_leak(lab)?;
    let no_leak = the_same_with_a_deadline(lab)?;
    lab.draw(Chart {
        title: "Connections in CLOSE_WAIT, while six clients connect and close".to_owned(),
        x: "seconds".to_owned(),
        y: "sockets in CLOSE_WAIT".to_owned(),
        series: vec![
            series("close deadline: never", leak),
            series("close deadline: 1 s", no_leak),
        ],
        levels: Vec::new(),
        marks: Vec::new(),
    });
    lab.advise(
        "Look at the code that runs between the peer's end of file and close(): a callback, a lock, a \
         query without a timeout, a log line into a pipe that no process reads. `tine doctor PORT` \
         names the process, and for a tine server the worker and its callback.",
    );
    lab.advise(
        "No sysctl ends CLOSE_WAIT. TCP keepalive, which a program has to turn on, ends it once the \
         peer's kernel has forgotten the connection, or does not answer any more, and not before: \
         `tine lab vanished` shows each.",
    );
    lab.advise(
        "In tine a close deadline begins with the peer's FIN (`--close-deadline`, 5 s by default): \
         when it passes, the master closes the socket, whatever the worker does. The callback still \
         runs, marked as past the deadline.",
    );
    Ok(())
}

fn a_leak(lab: &mut Lab<'_>) -> Result<Vec<(f64, f64)>, Stop> {
    lab.step(
        "A server in process mode: a master owns the sockets, workers run the callbacks. The close \
         callback sleeps for 1,000 seconds, and there is neither a close deadline nor keepalive.",
    )?;
    let server = lab.serve(LEAKY)?;

    lab.step("A client connects, and closes.")?;
    let client_forgets_after = forgetting(lab)?;
    let ends = come_and_go(lab, &server, client_forgets_after)?;
    lab.see(
        "the server is in CLOSE_WAIT, the client in FIN_WAIT2",
        &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
    )?;
    lab.means(
        "The master has read end of file and passed it to a worker. It closes the socket when the \
         callback has returned, and the callback sleeps. The client's program has ended; its kernel \
         waits for the server's FIN.",
    );

    lab.step("Time passes on the client's side.")?;
    let (wait, short) = client_forgets_after;
    if let Some(seconds) = short {
        lab.means(&format!(
            "The short form: this client has told its kernel to wait for {seconds} s \
             (TCP_LINGER2). By default it waits for net.ipv4.tcp_fin_timeout, {} s here; `--slow {}` \
             waits for that.",
            wait.as_secs(),
            wait.as_secs() + 5
        ));
    }
    let patience = wait + Duration::from_secs(30);
    lab.see_within(
        patience,
        "the client's end is gone, the server's is still in CLOSE_WAIT",
        &[ends.client_is(None), ends.server_is(CloseWait)],
    )?;
    lab.means(
        "This is the leak. The client's kernel has forgotten the connection, and sends nothing for it \
         unless it is asked: by bytes or a keepalive probe of the server (`tine lab vanished`), or by \
         a new connection from the same port (`tine lab leak-reuse`). Here nothing asks, and the \
         server keeps a descriptor, and the program's memory for it, until it ends.",
    );
    culprit(lab, &server, ends)?;
    lab.draw_life("The close callback blocks, and nothing ends it", ends);

    lab.step(&format!(
        "{CLIENTS} more clients connect and close, one after the other."
    ))?;
    let counts = crowd(lab, &server)?;
    let left = count(lab, &server)?;
    lab.check(
        "all of them stay",
        left == CLIENTS + 1,
        &format!("{left} sockets in CLOSE_WAIT"),
    )?;
    Ok(counts)
}

/// Names the worker with the callback that the close waits for: the kernel knows only the master, but the
/// server knows the worker.
pub(super) fn culprit(lab: &mut Lab<'_>, server: &LabServer, ends: Ends) -> Result<(), Stop> {
    let explained = lab.look_for(PATIENCE, |_| {
        let status = status::ask(server.pid(), PATIENCE)
            .map_err(|error| Stop::Cannot(format!("cannot ask the server: {error}")))?;
        let mut unclosed = status.unclosed.iter().filter(|it| it.peer == ends.client);
        // Only once the worker is in the callback.
        let is_under_way = |conn: &&Unclosed| {
            let worker = status.worker_of(conn);
            let callback = worker.and_then(|worker| worker.callback.as_ref());
            callback.is_some_and(|callback| callback.conn == conn.conn)
        };
        Ok(unclosed.find(is_under_way).map(|conn| status.explain(conn)))
    })?;
    let seen = explained.as_deref().unwrap_or("none");
    lab.check(
        "the server knows which worker it waits for (`tine doctor` asks it)",
        explained.is_some(),
        seen,
    )
}

fn the_same_with_a_deadline(lab: &mut Lab<'_>) -> Result<Vec<(f64, f64)>, Stop> {
    lab.step("The same server with a close deadline of one second.")?;
    lab.forget_ports();
    let server = lab.serve(CAREFUL)?;
    let client_forgets_after = forgetting(lab)?;
    let ends = come_and_go(lab, &server, (client_forgets_after.0, None))?;
    lab.see(
        "the server has closed its end; the client, which closed first, is in TIME_WAIT",
        &[ends.client_is(TimeWait), ends.server_is(None)],
    )?;
    lab.means(
        "The worker sleeps as before. But the master does not wait for it: when the deadline passes, \
         it closes the socket itself.",
    );
    lab.draw_life(
        "The close callback blocks, and the close deadline passes",
        ends,
    );

    lab.step(&format!("{CLIENTS} more clients connect and close."))?;
    let counts = crowd(lab, &server)?;
    let left = lab.look_for(Duration::from_secs(30), |lab| {
        Ok(Some(()).filter(|()| matches!(count(lab, &server), Ok(0))))
    })?;
    let seen = format!("{} sockets in CLOSE_WAIT", count(lab, &server)?);
    lab.check("all of them end", left.is_some(), &seen)?;
    Ok(counts)
}

/// Returns the time for which the client's kernel remembers a connection that no process holds, and the
/// seconds that it is told to use instead in the short form.
fn forgetting(lab: &Lab<'_>) -> Result<(Duration, Option<u8>), Stop> {
    let settings = Settings::now().trying("read the kernel's settings")?;
    let real = Duration::from_secs(u64::from(settings.fin_timeout));
    let is_short = lab.slow.is_none_or(|slow| slow < real);
    Ok((real, is_short.then_some(1)))
}

/// Connects a client, and closes it once the server has accepted it.
fn come_and_go(
    lab: &mut Lab<'_>,
    server: &LabServer,
    (_, forget_after): (Duration, Option<u8>),
) -> Result<Ends, Stop> {
    let client = lab.connect(server.address)?;
    let ends = client.ends;
    lab.see(
        "the connection is ESTABLISHED, and the master holds it",
        &[
            ends.client_is(Established),
            ends.server_is(Established).held_by("master"),
        ],
    )?;
    if let Some(seconds) = forget_after {
        options::keep_fin_wait2_for(&client, seconds).trying("set TCP_LINGER2")?;
    }
    lab.did(Side::Client, "closes");
    drop(client);
    Ok(ends)
}

/// Lets clients connect and close, and returns the sockets in CLOSE_WAIT over time.
fn crowd(lab: &mut Lab<'_>, server: &LabServer) -> Result<Vec<(f64, f64)>, Stop> {
    let begin = Instant::now();
    let mut counts = Vec::new();
    let mut come = 0;
    while begin.elapsed() < PACE * CLIENTS as u32 + Duration::from_millis(1500) {
        let at = begin.elapsed().as_secs_f64();
        counts.push((at, count(lab, server)? as f64));
        if come < CLIENTS && begin.elapsed() >= PACE * come as u32 {
            come += 1;
            // From another address: the kernel may reuse the port of the leaked connection's client for
            // one of these, which would end the leak (`leak-reuse`).
            drop(lab.connect_from(ELSEWHERE, server.address)?);
        }
        lab.wait(Duration::from_millis(20))?;
    }
    Ok(counts)
}

/// Returns the number of the server's sockets in CLOSE_WAIT.
fn count(lab: &mut Lab<'_>, server: &LabServer) -> Result<usize, Stop> {
    let sockets = lab.sockets()?.into_iter();
    let is_left = |socket: &crate::sockets::Socket| {
        socket.local == server.address && socket.state == CloseWait
    };
    Ok(sockets.filter(is_left).count())
}

fn series(name: &str, points: Vec<(f64, f64)>) -> Series {
    Series {
        name: name.to_owned(),
        style: Style::Steps,
        points,
    }
}
