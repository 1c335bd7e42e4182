//! Local ports for outgoing connections. A connection is known by both its addresses, so each remote
//! address and port has a full range of local ports to itself.

use std::collections::BTreeSet;

use super::{Finding, Report, Weight};
use crate::doctor::report::PortUse;
use crate::doctor::words::{grouped, list, percent};
use crate::sockets::counters::Settings;

/// The percentages from which on the use of ports is worth knowing, and wrong.
const MANY: u64 = 50;
const NEARLY_ALL: u64 = 85;

pub(super) fn judge(report: &Report) -> Vec<Finding> {
    let ports = report.ports.iter();
    ports.filter_map(|port| of(port, report)).collect()
}

fn of(port: &PortUse, report: &Report) -> Option<Finding> {
    let settings = report.settings;
    let share = percent(port.used as u64, u64::from(port.of));
    if share < MANY {
        return None;
    }
    let is_reused = is_reused(port, settings);
    let lasting = percent((port.used - port.time_wait) as u64, u64::from(port.of));
    let is_short = share >= NEARLY_ALL && (!is_reused || lasting >= NEARLY_ALL);
    let mut says = format!(
        "{} to {} are taken, {} of them in TIME_WAIT.",
        shown(port),
        port.remote,
        grouped(port.time_wait)
    );
    says.push_str(if is_reused {
        " Those in TIME_WAIT can be reused after one second (net.ipv4.tcp_tw_reuse)."
    } else if is_short {
        " When all are taken, connect() fails with EADDRNOTAVAIL."
    } else {
        " Each in TIME_WAIT stays taken for a minute."
    });
    Some(Finding {
        kind: "ports",
        weight: if is_short {
            Weight::Wrong
        } else {
            Weight::Note
        },
        about: format!("ports from {}", port.local),
        says,
        next: next(report, is_reused),
    })
}

/// Returns `12,345 of 28,232 ports (43 %)`.
pub(in crate::doctor) fn shown(port: &PortUse) -> String {
    let share = match (port.used * 100) / (port.of as usize).max(1) {
        0 => "under 1".to_owned(),
        share => share.to_string(),
    };
    let (used, of) = (grouped(port.used), grouped(port.of));
    format!("{used} of {of} ports ({share} %)")
}

/// Returns whether connect() may take a port in TIME_WAIT.
fn is_reused(port: &PortUse, settings: Settings) -> bool {
    match settings.tw_reuse {
        0 => false,
        2 => port.remote.ip().is_loopback(),
        _ => true,
    }
}

/// The range that advice names: all ports that need no privilege.
const WIDE: (u16, u16) = (1024, 65_535);

fn next(report: &Report, is_reused: bool) -> Vec<String> {
    let settings = report.settings;
    let mut next = vec!["reuse connections: a pool, HTTP keep-alive".to_owned()];
    if !is_reused {
        next.push(
            "`sysctl -w net.ipv4.tcp_tw_reuse=1`, safe at the connecting end (it needs TCP timestamps)"
                .to_owned(),
        );
    }
    if settings.ports == WIDE {
        next.push(
            "more local addresses, or more addresses at the other end: all ports are in use already".to_owned(),
        );
        return next;
    }
    next.push(format!(
        "more ports: `sysctl -w net.ipv4.ip_local_port_range=\"{} {}\"` (now {} to {}), but first \
         net.ipv4.ip_local_reserved_ports with every port that a server here listens on{}: else a client may take \
         it while the server is down",
        WIDE.0,
        WIDE.1,
        settings.ports.0,
        settings.ports.1,
        listening(report)
    ));
    next.push("more local addresses, or more addresses at the other end".to_owned());
    next
}

/// Returns the ports that are listened on and would be in the wide range, as far as the report shows them.
fn listening(report: &Report) -> String {
    const MOST: usize = 8;
    let ports = report.listeners.iter().map(|it| it.address.port());
    let ports: BTreeSet<u16> = ports.filter(|port| *port >= WIDE.0).collect();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    match ports.len() {
        0 => String::new(),
        _ => format!(" ({})", list(&ports, MOST)),
    }
}
