//! Log lines that clients can cause, limited: a flood of them would bury what else happens.
//!
//! Runs in every process of the server. Its one rule: of each topic, [`LINES`] a second are written, and the
//! others are counted: `… and 340 more connections refused`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

/// The lines of one topic that are written in a second.
const LINES: u32 = 10;

const SECOND: Duration = Duration::from_secs(1);

/// The subject of lines that clients can cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Topic {
    Refused,
    Opening,
    Deadline,
    SlowReader,
    Cut,
    Memory,
    NotWatched,
    Move,
    Failed,
    Incident,
    Poison,
    Posts,
    Tasks,
    File,
    Missed,
    Panic,
    Function,
    /// `max_connections` is reached: one line a second, and no count.
    Full,
}

const TOPICS: usize = Topic::Full as usize + 1;

impl Topic {
    const ALL: [Topic; TOPICS] = [
        Topic::Refused,
        Topic::Opening,
        Topic::Deadline,
        Topic::SlowReader,
        Topic::Cut,
        Topic::Memory,
        Topic::NotWatched,
        Topic::Move,
        Topic::Failed,
        Topic::Incident,
        Topic::Poison,
        Topic::Posts,
        Topic::Tasks,
        Topic::File,
        Topic::Missed,
        Topic::Panic,
        Topic::Function,
        Topic::Full,
    ];

    /// The level and the words of the line with the count.
    fn rest(self) -> Option<(Level, &'static str)> {
        match self {
            Topic::Refused => Some((Level::Warn, "connections refused")),
            Topic::Opening => Some((Level::Info, "connections refused before they were open")),
            Topic::Deadline => Some((Level::Info, "connections ended at a deadline")),
            Topic::SlowReader => Some((Level::Warn, "slow readers reset")),
            Topic::Cut => Some((Level::Info, "answers cut")),
            Topic::Memory => Some((
                Level::Warn,
                "connections that wait for memory of the kernel",
            )),
            Topic::NotWatched => Some((Level::Error, "connections that cannot be watched")),
            Topic::Move => Some((Level::Error, "connections closed that could not be moved")),
            Topic::Failed => Some((Level::Warn, "failed callbacks")),
            Topic::Incident => Some((Level::Info, "callbacks that did not complete")),
            Topic::Poison => Some((Level::Error, "poisonous messages")),
            Topic::Posts => Some((Level::Error, "posts dropped")),
            Topic::Tasks => Some((Level::Warn, "times that tasks were dropped")),
            Topic::File => Some((Level::Warn, "connections reset for a file")),
            Topic::Missed => Some((Level::Warn, "messages of groups that slow members miss")),
            Topic::Panic => Some((Level::Error, "panics")),
            Topic::Function => Some((Level::Error, "failures of a function of the server")),
            Topic::Full => None,
        }
    }

    fn lines(self) -> u32 {
        match self {
            Topic::Full => 1,
            _ => LINES,
        }
    }
}

/// The second of a topic that began with a line.
#[derive(Clone, Copy)]
struct Window {
    begin: Option<Instant>,
    written: u32,
    rest: u64,
}

struct Windows([Window; TOPICS]);

const EMPTY: Window = Window {
    begin: None,
    written: 0,
    rest: 0,
};

static WINDOWS: Mutex<Windows> = Mutex::new(Windows([EMPTY; TOPICS]));

/// Some window has a count to be reported. Only a hint for loops, which look at the windows under their lock.
static HAS_REST: AtomicBool = AtomicBool::new(false);

impl Windows {
    /// Counts a line. Returns whether it is to be written, and the count that is to be reported before it.
    fn count(&mut self, topic: Topic, now: Instant) -> (bool, u64) {
        let window = &mut self.0[topic as usize];
        let is_over = window
            .begin
            .is_none_or(|begin| now.duration_since(begin) >= SECOND);
        let before = if is_over { window.rest } else { 0 };
        if is_over {
            *window = Window {
                begin: Some(now),
                ..EMPTY
            };
        }
        if window.written < topic.lines() {
            window.written += 1;
            return (true, before);
        }
        window.rest += u64::from(topic.rest().is_some());
        (false, before)
    }

    /// Takes the counts of the seconds that are over.
    fn take_due(&mut self, now: Instant) -> Vec<(Topic, u64)> {
        let mut due = Vec::new();
        for topic in Topic::ALL {
            let window = &mut self.0[topic as usize];
            let is_over = |begin| now.duration_since(begin) >= SECOND;
            if window.rest > 0 && window.begin.is_none_or(is_over) {
                due.push((topic, window.rest));
                *window = EMPTY;
            }
        }
        due
    }

    /// Returns when the next count is due.
    fn next_due(&self) -> Option<Instant> {
        let counting = self.0.iter().filter(|window| window.rest > 0);
        counting
            .filter_map(|window| Some(window.begin? + SECOND))
            .min()
    }
}

fn windows() -> MutexGuard<'static, Windows> {
    WINDOWS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a line of this topic is to be written now. Called for lines of a level that is logged.
pub(crate) fn allows(topic: Topic) -> bool {
    let mut windows = windows();
    let (allowed, before) = windows.count(topic, Instant::now());
    HAS_REST.store(windows.next_due().is_some(), Ordering::Relaxed);
    drop(windows);
    report(topic, before);
    allowed
}

fn report(topic: Topic, rest: u64) {
    if let (1.., Some((level, words))) = (rest, topic.rest()) {
        log::log!(level, "… and {rest} more {words}");
    }
}

/// Reports the lines that were not written, once their second is over. A loop calls it in each turn, and
/// sleeps no longer than it says.
pub(crate) fn report_due() -> Option<Duration> {
    if !HAS_REST.load(Ordering::Relaxed) {
        return None;
    }
    let mut windows = windows();
    let now = Instant::now();
    let due = windows.take_due(now);
    let next = windows.next_due();
    HAS_REST.store(next.is_some(), Ordering::Relaxed);
    drop(windows);
    due.into_iter()
        .for_each(|(topic, rest)| report(topic, rest));
    next.map(|at| at.saturating_duration_since(now))
}

/// Reports every count at once, at the end of a process.
pub(crate) fn report_all() {
    let windows = std::mem::replace(&mut *windows(), Windows([EMPTY; TOPICS]));
    HAS_REST.store(false, Ordering::Relaxed);
    for topic in Topic::ALL {
        report(topic, windows.0[topic as usize].rest);
    }
}

/// Forgets the counts of the parent, in a child that was just forked.
pub(crate) fn forget() {
    *windows() = Windows([EMPTY; TOPICS]);
    HAS_REST.store(false, Ordering::Relaxed);
}

/// Logs a line of a topic, within its limit: `limited!(warn, Topic::Refused, "…")`.
macro_rules! limited {
    (info, $($rest:tt)+) => { limited!(@ log::Level::Info, $($rest)+) };
    (warn, $($rest:tt)+) => { limited!(@ log::Level::Warn, $($rest)+) };
    (error, $($rest:tt)+) => { limited!(@ log::Level::Error, $($rest)+) };
    (@ $level:expr, $topic:expr, $($line:tt)+) => {
        if log::log_enabled!($level) && $crate::limited::allows($topic) {
            log::log!($level, $($line)+);
        }
    };
}
pub(crate) use limited;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_some_lines_are_written_and_the_rest_is_counted() {
        let mut windows = Windows([EMPTY; TOPICS]);
        let begin = Instant::now();
        let written = (0..350).filter(|_| windows.count(Topic::Refused, begin).0);
        assert_eq!(written.count(), 10);
        assert_eq!(windows.take_due(begin), [], "its second is not over");
        assert_eq!(windows.next_due(), Some(begin + SECOND));
        // Another topic has a limit of its own.
        assert_eq!(windows.count(Topic::Failed, begin), (true, 0));
        assert_eq!(windows.take_due(begin + SECOND), [(Topic::Refused, 340)]);
        assert_eq!(windows.next_due(), None);
    }

    #[test]
    fn the_count_comes_before_the_next_line() {
        let mut windows = Windows([EMPTY; TOPICS]);
        let begin = Instant::now();
        for _ in 0..13 {
            windows.count(Topic::Poison, begin);
        }
        assert_eq!(windows.count(Topic::Poison, begin + SECOND), (true, 3));
        assert_eq!(windows.count(Topic::Poison, begin + SECOND), (true, 0));
    }

    #[test]
    fn a_full_server_is_said_once_a_second_and_not_counted() {
        let mut windows = Windows([EMPTY; TOPICS]);
        let begin = Instant::now();
        let written = (0..250).filter(|tens| {
            let now = begin + Duration::from_millis(tens * 10);
            windows.count(Topic::Full, now).0
        });
        assert_eq!(written.count(), 3);
        assert_eq!(windows.next_due(), None);
    }
}
