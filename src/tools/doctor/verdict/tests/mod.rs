//! Verdicts on made-up figures.

mod peers;

use super::made::{Made, report};
use super::*;
use crate::doctor::report::WaitsFor;
use crate::process::Activity;
use tine::status::Reason;

/// Returns the only finding, and all of its words.
#[track_caller]
fn only(report: &Report) -> (&Finding, String) {
    let [finding] = &report.findings[..] else {
        panic!("{:#?}", report.findings);
    };
    (
        finding,
        format!("{} {}", finding.says, finding.next.join(" | ")),
    )
}

#[track_caller]
fn says(made: Made, kind: &str, words: &[&str]) -> String {
    judged(&report(made), kind, words)
}

#[track_caller]
fn judged(report: &Report, kind: &str, words: &[&str]) -> String {
    let (finding, text) = only(report);
    assert_eq!(finding.kind, kind, "{text}");
    for words in words {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    text
}

/// Returns the report of a healthy server after `change`, judged.
fn changed(change: impl FnOnce(&mut Report)) -> Report {
    let mut report = report(Made::default());
    change(&mut report);
    judge(&mut report);
    report
}

fn full(owners: Vec<Holder>) -> Made {
    Made {
        now: 5,
        lowest: 5,
        backlog: 4,
        owners,
        ..Made::default()
    }
}

fn stuck(number: usize, before: usize) -> Made {
    Made {
        stuck: number,
        stuck_before: before,
        ..Made::default()
    }
}

#[test]
fn a_healthy_server_has_no_finding() {
    let report = report(Made::default());
    assert!(!report.wrong && report.findings.is_empty(), "{report:#?}");
    assert_eq!(
        report.verdict,
        "Nothing is wrong: 1 listener with 3 connections, never more than 0 waiting to be accepted, none in \
         CLOSE_WAIT for longer than 5 s."
    );
}

#[test]
fn a_full_queue_is_reported_with_its_holder_and_its_small_backlog() {
    let blocked = Holder::made_up(7, "app", Activity::Sleeping, "hrtimer_nanosleep");
    let made = Made {
        overflows: 3,
        ..full(vec![blocked])
    };
    says(
        made,
        "queue_full",
        &[
            "5 connections wait where 5 fit",
            "turned 3 attempts away",
            "likely cause",
            "seems blocked: app[7] sleeps for a time (hrtimer_nanosleep)",
            "strace -f -p 7",
            "its backlog is only 4",
            "tine doctor 9501 --watch 10",
        ],
    );
}

#[test]
fn a_queue_that_has_just_filled_is_no_burst_where_its_owner_is_blocked() {
    let blocked = Holder::made_up(7, "app", Activity::Sleeping, "hrtimer_nanosleep");
    let made = Made {
        lowest: 0,
        ..full(vec![blocked])
    };
    says(made, "queue_full", &["seems blocked"]);
}

#[test]
fn a_stopped_process_explains_its_queue() {
    let stopped = Holder::made_up(7, "app", Activity::Stopped, "do_signal_stop");
    says(
        full(vec![stopped]),
        "queue_full",
        &[
            "Nothing is accepted: app[7] is stopped (state T)",
            "`kill -CONT 7`",
        ],
    );
}

#[test]
fn the_manager_of_a_base_mode_server_is_not_expected_to_accept() {
    let owners = vec![
        Holder::made_up(7, "tine manager", Activity::Sleeping, "ep_poll"),
        Holder::made_up(8, "tine worker#0", Activity::Sleeping, "hrtimer_nanosleep"),
        Holder::made_up(9, "tine worker#1", Activity::Stopped, "do_signal_stop"),
    ];
    let report = report(full(owners));
    let (_, text) = only(&report);
    assert!(text.contains("worker#0[8] sleeps for a time"), "{text}");
    assert!(
        text.contains("--mode process") && !text.contains("manager"),
        "{text}"
    );
}

#[test]
fn a_queue_that_was_full_once_had_a_burst() {
    let made = Made {
        peak: 512,
        ..Made::default()
    };
    says(
        made,
        "queue_was_full",
        &["512 of 512", "has 0 now", "bursts"],
    );
}

#[test]
fn each_cause_of_a_full_queue_has_its_own_advice() {
    let mut many = Holder::made_up(7, "app", Activity::Sleeping, "ep_poll");
    many.descriptors = Some((1024, 1024));
    let text = says(full(vec![many.clone()]), "queue_full", &["EMFILE"]);
    assert!(!text.contains("backlog"), "more would only wait: {text}");
    for (holder, words) in [
        (many, "EMFILE"),
        (
            Holder::made_up(7, "app", Activity::WaitingForDisk, "folio_wait"),
            "/proc/7/stack",
        ),
        (
            Holder::made_up(7, "app", Activity::Running, ""),
            "perf top -p 7",
        ),
        (
            Holder::made_up(7, "app", Activity::Sleeping, "ep_poll"),
            "is idle and does not",
        ),
        (
            Holder::made_up(7, "app", Activity::Sleeping, ""),
            "cannot be seen",
        ),
    ] {
        says(full(vec![holder]), "queue_full", &[words]);
    }
    says(
        full(Vec::new()),
        "queue_full",
        &["processes that should accept cannot be seen", "sudo"],
    );
}

#[test]
fn descriptors_that_are_used_up_are_reported_though_the_queue_is_empty() {
    let mut many = Holder::made_up(7, "node", Activity::Sleeping, "ep_poll");
    many.descriptors = Some((40, 40));
    let made = Made {
        owners: vec![many],
        ..Made::default()
    };
    let words = [
        "node[7] has used up its descriptors",
        "closes them at once",
        "/proc/7/fd",
    ];
    says(made, "descriptors_used_up", &words);
}

#[test]
fn advice_names_the_process_that_the_cause_is_about() {
    let master = Holder::made_up(6, "app", Activity::Sleeping, "sigsuspend");
    let waiting = Holder::made_up(6, "app", Activity::Sleeping, "do_poll");
    let parent = Holder::made_up(6, "app", Activity::Sleeping, "do_wait");
    let mut many = Holder::made_up(7, "app", Activity::Sleeping, "ep_poll");
    let idle = many.clone();
    many.descriptors = Some((1024, 1024));
    let asleep = Holder::made_up(7, "app", Activity::Sleeping, "hrtimer_nanosleep");
    for (holders, words) in [
        (vec![master, many], "`ls -l /proc/7/fd`"),
        (vec![waiting.clone(), asleep], "`strace -f -p 7`"),
        (
            vec![Holder::made_up(6, "app", Activity::Sleeping, ""), idle],
            "`strace -f -p 7 -e",
        ),
        (
            vec![waiting, Holder::made_up(7, "app", Activity::Running, "")],
            "perf top -p 7",
        ),
        (
            vec![
                parent.clone(),
                Holder::made_up(7, "app", Activity::Running, ""),
            ],
            "perf top -p 7",
        ),
        (vec![parent], "seems blocked: app[6] waits for a child"),
    ] {
        says(full(holders), "queue_full", &[words]);
    }
}

#[test]
fn a_backlog_that_somaxconn_has_cut_is_reported() {
    let made = Made {
        now: 4097,
        lowest: 4000,
        backlog: 4096,
        owners: vec![Holder::made_up(7, "app", Activity::Running, "")],
        ..Made::default()
    };
    says(
        made,
        "queue_full",
        &[
            "all that net.core.somaxconn allows (4,096)",
            "net.core.somaxconn=16384",
        ],
    );
}

#[test]
fn a_queue_that_is_never_empty_is_wrong_before_it_is_full() {
    let made = Made {
        now: 3,
        lowest: 2,
        ..Made::default()
    };
    says(made, "queue_never_empty", &["2 to 3 of 512 places"]);
    let made = Made {
        peak: 300,
        ..Made::default()
    };
    let report = report(made);
    assert_eq!(only(&report).0.weight, Weight::Note);
}

#[test]
fn a_leak_that_grows_differs_from_one_that_does_not() {
    says(
        stuck(12, 2),
        "close_wait_not_closed",
        &[
            "12 connections",
            "Their number grows",
            "10 more than 10 s before",
            "app[7]",
            "strace -f -p 7",
            "--reap",
        ],
    );
    says(
        stuck(12, 12),
        "close_wait_not_closed",
        &["No more came in 10 s"],
    );
    says(
        stuck(2, 12),
        "close_wait_not_closed",
        &["Their number shrinks"],
    );
}

#[test]
fn unread_bytes_differ_from_an_end_of_file_that_was_read() {
    let made = Made {
        end_read: false,
        unread: 100,
        ..stuck(3, 3)
    };
    says(
        made.clone(),
        "close_wait_not_read",
        &[
            "has read neither the last 300 bytes nor the end of file",
            "Now: app[7] waits for events",
        ],
    );
    let made = Made { unread: 0, ..made };
    says(
        made,
        "close_wait_not_read",
        &["has not read the end of file"],
    );
    says(
        stuck(3, 3),
        "close_wait_not_closed",
        &["has read up to the end of file, and has not called close()"],
    );
    let made = Made {
        accepted: false,
        owners: Vec::new(),
        ..stuck(3, 3)
    };
    says(
        made,
        "close_wait_not_accepted",
        &["gave up while they waited"],
    );
}

#[test]
fn a_pool_that_leaks_is_reported_with_its_remote_addresses() {
    let made = Made {
        is_outgoing: true,
        ..stuck(5, 5)
    };
    says(
        made,
        "close_wait_not_closed",
        &["2 to 10.0.0.5:5000, 2 to 10.0.0.5:5001", "pool"],
    );
    // An idle connection of a pool is not read.
    let made = Made {
        is_outgoing: true,
        end_read: false,
        ..stuck(5, 5)
    };
    let text = says(
        made,
        "close_wait_not_read",
        &["the usual cause is a connection pool"],
    );
    assert!(!text.contains("is it blocked"), "{text}");
}

#[test]
fn a_stuck_connection_of_a_tine_server_names_the_worker_that_it_waits_for() {
    let made = Made {
        owners: vec![Holder::made_up(
            7,
            "tine master",
            Activity::Sleeping,
            "ep_poll",
        )],
        waits_for: Some(WaitsFor {
            worker: Some("worker#0[9]".to_owned()),
            callback: None,
            reason: Reason::Close,
            closes_in: None,
            is_its_own: true,
            says: "worker#0[pid=9] has not finished its `close` callback: it has been in `close` for at least 12.0 s".to_owned(),
        }),
        ..stuck(4, 4)
    };
    says(
        made,
        "close_wait_not_closed",
        &[
            "The server says: worker#0[pid=9] has not finished its `close` callback: it has been in `close` for at least 12.0 s (and 3 more wait",
            "--close-deadline",
        ],
    );
}

#[test]
fn many_connections_that_the_peer_should_end_are_reported() {
    let of = |state, half_closed| Made {
        states: vec![(state, 150)],
        half_closed,
        ..Made::default()
    };
    says(
        of(State::FinWait2, 0),
        "fin_wait2",
        &["each ends after 60 s"],
    );
    says(
        of(State::FinWait2, 150),
        "fin_wait2",
        &["150 of them are held", "close() after shutdown()"],
    );
    let mut made = of(State::TimeWait, 0);
    assert!(report(made.clone()).findings.is_empty());
    made.states = vec![(State::TimeWait, 12_345)];
    says(
        made,
        "time_wait",
        &["12,345 connections in TIME_WAIT", "does no harm"],
    );
    assert!(!report(of(State::FinWait2, 0)).wrong);
    assert!(report(of(State::FinWait2, 150)).wrong);
}

#[test]
fn ports_that_run_out_are_reported_in_time() {
    let of = |used, time_wait, tw_reuse| Made {
        ports: vec![(used, time_wait)],
        tw_reuse,
        ..Made::default()
    };
    assert!(report(of(2_000, 2_000, 2)).findings.is_empty());
    says(
        of(15_000, 12_000, 2),
        "ports",
        &["15,000 of 28,232 ports (53 %) to 10.0.0.5:5432"],
    );
    says(
        of(27_000, 26_000, 2),
        "ports",
        &[
            "EADDRNOTAVAIL",
            "tcp_tw_reuse=1",
            "pool",
            "ip_local_reserved_ports with every port that a server here listens on (9501)",
        ],
    );
    assert!(report(of(27_000, 26_000, 2)).wrong);
    // Those in TIME_WAIT can be reused.
    assert!(!report(of(27_000, 26_000, 1)).wrong);
    assert!(report(of(27_000, 10, 1)).wrong);
}

#[test]
fn the_verdict_counts_all_findings_in_one_sentence() {
    let made = Made {
        now: 5,
        backlog: 4,
        lowest: 5,
        peak: 5,
        ..stuck(1, 1)
    };
    let report = report(made);
    assert_eq!(report.verdict, "2 things are wrong.");
    assert!(report.wrong);
}

#[test]
fn a_server_that_says_that_it_is_full_is_believed() {
    let mut master = Holder::made_up(7, "tine master", Activity::Sleeping, "ep_poll");
    master.room = serde_json::from_str(r#"{"connections": 3, "max_connections": 3}"#).unwrap();
    let text = says(
        full(vec![master]),
        "queue_full",
        &[
            "The server says that `max_connections` is reached: master[7] has 3 of 3 connections.",
            "--max-connections",
        ],
    );
    assert!(!text.contains("has it reached"), "{text}");
    assert!(!text.contains("backlog is only"), "{text}");
}
