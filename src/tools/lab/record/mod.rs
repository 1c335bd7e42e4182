//! Records a connection while it lives: the states of both ends from the kernel's socket table, and the
//! segments between them, where this process may capture packets.

mod capture;
mod infer;
mod states;

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::capture::{Capture, Seen};
use self::states::States;
use super::end::Ends;
use super::picture::{Ladder, Moment, Side, What};
use super::stop::{Stop, Trying};
use crate::sockets::State;

/// Records the connections of one port of a server.
pub(crate) struct Recorder {
    states: States,
    /// `None` where it is not permitted.
    capture: Option<Capture>,
    actions: Vec<Action>,
    /// The times in which an end dropped every segment: begin, and end if there was one.
    deaf: Vec<(SocketAddr, Instant, Option<Instant>)>,
}

/// Longest time from an action to the segment that it causes.
const JUST_BEFORE: Duration = Duration::from_millis(5);

/// An action of the experiment, for the picture.
struct Action {
    at: Instant,
    side: Option<Side>,
    text: String,
}

/// A change of state.
#[derive(Clone, Copy, Debug)]
struct Turn {
    at: Instant,
    ends: Ends,
    side: Side,
    state: Option<State>,
}

impl Recorder {
    pub(crate) fn start(port: u16) -> Result<Recorder, Stop> {
        Ok(Recorder {
            states: States::start().trying("ask the kernel about its sockets")?,
            capture: Capture::start(port).trying("capture packets")?,
            actions: Vec::new(),
            deaf: Vec::new(),
        })
    }

    /// Records this connection too, from now on.
    pub(crate) fn follow(&mut self, ends: Ends) {
        self.states.follow(ends);
    }

    /// Records an action of this moment.
    pub(crate) fn did(&mut self, side: Option<Side>, text: &str) {
        self.actions.push(Action {
            at: Instant::now(),
            side,
            text: text.to_owned(),
        });
    }

    /// Records that the end with this address drops every segment from now on, or receives again.
    pub(crate) fn is_deaf(&mut self, end: SocketAddr, deaf: bool) {
        let now = Instant::now();
        if deaf {
            self.deaf.push((end, now, None));
        } else if let Some(last) = self.deaf.iter_mut().rfind(|last| last.0 == end) {
            last.2.get_or_insert(now);
        }
    }

    /// Returns the life of this connection up to now.
    pub(crate) fn ladder(&self, title: &str, ends: Ends, names: [String; 2]) -> Ladder {
        self.states.settle();
        let turns = lock(&self.states.turns);
        let of_this = turns.iter().filter(|turn| turn.ends == ends);
        let turns: Vec<Turn> = of_this.copied().collect();
        let mut moments = match &self.capture {
            Some(capture) => self.captured(capture, ends),
            None => infer::segments(&turns, &|end, at| self.was_deaf(end, at)),
        };
        moments.extend(turns.iter().map(|turn| {
            let (side, state) = (turn.side, turn.state);
            (turn.at, What::Turned { side, state })
        }));
        self.add_actions(&mut moments);
        moments.sort_by_key(|moment| moment.0);
        let begin = moments.first().map(|moment| moment.0);
        let moment = |(at, what): (Instant, What)| Moment {
            at: begin.map_or(Duration::ZERO, |begin| at.duration_since(begin)),
            what,
        };
        let [client, server] = names;
        Ladder {
            title: title.to_owned(),
            sides: [
                (client, ends.client.to_string()),
                (server, ends.server.to_string()),
            ],
            moments: moments.into_iter().map(moment).collect(),
            captured: self.capture.is_some(),
        }
    }

    fn was_deaf(&self, end: SocketAddr, at: Instant) -> bool {
        let is_then = |(address, from, until): &(SocketAddr, Instant, Option<Instant>)| {
            *address == end && *from <= at && until.is_none_or(|until| at < until)
        };
        self.deaf.iter().any(is_then)
    }

    /// Returns the segments of this connection that were captured.
    fn captured(&self, capture: &Capture, ends: Ends) -> Vec<(Instant, What)> {
        capture.settle();
        let seen = lock(&capture.seen);
        let of_this = seen
            .iter()
            .filter_map(|seen| Some((seen, seen.side(ends)?)));
        let deaf = |end, at| self.was_deaf(end, at);
        let mut sent: Vec<_> = of_this
            .map(|(seen, from)| (seen.at, seen.sent(from, &deaf)))
            .collect();
        // They are in order, but a packet without a timestamp of the kernel has the time at which it was
        // read, which may be later than the next one's.
        for later in (1..sent.len()).rev() {
            sent[later - 1].0 = sent[later - 1].0.min(sent[later].0);
        }
        sent
    }

    /// Adds the actions during this connection: earlier ones belong to another connection, but an action
    /// just before the first segment is its cause.
    fn add_actions(&self, moments: &mut Vec<(Instant, What)>) {
        let times = moments.iter().map(|moment| moment.0);
        let (Some(since), Some(until)) = (times.clone().min(), times.max()) else {
            return;
        };
        let is_during = |action: &&Action| action.at + JUST_BEFORE >= since && action.at <= until;
        moments.extend(self.actions.iter().filter(is_during).map(|action| {
            let (side, text) = (action.side, action.text.clone());
            (action.at, What::Did { side, text })
        }));
    }
}

impl Seen {
    /// Returns the side of this connection that sent the segment, if one did.
    fn side(&self, ends: Ends) -> Option<Side> {
        let pair = (self.from, self.to);
        if pair == (ends.client, ends.server) {
            Some(Side::Client)
        } else if pair == (ends.server, ends.client) {
            Some(Side::Server)
        } else {
            None
        }
    }

    fn sent(&self, from: Side, deaf: &dyn Fn(SocketAddr, Instant) -> bool) -> What {
        let mut segment = self.segment;
        segment.dropped = deaf(self.to, self.at);
        What::Sent { from, segment }
    }
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked while it held the lock was only appending: the list is valid.
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
