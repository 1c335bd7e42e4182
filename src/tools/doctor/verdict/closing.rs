//! CLOSE_WAIT: peers that have closed, and programs that have not. Who knows what decides what to
//! do about it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Connections, Finding, Place, Report, Weight, doing};
use crate::doctor::report::{Owing, Stuck};
use crate::doctor::words::{age, bytes, count, grouped, list, seconds};
use crate::sockets::State;
use crate::sockets::owners::Owner;
use tine::status::Reason;

/// From how many on a growth of young connections in CLOSE_WAIT is worth knowing.
const MANY: usize = 20;

/// A growth in less time is none.
const LONG_ENOUGH: Duration = Duration::from_millis(500);

/// Why a connection stays in CLOSE_WAIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// It is in the accept queue still.
    Unaccepted,
    /// The program has not read up to the end of file.
    Unread,
    /// It has, and did not close.
    Unclosed,
}

impl Kind {
    fn of(stuck: &Stuck) -> Kind {
        match (stuck.accepted, stuck.end_read) {
            (false, _) => Kind::Unaccepted,
            (true, false) => Kind::Unread,
            (true, true) => Kind::Unclosed,
        }
    }
}

pub(super) fn judge(report: &Report, place: &Place, connections: &Connections) -> Vec<Finding> {
    let growth = growth(report, connections);
    let mut findings = Vec::new();
    for kind in [Kind::Unclosed, Kind::Unread, Kind::Unaccepted] {
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
    let who = if owners.is_empty() {
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
        why(kind, stuck, &who),
    );
    says.push_str(growth);
    let doing = doing(report, &owners);
    let owing = owing(stuck);
    if !owing.is_empty() {
        says.push_str(&format!(" The server says: {}", owing.join(" ")));
    } else if kind == Kind::Unread && !doing.is_empty() {
        says.push_str(&format!(" Now: {doing}."));
    }
    let mut next = next(place, kind, &owners, !owing.is_empty());
    let is_kept = |stuck: &&Stuck| {
        let owing = stuck.owing.as_ref();
        owing.is_some_and(|owing| owing.reason == Reason::Kept)
    };
    if stuck.iter().any(is_kept) {
        let line = "`--on-crash close` (the default) closes what a dead worker leaves";
        next.insert(0, line.to_owned());
    }
    let kind = match kind {
        Kind::Unaccepted => "close_wait_not_accepted",
        Kind::Unread => "close_wait_not_read",
        Kind::Unclosed => "close_wait_not_closed",
    };
    place.finding(kind, Weight::Wrong, says, next)
}

fn why(kind: Kind, stuck: &[&Stuck], who: &str) -> String {
    let unread: u64 = stuck.iter().map(|stuck| u64::from(stuck.unread)).sum();
    match kind {
        Kind::Unclosed => format!(
            "the peers have closed, {who} has read the end of file, and has not called close()."
        ),
        Kind::Unread if unread > 0 => format!(
            "the peers have closed, and {who} has not read what came before: {} and the end of file.",
            bytes(unread)
        ),
        Kind::Unread => {
            format!("the peers have closed, and {who} has not read the end of file.")
        }
        Kind::Unaccepted => {
            "their clients gave up while they waited to be accepted, and nobody has accepted them since."
                .to_owned()
        }
    }
}

fn next(place: &Place, kind: Kind, owners: &[Owner], is_told: bool) -> Vec<String> {
    let pid = owners
        .first()
        .map_or("PID".to_owned(), |owner| owner.pid.to_string());
    let is_tine = owners.iter().any(|owner| owner.role().is_some());
    let mut next = Vec::new();
    match kind {
        _ if is_tine && kind != Kind::Unaccepted => {
            next.push(
                "`tine serve --close-deadline 5` (the default) closes whatever the callback does; \
                 --callback-limit SECONDS shows where it is stuck"
                    .to_owned(),
            );
            if !is_told {
                next.push(format!("`strace -f -p {pid}`"));
            }
        }
        Kind::Unclosed if place.is_outgoing => next.push(
            "a pool of connections keeps what its server has closed: let it check idle ones before use, or \
             drop them sooner than the server does"
                .to_owned(),
        ),
        Kind::Unclosed => next.push(format!(
            "find the path that skips close() when read() returns 0: `strace -f -p {pid} -e \
             trace=read,recvfrom,shutdown,close`"
        )),
        Kind::Unread => next.push(format!(
            "is it blocked, or does it no longer ask epoll for these? `strace -f -p {pid}`"
        )),
        Kind::Unaccepted => {
            next.push("see what is said about the accept queue".to_owned());
        }
    }
    if kind != Kind::Unaccepted {
        next.push(format!(
            "`sudo tine doctor{} --reap=60` ends those that are older than a minute",
            place.argument
        ));
    }
    next
}

/// Each process once, in the order of its oldest connection.
fn owners(stuck: &[&Stuck]) -> Vec<Owner> {
    let mut owners: Vec<Owner> = Vec::new();
    for owner in stuck.iter().flat_map(|stuck| &stuck.owners) {
        if !owners.contains(owner) {
            owners.push(owner.clone());
        }
    }
    owners
}

/// What the server says of them, each worker once.
fn owing(stuck: &[&Stuck]) -> Vec<String> {
    const MOST: usize = 3;
    let told = stuck.iter().filter_map(|stuck| stuck.owing.as_ref());
    // Who is in the very callback explains those that wait behind it.
    let (first, rest): (Vec<&Owing>, Vec<&Owing>) = told.partition(|owing| owing.is_under_way());
    let mut lines: Vec<(&Owing, usize)> = Vec::new();
    for owing in first.into_iter().chain(rest) {
        match lines.iter_mut().find(|(line, _)| line.is_like(owing)) {
            Some((_, others)) => *others += 1,
            None => lines.push((owing, 0)),
        }
    }
    let more = lines.len().saturating_sub(MOST);
    let text = |(owing, others): &(&Owing, usize)| match others {
        0 => format!("{}.", owing.says),
        _ => format!(
            "{} (and {} more wait for the same).",
            owing.says,
            grouped(*others)
        ),
    };
    let mut shown: Vec<String> = lines.iter().take(MOST).map(text).collect();
    if more > 0 {
        shown.push(format!("{} more workers owe some.", grouped(more)));
    }
    shown
}

/// Where they go, the most frequent first.
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

/// How their number changed, in a sentence.
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
            " It grows: {} in CLOSE_WAIT, {} more than {time} before.",
            grouped(now),
            grouped(now - before)
        ),
        (now, before) if now < before => format!(
            " It shrinks: {} in CLOSE_WAIT, {} fewer than {time} before.",
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
            "{} in CLOSE_WAIT may be older than they look: the answers to keepalive probes start the \
             kernel's clock anew.",
            count(number, "connection")
        );
        let longer = report.older.as_secs() * 2 + 1;
        let next = format!("`tine doctor{} --watch {longer}`", place.argument);
        place.finding("close_wait_of_unknown_age", Weight::Note, says, vec![next])
    })
}

/// Many that are not old yet.
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
