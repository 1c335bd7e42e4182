//! Made-up reports, for tests of verdicts, text and view.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::doctor::report::{Counters, PortUse, Queue, StateCount, Stuck, WaitsFor};
use crate::process::Activity;
use crate::sockets::counters::{Overflows, Settings};

/// The figures of a made-up report. With the default ones nothing is wrong.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) now: u32,
    pub(crate) peak: u32,
    pub(crate) lowest: u32,
    pub(crate) backlog: u32,
    pub(crate) overflows: u64,
    pub(crate) owners: Vec<Holder>,
    pub(crate) stuck: usize,
    pub(crate) stuck_before: usize,
    pub(crate) unread: u32,
    pub(crate) end_read: bool,
    pub(crate) accepted: bool,
    pub(crate) is_outgoing: bool,
    pub(crate) waits_for: Option<WaitsFor>,
    pub(crate) states: Vec<(State, usize)>,
    pub(crate) half_closed: usize,
    pub(crate) ports: Vec<(usize, usize)>,
    pub(crate) tw_reuse: u8,
}

impl Default for Made {
    fn default() -> Made {
        Made {
            now: 0,
            peak: 0,
            lowest: 0,
            backlog: 511,
            overflows: 0,
            owners: vec![Holder::made_up(7, "app", Activity::Sleeping, "ep_poll")],
            stuck: 0,
            stuck_before: 0,
            unread: 0,
            end_read: true,
            accepted: true,
            is_outgoing: false,
            waits_for: None,
            states: vec![(State::Established, 3)],
            half_closed: 0,
            ports: Vec::new(),
            tw_reuse: 2,
        }
    }
}

/// Returns the report with its verdict.
pub(crate) fn report(made: Made) -> Report {
    let owners: Vec<Owner> = made
        .owners
        .iter()
        .map(|holder| holder.owner.clone())
        .collect();
    let queue = Queue {
        now: made.now,
        peak: made.peak.max(made.now),
        lowest: made.lowest,
        recent_peak: made.now,
        backlog: made.backlog,
        overflows_while_full: made.overflows,
        owners: owners.clone(),
        uid: 0,
        cookie: 1,
    };
    let connections = connections(&made, &owners);
    let (of_listener, outgoing) = if made.is_outgoing {
        (Connections::default(), connections)
    } else {
        (connections, Connections::default())
    };
    let mut report = Report {
        subject: Subject::All,
        watched: Duration::from_secs(10),
        looks: 20,
        older: Duration::from_secs(5),
        silent: Duration::from_secs(3600),
        wrong: false,
        verdict: String::new(),
        findings: Vec::new(),
        listeners: vec![Listener {
            address: "127.0.0.1:9501".parse().unwrap(),
            queues: vec![queue],
            connections: of_listener,
        }],
        outgoing,
        departed: Vec::new(),
        ports: made.ports.iter().map(port_use).collect(),
        counters: Counters {
            since_boot: Overflows::default(),
            while_watched: Overflows::default(),
            unexplained: 0,
        },
        settings: settings(&made),
        processes: BTreeMap::from_iter(
            made.owners
                .iter()
                .map(|holder| (holder.owner.pid, holder.clone())),
        ),
        unseen: Vec::new(),
    };
    judge(&mut report);
    report
}

fn settings(made: &Made) -> Settings {
    Settings {
        ports: (32_768, 60_999),
        reserved: 0,
        syncookies: Some(1),
        tw_reuse: made.tw_reuse,
        fin_timeout: 60,
        somaxconn: 4096,
    }
}

fn port_use(&(used, time_wait): &(usize, usize)) -> PortUse {
    PortUse {
        local: "10.0.0.1".parse().unwrap(),
        remote: "10.0.0.5:5432".parse().unwrap(),
        used,
        time_wait,
        of: 28_232,
    }
}

fn connections(made: &Made, owners: &[Owner]) -> Connections {
    let stuck = |i: usize| Stuck {
        local: "127.0.0.1:9501".parse().unwrap(),
        remote: format!("10.0.0.5:{}", 5000 + i / 2).parse().unwrap(),
        age: Duration::from_secs(65),
        age_at_most: Some(Duration::from_secs(70)),
        unread: made.unread,
        end_read: made.end_read,
        unsent: 0,
        window_closed: false,
        accepted: made.accepted,
        owners: owners.to_vec(),
        waits_for: made.waits_for.clone(),
    };
    let count = |(state, now): (State, usize), before| StateCount {
        state,
        now,
        before,
        oldest: None,
        all_gone_in: None,
    };
    let others = made.states.iter().map(|other| count(*other, other.1));
    let close_wait =
        (made.stuck > 0).then(|| count((State::CloseWait, made.stuck), made.stuck_before));
    Connections {
        states: others.chain(close_wait).collect(),
        stuck: (0..made.stuck).map(stuck).collect(),
        half_closed: made.half_closed,
        ..Connections::default()
    }
}
