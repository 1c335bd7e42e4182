//! Writes a report as text: figures first, findings next, and the verdict last, where it is seen.
//!
//! Its one rule: no list is longer than a screen. JSON has everything.

use std::fmt::Write;
use std::io::{self, IsTerminal};

use anstyle::{AnsiColor, Style};

use super::report::{Connections, Finding, Listener, Report, StateCount, Stuck, WaitsFor, Weight};
use super::scope::Subject;
use super::verdict::ports_shown;
use super::words::{age, count, counted, grouped, list, percent, seconds};
use crate::columns::{self, Cell};
use crate::sockets::State;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = Style::new()
    .bold()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
const YELLOW: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
const GREEN: Style = Style::new()
    .bold()
    .fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));

/// The most listeners that are shown, stuck connections of one, findings, and remote addresses.
const LISTENERS: usize = 30;
const STUCK: usize = 10;
const FINDINGS: usize = 20;
const PORTS: usize = 5;

/// Returns the width of the terminal within bounds, or that of a page without a terminal.
pub(crate) fn width() -> usize {
    let terminal = io::stdout()
        .is_terminal()
        .then(ratatui::crossterm::terminal::size);
    match terminal {
        Some(Ok((columns, _))) if columns > 0 => usize::from(columns).clamp(60, 120),
        _ => 100,
    }
}

pub(crate) fn render(report: &Report, width: usize) -> String {
    let mut out = String::new();
    header(report, &mut out);
    let shown = shown(report);
    listeners(report, &shown, &mut out);
    for listener in shown {
        details(report, listener, &mut out);
    }
    outgoing(report, &mut out);
    ports(report, &mut out);
    overflows(report, width, &mut out);
    findings(report, width, &mut out);
    for line in &report.unseen {
        wrapped(&format!("Not seen: {line}."), "", "  ", width, &mut out);
    }
    let style = if report.wrong { RED } else { GREEN };
    let verdict = format!("{style}{}{style:#}", report.verdict);
    wrapped(&verdict, "", "", width, &mut out);
    out
}

/// Writing to a String does not fail.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}

fn header(report: &Report, out: &mut String) {
    let subject = match report.subject {
        Subject::All => "everything that listens".to_owned(),
        Subject::Port(port) => format!("port {port}"),
        Subject::Process(pid) => format!("process {pid} and its descendants"),
    };
    let watched = age(report.watched);
    let looks = count(report.looks, "look");
    line(
        out,
        format_args!("{BOLD}{subject}{BOLD:#}, watched for {watched} ({looks} at the queues)\n"),
    );
}

/// Returns the listeners to show: if there are too many, those with a finding come first.
fn shown(report: &Report) -> Vec<&Listener> {
    let mut shown: Vec<&Listener> = report.listeners.iter().collect();
    shown.sort_by_cached_key(|listener| !has_finding(report, listener));
    shown.truncate(LISTENERS);
    shown.sort_by_key(|listener| listener.address);
    shown
}

fn listeners(report: &Report, shown: &[&Listener], out: &mut String) {
    if report.listeners.is_empty() {
        return line(out, format_args!("Nothing listens.\n"));
    }
    let names = [
        "LISTENER",
        "QUEUE",
        "PEAK",
        "LIMIT",
        "ESTAB",
        "CLOSE_WAIT",
        "TIME_WAIT",
        "HELD BY",
    ];
    let title = |(i, name): (usize, &&str)| {
        let cell = if (1..=6).contains(&i) {
            Cell::number(name)
        } else {
            Cell::text(name)
        };
        cell.styled(DIM)
    };
    let mut rows = vec![names.iter().enumerate().map(title).collect()];
    rows.extend(shown.iter().map(|listener| row(report, listener)));
    columns::write(&rows, "", out);
    let more = report.listeners.len() - shown.len();
    if more > 0 {
        line(
            out,
            format_args!("{DIM}and {} more (--json has all){DIM:#}", grouped(more)),
        );
    }
    out.push('\n');
}

fn has_finding(report: &Report, listener: &Listener) -> bool {
    let about = listener.address.to_string();
    report.findings.iter().any(|finding| finding.about == about)
}

fn row(report: &Report, listener: &Listener) -> Vec<Cell> {
    let connections = &listener.connections;
    let number = |state| Cell::number(grouped(connections.number_of(state)));
    let queue = listener.fullest();
    let figure = |of: fn(&super::report::Queue) -> u32| Cell::number(queue.map_or(0, of));
    let is_full = queue.is_some_and(super::report::Queue::was_full);
    let is_stuck = !connections.stuck.is_empty();
    let red_if = |cell: Cell, is_bad: bool| if is_bad { cell.styled(RED) } else { cell };
    let mut held = listener.held_by(3);
    if listener.queues.len() > 1 {
        let _ = write!(
            held,
            "; {} queues (SO_REUSEPORT), the fullest is shown",
            listener.queues.len()
        );
    }
    vec![
        red_if(Cell::text(listener.address), has_finding(report, listener)),
        red_if(figure(|queue| queue.now), is_full),
        red_if(figure(|queue| queue.peak), is_full),
        Cell::number(grouped(queue.map_or(0, super::report::Queue::most))),
        number(State::Established),
        red_if(number(State::CloseWait), is_stuck),
        number(State::TimeWait),
        Cell::text(held),
    ]
}

/// Writes a listener's states and stuck connections, if it is the only listener or has a finding.
fn details(report: &Report, listener: &Listener, out: &mut String) {
    let is_asked_for = report.subject != Subject::All || report.listeners.len() == 1;
    if !is_asked_for && !has_finding(report, listener) {
        return;
    }
    let states = states(&listener.connections);
    let states = if states.is_empty() {
        "no connection".to_owned()
    } else {
        states
    };
    line(
        out,
        format_args!("{BOLD}{}{BOLD:#}  {states}", listener.address),
    );
    stuck(report, &listener.connections.stuck, out);
    out.push('\n');
}

fn outgoing(report: &Report, out: &mut String) {
    let states = states(&report.outgoing);
    if !states.is_empty() {
        line(out, format_args!("{BOLD}outgoing{BOLD:#}  {states}"));
        stuck(report, &report.outgoing.stuck, out);
        out.push('\n');
    }
}

fn states(connections: &Connections) -> String {
    let there = connections.states.iter().filter(|count| count.now > 0);
    let words: Vec<String> = there.map(state).collect();
    words.join(", ")
}

fn state(count: &StateCount) -> String {
    let text = format!("{} {}", grouped(count.now), count.state);
    match (count.state, count.oldest, count.all_gone_in) {
        (State::TimeWait, _, Some(left)) => format!("{text} (all gone in {})", age(left)),
        (_, Some(oldest), _) if count.now == 1 => format!("{text} (for {})", age(oldest)),
        (_, Some(oldest), _) => format!("{text} (the oldest for {})", age(oldest)),
        _ => text,
    }
}

fn stuck(report: &Report, all: &[Stuck], out: &mut String) {
    if all.is_empty() {
        return;
    }
    line(
        out,
        format_args!("  in CLOSE_WAIT for longer than {}:", seconds(report.older)),
    );
    let is_known = all.iter().any(|stuck| stuck.waits_for.is_some());
    let mut names = vec!["LOCAL", "PEER", "AGE", "UNREAD", "END READ", "HELD BY"];
    if is_known {
        names.push("WAITS FOR");
    }
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let title = |name: &&str| match *name {
        "AGE" | "UNREAD" => Cell::number(name).styled(DIM),
        _ => Cell::text(name).styled(DIM),
    };
    rows.push(names.iter().map(title).collect());
    rows.extend(
        all.iter()
            .take(STUCK)
            .map(|stuck| stuck_row(stuck, is_known)),
    );
    columns::write(&rows, "  ", out);
    let more = all.len().saturating_sub(STUCK);
    if more > 0 {
        line(
            out,
            format_args!("  {DIM}and {} more (--json has all){DIM:#}", grouped(more)),
        );
    }
}

fn stuck_row(stuck: &Stuck, is_known: bool) -> Vec<Cell> {
    let held = match (&stuck.owners[..], stuck.accepted) {
        (_, false) => "none: not accepted".to_owned(),
        ([], true) => "not seen".to_owned(),
        (owners, true) => list(owners, 2),
    };
    let mut row = vec![
        Cell::text(stuck.local),
        Cell::text(stuck.remote),
        Cell::number(age(stuck.age)),
        Cell::number(grouped(stuck.unread)),
        Cell::text(if stuck.end_read { "yes" } else { "no" }),
        Cell::text(held),
    ];
    if is_known {
        let waits_for = stuck.waits_for.as_ref().map(WaitsFor::short);
        row.push(Cell::text(waits_for.unwrap_or_default()));
    }
    row
}

/// Writes the use of ports: at least one in a hundred, or any if a port or process is examined.
fn ports(report: &Report, out: &mut String) {
    let is_asked_for = report.subject != Subject::All;
    let is_many =
        |used: usize, of: u32| is_asked_for || percent(used as u64 * 10, u64::from(of)) >= 10;
    let mut many = report
        .ports
        .iter()
        .filter(|port| is_many(port.used, port.of))
        .peekable();
    if many.peek().is_none() {
        return;
    }
    for port in many.by_ref().take(PORTS) {
        line(
            out,
            format_args!(
                "{BOLD}ports{BOLD:#}  {} from {} to {}, {} in TIME_WAIT",
                ports_shown(port),
                port.local,
                port.remote,
                grouped(port.time_wait)
            ),
        );
    }
    let more = many.count();
    if more > 0 {
        line(
            out,
            format_args!("       {DIM}and {} more destinations{DIM:#}", grouped(more)),
        );
    }
    out.push('\n');
}

fn overflows(report: &Report, width: usize, out: &mut String) {
    let grown = report.counters.while_watched;
    if grown.listen_overflows == 0 && grown.listen_drops == 0 {
        return;
    }
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let text = format!(
        "While watched, {} a full queue, and {} dropped at listeners (of the whole network namespace).",
        counted(
            number(grown.listen_overflows),
            "attempt met",
            "attempts met"
        ),
        counted(number(grown.listen_drops), "SYN was", "SYNs were"),
    );
    wrapped(&text, "", "", width, out);
    out.push('\n');
}

fn findings(report: &Report, width: usize, out: &mut String) {
    for finding in report.findings.iter().take(FINDINGS) {
        let (style, word) = match finding.weight {
            Weight::Wrong => (RED, "WRONG"),
            Weight::Note => (YELLOW, "NOTE "),
        };
        let Finding { about, says, .. } = finding;
        let first = format!("{style}{word}{style:#}  {BOLD}{about}{BOLD:#}: ");
        wrapped(says, &first, "       ", width, out);
        for next in &finding.next {
            wrapped(next, "       → ", "         ", width, out);
        }
        out.push('\n');
    }
    let more = report.findings.len().saturating_sub(FINDINGS);
    if more > 0 {
        line(
            out,
            format_args!("{DIM}and {} more (--json has all){DIM:#}\n", grouped(more)),
        );
    }
}

fn wrapped(text: &str, first: &str, rest: &str, width: usize, out: &mut String) {
    let options = textwrap::Options::new(width)
        .initial_indent(first)
        .subsequent_indent(rest)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    line(out, format_args!("{}", textwrap::fill(text, options)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::verdict::made::{Made, report};

    fn plain(report: &Report) -> String {
        anstream::adapter::strip_str(&render(report, 100)).to_string()
    }

    #[test]
    fn figures_come_first_and_the_verdict_last() {
        let made = Made {
            stuck: 2,
            stuck_before: 2,
            unread: 1_000,
            end_read: false,
            ..Made::default()
        };
        let text = plain(&report(made));
        for line in [
            "LISTENER        QUEUE  PEAK  LIMIT  ESTAB  CLOSE_WAIT  TIME_WAIT  HELD BY",
            "127.0.0.1:9501      0     0    512      3           2          0  app[7]",
            "  127.0.0.1:9501  10.0.0.5:5000  1 min 5 s   1,000  no        app[7]",
        ] {
            assert!(
                text.lines().any(|shown| shown == line),
                "no {line:?} in\n{text}"
            );
        }
        assert_eq!(text.lines().last(), Some("1 thing is wrong."));
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
    }

    #[test]
    fn no_list_is_longer_than_a_screen_and_listeners_with_findings_come_first() {
        let mut made = report(Made {
            stuck: 10_000,
            stuck_before: 10_000,
            ..Made::default()
        });
        let mut others = report(Made::default()).listeners;
        for port in 1..=2_000 {
            others[0].address.set_port(port);
            made.listeners.insert(0, others[0].clone());
        }
        let text = plain(&made);
        assert!(text.lines().count() < 80, "{}", text.lines().count());
        for words in [
            "127.0.0.1:9501 ",
            "and 1,971 more",
            "and 9,990 more (--json has all)",
        ] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
    }
}
