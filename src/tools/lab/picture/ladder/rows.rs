//! Turns moments into rows: the parts of a picture that are drawn at one height. Its one rule: no moment is
//! left out. A moment that belongs to a segment is put where the segment leaves or arrives.

use std::time::Duration;

use crate::lab::picture::{Moment, Segment, Side, What};
use crate::sockets::State;

/// Longest time from a segment to a state that it causes, and from an action to a segment that it causes:
/// the table of sockets is read every few milliseconds.
const TOGETHER: Duration = Duration::from_millis(10);
/// Largest difference between the timestamps of packets and those of states.
const SKEW: Duration = Duration::from_micros(500);
/// Time without an event after which the time lines are broken. Over loopback the kernel answers within a
/// tenth of that, and its timers take twice that or more.
const BREAK: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) at: Duration,
    pub(super) middle: Middle,
    /// By side: the actions that cause the segment.
    pub(super) actions: [Vec<String>; 2],
    /// By side: the states that the segment causes, or entries without a segment.
    pub(super) entries: [Vec<Entry>; 2],
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Middle {
    Nothing,
    Segment { from: Side, segment: Segment },
    Action(String),
    Break(Duration),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Entry {
    Turned(Option<State>),
    Did(String),
}

pub(super) fn rows(moments: &[Moment]) -> Vec<Row> {
    let causes = causes(moments);
    // By segment, the states that it causes.
    let mut caused: Vec<Vec<(Side, Option<State>)>> = vec![Vec::new(); moments.len()];
    for (number, moment) in moments.iter().enumerate() {
        if let (What::Turned { side, state }, Some(cause)) = (&moment.what, causes[number]) {
            caused[cause].push((*side, *state));
        }
    }
    let mut rows = Rows::default();
    let mut last = moments.first().map_or(Duration::ZERO, |moment| moment.at);
    for (number, moment) in moments.iter().enumerate() {
        let gap = moment.at.saturating_sub(last);
        last = last.max(moment.at);
        if gap >= BREAK {
            rows.wait(moment.at, gap);
        }
        match &moment.what {
            What::Sent { from, segment } => {
                rows.send(moment.at, *from, *segment, &caused[number]);
            }
            What::Turned { side, state } if causes[number].is_none() => {
                rows.enter(moment.at, *side, Entry::Turned(*state));
            }
            What::Turned { .. } => {}
            What::Did { side: None, text } => {
                rows.settle();
                rows.push(moment.at, Middle::Action(text.clone()));
            }
            What::Did {
                side: Some(side),
                text,
            } => rows.did(moment.at, *side, text),
        }
    }
    rows.settle();
    rows.done
}

#[derive(Default)]
struct Rows {
    done: Vec<Row>,
    /// Actions of one side that may cause the next segment.
    pending: Vec<(Duration, Side, String)>,
}

impl Rows {
    fn push(&mut self, at: Duration, middle: Middle) -> &mut Row {
        self.done.push(Row {
            at,
            middle,
            actions: Default::default(),
            entries: Default::default(),
        });
        let last = self.done.len() - 1;
        &mut self.done[last]
    }

    fn did(&mut self, at: Duration, side: Side, text: &str) {
        if self.pending.iter().any(|action| action.1 != side) {
            self.settle();
        }
        self.pending.push((at, side, text.to_owned()));
    }

    fn send(
        &mut self,
        at: Duration,
        from: Side,
        segment: Segment,
        caused: &[(Side, Option<State>)],
    ) {
        let is_cause =
            |action: &(Duration, Side, String)| action.1 == from && at - action.0 <= TOGETHER;
        let actions = match self.pending.iter().all(is_cause) {
            true => std::mem::take(&mut self.pending),
            false => Vec::new(),
        };
        self.settle();
        let row = self.push(at, Middle::Segment { from, segment });
        row.actions[from as usize] = actions.into_iter().map(|action| action.2).collect();
        for (side, state) in caused {
            row.entries[*side as usize].push(Entry::Turned(*state));
        }
    }

    /// Places the pending actions, which have caused no segment, by themselves.
    fn settle(&mut self) {
        for (at, side, text) in std::mem::take(&mut self.pending) {
            self.place(at, side, Entry::Did(text));
        }
    }

    fn enter(&mut self, at: Duration, side: Side, entry: Entry) {
        self.settle();
        self.place(at, side, entry);
    }

    /// Adds an entry to the last row, if that has the same time and no entry of this side, or to a new one.
    fn place(&mut self, at: Duration, side: Side, entry: Entry) {
        let side = side as usize;
        match self.done.last_mut() {
            Some(row)
                if row.middle == Middle::Nothing
                    && at.saturating_sub(row.at) <= Duration::from_millis(1)
                    && row.entries[side].is_empty() =>
            {
                row.entries[side].push(entry);
            }
            _ => self.push(at, Middle::Nothing).entries[side].push(entry),
        }
    }

    fn wait(&mut self, until: Duration, gap: Duration) {
        self.settle();
        self.push(until, Middle::Break(gap));
    }
}

/// Returns, for each change of state, the number of the segment that caused it, if there is one at that
/// time.
fn causes(moments: &[Moment]) -> Vec<Option<usize>> {
    let mut causes = vec![None; moments.len()];
    // By side: its state, and the moment after which its next cause has to be.
    let (mut before, mut after) = ([None; 2], [0; 2]);
    for (number, moment) in moments.iter().enumerate() {
        let What::Turned { side, state } = moment.what else {
            continue;
        };
        let index = side as usize;
        let is_near =
            |other: &Moment| other.at <= moment.at + SKEW && other.at + TOGETHER >= moment.at;
        let found = moments.iter().enumerate().skip(after[index]);
        let mut found = found
            .take_while(|(_, other)| other.at <= moment.at + SKEW)
            .filter(|(_, other)| {
                is_near(other) && causes_turn(&other.what, side, before[index], state)
            })
            .map(|(cause, _)| cause);
        let cause = match state {
            // Every segment carries an acknowledgement: the last one is that of the FIN.
            Some(State::FinWait2 | State::TimeWait) | None => found.last(),
            _ => found.next(),
        };
        causes[number] = cause;
        after[index] = cause.unwrap_or(number);
        before[index] = state;
    }
    causes
}

/// Whether this segment takes a side from one state to another: RFC 9293, figure 5.
fn causes_turn(what: &What, side: Side, from: Option<State>, to: Option<State>) -> bool {
    let What::Sent {
        from: sender,
        segment,
    } = what
    else {
        return false;
    };
    let Segment {
        syn, fin, rst, ack, ..
    } = *segment;
    let sent = *sender == side;
    let arrived = !sent && !segment.dropped;
    match (from, to) {
        (_, Some(State::SynSent)) => sent && syn,
        (_, Some(State::SynRecv)) => arrived && syn,
        (_, Some(State::Established)) => arrived && ack && !rst && syn == (side == Side::Client),
        (_, Some(State::FinWait1 | State::LastAck)) => sent && fin,
        (_, Some(State::CloseWait | State::Closing)) => arrived && fin,
        (_, Some(State::FinWait2)) => arrived && ack && !fin && !rst,
        (Some(State::FinWait2), Some(State::TimeWait)) => arrived && fin,
        (_, Some(State::TimeWait)) => arrived && (fin || ack) && !rst,
        (Some(State::CloseWait | State::LastAck), None) => (arrived && ack) || rst,
        (_, Some(State::Close) | None) => rst && (sent || arrived),
        (_, Some(State::Listen)) => false,
    }
}
