//! Draws the parts of the view: each shows a part of the report, in a part of the screen.

use std::collections::VecDeque;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table, TableState};

use crate::doctor::report::{Finding, Listener, Queue, Report, Stuck, Weight};
use crate::doctor::scope::Subject;
use crate::doctor::words::{age, grouped, list, seconds};
use crate::sockets::State;

pub(super) fn header(report: &Report) -> Line<'static> {
    let subject = match report.subject {
        Subject::All => "everything that listens".to_owned(),
        Subject::Port(port) => format!("port {port}"),
        Subject::Process(pid) => format!("process {pid}"),
    };
    let grown = report.counters.while_watched;
    Line::from(vec![
        Span::styled(
            format!("tine doctor: {subject}"),
            Style::new().add_modifier(Modifier::BOLD),
        ),
        Span::raw(format!(
            "   watched for {}   turned away at full queues: {} (network namespace)",
            age(Duration::from_secs(report.watched.as_secs())),
            grouped(grown.listen_overflows)
        )),
    ])
}

fn bad() -> Style {
    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
}

pub(super) fn draw_listeners(report: &Report, selected: usize, frame: &mut Frame<'_>, area: Rect) {
    let titles = [
        "LISTENER",
        "QUEUE",
        "PEAK",
        "LIMIT",
        "ESTAB",
        "CLOSE_WAIT",
        "TIME_WAIT",
        "HELD BY",
    ];
    let rows = report.listeners.iter().map(|listener| {
        let number = |state| right(grouped(listener.connections.number_of(state)));
        let queue = listener.fullest();
        let figure = |of: fn(&Queue) -> u32| right(grouped(queue.map_or(0, of)));
        let is_bad = queue.is_some_and(Queue::was_full) || !listener.connections.stuck.is_empty();
        let row = Row::new([
            Line::raw(listener.address.to_string()),
            figure(|queue| queue.now),
            figure(|queue| queue.peak),
            figure(Queue::most),
            number(State::Established),
            number(State::CloseWait),
            number(State::TimeWait),
            Line::raw(listener.held_by(2)),
        ]);
        row.style(if is_bad { bad() } else { Style::new() })
    });
    let address = report
        .listeners
        .iter()
        .map(|listener| listener.address.to_string().len());
    let widths = [
        Constraint::Length(address.max().unwrap_or(0).max(8) as u16),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Fill(1),
    ];
    let titles = titles.iter().enumerate().map(|(i, title)| {
        let line = Line::raw(*title);
        if (1..=6).contains(&i) {
            line.right_aligned()
        } else {
            line
        }
    });
    let table = Table::new(rows, widths)
        .column_spacing(2)
        .header(Row::new(titles).style(Style::new().add_modifier(Modifier::DIM)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut state);
}

fn right(text: String) -> Line<'static> {
    Line::raw(text).right_aligned()
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
    let title = format!(
        " accept queue of {}: {} now, peak {} of {} ",
        listener.address,
        grouped(queue.now),
        grouped(queue.peak),
        grouped(queue.most())
    );
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
    let rows = stuck.iter().take(usize::from(area.height)).map(|stuck| {
        let waits_for = match (&stuck.waits_for, stuck.accepted) {
            (Some(waits_for), _) => waits_for.short(),
            (None, true) => list(&stuck.owners, 2),
            (None, false) => "accept()".to_owned(),
        };
        Row::new([
            Line::raw(stuck.local.to_string()),
            Line::raw(stuck.remote.to_string()),
            right(age(stuck.age)),
            right(grouped(stuck.unread)),
            Line::raw(waits_for),
        ])
    });
    let widths = [
        Constraint::Fill(2),
        Constraint::Fill(2),
        Constraint::Length(11),
        Constraint::Length(9),
        Constraint::Fill(3),
    ];
    let titles = [
        Line::raw("LOCAL"),
        Line::raw("PEER"),
        Line::raw("AGE").right_aligned(),
        Line::raw("UNREAD").right_aligned(),
        Line::raw("WAITS FOR"),
    ];
    let table = Table::new(rows, widths)
        .column_spacing(2)
        .header(Row::new(titles).style(Style::new().add_modifier(Modifier::DIM)))
        .block(Block::new().borders(Borders::TOP).title(title));
    frame.render_widget(table, area);
}

/// Draws the selected listener's findings in full, and the others in a line each.
pub(super) fn draw_findings(report: &Report, selected: usize, frame: &mut Frame<'_>, area: Rect) {
    let selected = report.listeners.get(selected);
    let selected = selected.map(|listener| listener.address.to_string());
    let is_selected = |finding: &&Finding| Some(&finding.about) == selected.as_ref();
    let (own, others): (Vec<&Finding>, Vec<&Finding>) =
        report.findings.iter().partition(is_selected);
    let width = usize::from(area.width).max(20);
    let mut lines: Vec<Line<'_>> = Vec::new();
    for finding in own {
        lines.extend(finding_in_full(finding, width));
    }
    lines.extend(
        others
            .into_iter()
            .map(|finding| Line::from(first_words(finding))),
    );
    for line in &report.unseen {
        let dim = Style::new().add_modifier(Modifier::DIM);
        lines.push(Line::styled(format!("not seen: {line}"), dim));
    }
    let style = if report.wrong {
        bad()
    } else {
        Style::new().fg(Color::Green)
    };
    let title = Span::styled(format!(" {} ", report.verdict), style);
    let block = Block::new().borders(Borders::TOP).title(title);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn first_words(finding: &Finding) -> Vec<Span<'static>> {
    let (word, style) = match finding.weight {
        Weight::Wrong => ("WRONG  ", bad()),
        Weight::Note => ("NOTE   ", Style::new().fg(Color::Yellow)),
    };
    let text = format!("{}: {}", finding.about, finding.says);
    vec![Span::styled(word, style), Span::raw(text)]
}

fn finding_in_full(finding: &Finding, width: usize) -> Vec<Line<'static>> {
    let wrap = |text: &str, first: &str, rest: &str| {
        let options = textwrap::Options::new(width)
            .initial_indent(first)
            .subsequent_indent(rest);
        textwrap::wrap(text, options)
            .into_iter()
            .map(|line| line.into_owned())
            .collect::<Vec<String>>()
    };
    let says = format!("{}: {}", finding.about, finding.says);
    let says = wrap(&says, "       ", "       ");
    let word = first_words(finding).swap_remove(0);
    let mut lines: Vec<Line<'static>> = says.into_iter().map(Line::raw).collect();
    if let Some(first) = lines.first_mut() {
        let rest = first.to_string().trim_start().to_owned();
        *first = Line::from(vec![word, Span::raw(rest)]);
    }
    for next in &finding.next {
        let next = wrap(next, "       → ", "         ");
        lines.extend(next.into_iter().map(Line::raw));
    }
    lines
}
