//! Draws the parts of the view: each shows a part of the report, in a part of the screen.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Sparkline, TableState};
use textwrap::core::display_width;

use super::columns::{Column, SPACING, cut, shortened, table, wrapped};
use crate::doctor::report::{Finding, Listener, Queue, Report, Stuck, Weight};
use crate::doctor::scope::Subject;
use crate::doctor::words::{age, grouped, list, seconds};
use crate::sockets::State;

/// Returns the lines of the header.
pub(super) fn header(report: &Report, width: usize) -> Vec<Line<'static>> {
    let subject = match report.subject {
        Subject::All => "everything that listens".to_owned(),
        Subject::Port(port) => format!("port {port}"),
        Subject::Process(pid) => format!("process {pid}"),
    };
    let grown = report.counters.while_watched;
    let title = format!("tine doctor: {subject}");
    let rest = format!(
        "watched for {}   turned away at full queues: {} (network namespace)",
        age(Duration::from_secs(report.watched.as_secs())),
        grouped(grown.listen_overflows)
    );
    let bold = Style::new().add_modifier(Modifier::BOLD);
    if display_width(&title) + 3 + display_width(&rest) <= width {
        return vec![Line::from(vec![
            Span::styled(title, bold),
            Span::raw(format!("   {rest}")),
        ])];
    }
    let mut lines = vec![Line::styled(title, bold)];
    lines.extend(wrapped(&rest, width, "", "").into_iter().map(Line::raw));
    lines
}

fn bad() -> Style {
    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
}

pub(super) fn draw_listeners(report: &Report, selected: usize, frame: &mut Frame<'_>, area: Rect) {
    let columns = [
        Column::text("LISTENER"),
        Column::number("QUEUE"),
        Column::number("PEAK"),
        Column::number("LIMIT"),
        Column::number("ESTAB"),
        Column::number("CLOSE_WAIT"),
        Column::number("TIME_WAIT"),
        Column::last("HELD BY"),
    ];
    let row = |listener: &Listener| {
        let number = |state| grouped(listener.connections.number_of(state));
        let queue = listener.fullest();
        let figure = |of: fn(&Queue) -> u32| grouped(queue.map_or(0, of));
        let cells = vec![
            shortened(&listener.address.to_string(), area.width.into()),
            figure(|queue| queue.now),
            figure(|queue| queue.peak),
            figure(Queue::most),
            number(State::Established),
            number(State::CloseWait),
            number(State::TimeWait),
            listener.held_by(2),
        ];
        let is_bad = queue.is_some_and(Queue::was_full) || !listener.connections.stuck.is_empty();
        (cells, if is_bad { bad() } else { Style::new() })
    };
    let rows: Vec<(Vec<String>, Style)> = report.listeners.iter().map(row).collect();
    let table = table(&columns, &rows, area.width)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut state);
}

pub(super) fn draw_queue(
    listener: &Listener,
    history: Option<&VecDeque<u64>>,
    frame: &mut Frame<'_>,
    area: Rect,
) {
    let Some(queue) = listener.fullest() else {
        return;
    };
    let figures = format!(
        "{} now, peak {} of {}",
        grouped(queue.now),
        grouped(queue.peak),
        grouped(queue.most())
    );
    let titles = [
        format!(" accept queue of {}: {figures} ", listener.address),
        format!(" {}: {figures} ", listener.address),
        format!(" {figures} "),
    ];
    let fits = |title: &&String| display_width(title) <= usize::from(area.width);
    let title = titles.iter().find(fits).cloned().unwrap_or_default();
    let block = Block::new().borders(Borders::TOP).title(title);
    // The newest on the right, where readers expect it.
    let values: Vec<u64> = history
        .into_iter()
        .flatten()
        .take(usize::from(area.width))
        .copied()
        .collect();
    let values: Vec<u64> = values.into_iter().rev().collect();
    let graph = Sparkline::default()
        .block(block)
        .data(&values)
        .max(u64::from(queue.peak).max(4))
        .style(if queue.was_full() {
            bad()
        } else {
            Style::new().fg(Color::Cyan)
        });
    frame.render_widget(graph, area);
}

pub(super) fn all_stuck(report: &Report) -> Vec<&Stuck> {
    let tables = report
        .listeners
        .iter()
        .map(|listener| &listener.connections);
    let all = tables.chain([&report.outgoing]);
    let mut stuck: Vec<&Stuck> = all.flat_map(|connections| &connections.stuck).collect();
    stuck.sort_by_key(|stuck| std::cmp::Reverse(stuck.age));
    stuck
}

pub(super) fn draw_stuck(report: &Report, stuck: &[&Stuck], frame: &mut Frame<'_>, area: Rect) {
    if stuck.is_empty() {
        return;
    }
    let title = format!(
        " in CLOSE_WAIT for longer than {}: {} ",
        seconds(report.older),
        grouped(stuck.len())
    );
    let widest = |of: fn(&Stuck) -> SocketAddr| {
        let all = stuck
            .iter()
            .map(|stuck| display_width(&of(stuck).to_string()));
        all.max().unwrap_or(0)
    };
    let (local, remote) = (widest(|stuck| stuck.local), widest(|stuck| stuck.remote));
    // Both addresses are shown: the ends of them, if there is no room for both.
    let most = match local + remote + usize::from(SPACING) > area.width.into() {
        true => usize::from(area.width.saturating_sub(SPACING)) / 2,
        false => local.max(remote),
    };
    let row = |stuck: &&Stuck| {
        let waits_for = match (&stuck.waits_for, stuck.accepted) {
            (Some(waits_for), _) => waits_for.short(),
            (None, true) => list(&stuck.owners, 2),
            (None, false) => "accept()".to_owned(),
        };
        let cells = vec![
            shortened(&stuck.local.to_string(), most),
            shortened(&stuck.remote.to_string(), most),
            age(stuck.age),
            grouped(stuck.unread),
            waits_for,
        ];
        (cells, Style::new())
    };
    let shown = stuck.iter().take(usize::from(area.height));
    let rows: Vec<(Vec<String>, Style)> = shown.map(row).collect();
    let columns = [
        Column::text("LOCAL"),
        Column::text("PEER"),
        Column::number("AGE"),
        Column::number("UNREAD"),
        Column::last("WAITS FOR"),
    ];
    let table =
        table(&columns, &rows, area.width).block(Block::new().borders(Borders::TOP).title(title));
    frame.render_widget(table, area);
}

/// Draws the verdict and the findings, those of the selected listener first: in full if there is room for that,
/// or else in fewer words.
pub(super) fn draw_findings(report: &Report, selected: usize, frame: &mut Frame<'_>, area: Rect) {
    let style = if report.wrong {
        bad()
    } else {
        Style::new().fg(Color::Green)
    };
    let width = usize::from(area.width).max(20);
    let mut block = Block::new().borders(Borders::TOP);
    let mut verdict = Vec::new();
    match format!(" {} ", report.verdict) {
        title if display_width(&title) <= width => block = block.title(Span::styled(title, style)),
        _ => {
            let lines = wrapped(&report.verdict, width, "", "");
            verdict.extend(lines.into_iter().map(|line| Line::styled(line, style)));
        }
    }
    let room = usize::from(area.height).saturating_sub(1 + verdict.len());
    let dim = Style::new().add_modifier(Modifier::DIM);
    let unseen = report.unseen.iter().flat_map(|line| {
        let text = wrapped(&format!("not seen: {line}"), width, "", "  ");
        text.into_iter().map(|line| Line::styled(line, dim))
    });
    let unseen: Vec<Line<'_>> = unseen.collect();
    let mut shown = findings(report, selected, width, room.saturating_sub(unseen.len()));
    shown.extend(unseen);
    if shown.len() > room {
        let more = shown.len() - room.saturating_sub(1);
        shown.truncate(room.saturating_sub(1));
        let more = format!("… {more} more lines, all of them at the end (q)");
        shown.push(Line::raw(cut(&more, width)));
    }
    verdict.extend(shown);
    frame.render_widget(Paragraph::new(verdict).block(block), area);
}

/// The part of a finding that is shown.
#[derive(Clone, Copy)]
enum Words {
    OneLine,
    Says,
    All,
}

/// Returns the lines of the findings: as much of each as there is room for, the selected listener's first.
fn findings(report: &Report, selected: usize, width: usize, room: usize) -> Vec<Line<'static>> {
    let selected = report.listeners.get(selected);
    let selected = selected.map(|listener| listener.address.to_string());
    let is_selected = |finding: &&Finding| Some(&finding.about) == selected.as_ref();
    let (own, others): (Vec<&Finding>, Vec<&Finding>) =
        report.findings.iter().partition(is_selected);
    let full: Vec<Line<'static>> = own
        .into_iter()
        .flat_map(|finding| lines_of(finding, width, Words::All))
        .collect();
    let mut shown: Vec<Vec<Line<'static>>> = others
        .iter()
        .map(|finding| lines_of(finding, width, Words::OneLine))
        .collect();
    let mut used = full.len() + shown.len();
    for words in [Words::Says, Words::All] {
        for (finding, lines) in others.iter().zip(&mut shown) {
            let more = lines_of(finding, width, words);
            if used - lines.len() + more.len() <= room {
                used += more.len() - lines.len();
                *lines = more;
            }
        }
    }
    full.into_iter()
        .chain(shown.into_iter().flatten())
        .collect()
}

fn lines_of(finding: &Finding, width: usize, words: Words) -> Vec<Line<'static>> {
    const INDENT: &str = "       ";
    let (word, style) = match finding.weight {
        Weight::Wrong => ("WRONG  ", bad()),
        Weight::Note => ("NOTE   ", Style::new().fg(Color::Yellow)),
    };
    let text = format!("{}: {}", finding.about, finding.says);
    let first = |text: String| Line::from(vec![Span::styled(word, style), Span::raw(text)]);
    if let Words::OneLine = words {
        return vec![first(cut(&text, width.saturating_sub(INDENT.len())))];
    }
    let mut says = wrapped(&text, width, INDENT, INDENT).into_iter();
    let start = says.next().unwrap_or_default();
    let mut lines = vec![first(start.trim_start().to_owned())];
    lines.extend(says.map(Line::raw));
    if let Words::All = words {
        for next in &finding.next {
            let next = wrapped(next, width, "       → ", "         ");
            lines.extend(next.into_iter().map(Line::raw));
        }
    }
    lines
}
