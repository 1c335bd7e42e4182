//! Half-open connections: SYNs that were answered, and whose handshakes are not complete. A listener has room
//! for its backlog and one of them (`inet_csk_reqsk_queue_is_full`); beyond that, the kernel answers SYNs with
//! cookies, which it does not remember, or drops them.

use super::{Finding, Listener, Place, Report, Weight};
use crate::doctor::report::Queue;
use crate::doctor::words::{age, count, counted, grouped, percent};
use crate::sockets::State;

/// The number of half-open connections from which on it is unusual.
const MASS: usize = 100;

/// `net.ipv4.tcp_syncookies`: SYNs are answered with cookies although there is room.
const ALWAYS: Option<u8> = Some(2);

pub(super) fn judge(report: &Report, listener: &Listener) -> Option<Finding> {
    let place = Place::of(listener);
    let number = listener.connections.number_of(State::SynRecv);
    let room: usize = listener
        .queues
        .iter()
        .map(|queue| queue.most() as usize)
        .sum();
    let is_full = number > 0 && number >= room;
    if !is_full && number < MASS {
        return None;
    }
    let cause = cause(number, listener.connections.syn_recv_resent);
    let says = match is_full {
        true => format!(
            "All room for half-open connections is taken: {} in SYN_RECV where {} fit, the backlog and one. {cause} {}",
            grouped(number),
            grouped(room),
            answers(report)
        ),
        false => format!(
            "{} half open (SYN_RECV), where {} fit. {cause}",
            count(number, "connection"),
            grouped(room)
        ),
    };
    let mut next = Vec::new();
    if report.settings.syncookies == Some(0) {
        next.push(
            "`sysctl -w net.ipv4.tcp_syncookies=1`, so that other clients are still served"
                .to_owned(),
        );
    }
    next.push(format!(
        "`ss -tn state syn-recv sport = :{}` shows whether they come from one network",
        listener.address.port()
    ));
    let somaxconn = report.settings.somaxconn;
    if listener
        .queues
        .iter()
        .any(|queue: &Queue| queue.backlog < somaxconn)
    {
        next.push(format!(
            "a bigger backlog in listen(), up to net.core.somaxconn ({}), has room for more of them; it takes a \
             restart",
            grouped(somaxconn)
        ));
    }
    Some(place.finding("syn_recv", Weight::Wrong, says, next))
}

/// Returns a sentence on the fate of further SYNs, and what the counters say.
fn answers(report: &Report) -> String {
    let grown = report.counters.while_watched;
    let fate = match report.settings.syncookies {
        Some(0) | None => {
            "The kernel drops the SYNs of further clients (net.ipv4.tcp_syncookies is off), which try again after \
             1 s."
        }
        Some(_) => {
            "The kernel answers further SYNs with cookies (net.ipv4.tcp_syncookies), so that clients are still \
             served; a window scale and selective acknowledgements are kept only with TCP timestamps."
        }
    };
    let (cookies, drops) = (grown.half_open_full_cookies, grown.half_open_full_drops);
    let dropped = format!("{} dropped (TCPReqQFullDrop)", grouped(drops));
    let answered = format!("{} answered so (TCPReqQFullDoCookies)", grouped(cookies));
    let counters = match (cookies, drops) {
        (0, 0) => "none".to_owned(),
        (_, 0) => answered,
        (0, _) => dropped,
        (_, _) => format!("{dropped} and {answered}"),
    };
    let time = age(report.watched);
    let counters = format!(" In the last {time}: {counters}, in the whole network namespace.");
    fate.to_owned() + &counters
}

/// The kernel sends its answer again after a second: until then a slow network looks like a flood.
fn cause(number: usize, sent_again: usize) -> String {
    let share = percent(sent_again as u64, number as u64);
    match share {
        0..50 => format!(
            "To {share} % of them the kernel has sent its SYN-ACK again, so most are young, or were answered: many \
             clients come at once, a flood of SYNs has just begun, or the listener waits for their first bytes \
             (TCP_DEFER_ACCEPT)."
        ),
        _ => format!(
            "To {share} % of them the kernel has sent its SYN-ACK again, and no ACK came back: a flood of SYNs with \
             false addresses, or the SYN-ACKs do not reach the clients."
        ),
    }
}

/// Judges SYNs that were dropped although no queue was full.
pub(super) fn judge_drops(report: &Report) -> Option<Finding> {
    let grown = report.counters.while_watched;
    let explained = grown.listen_overflows + grown.half_open_full_drops;
    let number = usize::try_from(grown.listen_drops.saturating_sub(explained));
    let number = number.unwrap_or(usize::MAX);
    (number > 0).then(|| Finding {
        kind: "syn_drops",
        weight: Weight::Note,
        about: "all listeners".to_owned(),
        says: format!(
            "The kernel dropped {} at listeners (ListenDrops), and not because a queue was full: it has no route back \
             to the client, or no memory. The counter is of the whole network namespace.",
            counted(number, "SYN", "SYNs")
        ),
        next: vec![
            "`ip route get ADDRESS` with the address of a client that cannot connect".to_owned(),
            "`dmesg` for the lack of memory, `cat /proc/net/sockstat` for that of TCP".to_owned(),
        ],
    })
}

/// Judges cookies and drops that came while no listener was seen without room.
pub(super) fn judge_counters(report: &Report, findings: &[Finding]) -> Option<Finding> {
    let grown = report.counters.while_watched;
    let is_explained = findings.iter().any(|finding| finding.kind == "syn_recv");
    let cookies = match report.settings.syncookies {
        // Every SYN counts there.
        setting if setting == ALWAYS => 0,
        _ => grown.half_open_full_cookies.max(grown.syncookies_sent),
    };
    let drops = grown.half_open_full_drops;
    if is_explained || (cookies == 0 && drops == 0) {
        return None;
    }
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let mut says = String::new();
    if cookies > 0 {
        says += &format!(
            "The kernel answered {} with cookies (SyncookiesSent): ",
            counted(number(cookies), "SYN", "SYNs")
        );
    } else {
        says += &format!(
            "The kernel dropped {} (TCPReqQFullDrop): ",
            counted(number(drops), "SYN", "SYNs")
        );
    }
    says += "a listener had no room for one more half-open connection, and none is shown so now. The counter is of \
             the whole network namespace.";
    let next = vec![
        "`tine doctor --watch 60` shows the listener when it happens again".to_owned(),
        "`dmesg | grep flooding` names the port at the first time (Possible SYN flooding)"
            .to_owned(),
    ];
    Some(Finding {
        kind: "syn_cookies",
        weight: if drops > 0 {
            Weight::Wrong
        } else {
            Weight::Note
        },
        about: "all listeners".to_owned(),
        says,
        next,
    })
}
