//! Verdicts on peers: such as do not read, do not answer, or are gone.

use std::time::Duration;

use super::*;
use crate::doctor::report::{Departed, Silent, Unread};

#[test]
fn back_pressure_is_one_finding_and_its_cause_is_at_the_other_end() {
    let of = |name: &str| {
        let holder = Holder::made_up(7, name, Activity::Sleeping, "ep_poll");
        changed(|report| {
            report.listeners[0].connections.held_back = Unread {
                connections: 2,
                bytes: 300,
                longest: Some(Duration::from_secs(9)),
                owners: vec![holder.owner],
            };
        })
    };
    let report = of("tine master");
    assert!(!report.wrong);
    let text = judged(
        &report,
        "back_pressure",
        &["their peers do not read", "300 bytes", "--write-deadline"],
    );
    assert!(!text.contains("--workers"), "{text}");
    judged(&of("app"), "back_pressure", &["TCP_USER_TIMEOUT"]);
}

#[test]
fn more_workers_are_no_advice_where_none_is_busy() {
    let of = |busy| {
        let mut holder = Holder::made_up(7, "tine master", Activity::Sleeping, "ep_poll");
        holder.busy_workers = Some((busy, 2));
        changed(|report| {
            report.listeners[0].connections.unread = Unread {
                connections: 1,
                bytes: 300,
                longest: Some(Duration::from_secs(9)),
                owners: vec![holder.owner.clone()],
            };
            report.processes.insert(7, holder);
        })
    };
    let text = judged(
        &of(0),
        "unread",
        &["none of its 2 workers is in a callback"],
    );
    assert!(!text.contains("more --workers"), "{text}");
    judged(&of(2), "unread", &["more --workers"]);
}

#[test]
fn a_peer_that_has_closed_and_does_not_read_is_not_the_programs_fault() {
    let mut report = report(stuck(2, 2));
    for stuck in &mut report.listeners[0].connections.stuck {
        (stuck.window_closed, stuck.unsent) = (true, 100);
    }
    judge(&mut report);
    judged(
        &report,
        "close_wait_not_taken",
        &[
            "200 bytes for them wait",
            "at the other end",
            "TCP_USER_TIMEOUT",
        ],
    );
}

/// Returns the report on a listener with this many connections in SYN_RECV.
fn half_open(number: usize, sent_again: usize, change: impl FnOnce(&mut Report)) -> Report {
    let mut report = report(Made {
        backlog: 64,
        states: vec![(State::SynRecv, number)],
        ..Made::default()
    });
    report.listeners[0].connections.syn_recv_resent = sent_again;
    change(&mut report);
    judge(&mut report);
    report
}

#[test]
fn a_flood_is_judged_by_the_backlog_and_the_counters() {
    assert!(half_open(64, 64, |_| {}).findings.is_empty());
    let report = half_open(65, 60, |report| {
        report.counters.while_watched.half_open_full_cookies = 300;
        report.counters.while_watched.syncookies_sent = 300;
    });
    assert!(report.wrong);
    judged(
        &report,
        "syn_recv",
        &[
            "65 in SYN_RECV where 65 fit",
            "answers further SYNs with cookies",
            ": 300 answered so (TCPReqQFullDoCookies), in the whole",
            "flood of SYNs with false addresses",
            "a bigger backlog",
        ],
    );
    let report = half_open(65, 0, |report| {
        report.settings.syncookies = Some(0);
        report.counters.while_watched.half_open_full_drops = 7;
    });
    judged(
        &report,
        "syn_recv",
        &[
            "drops the SYNs of further clients",
            ": 7 dropped (TCPReqQFullDrop), in the whole",
            "most are young, or were answered",
            "tcp_syncookies=1",
        ],
    );
    let many = |report: &mut Report| {
        for queue in &mut report.listeners[0].queues {
            queue.backlog = 4096;
        }
    };
    let text = judged(
        &half_open(150, 150, many),
        "syn_recv",
        &["150 connections half open (SYN_RECV), where 4,097 fit"],
    );
    assert!(!text.contains("All room"), "{text}");
}

#[test]
fn cookies_without_a_listener_that_is_full_are_reported_unless_every_syn_gets_one() {
    let sent = |report: &mut Report| report.counters.while_watched.syncookies_sent = 40;
    let report = changed(sent);
    assert!(!report.wrong);
    judged(
        &report,
        "syn_cookies",
        &["answered 40 SYNs", "SyncookiesSent"],
    );
    let report = changed(|report| {
        sent(report);
        report.settings.syncookies = Some(2);
    });
    assert!(report.findings.is_empty(), "{report:#?}");
    let report = changed(|report| report.counters.while_watched.half_open_full_drops = 1);
    assert!(report.wrong);
    judged(&report, "syn_cookies", &["dropped 1 SYN (TCPReqQFullDrop)"]);
}

#[test]
fn peers_that_may_have_vanished_are_reported_with_the_remedy() {
    let report = changed(|report| {
        report.listeners[0].connections.silent = Silent {
            connections: 3,
            longest: Some(Duration::from_secs(7500)),
            owners: vec![Holder::made_up(7, "app", Activity::Sleeping, "").owner],
        };
    });
    assert!(!report.wrong, "they may be idle");
    judged(
        &report,
        "silent",
        &[
            "3 connections are established",
            "for longer than 1 h (the longest for 2 h 5 min)",
            "held by app[7]",
            "SO_KEEPALIVE",
        ],
    );
}

#[test]
fn descriptors_without_a_connection_are_wrong_when_they_stay() {
    let of = |sockets, seconds| {
        changed(|report| {
            report.departed = vec![Departed {
                owner: Holder::made_up(7, "app", Activity::Sleeping, "").owner,
                sockets,
                longest: Duration::from_secs(seconds),
            }];
        })
    };
    let report = of(2, 1);
    assert!(!report.wrong);
    judged(
        &report,
        "descriptors_without_connection",
        &["2 descriptors", "--pid 7 --watch 6"],
    );
    assert!(of(2, 5).wrong && of(1000, 1).wrong);
    assert!(!of(1, 50).wrong, "one may be meant");
    let kind = "descriptors_without_connection";
    judged(
        &of(2, 5),
        kind,
        &["has not called close()", "ECONNRESET", "strace -f -p 7"],
    );
}

#[test]
fn a_syn_that_was_dropped_for_another_reason_is_reported() {
    let report = changed(|report| {
        let grown = &mut report.counters.while_watched;
        (grown.listen_drops, grown.listen_overflows) = (199, 5);
    });
    judged(&report, "syn_drops", &["dropped 194 SYNs", "no route back"]);
    let report = changed(|report| {
        let grown = &mut report.counters.while_watched;
        (grown.listen_drops, grown.listen_overflows) = (5, 5);
    });
    assert!(report.findings.is_empty(), "{report:#?}");
}
