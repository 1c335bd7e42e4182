//! The view on the terminal: listeners, the queue of one of them over time, stuck connections, and the
//! findings.
//!
//! Its one rule: however the program ends, the terminal is restored. SIGKILL and SIGSTOP cannot be
//! caught: after them the view stays on the terminal, which `reset` mends.

mod columns;
mod draw;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};

use super::report::{Listener, Report};
use draw::{all_stuck, draw_findings, draw_listeners, draw_queue, draw_stuck, header};

/// The most figures of a queue that are kept: more than the columns of any terminal.
const KEPT: usize = 512;

/// The exit status of a program that SIGHUP has ended, as a shell shows it.
const HUNG_UP: i32 = 128 + libc::SIGHUP;

/// The terminal, taken over until this is dropped.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    /// Set while crossterm reads, which does not return if the terminal is gone: SIGHUP ends the program then.
    is_reading: Arc<AtomicBool>,
}

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
        let is_reading = Arc::new(AtomicBool::new(false));
        let reading = Arc::clone(&is_reading);
        signal_hook::flag::register_conditional_shutdown(libc::SIGHUP, HUNG_UP, reading)?;
        let terminal = ratatui::try_init()?;
        Ok(Screen {
            terminal,
            is_reading,
        })
    }

    pub(super) fn draw(&mut self, view: &mut View) -> io::Result<()> {
        self.terminal.draw(|frame| view.draw(frame)).map(drop)
    }

    /// Waits for a key, for at most `time`. A terminal that is gone is a wish to end.
    ///
    /// The wait is not left to crossterm: it reads from a terminal that has hung up again and again, and comes
    /// back neither at the end of the time nor with an error.
    pub(super) fn wait(&mut self, time: Duration) -> io::Result<Wish> {
        if has_hung_up(time)? {
            return Ok(Wish::End);
        }
        self.is_reading.store(true, Ordering::Relaxed);
        let wish = read();
        self.is_reading.store(false, Ordering::Relaxed);
        wish
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

/// Waits for input on the terminal, for at most `time`. Returns whether the terminal is gone.
fn has_hung_up(time: Duration) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut polled = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) => {}
        // By a signal: a new size of the terminal, or one that the loop notices by its flag.
        Err(Errno::EINTR) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    Ok(polled[0]
        .revents()
        .is_some_and(|found| found.intersects(gone)))
}

/// Reads a key or a new size, if there is one.
fn read() -> io::Result<Wish> {
    match event::poll(Duration::ZERO) {
        Ok(false) => Ok(Wish::None),
        Ok(true) => Ok(match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => wish(key),
            Event::Resize(..) => Wish::Redraw,
            _ => Wish::None,
        }),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Wish::None),
        Err(error) => Err(error),
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
        let width = usize::from(frame.area().width);
        let head = header(report, width);
        let [title, table, queue, close_wait, findings, keys] = Layout::vertical([
            Constraint::Length(head.len() as u16 + 1),
            Constraint::Length((rows + 1).min(frame.area().height / 3)),
            Constraint::Length(graph),
            Constraint::Length(list),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(head), title);
        draw_listeners(report, self.selected, frame, table);
        if let Some(listener) = report.listeners.get(self.selected) {
            draw_queue(listener, self.history.get(&listener.address), frame, queue);
        }
        draw_stuck(report, &stuck, frame, close_wait);
        draw_findings(report, self.selected, frame, findings);
        let help = match width {
            0..60 => "q: end    up, down: another queue",
            _ => "q, Esc or Ctrl-C: end    up, down: another listener's queue",
        };
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

    /// A report with findings about several listeners, and with long addresses.
    fn crowded() -> Report {
        let mut report = report(Made {
            now: 5,
            backlog: 4,
            stuck: 2,
            ..Made::default()
        });
        for address in ["[2001:db8:1:2:3:4:5:6]:18443", "10.20.30.40:54321"] {
            let mut other = report.listeners[0].clone();
            other.address = address.parse().unwrap();
            for stuck in &mut other.connections.stuck {
                stuck.local = other.address;
            }
            report.listeners.push(other);
        }
        crate::doctor::verdict::judge(&mut report);
        report
    }

    #[test]
    fn no_port_is_cut_at_any_width() {
        let mut view = View::default();
        view.take(&crowded());
        for width in 40..130 {
            let text = drawn(&mut view, width, 60);
            for (address, port) in [("127.0.0.1", "9501"), ("5:6]", "18443"), ("30.40", "54321")] {
                let ends: Vec<&str> = text.split(&format!("{address}:")).skip(1).collect();
                assert!(!ends.is_empty(), "no {address} at {width} in\n{text}");
                for end in ends {
                    assert!(end.starts_with(port), "{address} at {width} in\n{text}");
                }
            }
        }
    }

    #[test]
    fn columns_go_from_the_right_and_none_is_cut() {
        let mut view = View::default();
        view.take(&report(Made::default()));
        let titles = |view: &mut View, width| {
            let text = drawn(view, width, 24);
            let line = text.lines().find(|line| line.contains("LISTENER")).unwrap();
            line.trim_end().to_owned()
        };
        let all = "LISTENER        QUEUE  PEAK  LIMIT  ESTAB  CLOSE_WAIT  TIME_WAIT  HELD BY";
        assert_eq!(titles(&mut view, 80), all);
        let without_holder = all.trim_end_matches("  HELD BY");
        assert_eq!(titles(&mut view, 70), without_holder);
        let without_time_wait = without_holder.trim_end_matches("  TIME_WAIT");
        assert_eq!(titles(&mut view, 60), without_time_wait);
    }

    #[test]
    fn findings_are_shown_in_full_where_there_is_room() {
        let mut view = View::default();
        let report = crowded();
        view.take(&report);
        let flat = |text: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            words.join(" ")
        };
        let text = flat(&drawn(&mut view, 60, 150));
        for finding in &report.findings {
            for words in std::iter::once(&finding.says).chain(&finding.next) {
                assert!(text.contains(&flat(words)), "no {words:?} in\n{text}");
            }
        }
        assert!(text.contains(&report.verdict));
        // Without room, a line says that there is more.
        let text = drawn(&mut view, 60, 24);
        assert!(text.contains("more lines"), "{text}");
        assert!(text.contains("WRONG"), "{text}");
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
