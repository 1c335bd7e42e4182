//! Connections that live, or should end by themselves: bytes that nobody reads, and peers that do not
//! do their part.

use super::{Connections, Finding, Place, Report, Weight, doing};
use crate::doctor::words::{age, bytes, count, counted, grouped, list};
use crate::sockets::State;

/// From how many on a state is a mass. Fewer are everyday.
const MASS: usize = 100;
const MANY_IN_TIME_WAIT: usize = 10_000;

pub(super) fn judge(report: &Report, place: &Place, connections: &Connections) -> Vec<Finding> {
    [
        unread(report, place, connections),
        syn_recv(place, connections),
        fin_wait2(report, place, connections),
        unanswered(place, connections),
        connects_unanswered(place, connections),
        window_closed(place, connections),
        time_wait(place, connections),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn unread(report: &Report, place: &Place, connections: &Connections) -> Option<Finding> {
    let unread = &connections.unread;
    let longest = unread.longest.filter(|_| unread.connections > 0)?;
    let who = if unread.owners.is_empty() {
        "the program".to_owned()
    } else {
        list(&unread.owners, 3)
    };
    let doing = doing(report, &unread.owners);
    let mut says = format!(
        "{} lie unread in {}, the longest for {}: {who} does not read.",
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
    let next = if unread.owners.iter().any(|owner| owner.role().is_some()) {
        "its workers take messages more slowly than they come: more --workers, --dispatch least-busy, or \
         --callback-limit SECONDS to see which callback it is"
            .to_owned()
    } else {
        format!(
            "`strace -f -p {pid}` shows what it does instead; a program that waits for its own output to be \
             taken looks like this too"
        )
    };
    Some(place.finding("unread", Weight::Wrong, says, vec![next]))
}

fn syn_recv(place: &Place, connections: &Connections) -> Option<Finding> {
    let number = connections.number_of(State::SynRecv);
    (number >= MASS).then(|| {
        let says = format!(
            "{} half open (SYN_RECV): their SYNs were answered, and nothing came back. That is a flood of \
             SYNs with false addresses, or the way back is blocked.",
            count(number, "connection")
        );
        let next = vec![
            "`sysctl net.ipv4.tcp_syncookies` should be 1, which keeps the rest served".to_owned(),
            format!(
                "`ss -tn state syn-recv sport = :{}`: one network, or all?",
                place.argument.trim()
            ),
        ];
        place.finding("syn_recv", Weight::Wrong, says, next)
    })
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
            "No process holds them, so each ends {} s after its peer's last word.",
            report.settings.fin_timeout
        ),
        _ => format!(
            "{} of them are held by a process that has only used shutdown(): those have no timeout.",
            grouped(held)
        ),
    });
    let mut next = vec!["the leak is at the other end: look for CLOSE_WAIT there".to_owned()];
    if held > 0 {
        next.push("close() after shutdown(), or a deadline for what still has to come".to_owned());
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
            "{} have sent the same again and again without an answer: their peers are gone without a word, or \
             the network drops what is sent.",
            count(number, "connection")
        );
        let next = vec![
            "TCP_USER_TIMEOUT ends them sooner than the default of about 15 minutes".to_owned(),
            "`ss -tnio`: `retrans` and `backoff` show how long already".to_owned(),
        ];
        let weight = if number >= MASS { Weight::Wrong } else { Weight::Note };
        place.finding("unanswered", weight, says, next)
    })
}

fn connects_unanswered(place: &Place, connections: &Connections) -> Option<Finding> {
    let number = connections.connects_unanswered;
    (number > 0).then(|| {
        let says = format!(
            "{} made from here, and not answered (SYN_SENT): the accept queue at the other end is full, or \
             something on the way drops SYNs.",
            counted(number, "connection is being", "connections are being")
        );
        let next = "`ss -tnp state syn-sent` shows who connects to where".to_owned();
        place.finding("connects_unanswered", Weight::Note, says, vec![next])
    })
}

/// At a listener: who connects has them counted against its ports.
fn time_wait(place: &Place, connections: &Connections) -> Option<Finding> {
    let number = connections.number_of(State::TimeWait);
    (number >= MANY_IN_TIME_WAIT && !place.is_outgoing).then(|| {
        let says = format!(
            "{} in TIME_WAIT: the server is the one that closes first. That does no harm here: they hold no \
             process, no descriptor and no port, and each ends after a minute.",
            count(number, "connection")
        );
        let next = "let clients close first, or keep connections and use them again".to_owned();
        place.finding("time_wait", Weight::Note, says, vec![next])
    })
}

fn window_closed(place: &Place, connections: &Connections) -> Option<Finding> {
    let number = connections.window_closed;
    (number > 0).then(|| {
        let says = format!(
            "{} wait for a peer that does not read: its window is closed.",
            count(number, "connection")
        );
        let next = "a limit for what may be unsent, and a deadline; the cause is at the other end"
            .to_owned();
        place.finding("window_closed", Weight::Note, says, vec![next])
    })
}
