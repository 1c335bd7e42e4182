//! Connections that are open, or should end by themselves: bytes that the program does not read, and
//! peers that do not answer, read or close.

use super::{Connections, Finding, Place, Report, Weight, doing};
use crate::doctor::words::{age, bytes, count, counted, grouped, list, seconds};
use crate::sockets::State;

/// The number of connections in one state from which on it is unusual.
const MASS: usize = 100;
const MANY_IN_TIME_WAIT: usize = 10_000;

pub(super) fn judge(report: &Report, place: &Place, connections: &Connections) -> Vec<Finding> {
    [
        unread(report, place, connections),
        held_back(place, connections),
        fin_wait2(report, place, connections),
        unanswered(place, connections),
        connects_unanswered(place, connections),
        window_closed(place, connections),
        silent(report, place, connections),
        time_wait(place, connections),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn unread(report: &Report, place: &Place, connections: &Connections) -> Option<Finding> {
    let unread = &connections.unread;
    let longest = unread.longest.filter(|_| unread.connections > 0)?;
    let program = if unread.owners.is_empty() {
        "the program".to_owned()
    } else {
        list(&unread.owners, 3)
    };
    let doing = doing(report, &unread.owners);
    let mut says = format!(
        "{} are unread in {}, the longest for {}: {program} does not read.",
        bytes(unread.bytes),
        count(unread.connections, "connection"),
        age(longest)
    );
    if !doing.is_empty() {
        says.push_str(&format!(" Now: {doing}."));
    }
    let pid = unread
        .owners
        .first()
        .map_or("PID".to_owned(), |owner| owner.pid.to_string());
    let busy = report
        .holders(&unread.owners)
        .find_map(|holder| holder.busy_workers);
    let next = if let Some((0, workers)) = busy {
        format!(
            "none of its {} is in a callback now, so more workers would not help: `tine doctor{} --watch 10` \
             shows whether it goes on",
            counted(workers, "worker", "workers"),
            place.argument
        )
    } else if unread.owners.iter().any(|owner| owner.role().is_some()) {
        "its workers take messages more slowly than they come: more --workers, --dispatch least-busy, or \
         --callback-limit SECONDS to see which callback it is"
            .to_owned()
    } else {
        format!("`strace -f -p {pid}` shows what it does instead")
    };
    Some(place.finding("unread", Weight::Wrong, says, vec![next]))
}

/// Back-pressure: the program works as it should, and the cause is at the other end.
fn held_back(place: &Place, connections: &Connections) -> Option<Finding> {
    let held = &connections.held_back;
    (held.connections > 0).then(|| {
        let program = if held.owners.is_empty() {
            "the program".to_owned()
        } else {
            list(&held.owners, 3)
        };
        let (whose, they, their) = match held.connections {
            1 => ("its peer does not read", "it", "its"),
            _ => ("their peers do not read", "them", "their"),
        };
        let says = format!(
            "Back-pressure in {}: {whose}, {their} window is closed, and so {program} has left {} of {they} \
             unread. The cause is at the other end.",
            count(held.connections, "connection"),
            bytes(held.bytes),
        );
        let mut next = vec!["at the other end: what keeps the peer from reading its answers?".to_owned()];
        next.push(match held.owners.iter().any(|owner| owner.role().is_some()) {
            true => "here: `--write-deadline 60` (the default) resets a client that takes nothing for so long"
                .to_owned(),
            false => "here: a limit of unsent output, and a deadline for a peer that does not read, such as \
                      TCP_USER_TIMEOUT, which also counts the time of a closed window"
                .to_owned(),
        });
        place.finding("back_pressure", Weight::Note, says, next)
    })
}

/// A peer that loses its power or its network sends no FIN, and TCP by itself does not ask after it.
fn silent(report: &Report, place: &Place, connections: &Connections) -> Option<Finding> {
    let silent = &connections.silent;
    let longest = silent.longest.filter(|_| silent.connections > 0)?;
    let says = format!(
        "{} established without a byte in either direction for longer than {} (the longest for {}), and without \
         keepalive{}. A peer that has vanished without a FIN looks like this, and such a connection never ends \
         by itself.",
        counted(silent.connections, "connection is", "connections are"),
        seconds(report.silent),
        age(longest),
        match silent.owners.is_empty() {
            true => String::new(),
            false => format!(", held by {}", list(&silent.owners, 3)),
        },
    );
    let next = match silent.owners.iter().any(|owner| owner.role().is_some()) {
        true => vec!["`tine serve --keepalive 60` (the default), or a deadline: `--idle SECONDS`".to_owned()],
        false => vec![
            "SO_KEEPALIVE, with TCP_KEEPIDLE below the two hours of net.ipv4.tcp_keepalive_time: the kernel then \
             ends those whose peers do not answer"
                .to_owned(),
            "or a deadline in the program: it closes connections that are idle for too long".to_owned(),
        ],
    };
    Some(place.finding("silent", Weight::Note, says, next))
}

fn fin_wait2(report: &Report, place: &Place, connections: &Connections) -> Option<Finding> {
    let number = connections.number_of(State::FinWait2);
    if number < MASS {
        return None;
    }
    let held = connections.half_closed;
    let mut says = format!(
        "{} in FIN_WAIT2: this side has closed, and the peers have not. ",
        count(number, "connection")
    );
    says.push_str(&match held {
        0 => format!(
            "No process holds them, so each ends after {} s (net.ipv4.tcp_fin_timeout).",
            report.settings.fin_timeout
        ),
        _ => format!(
            "{} of them are held by a process that has only used shutdown(): no timer ends those.",
            grouped(held)
        ),
    });
    let mut next = vec!["the leak is at the other end: look for CLOSE_WAIT there".to_owned()];
    if held > 0 {
        next.push("close() after shutdown(), or a deadline for the peer's last data".to_owned());
    }
    let weight = if held >= MASS {
        Weight::Wrong
    } else {
        Weight::Note
    };
    Some(place.finding("fin_wait2", weight, says, next))
}

fn unanswered(place: &Place, connections: &Connections) -> Option<Finding> {
    let number = connections.unanswered;
    (number > 0).then(|| {
        let says = format!(
            "{} without an answer: the peers have vanished without a FIN, or the network drops segments.",
            counted(
                number,
                "connection sends the same segment again and again",
                "connections send the same segments again and again"
            )
        );
        let next = vec![
            "TCP_USER_TIMEOUT ends them sooner than net.ipv4.tcp_retries2, which takes 15 minutes or more by default"
                .to_owned(),
            "`ss -tnio` shows the number of retransmits, `retrans`".to_owned(),
        ];
        let weight = if number >= MASS { Weight::Wrong } else { Weight::Note };
        place.finding("unanswered", weight, says, next)
    })
}

fn connects_unanswered(place: &Place, connections: &Connections) -> Option<Finding> {
    let number = connections.connects_unanswered;
    (number > 0).then(|| {
        let says = format!(
            "{} made from this machine without an answer (SYN_SENT): the other machine is gone, its accept queue is \
             full, or the network drops SYNs.",
            counted(number, "connection is being", "connections are being")
        );
        let next = "`ss -tnp state syn-sent` shows the processes and the remote addresses".to_owned();
        place.finding("connects_unanswered", Weight::Note, says, vec![next])
    })
}

/// Only at a listener: at the connecting end, [`super::ports`] counts them.
fn time_wait(place: &Place, connections: &Connections) -> Option<Finding> {
    let number = connections.number_of(State::TimeWait);
    (number >= MANY_IN_TIME_WAIT && !place.is_outgoing).then(|| {
        let says = format!(
            "{} in TIME_WAIT: the server closes first. That does no harm here: they hold no process, no \
             descriptor and no port, and each ends after a minute.",
            count(number, "connection")
        );
        let next = "let clients close first, or reuse connections".to_owned();
        place.finding("time_wait", Weight::Note, says, vec![next])
    })
}

fn window_closed(place: &Place, connections: &Connections) -> Option<Finding> {
    let number = connections.window_closed;
    (number > 0).then(|| {
        let says = format!(
            "{}.",
            counted(
                number,
                "connection waits for a peer that does not read: its window is closed",
                "connections wait for peers that do not read: their windows are closed"
            )
        );
        let next =
            "the cause is at the other end; here: a limit of unsent output, and a deadline such as TCP_USER_TIMEOUT".to_owned();
        place.finding("window_closed", Weight::Note, says, vec![next])
    })
}
