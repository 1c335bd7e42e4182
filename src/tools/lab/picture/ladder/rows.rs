//! Turns moments into rows: the parts of a picture that are drawn at one height. Its one rule: no moment is
//! left out. A moment that belongs to a segment is put where the segment leaves or arrives.

use std::time::Duration;

use crate::lab::picture::{Cause, Moment, Segment, Side, What};
use crate::sockets::State;

/// Longest time from an action to a segment that it causes.
const TOGETHER: Duration = Duration::from_millis(10);
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
    Turned(Turn),
    Did(String),
}

/// A change of state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Turn {
    pub(super) state: Option<State>,
    pub(super) cause: Cause,
    pub(super) seen: bool,
}

pub(super) fn rows(moments: &[Moment]) -> Vec<Row> {
    let mut rows = Rows::default();
    let mut last = moments.first().map_or(Duration::ZERO, |moment| moment.at);
    for moment in moments {
        let gap = moment.at.saturating_sub(last);
        last = last.max(moment.at);
        if gap >= BREAK {
            rows.wait(moment.at, gap);
        }
        match &moment.what {
            What::Sent { from, segment } => rows.send(moment.at, *from, *segment),
            What::Turned {
                side,
                state,
                cause,
                seen,
            } => {
                let (state, cause, seen) = (*state, *cause, *seen);
                rows.turn(moment.at, *side, Turn { state, cause, seen });
            }
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

    fn send(&mut self, at: Duration, from: Side, segment: Segment) {
        let is_cause =
            |action: &(Duration, Side, String)| action.1 == from && at - action.0 <= TOGETHER;
        let actions = match self.pending.iter().all(is_cause) {
            true => std::mem::take(&mut self.pending),
            false => Vec::new(),
        };
        self.settle();
        let row = self.push(at, Middle::Segment { from, segment });
        row.actions[from as usize] = actions.into_iter().map(|action| action.2).collect();
    }

    /// Puts a change of state beside the segment that causes it, or by itself.
    fn turn(&mut self, at: Duration, side: Side, turn: Turn) {
        let is_segment = |row: &&mut Row| matches!(row.middle, Middle::Segment { .. });
        let last = self.done.iter_mut().rfind(is_segment);
        match last.filter(|_| turn.cause == Cause::Segment) {
            Some(row) => row.entries[side as usize].push(Entry::Turned(turn)),
            None => {
                self.settle();
                self.place(at, side, Entry::Turned(turn));
            }
        }
    }

    /// Places the pending actions, which have caused no segment, by themselves.
    fn settle(&mut self) {
        for (at, side, text) in std::mem::take(&mut self.pending) {
            self.place(at, side, Entry::Did(text));
        }
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
