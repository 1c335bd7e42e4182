//! Turns figures into words: the fault, the figures that show it, its cause, and things to try.
//!
//! Pure functions of a [`Report`]. Their one rule: they say nothing that the report does not show, and
//! mark a likely cause as likely.

mod closing;
mod departed;
mod flow;
mod half_open;
#[cfg(test)]
pub(super) mod made;
mod ports;
mod queue;
#[cfg(test)]
mod tests;

pub(super) use ports::shown as ports_shown;

use super::holder::Holder;
use super::report::{Connections, Finding, Listener, Report, Weight};
use super::scope::Subject;
use super::words::{count, grouped, seconds};
use crate::sockets::State;
use crate::sockets::owners::Owner;

/// Adds the findings and the verdict to a report.
pub(super) fn judge(report: &mut Report) {
    let mut findings: Vec<Finding> = Vec::new();
    for listener in &report.listeners {
        let place = Place::of(listener);
        findings.extend(queue::judge(report, listener));
        findings.extend(half_open::judge(report, listener));
        findings.extend(closing::judge(report, &place, &listener.connections));
        findings.extend(flow::judge(report, &place, &listener.connections));
    }
    let outgoing = Place::outgoing(report.subject);
    findings.extend(closing::judge(report, &outgoing, &report.outgoing));
    findings.extend(flow::judge(report, &outgoing, &report.outgoing));
    findings.extend(departed::judge(report));
    findings.extend(ports::judge(report));
    findings.extend(queue::judge_counters(report));
    let counters = half_open::judge_counters(report, &findings);
    findings.extend(counters);
    findings.extend(half_open::judge_drops(report));
    findings.extend(no_listener(report));
    // Faults come first; the sort is stable, so the rest stays in order.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.weight));
    report.wrong = findings
        .iter()
        .any(|finding| finding.weight == Weight::Wrong);
    report.findings = findings;
    report.verdict = overall(report);
}

/// The listener that connections belong to, or the outgoing ones, in words.
struct Place {
    about: String,
    /// The arguments of a `tine doctor` that examines this alone.
    argument: String,
    is_outgoing: bool,
}

impl Place {
    fn of(listener: &Listener) -> Place {
        Place {
            about: listener.address.to_string(),
            argument: format!(" {}", listener.address.port()),
            is_outgoing: false,
        }
    }

    fn outgoing(subject: Subject) -> Place {
        Place {
            about: "outgoing".to_owned(),
            argument: match subject {
                Subject::Process(pid) => format!(" --pid {pid}"),
                Subject::All | Subject::Port(_) => String::new(),
            },
            is_outgoing: true,
        }
    }

    fn finding(
        &self,
        kind: &'static str,
        weight: Weight,
        says: String,
        next: Vec<String>,
    ) -> Finding {
        Finding {
            kind,
            weight,
            about: self.about.clone(),
            says,
            next,
        }
    }
}

impl Report {
    /// Returns the looks at these processes.
    fn holders<'a>(&'a self, owners: &'a [Owner]) -> impl Iterator<Item = &'a Holder> {
        owners
            .iter()
            .filter_map(|owner| self.processes.get(&owner.pid))
    }
}

/// Returns the activities of these processes, of the first few.
fn doing(report: &Report, owners: &[Owner]) -> String {
    const MOST: usize = 3;
    let all: Vec<String> = report.holders(owners).map(Holder::says).collect();
    let more = all.len().saturating_sub(MOST);
    let shown = all[..all.len() - more].join("; ");
    match more {
        0 => shown,
        _ => format!("{shown}; and {} more", grouped(more)),
    }
}

fn no_listener(report: &Report) -> Option<Finding> {
    let Subject::Port(port) = report.subject else {
        return None;
    };
    report.listeners.is_empty().then(|| Finding {
        kind: "no_listener",
        weight: Weight::Wrong,
        about: format!("port {port}"),
        says: "Nothing listens on it any more: clients are refused.".to_owned(),
        next: vec!["see the program's log for the reason".to_owned()],
    })
}

/// Returns the verdict: one sentence about the whole report.
fn overall(report: &Report) -> String {
    let number = |weight| {
        let of_weight = report
            .findings
            .iter()
            .filter(|finding| finding.weight == weight);
        of_weight.count()
    };
    let notes = match number(Weight::Note) {
        0 => String::new(),
        1 => "; 1 thing is worth knowing".to_owned(),
        notes => format!("; {notes} things are worth knowing"),
    };
    match number(Weight::Wrong) {
        0 => format!("Nothing is wrong: {}{notes}.", healthy(report)),
        1 => format!("1 thing is wrong{notes}."),
        wrong => format!("{wrong} things are wrong{notes}."),
    }
}

fn nothing(report: &Report) -> String {
    let mut words = "there is no TCP socket".to_owned();
    if matches!(report.subject, Subject::Process(_)) {
        words.push_str(" (one in TIME_WAIT belongs to no process: `tine doctor` shows them)");
    }
    words
}

fn healthy(report: &Report) -> String {
    let tables = report
        .listeners
        .iter()
        .map(|listener| &listener.connections);
    let sum = |of: fn(&Connections) -> usize| tables.clone().map(of).sum::<usize>();
    let established = sum(|it| it.number_of(State::Established));
    let peak = report.listeners.iter().filter_map(Listener::fullest);
    let peak = peak.map(|queue| queue.peak).max();
    let queues = match peak {
        None if report.outgoing.states.is_empty() => return nothing(report),
        None => "nothing listens".to_owned(),
        Some(peak) => format!(
            "{} with {}, never more than {} waiting to be accepted",
            count(report.listeners.len(), "listener"),
            count(established, "connection"),
            grouped(peak)
        ),
    };
    format!(
        "{queues}, none in CLOSE_WAIT for longer than {}",
        seconds(report.older)
    )
}
