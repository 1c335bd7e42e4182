//! Records a connection while it lives: the states of both ends from the kernel's socket table, the calls
//! of the experiment, and the segments, where this process may capture packets. Its one rule: a picture
//! shows only what follows from these.

mod capture;
mod infer;
mod journal;
mod model;
mod replay;
mod states;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::capture::Capture;
use self::journal::Call;
pub(crate) use self::journal::{Caller, Does, Journal};
pub(crate) use self::states::Found;
use self::states::{Seen, States};
use super::end::Ends;
use super::picture::{Ladder, Moment, Segment, Shown, Side, What};
use super::stop::{Stop, Trying};

/// Records the connections of one port of a server.
pub(crate) struct Recorder {
    states: States,
    /// `None` where it is not permitted.
    capture: Option<Capture>,
    actions: Vec<Action>,
    journal: Journal,
    /// The server's end is a socket of this process: its calls are in the journal.
    holds_server: bool,
}

/// Longest time from an action to the segment that it causes.
const JUST_BEFORE: Duration = Duration::from_millis(5);

/// An action of the experiment, in words.
struct Action {
    at: Instant,
    side: Option<Side>,
    text: String,
}

/// The reason why there is no picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// No course of events explains everything that was seen.
    Unclear(String),
    /// The kernel showed another state than its segments imply.
    Contradiction(String),
}

/// Everything that is known about one connection.
#[derive(Clone)]
struct Evidence {
    seen: Vec<Seen>,
    calls: Vec<Call>,
    /// In the order in which they were sent; empty where they could not be captured.
    segments: Vec<Sent>,
    holds_server: bool,
}

/// A change or an event, and its time.
type Event = (Instant, What);

impl Recorder {
    pub(crate) fn start(port: u16) -> Result<Recorder, Stop> {
        Ok(Recorder {
            states: States::start().trying("ask the kernel about its sockets")?,
            capture: Capture::start(port).trying("capture packets")?,
            actions: Vec::new(),
            journal: Journal::default(),
            holds_server: false,
        })
    }

    /// Records this connection too, from now on.
    pub(crate) fn follow(&mut self, ends: Ends) {
        self.states.follow(ends);
    }

    /// Returns the journal for the sockets of this process.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Returns the same, for a server's socket.
    pub(crate) fn holds_server(&mut self) -> &Journal {
        self.holds_server = true;
        &self.journal
    }

    /// Asks the kernel about sockets, and records what that shows of the connections.
    pub(crate) fn look<T>(
        &self,
        ask: impl FnOnce() -> T,
        found: impl FnOnce(&T) -> Vec<Found>,
    ) -> T {
        self.states.look(ask, found)
    }

    /// Records an action of this moment, in words.
    pub(crate) fn did(&mut self, side: Option<Side>, text: &str) {
        self.actions.push(Action {
            at: Instant::now(),
            side,
            text: text.to_owned(),
        });
    }

    /// Returns the life of this connection up to now.
    ///
    /// # Errors
    /// When no course of events explains what was recorded.
    pub(crate) fn ladder(
        &self,
        title: &str,
        ends: Ends,
        names: [String; 2],
    ) -> Result<Ladder, Trouble> {
        let evidence = self.evidence(ends);
        let mut events = match self.capture {
            Some(_) => replay::events(&evidence)?,
            None => infer::events(&evidence)?,
        };
        self.add_actions(&mut events);
        events.sort_by_key(|event| event.0);
        let begin = events.first().map(|event| event.0);
        let since = |at: Instant| begin.map_or(Duration::ZERO, |begin| at.duration_since(begin));
        let shown = |seen: &Seen| Shown {
            at: since(seen.first.answered),
            side: seen.side,
            state: seen.state,
        };
        let [client, server] = names;
        Ok(Ladder {
            title: title.to_owned(),
            sides: [
                (client, ends.client.to_string()),
                (server, ends.server.to_string()),
            ],
            shown: evidence.seen.iter().map(shown).collect(),
            moments: events
                .into_iter()
                .map(|(at, what)| Moment {
                    at: since(at),
                    what,
                })
                .collect(),
            captured: self.capture.is_some(),
        })
    }

    /// Returns the segments of this connection so far, by the side that sent them; `None` where they cannot be
    /// captured.
    pub(crate) fn segments(&self, ends: Ends) -> Option<Vec<(Side, Segment)>> {
        let capture = self.capture.as_ref()?;
        let sent = captured(capture, ends, Instant::now());
        Some(sent.into_iter().map(|it| (it.1, it.2)).collect())
    }

    /// Returns a copy of the first segment with data that this side has sent, if it was captured whole.
    pub(crate) fn copy(&self, ends: Ends, side: Side) -> Option<Copied> {
        let capture = self.capture.as_ref()?;
        capture.settle();
        let captured = lock(&capture.segments);
        let mut own = captured.iter().filter(|it| it.is_of(ends, side));
        let first = own.find(|it| it.segment.length > 0 && !it.bytes.is_empty())?;
        let (segment, bytes) = (first.segment, first.bytes.clone());
        Some(Copied {
            ends,
            side,
            segment,
            bytes,
        })
    }

    /// Marks the last segment that is the same as this one as a copy that came late. Returns whether there is one
    /// besides the first.
    pub(crate) fn mark_late(&self, copy: &Copied) -> bool {
        let Some(capture) = &self.capture else {
            return false;
        };
        capture.settle();
        let mut captured = lock(&capture.segments);
        let mut same = captured
            .iter_mut()
            .filter(|it| it.is_of(copy.ends, copy.side) && it.segment == copy.segment);
        // The first one is that of the socket.
        let last = same.next().and_then(|_| same.next_back());
        last.map(|it| it.segment.late = true).is_some()
    }

    fn evidence(&self, ends: Ends) -> Evidence {
        self.states.settle();
        // Everything after this moment may be known in part.
        let now = Instant::now();
        let segments = self
            .capture
            .as_ref()
            .map(|capture| captured(capture, ends, now));
        Evidence {
            seen: self.states.of(ends, now),
            calls: self.journal.of(ends, now),
            segments: segments.unwrap_or_default(),
            holds_server: self.holds_server,
        }
    }

    /// Adds the actions during this connection: earlier ones belong to another connection, but an action
    /// just before the first segment is its cause.
    fn add_actions(&self, events: &mut Vec<Event>) {
        let times = events.iter().map(|event| event.0);
        let (Some(since), Some(until)) = (times.clone().min(), times.max()) else {
            return;
        };
        let is_during = |action: &&Action| action.at + JUST_BEFORE >= since && action.at <= until;
        events.extend(self.actions.iter().filter(is_during).map(|action| {
            let (side, text) = (action.side, action.text.clone());
            (action.at, What::Did { side, text })
        }));
    }
}

/// A copy of a captured segment, which may be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    pub(crate) ends: Ends,
    pub(crate) side: Side,
    pub(crate) segment: Segment,
    /// From its TCP header on.
    pub(crate) bytes: Vec<u8>,
}

/// A segment, when it was sent, and by which side.
type Sent = (Instant, Side, Segment);

/// Returns the segments of this connection that were captured until a time, in the order in which they were
/// sent.
fn captured(capture: &Capture, ends: Ends, until: Instant) -> Vec<Sent> {
    capture.settle();
    let segments = lock(&capture.segments);
    let of_this = segments.iter().filter_map(|it| {
        let side = Side::BOTH.into_iter().find(|side| it.is_of(ends, *side))?;
        Some((it.at, side, it.segment))
    });
    let mut of_this: Vec<_> = of_this.collect();
    in_order(&mut of_this);
    of_this.retain(|it| it.0 <= until);
    of_this
}

/// Puts captured segments in the order in which they were sent.
///
/// They are captured where they arrive, in order, except that two processors may take the segments of one
/// side from their queues at once. No side's acknowledgement number falls (RFC 9293, 3.4).
fn in_order(segments: &mut [Sent]) {
    for number in 1..segments.len() {
        let (_, side, late) = segments[number];
        let is_later = |it: &Sent| {
            it.1 == side
                && it.2.ack
                && !it.2.late
                && model::is_after(it.2.acknowledges, late.acknowledges)
        };
        // A SYN or an RST begins another count.
        let is_border = |it: &Sent| it.2.syn || it.2.rst;
        let since = segments[..number].iter().rposition(is_border);
        let since = since.map_or(0, |border| border + 1);
        let before = segments[since..number].iter().position(is_later);
        if let Some(before) = before.filter(|_| late.ack && !late.syn && !late.rst && !late.late) {
            segments[since + before..=number].rotate_right(1);
        }
    }
    settle_times(segments);
}

/// Lets the time of no segment be after the next one's: without a timestamp of the kernel a segment has the
/// time at which it was read.
fn settle_times(segments: &mut [Sent]) {
    for later in (1..segments.len()).rev() {
        segments[later - 1].0 = segments[later - 1].0.min(segments[later].0);
    }
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked while it held the lock was only appending: the list is valid.
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the state in words.
fn in_words(state: Option<crate::sockets::State>) -> &'static str {
    state.map_or("gone", crate::sockets::State::name)
}
