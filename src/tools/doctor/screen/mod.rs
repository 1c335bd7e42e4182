//! The view on the terminal: listeners, the queue of one of them over time, stuck connections, and the
//! findings.
//!
//! Its one rule: however the program ends, the terminal is restored. SIGKILL and SIGSTOP cannot be
//! caught: after them the view stays on the terminal, which `reset` mends.

mod draw;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::{DefaultTerminal, Frame};

use super::report::{Listener, Report};
use draw::{all_stuck, draw_findings, draw_listeners, draw_queue, draw_stuck, header};

/// The most figures of a queue that are kept: more than the columns of any terminal.
const KEPT: usize = 512;

/// The terminal, taken over until this is dropped.
pub(super) struct Screen(DefaultTerminal);

/// A request by a key, or by a new size of the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    None,
    End,
    Redraw,
    /// Select the listener this many rows further down.
    Move(isize),
}

impl Screen {
    /// Takes the terminal over. A panic restores it before its message is printed.
    pub(super) fn open() -> io::Result<Screen> {
        ratatui::try_init().map(Screen)
    }

    pub(super) fn draw(&mut self, view: &mut View) -> io::Result<()> {
        self.0.draw(|frame| view.draw(frame)).map(drop)
    }

    /// Waits for a key, for at most `time`.
    pub(super) fn wait(&mut self, time: Duration) -> io::Result<Wish> {
        match event::poll(time) {
            Ok(false) => Ok(Wish::None),
            Ok(true) => Ok(match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => wish(key),
                Event::Resize(..) => Wish::Redraw,
                _ => Wish::None,
            }),
            // A signal, which the loop notices by its flag.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Wish::None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A panic has restored it already. A second time would put the cursor over the panic's message.
        if !std::thread::panicking() {
            ratatui::restore();
        }
    }
}

fn wish(key: KeyEvent) -> Wish {
    let has_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if has_control => Wish::End,
        KeyCode::Char('q') | KeyCode::Esc => Wish::End,
        KeyCode::Up | KeyCode::Char('k') => Wish::Move(-1),
        KeyCode::Down | KeyCode::Char('j') => Wish::Move(1),
        _ => Wish::None,
    }
}

/// The contents of the view.
#[derive(Default)]
pub(super) struct View {
    report: Option<Report>,
    /// The peaks of each listener's queue between reports, the newest first.
    history: HashMap<SocketAddr, VecDeque<u64>>,
    selected: usize,
    /// Whether the user has selected it; otherwise it is the listener in most need.
    is_chosen: bool,
}

impl View {
    pub(super) fn take(&mut self, report: &Report) {
        // Listeners come and go, and the history must not grow without end.
        let addresses = report.listeners.iter().map(|listener| listener.address);
        let addresses: HashSet<SocketAddr> = addresses.collect();
        self.history
            .retain(|address, _| addresses.contains(address));
        for listener in &report.listeners {
            let history = self.history.entry(listener.address).or_default();
            let peak = listener.queues.iter().map(|queue| queue.recent_peak).max();
            history.push_front(peak.unwrap_or(0).into());
            history.truncate(KEPT);
        }
        if !self.is_chosen {
            self.selected = neediest(report);
        }
        self.selected = self.selected.min(report.listeners.len().saturating_sub(1));
        self.report = Some(report.clone());
    }

    pub(super) fn select(&mut self, by: isize) {
        let last = self
            .report
            .as_ref()
            .map_or(0, |report| report.listeners.len().saturating_sub(1));
        self.selected = self.selected.saturating_add_signed(by).min(last);
        self.is_chosen = true;
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let Some(report) = self.report.as_ref() else {
            return;
        };
        let rows = report.listeners.len().max(1) as u16;
        let stuck = all_stuck(report);
        let list = if stuck.is_empty() {
            0
        } else {
            (stuck.len() as u16 + 3).min(9)
        };
        let graph = if frame.area().height >= 30 { 6 } else { 4 };
        let [title, table, queue, close_wait, findings, keys] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length((rows + 1).min(frame.area().height / 3)),
            Constraint::Length(graph),
            Constraint::Length(list),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(header(report), title);
        draw_listeners(report, self.selected, frame, table);
        if let Some(listener) = report.listeners.get(self.selected) {
            draw_queue(listener, self.history.get(&listener.address), frame, queue);
        }
        draw_stuck(report, &stuck, frame, close_wait);
        draw_findings(report, self.selected, frame, findings);
        let help = "q, Esc or Ctrl-C: end    up, down: another listener's queue";
        frame.render_widget(
            Line::styled(help, Style::new().add_modifier(Modifier::DIM)),
            keys,
        );
    }
}

/// Returns the listener with the gravest finding, or with the fullest queue.
fn neediest(report: &Report) -> usize {
    let need = |listener: &Listener| {
        let about = listener.address.to_string();
        let weight = report
            .findings
            .iter()
            .filter(|finding| finding.about == about)
            .map(|finding| finding.weight)
            .max();
        (weight, listener.fullest().map(|queue| queue.peak))
    };
    let indexed = report.listeners.iter().enumerate();
    // Of equals the first.
    let best = indexed.rev().max_by_key(|(_, listener)| need(listener));
    best.map_or(0, |(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::verdict::made::{Made, report};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(view: &mut View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content.chunks(usize::from(width));
        let row = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect();
        rows.map(row).collect::<Vec<String>>().join("\n")
    }

    #[test]
    fn the_view_shows_queue_connections_and_findings() {
        let mut view = View::default();
        assert!(drawn(&mut view, 100, 30).trim().is_empty());
        let made = Made {
            now: 5,
            backlog: 4,
            stuck: 12,
            ..Made::default()
        };
        view.take(&report(made));
        let text = drawn(&mut view, 110, 34);
        for words in [
            "tine doctor: everything that listens",
            "127.0.0.1:9501",
            "peak 5 of 5",
            "in CLOSE_WAIT for longer than 5 s: 12",
            "WRONG",
            "The accept queue is full",
            "q, Esc or Ctrl-C",
            "█",
        ] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
    }

    #[test]
    fn a_small_terminal_is_drawn_without_harm() {
        let mut view = View::default();
        let made = Made {
            stuck: 3,
            ..Made::default()
        };
        view.take(&report(made));
        for (width, height) in [(1, 1), (20, 5), (200, 3), (80, 24)] {
            drawn(&mut view, width, height);
        }
    }

    #[test]
    fn the_selection_stays_within_the_listeners() {
        let mut view = View::default();
        view.select(1);
        view.take(&report(Made::default()));
        view.select(5);
        assert_eq!(view.selected, 0);
        view.select(-5);
        assert_eq!(view.selected, 0);
    }

    #[test]
    fn listeners_that_have_ended_are_forgotten() {
        let mut view = View::default();
        let mut report = report(Made::default());
        for port in 1..=9 {
            report.listeners[0].address.set_port(port);
            view.take(&report);
        }
        let kept: Vec<u16> = view.history.keys().map(SocketAddr::port).collect();
        assert_eq!(kept, [9]);
        assert_eq!(view.history.values().map(VecDeque::len).sum::<usize>(), 1);
    }

    #[test]
    fn keys_end_it_or_move() {
        let key = |code, modifiers| wish(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Wish::End);
        assert_eq!(key(KeyCode::Esc, KeyModifiers::NONE), Wish::End);
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Wish::End);
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), Wish::None);
        assert_eq!(key(KeyCode::Down, KeyModifiers::NONE), Wish::Move(1));
    }
}
