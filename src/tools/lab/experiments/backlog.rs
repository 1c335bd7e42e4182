//! Experiment `backlog`: the accept queue while the workers block. In base mode it fills, in process mode
//! it does not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Experiment;
use crate::lab::end::End;
use crate::lab::picture::{Chart, Series, Style};
use crate::lab::stop::Trying;
use crate::lab::{LOOPBACK, Lab, PATIENCE, Stop};
use crate::sockets::counters::Overflows;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "backlog",
    title: "a worker that blocks fills the accept queue in base mode, not in process mode",
    question: "Clients report connect times of exactly one, two or three seconds, or time out, and \
               the server's log shows nothing. Where do they wait?",
    run,
};

const BACKLOG: u32 = 4;

/// Time for which the worker blocks in the one message that it receives.
const BLOCKED: Duration = Duration::from_secs(6);

/// Clients that connect during that time, and the time between two of them.
const CLIENTS: usize = 22;
const PACE: Duration = Duration::from_millis(200);

/// Number of attempts, on a machine that may be too busy for all clients to connect within that time.
const ATTEMPTS: usize = 5;

/// The measurements of one mode.
struct Course {
    /// The accept queue over time.
    queue: Vec<(f64, f64)>,
    /// For each client, the time of its connect() and how long it took.
    connects: Vec<(f64, f64)>,
    overflows: Overflows,
    /// The queue once all clients had called connect(), while the worker was still blocked.
    while_blocked: u32,
}

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let base = base_mode(lab)?;
    let process = process_mode(lab)?;
    draw(lab, &base, &process);
    lab.advise(
        "Watch the queue: Recv-Q of a LISTEN socket (`ss -ltn`, `tine doctor PORT --watch 10`) is the \
         number of connections that wait now, Send-Q the number that may. A queue that is full means \
         that connections come faster than they are accepted: in a burst, or because the process does \
         something else. `tine doctor PORT` tells the two apart.",
    );
    lab.advise(
        "A longer backlog buys time for a burst, no more: it hides a blocked process until clients \
         time out in the queue. net.core.somaxconn is its upper bound, and listen() fixes it.",
    );
    lab.advise(
        "A connect time near 1, 2 or 3 s means that the SYN was sent again: measure connect times at \
         the client. Without net.ipv4.tcp_syn_linear_timeouts, which Linux has since 6.5, the times \
         double: 1, 3, 7 s.",
    );
    Ok(())
}

fn base_mode(lab: &mut Lab<'_>) -> Result<Course, Stop> {
    lab.step(&format!(
        "A server in base mode, with one worker and a backlog of {BACKLOG}. The worker accepts, and \
         the worker runs the callbacks. One message blocks it for {} s.",
        BLOCKED.as_secs()
    ))?;
    let base = course(lab, "base")?;
    let full = base.queue.iter().map(|point| point.1 as u32).max();
    lab.check(
        &format!(
            "the queue filled to backlog + 1 = {}, and no further",
            BACKLOG + 1
        ),
        full == Some(BACKLOG + 1),
        &format!("at most {}", full.unwrap_or_default()),
    )?;
    let Overflows {
        listen_overflows, ..
    } = base.overflows;
    lab.check(
        "SYNs were dropped (ListenOverflows in /proc/net/netstat, of the whole network namespace)",
        listen_overflows > 0,
        &format!("{listen_overflows} more than before"),
    )?;
    let slow = slow(&base.connects);
    lab.check(
        "the first clients were connected at once, the others after their SYN was sent again",
        slow == CLIENTS - BACKLOG as usize - 1,
        &format!("{slow} of {CLIENTS} took longer than 0.5 s"),
    )?;
    lab.means(
        "The first clients are ESTABLISHED without the program's knowledge: the kernel has completed \
         the handshake, and they wait in the queue. When the queue is full, the kernel drops each \
         further SYN without an answer. The client's kernel sends it again after 1 s, and again, so \
         that connect() takes whole seconds: the staircase in the picture.",
    );
    Ok(base)
}

fn process_mode(lab: &mut Lab<'_>) -> Result<Course, Stop> {
    lab.step("The same in process mode: the master accepts, the worker runs the callbacks.")?;
    let process = course(lab, "process")?;
    lab.check(
        "the queue is empty, though the worker is blocked",
        process.while_blocked == 0,
        "",
    )?;
    let in_time = |connect: &(f64, f64)| connect.0 + connect.1 < BLOCKED.as_secs_f64();
    let in_time = process
        .connects
        .iter()
        .filter(|connect| in_time(connect))
        .count();
    let longest = process
        .connects
        .iter()
        .map(|connect| connect.1)
        .fold(0.0, f64::max);
    lab.check(
        "every client was connected while the worker was blocked",
        in_time == CLIENTS,
        &format!("the slowest connect() took {}", in_short(longest)),
    )?;
    lab.means(
        "Nothing in the master waits for a worker. The clients are accepted, and their messages wait \
         where the master can see them, count them, and give them to another worker.",
    );
    Ok(process)
}

/// Blocks a server's only worker, and connects clients meanwhile.
fn course(lab: &mut Lab<'_>, mode: &str) -> Result<Course, Stop> {
    for _ in 0..ATTEMPTS {
        lab.forget_ports();
        let server = lab.serve(&format!(
            "--mode {mode} --workers 1 --backlog {BACKLOG} --fault receive:sleep={}",
            BLOCKED.as_secs()
        ))?;
        let busy = lab.connect(server.address)?;
        let ends = busy.ends;
        lab.send(&busy, b"x")?;
        let read = lab.look_for(PATIENCE, |lab| Ok(lab.is_all_read(ends)?.then_some(())))?;
        lab.check(
            "the worker has read the message that blocks it",
            read.is_some(),
            "",
        )?;
        lab.step(&format!(
            "{CLIENTS} clients connect, one every {} ms, while the worker is blocked.",
            PACE.as_millis()
        ))?;
        if let Some(course) = connect_all(lab, server.address, &busy)? {
            return Ok(course);
        }
        lab.means("This machine is too busy: not all clients could connect in time. Once more.");
    }
    Err(Stop::Cannot(
        "cannot connect the clients in time: the machine is too busy".to_owned(),
    ))
}

/// Returns `None` if the worker went on before all clients had connected: `busy` was answered.
fn connect_all(lab: &mut Lab<'_>, to: SocketAddr, busy: &End) -> Result<Option<Course>, Stop> {
    let before = Overflows::now().trying("read the kernel's counters")?;
    let begin = Instant::now();
    let mut clients: Vec<(End, f64, Option<f64>)> = Vec::new();
    let mut queue = Vec::new();
    let mut while_blocked = None;
    while while_blocked.is_none() || clients.iter().any(|client| client.2.is_none()) {
        let now = begin.elapsed();
        if clients.len() < CLIENTS && now >= PACE * clients.len() as u32 {
            let client = End::client(LOOPBACK, to).trying("make a client")?;
            let asked = begin.elapsed().as_secs_f64();
            client.connect().trying("connect")?;
            clients.push((client, asked, None));
        }
        for (client, asked, took) in &mut clients {
            if took.is_none() && client.is_connected().trying("connect")? {
                *took = Some(begin.elapsed().as_secs_f64() - *asked);
            }
        }
        let waiting: u32 = lab.queues(to)?.into_iter().sum();
        queue.push((now.as_secs_f64(), f64::from(waiting)));
        if while_blocked.is_none() && now >= PACE * CLIENTS as u32 && clients.len() == CLIENTS {
            // On a busy machine the last client may wait for a moment to be accepted.
            lab.look_for(Duration::from_millis(500), |lab| {
                let waiting: u32 = lab.queues(to)?.into_iter().sum();
                while_blocked = Some(waiting);
                Ok((waiting == 0).then_some(()))
            })?;
            lab.show()?;
            // Looked at before the check that the worker is still blocked.
            if busy.read(&mut [0]).trying("read")?.is_some() {
                return Ok(None);
            }
        }
        if now > BLOCKED + PATIENCE {
            let problem = "cannot connect all clients: some are still waiting";
            return Err(Stop::Cannot(problem.to_owned()));
        }
        lab.wait(Duration::from_millis(5))?;
    }
    let connects = clients
        .iter()
        .map(|client| (client.1, client.2.unwrap_or_default()));
    let overflows = Overflows::now().trying("read the kernel's counters")?;
    Ok(Some(Course {
        queue,
        connects: connects.collect(),
        overflows: overflows.since(before),
        while_blocked: while_blocked.unwrap_or_default(),
    }))
}

/// Returns a time in milliseconds, or in microseconds where it is shorter than one of them.
fn in_short(seconds: f64) -> String {
    match seconds * 1000.0 {
        short if short < 1.0 => format!("{:.0} µs", short * 1000.0),
        long => format!("{long:.1} ms"),
    }
}

/// Returns the number of clients that sent their SYN again, which happens after a second.
fn slow(connects: &[(f64, f64)]) -> usize {
    connects.iter().filter(|connect| connect.1 > 0.5).count()
}

fn draw(lab: &mut Lab<'_>, base: &Course, process: &Course) {
    let series = |name: &str, style, points: &[(f64, f64)]| Series {
        name: name.to_owned(),
        style,
        points: points.to_vec(),
    };
    let longest = [base, process].into_iter().flat_map(|course| &course.queue);
    let end = longest.map(|point| point.0).fold(0.0, f64::max);
    // In process mode the clients were connected earlier: its line is extended to the same end.
    let mut extended = process.queue.clone();
    extended.push((end, extended.last().map_or(0.0, |last| last.1)));
    let limit = f64::from(BACKLOG + 1);
    lab.draw(Chart {
        title: "Connections that wait to be accepted, while the only worker is blocked".to_owned(),
        x: "seconds".to_owned(),
        y: "accept queue".to_owned(),
        series: vec![
            series("base mode", Style::Steps, &base.queue),
            series("process mode", Style::Steps, &extended),
        ],
        levels: vec![(limit, format!("full: backlog {BACKLOG} + 1"))],
        marks: vec![(BLOCKED.as_secs_f64(), "the worker goes on".to_owned())],
    });
    lab.draw(Chart {
        title: "Duration of connect(), by the time of the call".to_owned(),
        x: "seconds".to_owned(),
        y: "connect time, seconds".to_owned(),
        series: vec![
            series("base mode", Style::Points, &base.connects),
            series("process mode", Style::Points, &process.connects),
        ],
        levels: Vec::new(),
        marks: Vec::new(),
    });
}
