//! CLOSE_WAIT: the peer has closed, and the program has not. The advice depends on how far the program
//! got: not accepted, end of file not read, or not closed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Connections, Finding, Place, Report, Weight, doing};
use crate::doctor::report::{Stuck, WaitsFor};
use crate::doctor::words::{age, bytes, count, grouped, list, seconds};
use crate::sockets::State;
use crate::sockets::owners::Owner;
use tine::status::Reason;

/// The number of young connections in CLOSE_WAIT from which on their growth is worth knowing.
const MANY: usize = 20;

/// Growth over less time is not reported.
const LONG_ENOUGH: Duration = Duration::from_millis(500);

/// Why a connection stays in CLOSE_WAIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// It is still in the accept queue.
    Unaccepted,
    /// The program has not read up to the end of file.
    Unread,
    /// The program has bytes to send, and the peer takes none.
    Untaken,
    /// The program has read up to the end of file, and has not closed. If the FIN came with the last bytes, the
    /// read that took these took both, and only the next one returns 0 (`tcp_recvmsg_locked` in
    /// `net/ipv4/tcp.c`).
    Unclosed,
}

impl Kind {
    fn of(stuck: &Stuck) -> Kind {
        match (stuck.accepted, stuck.window_closed, stuck.end_read) {
            (false, _, _) => Kind::Unaccepted,
            (true, true, _) => Kind::Untaken,
            (true, false, false) => Kind::Unread,
            (true, false, true) => Kind::Unclosed,
        }
    }
}

pub(super) fn judge(report: &Report, place: &Place, connections: &Connections) -> Vec<Finding> {
    let growth = growth(report, connections);
    let mut findings = Vec::new();
    for kind in [
        Kind::Unclosed,
        Kind::Unread,
        Kind::Untaken,
        Kind::Unaccepted,
    ] {
        let of_kind = connections
            .stuck
            .iter()
            .filter(|stuck| Kind::of(stuck) == kind);
        let of_kind: Vec<&Stuck> = of_kind.collect();
        if !of_kind.is_empty() {
            findings.push(of(report, place, kind, &of_kind, &growth));
        }
    }
    findings.extend(uncertain(report, place, connections));
    findings.extend(young(report, place, connections, &growth));
    findings
}

fn of(report: &Report, place: &Place, kind: Kind, stuck: &[&Stuck], growth: &str) -> Finding {
    let owners = owners(stuck);
    let longest = stuck
        .iter()
        .map(|stuck| stuck.age)
        .max()
        .unwrap_or_default();
    let program = if owners.is_empty() {
        "the program".to_owned()
    } else {
        list(&owners, 3)
    };
    let mut says = format!(
        "{} in CLOSE_WAIT for longer than {} (the oldest for {} at least){}: {}",
        count(stuck.len(), "connection"),
        seconds(report.older),
        age(longest),
        if place.is_outgoing {
            destinations(stuck)
        } else {
            String::new()
        },
        why(kind, stuck, &program),
    );
    says.push_str(growth);
    let doing = doing(report, &owners);
    let answers = answers(stuck);
    if !answers.is_empty() {
        says.push_str(&format!(" The server says: {}", answers.join(" ")));
    } else if kind == Kind::Unread && !doing.is_empty() {
        says.push_str(&format!(" Now: {doing}."));
    }
    let mut next = next(place, kind, &owners, !answers.is_empty());
    if kind != Kind::Unaccepted {
        next.push(format!(
            "`sudo tine doctor{} --reap={}` lists them, asks, and destroys them",
            place.argument,
            report.older.as_secs_f64()
        ));
    }
    let is_kept = |stuck: &&Stuck| {
        let waits_for = stuck.waits_for.as_ref();
        waits_for.is_some_and(|it| it.reason == Reason::Kept)
    };
    if stuck.iter().any(is_kept) {
        let line = "`--on-crash close` (the default) closes the connections of a dead worker";
        next.insert(0, line.to_owned());
    }
    let kind = match kind {
        Kind::Unaccepted => "close_wait_not_accepted",
        Kind::Unread => "close_wait_not_read",
        Kind::Untaken => "close_wait_not_taken",
        Kind::Unclosed => "close_wait_not_closed",
    };
    place.finding(kind, Weight::Wrong, says, next)
}

fn why(kind: Kind, stuck: &[&Stuck], program: &str) -> String {
    let unread: u64 = stuck.iter().map(|stuck| u64::from(stuck.unread)).sum();
    match kind {
        Kind::Unclosed => format!(
            "the peers have closed, {program} has read up to the end of file, and has not called close()."
        ),
        Kind::Unread if unread > 0 => format!(
            "the peers have closed, and {program} has read neither the last {} nor the end of file.",
            bytes(unread)
        ),
        Kind::Unread => {
            format!("the peers have closed, and {program} has not read the end of file.")
        }
        Kind::Untaken => {
            let unsent: u64 = stuck.iter().map(|stuck| u64::from(stuck.unsent)).sum();
            format!(
                "the peers have closed their side for sending and do not read: their windows are closed, and {} for \
                 them wait in the kernel. The cause is at the other end.",
                bytes(unsent)
            )
        }
        Kind::Unaccepted => {
            "the clients gave up while they waited to be accepted, and the connections are still in the accept queue."
                .to_owned()
        }
    }
}

fn next(place: &Place, kind: Kind, owners: &[Owner], is_explained: bool) -> Vec<String> {
    let pid = owners
        .first()
        .map_or("PID".to_owned(), |owner| owner.pid.to_string());
    let is_tine = !place.is_outgoing && owners.iter().any(|owner| owner.role().is_some());
    let mut next = Vec::new();
    match kind {
        _ if is_tine && kind != Kind::Unaccepted => {
            next.push(
                "`tine serve --close-deadline 5` (the default) closes even while the callback runs; \
                 --callback-limit SECONDS logs where it is stuck"
                    .to_owned(),
            );
            if !is_explained {
                next.push(format!("`strace -f -p {pid}`"));
            }
        }
        // A pool does not read from an idle connection, so it may not know of the end of file.
        Kind::Unclosed | Kind::Unread if place.is_outgoing => next.push(
            "the usual cause is a connection pool, which keeps connections that its server has closed: let it \
             check idle ones before use, or drop them sooner than the server does (a connection that a \
             server here accepted is listed here too, once nothing listens on its port)"
                .to_owned(),
        ),
        Kind::Unclosed => {
            next.push(format!(
                "find the path that skips close() when read() returns 0, or that reads no more after the last bytes: \
                 `strace -f -p {pid} -e trace=read,recvfrom,shutdown,close`"
            ));
            next.push(
                "a program that still works on its answer, or waits for another server's (a proxy), closes after that: \
                 has it a limit for the time?"
                    .to_owned(),
            );
        }
        Kind::Unread => next.push(format!(
            "is it blocked, or does it no longer ask epoll for these? `strace -f -p {pid}`"
        )),
        Kind::Untaken => next.push(
            "a deadline for a peer that takes nothing: TCP_USER_TIMEOUT, which also counts the time of a closed window"
                .to_owned(),
        ),
        Kind::Unaccepted => {
            next.push("see the finding about the accept queue".to_owned());
        }
    }
    next
}

/// Returns each process once, in the order of its oldest connection.
fn owners(stuck: &[&Stuck]) -> Vec<Owner> {
    let mut owners: Vec<Owner> = Vec::new();
    for owner in stuck.iter().flat_map(|stuck| &stuck.owners) {
        if !owners.contains(owner) {
            owners.push(owner.clone());
        }
    }
    owners
}

/// Returns the server's answers about them, each worker once.
fn answers(stuck: &[&Stuck]) -> Vec<String> {
    const MOST: usize = 3;
    let all = stuck.iter().filter_map(|stuck| stuck.waits_for.as_ref());
    // The connection of the running callback comes first: it explains those that wait behind it.
    let (first, rest): (Vec<&WaitsFor>, Vec<&WaitsFor>) = all.partition(|it| it.is_under_way());
    let mut lines: Vec<(&WaitsFor, usize)> = Vec::new();
    for waits_for in first.into_iter().chain(rest) {
        match lines.iter_mut().find(|(line, _)| line.is_like(waits_for)) {
            Some((_, others)) => *others += 1,
            None => lines.push((waits_for, 0)),
        }
    }
    let more = lines.len().saturating_sub(MOST);
    let text = |(waits_for, others): &(&WaitsFor, usize)| match others {
        0 => format!("{}.", waits_for.says),
        _ => format!(
            "{} (and {} more {} for the same).",
            waits_for.says,
            grouped(*others),
            if *others == 1 { "waits" } else { "wait" }
        ),
    };
    let mut shown: Vec<String> = lines.iter().take(MOST).map(text).collect();
    if more > 0 {
        shown.push(format!("{} more reasons are in --json.", grouped(more)));
    }
    shown
}

/// Returns the remote addresses, the most frequent first.
fn destinations(stuck: &[&Stuck]) -> String {
    let mut numbers: HashMap<SocketAddr, usize> = HashMap::new();
    for stuck in stuck {
        *numbers.entry(stuck.remote).or_default() += 1;
    }
    let mut numbers: Vec<(SocketAddr, usize)> = numbers.into_iter().collect();
    numbers.sort_by_key(|(remote, number)| (std::cmp::Reverse(*number), *remote));
    let shown: Vec<String> = numbers
        .iter()
        .map(|(remote, number)| format!("{} to {remote}", grouped(*number)))
        .collect();
    format!(", {}", list(&shown, 3))
}

/// Returns a sentence on how their number has changed.
fn growth(report: &Report, connections: &Connections) -> String {
    let Some(count) = connections.of(State::CloseWait) else {
        return String::new();
    };
    if report.watched < LONG_ENOUGH {
        return String::new();
    }
    let time = age(report.watched);
    match (count.now, count.before) {
        (now, before) if now > before => format!(
            " Their number grows: {} in CLOSE_WAIT, {} more than {time} before.",
            grouped(now),
            grouped(now - before)
        ),
        (now, before) if now < before => format!(
            " Their number shrinks: {} in CLOSE_WAIT, {} fewer than {time} before.",
            grouped(now),
            grouped(before - now)
        ),
        _ => format!(" No more came in {time}."),
    }
}

fn uncertain(report: &Report, place: &Place, connections: &Connections) -> Option<Finding> {
    let number = connections.perhaps_stuck;
    (number > 0).then(|| {
        let says = format!(
            "{} in CLOSE_WAIT may be older than can be seen: each answer to a keepalive probe resets the \
             kernel's clock.",
            count(number, "connection")
        );
        let longer = report.older.as_secs() * 2 + 1;
        let next = format!("`tine doctor{} --watch {longer}`", place.argument);
        place.finding("close_wait_of_unknown_age", Weight::Note, says, vec![next])
    })
}

/// Judges a growing number of connections that are not old yet.
fn young(
    report: &Report,
    place: &Place,
    connections: &Connections,
    growth: &str,
) -> Option<Finding> {
    let count = connections.of(State::CloseWait)?;
    let is_news = connections.stuck.is_empty() && count.now >= MANY && count.now > count.before;
    is_news.then(|| {
        let says = format!("Closed connections pile up, though none is old yet.{growth}");
        let next = format!(
            "`tine doctor{} --watch {}`",
            place.argument,
            report.older.as_secs() * 2 + 1
        );
        place.finding("close_wait_grows", Weight::Note, says, vec![next])
    })
}
