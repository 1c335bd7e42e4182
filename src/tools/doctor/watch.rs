//! Runs an examination for its time, and shows it meanwhile: not at all, in lines, in JSON or in a view
//! on the terminal.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::examination::{Examination, STEP};
use super::queues::ENOUGH_LOOKS;
use super::report::{Connections, Listener, Report};
use super::screen::{Screen, View, Wish};
use super::words::{age, counted, grouped};
use super::{Failure, Problem, text};

/// The time of an examination without `--watch`.
const SHORT: Duration = Duration::from_secs(1);

/// The time between two looks at everything under `--watch`, each of which is shown.
const EACH: Duration = Duration::from_secs(1);

/// The rest after a look at everything, in times of its cost: with very many sockets, looking takes a
/// fifth of the time at most.
const REST: u32 = 4;

/// With this many findings remembered as printed, those that are no longer reported are forgotten.
const MOST_FOUND: usize = 1024;

/// The form of the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Lines,
    Json,
    Screen,
}

/// Examines for a moment and prints the report. Returns whether something is wrong.
pub(crate) fn once(mut examination: Examination, form: Form) -> Result<bool, Failure> {
    // On a busy machine a look may take long, and too few would leave a queue unjudged.
    while examination.watched() < SHORT || examination.looks() < ENOUGH_LOOKS {
        std::thread::sleep(STEP);
        examination.look_at_queues()?;
    }
    let report = examination.report()?;
    is_read(match form {
        Form::Json => print_json(&report, true),
        Form::Lines | Form::Screen => print_text(&report),
    })?;
    Ok(report.wrong)
}

/// Returns whether the output still has a reader. A closed pipe is no failure, and changes nothing of the
/// result.
pub(super) fn is_read(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Examines for `time`, or until it is interrupted, and shows each report. Returns whether something is
/// wrong at the end.
pub(crate) fn watch(
    examination: Examination,
    time: Option<Duration>,
    form: Form,
) -> Result<bool, Failure> {
    let is_interrupted =
        interrupted().map_err(|error| Problem(format!("cannot handle signals: {error}")))?;
    let mut watch = Watch {
        examination,
        time,
        is_interrupted,
    };
    let report = match form {
        Form::Json => watch.run(&mut JsonLines)?,
        Form::Lines => watch.run(&mut Lines::default())?,
        Form::Screen => watch.run(&mut OnScreen::new()?)?,
    };
    if form != Form::Json {
        is_read(print_text(&report))?;
    }
    Ok(report.wrong)
}

/// Returns a flag that is set by a signal to end.
fn interrupted() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}

struct Watch {
    examination: Examination,
    time: Option<Duration>,
    /// By [`interrupted`].
    is_interrupted: Arc<AtomicBool>,
}

/// The output of a watch, in one of its forms.
trait Show {
    fn report(&mut self, report: &Report) -> io::Result<()>;

    /// Waits for `time`. Returns whether the user wants to end.
    fn rest(&mut self, time: Duration) -> io::Result<bool> {
        std::thread::sleep(time);
        Ok(false)
    }
}

impl Watch {
    fn run(&mut self, show: &mut impl Show) -> Result<Report, Failure> {
        let mut next = Instant::now();
        loop {
            let is_last = self.is_over();
            if is_last || Instant::now() >= next {
                let begun = Instant::now();
                let report = self.examination.report()?;
                let is_read = is_read(show.report(&report))?;
                if is_last || !is_read {
                    return Ok(report);
                }
                let cost = begun.elapsed();
                next = begun + EACH.max(cost * (REST + 1));
            }
            if show.rest(STEP)? {
                return Ok(self.examination.report()?);
            }
            self.examination.look_at_queues()?;
        }
    }

    fn is_over(&mut self) -> bool {
        let has_passed = |time| self.examination.watched() >= time;
        self.time.is_some_and(has_passed)
            || self.examination.is_over()
            || self.is_interrupted.load(Ordering::Relaxed)
    }
}

struct JsonLines;

impl Show for JsonLines {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        print_json(report, false)
    }
}

/// Prints a line for each listener with changed figures, and one for each new finding.
#[derive(Default)]
struct Lines {
    last: HashMap<SocketAddr, String>,
    last_outgoing: String,
    overflows: u64,
    found: HashSet<(String, &'static str)>,
}

impl Show for Lines {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        let mut out = anstream::stdout();
        let time = clock();
        self.forget(report);
        for listener in &report.listeners {
            let line = line(listener);
            if self.last.get(&listener.address) != Some(&line) {
                writeln!(out, "{time}  {}  {line}", listener.address)?;
                self.last.insert(listener.address, line);
            }
        }
        let line = states(&report.outgoing);
        if self.last_outgoing != line {
            writeln!(out, "{time}  outgoing  {line}")?;
            self.last_outgoing = line;
        }
        let overflows = report.counters.while_watched.listen_overflows;
        if overflows > self.overflows {
            let number = usize::try_from(overflows).unwrap_or(usize::MAX);
            let turned = counted(number, "attempt was", "attempts were");
            writeln!(
                out,
                "{time}  {turned} turned away at full queues so far, in the whole network namespace"
            )?;
            self.overflows = overflows;
        }
        for finding in &report.findings {
            if self.found.insert((finding.about.clone(), finding.kind)) {
                writeln!(out, "{time}  {}: {}", finding.about, finding.says)?;
            }
        }
        out.flush()
    }
}

impl Lines {
    /// Forgets listeners that have ended: the memory of printed lines must not grow without end.
    fn forget(&mut self, report: &Report) {
        let listeners = &report.listeners;
        let addresses: HashSet<SocketAddr> = listeners.iter().map(|it| it.address).collect();
        self.last.retain(|address, _| addresses.contains(address));
        // Not sooner: a finding that comes and goes would be printed each time.
        if self.found.len() >= MOST_FOUND {
            let findings = report.findings.iter();
            let now: HashSet<(&str, &str)> = findings.map(|it| (&*it.about, it.kind)).collect();
            self.found
                .retain(|(about, kind)| now.contains(&(about.as_str(), *kind)));
        }
    }
}

fn line(listener: &Listener) -> String {
    let queue = listener.fullest().map_or_else(String::new, |queue| {
        format!(
            "queue {} (peak {} of {})",
            grouped(queue.now),
            grouped(queue.peak),
            grouped(queue.most())
        )
    });
    match states(&listener.connections) {
        states if states.is_empty() => queue,
        states => format!("{queue}  {states}"),
    }
}

fn states(connections: &Connections) -> String {
    let there = connections.states.iter().filter(|count| count.now > 0);
    let mut words: Vec<String> = there
        .map(|count| format!("{} {}", grouped(count.now), count.state))
        .collect();
    if let Some(oldest) = connections.stuck.first() {
        let number = grouped(connections.stuck.len());
        // In whole minutes, so that the line does not change each second.
        let age = age(Duration::from_secs(oldest.age.as_secs() / 60 * 60));
        words.push(if oldest.age < Duration::from_secs(60) {
            format!("{number} too old")
        } else {
            format!("{number} too old (the oldest {age})")
        });
    }
    words.join("  ")
}

/// Returns the time of day in UTC, as in server logs.
fn clock() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs()) % 86_400;
    format!(
        "{:02}:{:02}:{:02}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

struct OnScreen {
    screen: Screen,
    view: View,
}

impl OnScreen {
    fn new() -> Result<OnScreen, Failure> {
        Ok(OnScreen {
            screen: Screen::open()?,
            view: View::default(),
        })
    }
}

impl Show for OnScreen {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        self.view.take(report);
        self.screen.draw(&mut self.view)
    }

    fn rest(&mut self, time: Duration) -> io::Result<bool> {
        match self.screen.wait(time)? {
            Wish::None => {}
            Wish::End => return Ok(true),
            Wish::Redraw => self.screen.draw(&mut self.view)?,
            Wish::Move(by) => {
                self.view.select(by);
                self.screen.draw(&mut self.view)?;
            }
        }
        Ok(false)
    }
}

fn print_text(report: &Report) -> io::Result<()> {
    let mut out = anstream::stdout();
    out.write_all(text::render(report, text::width()).as_bytes())?;
    out.flush()
}

fn print_json(report: &Report, is_pretty: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if is_pretty {
        serde_json::to_writer_pretty(&mut out, report)?;
    } else {
        serde_json::to_writer(&mut out, report)?;
    }
    writeln!(out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::verdict::made::{Made, report};

    #[test]
    fn printed_lines_of_listeners_that_have_ended_are_forgotten() {
        let made = Made {
            stuck: 1,
            ..Made::default()
        };
        let mut report = report(made);
        let finding = report.findings[0].kind;
        let mut lines = Lines::default();
        for port in 1..=2000 {
            report.listeners[0].address.set_port(port);
            report.findings[0].about = report.listeners[0].address.to_string();
            lines.forget(&report);
            let address = report.listeners[0].address;
            lines.last.insert(address, String::new());
            lines.found.insert((address.to_string(), finding));
        }
        assert!(lines.last.len() <= 2, "{}", lines.last.len());
        assert!(lines.found.len() <= MOST_FOUND, "{}", lines.found.len());
    }
}
