//! What happens to a connection, written down while it happens: the states of both ends, as the
//! kernel tells them, and the segments between them, where this process may see packets.

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

/// Writes down what happens at one port of a server.
pub(crate) struct Recorder {
    states: States,
    /// None where it is not permitted.
    capture: Option<Capture>,
    deeds: Vec<Deed>,
    /// When an end took in nothing: from, and until if that has ended.
    deaf: Vec<(SocketAddr, Instant, Option<Instant>)>,
}

/// The time from a deed to the segment that it brings about.
const JUST_BEFORE: Duration = Duration::from_millis(5);

/// Something that the experiment did, for the picture.
struct Deed {
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
            deeds: Vec::new(),
            deaf: Vec::new(),
        })
    }

    /// Watches this connection too, from now on.
    pub(crate) fn follow(&mut self, ends: Ends) {
        self.states.follow(ends);
    }

    /// Something is done now.
    pub(crate) fn did(&mut self, side: Option<Side>, text: &str) {
        self.deeds.push(Deed {
            at: Instant::now(),
            side,
            text: text.to_owned(),
        });
    }

    /// From now on the end with this address takes in nothing, or everything again.
    pub(crate) fn is_deaf(&mut self, end: SocketAddr, deaf: bool) {
        let now = Instant::now();
        if deaf {
            self.deaf.push((end, now, None));
        } else if let Some(last) = self.deaf.iter_mut().rfind(|last| last.0 == end) {
            last.2.get_or_insert(now);
        }
    }

    /// The life of this connection up to now.
    pub(crate) fn ladder(&self, title: &str, ends: Ends, names: [String; 2]) -> Ladder {
        self.states.settle();
        let turns = lock(&self.states.turns);
        let of_this = turns.iter().filter(|turn| turn.ends == ends);
        let turns: Vec<Turn> = of_this.copied().collect();
        let mut moments = match &self.capture {
            Some(capture) => self.passed(capture, ends),
            None => infer::segments(&turns, &|end, at| self.was_deaf(end, at)),
        };
        moments.extend(turns.iter().map(|turn| {
            let (side, state) = (turn.side, turn.state);
            (turn.at, What::Turned { side, state })
        }));
        self.add_deeds(&mut moments);
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
        let is_then = |(whose, from, until): &(SocketAddr, Instant, Option<Instant>)| {
            *whose == end && *from <= at && until.is_none_or(|until| at < until)
        };
        self.deaf.iter().any(is_then)
    }

    /// The segments of this connection that were seen.
    fn passed(&self, capture: &Capture, ends: Ends) -> Vec<(Instant, What)> {
        // What has passed is in the socket's queue by now.
        capture.settle();
        let seen = lock(&capture.seen);
        let of_this = seen
            .iter()
            .filter_map(|seen| Some((seen, seen.side(ends)?)));
        let deaf = |end, at| self.was_deaf(end, at);
        let mut sent: Vec<_> = of_this
            .map(|(seen, from)| (seen.at, seen.sent(from, &deaf)))
            .collect();
        // They are in order; but one that the kernel has not stamped has the time at which it was
        // read.
        for later in (1..sent.len()).rev() {
            sent[later - 1].0 = sent[later - 1].0.min(sent[later].0);
        }
        sent
    }

    /// What was done during this connection: deeds before it are another one's, and what was done
    /// just before its first segment is what that comes from.
    fn add_deeds(&self, moments: &mut Vec<(Instant, What)>) {
        let times = moments.iter().map(|moment| moment.0);
        let (Some(since), Some(until)) = (times.clone().min(), times.max()) else {
            return;
        };
        let is_its = |deed: &&Deed| deed.at + JUST_BEFORE >= since && deed.at <= until;
        moments.extend(self.deeds.iter().filter(is_its).map(|deed| {
            let (side, text) = (deed.side, deed.text.clone());
            (deed.at, What::Did { side, text })
        }));
    }
}

impl Seen {
    /// Which side of this connection has sent it, if one has.
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
    // Who panicked with it has only been adding to it.
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
