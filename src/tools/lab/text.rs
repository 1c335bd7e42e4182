//! A lesson as text on standard output, printed while the experiment runs.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Style};
use nix::poll::{PollFd, PollFlags, poll};

use super::lesson::{Check, Finding, Lesson, Row, Step};
use super::{Experiment, Voice, palette};
use crate::columns::{self, Cell};
use crate::sockets::TimerKind;

/// The longest line of text. A table may be wider.
const WIDTH: usize = 92;

/// Prints to standard output, in colour where that is a terminal.
pub(crate) struct Text {
    /// With `--pause`: waits before each step for Enter, or until this flag is set.
    pause: Option<Arc<AtomicBool>>,
    /// The first error of a write.
    pub(crate) broken: Option<io::Error>,
}

const BOLD: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const CODE: Style = AnsiColor::Cyan.on_default();

impl Text {
    pub(crate) fn new(pause: Option<Arc<AtomicBool>>) -> Text {
        Text {
            pause,
            broken: None,
        }
    }

    fn print(&mut self, text: &str) {
        let mut out = anstream::stdout().lock();
        let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if let Err(error) = printed {
            self.broken.get_or_insert(error);
        }
    }
}

impl Voice for Text {
    fn begins(&mut self, lesson: &Lesson) {
        let Lesson {
            name,
            title,
            question,
            ..
        } = lesson;
        let question = wrap(question, "");
        self.print(&format!("{BOLD}{name}: {title}{BOLD:#}\n{question}"));
    }

    fn step(&mut self, number: usize, step: &Step) -> io::Result<()> {
        if let Some(interrupted) = self.pause.clone() {
            self.print(&format!("\n{FAINT}Press Enter to go on{FAINT:#} "));
            wait_for_enter(&interrupted)?;
        }
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        let lead = format!("{number}. ");
        let did = textwrap::fill(&step.did, indented(&lead, "   "));
        self.print(&format!("\n{BOLD}{did}{BOLD:#}\n"));
        Ok(())
    }

    fn finds(&mut self, finding: &Finding) {
        let text = match finding {
            Finding::Command(command) => format!("   {CODE}$ {command}{CODE:#}\n"),
            Finding::Printed(line) => format!("   {FAINT}{line}{FAINT:#}\n"),
            Finding::Sockets(rows) => table(rows),
            Finding::Check(check) => verdict(check),
            Finding::Meaning(meaning) => wrap(meaning, "   "),
        };
        self.print(&text);
    }

    fn ends(&mut self, lesson: &Lesson) {
        let mut text = String::new();
        if !lesson.advice.is_empty() && lesson.held {
            let _ = writeln!(text, "\n{BOLD}What to do about it{BOLD:#}");
            for advice in &lesson.advice {
                let _ = writeln!(text, "{}", textwrap::fill(advice, indented(" - ", "   ")));
            }
        }
        text.push('\n');
        self.print(&text);
    }
}

impl Text {
    /// Lists the experiments.
    pub(crate) fn list(&mut self, experiments: &[Experiment]) {
        let longest = experiments.iter().map(|it| it.name.len()).max();
        let width = longest.unwrap_or_default();
        for Experiment { name, title, .. } in experiments {
            self.print(&format!("{BOLD}{name:width$}{BOLD:#}  {title}\n"));
        }
        let hint = "`tine lab NAME` runs one and explains it, `tine lab all` runs all of them.";
        self.print(&format!("\n{hint}\n"));
    }

    /// Prints one line about a lesson.
    pub(crate) fn summarize(&mut self, lesson: &Lesson) {
        let (mark, style) = if lesson.held {
            ("ok    ", GOOD)
        } else {
            ("FAILED", BAD)
        };
        let (name, title, took) = (lesson.name, lesson.title, lesson.took.as_secs_f64());
        self.print(&format!(
            "{style}{mark}{style:#} {name:18} {took:5.1} s  {title}\n"
        ));
    }

    /// Prints a whole lesson that ran without output.
    pub(crate) fn retell(&mut self, lesson: &Lesson) {
        self.begins(lesson);
        for (number, step) in lesson.steps.iter().enumerate() {
            // Without a pause it can't fail; an error of a write is kept in `broken`.
            let _ = self.step(number + 1, step);
            step.findings.iter().for_each(|finding| self.finds(finding));
        }
        self.ends(lesson);
    }
}

/// Returns at Enter, at end of file, or when interrupted. Reads byte by byte, so that each of several lines
/// that arrive together counts.
fn wait_for_enter(interrupted: &AtomicBool) -> io::Result<()> {
    let stdin = io::stdin();
    while !interrupted.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, 100_u16) {
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut byte = [0];
        match nix::unistd::read(&stdin, &mut byte) {
            Ok(1) if byte != *b"\n" => {}
            Ok(_) => return Ok(()),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wrap(text: &str, indent: &str) -> String {
    textwrap::fill(text, indented(indent, indent)) + "\n"
}

/// Options for wrapping. Names with a hyphen stay in one piece, since readers copy them.
fn indented<'a>(first: &'a str, rest: &'a str) -> textwrap::Options<'a> {
    textwrap::Options::new(WIDTH)
        .initial_indent(first)
        .subsequent_indent(rest)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
}

fn verdict(check: &Check) -> String {
    let (mark, style) = if check.held {
        ("ok", GOOD)
    } else {
        ("FAILED", BAD)
    };
    let seen = match &check.seen {
        Some(seen) if check.held => format!(" ({seen})"),
        Some(seen) => format!(": {seen}"),
        None => String::new(),
    };
    let claim = format!("{}{seen}", check.claim);
    let claim = textwrap::fill(&claim, indented("", "      "));
    format!("   {style}{mark}{style:#} {claim}\n")
}

/// The columns of `ss -tanpo`.
fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return format!("   {FAINT}no socket{FAINT:#}\n");
    }
    let names = [
        "State",
        "Recv-Q",
        "Send-Q",
        "Local Address",
        "Peer Address",
        "Process",
        "Timer",
    ];
    let title = |name: &str| match name {
        "Recv-Q" | "Send-Q" => Cell::number(name).styled(FAINT),
        _ => Cell::text(name).styled(FAINT),
    };
    let mut cells = vec![names.map(title).into()];
    cells.extend(rows.iter().map(|row| {
        let remote = match row.remote.port() {
            0 => "*".to_owned(),
            _ => row.remote.to_string(),
        };
        vec![
            Cell::text(row.state).styled(palette::style(row.state)),
            Cell::number(row.recv_q),
            Cell::number(row.send_q),
            Cell::text(row.local),
            Cell::text(remote),
            Cell::text(owners(row)),
            Cell::text(timer(row)),
        ]
    }));
    let mut text = String::new();
    columns::write(&cells, "   ", &mut text);
    text
}

/// Returns the processes that hold the socket: the first ones, and the number of the others.
pub(super) fn owners(row: &Row) -> String {
    match row.owners.as_slice() {
        [] => "-".to_owned(),
        [one] => one.clone(),
        [one, two] => format!("{one} {two}"),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
    }
}

/// Returns the kernel's timer in words.
pub(super) fn timer(row: &Row) -> String {
    let Some(timer) = row.timer else {
        return String::new();
    };
    let left = timer.left.as_secs_f64();
    match timer.kind {
        TimerKind::Retransmit => format!("resends in {left:.1} s"),
        TimerKind::Keepalive => format!("keepalive in {left:.0} s"),
        TimerKind::End => format!("ends in {left:.0} s"),
        TimerKind::Probe => format!("probe in {left:.1} s"),
    }
}
