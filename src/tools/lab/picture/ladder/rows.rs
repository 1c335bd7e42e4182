//! Moments become rows: what is drawn at one height. Nothing is left out; what belongs to a segment
//! is put where it leaves or arrives.

use std::time::Duration;

use crate::lab::picture::{Moment, Segment, Side, What};
use crate::sockets::State;

/// How much later than its segment a state may be seen, and than its deed a segment, to be put there:
/// the table of sockets is looked at every few milliseconds.
const TOGETHER: Duration = Duration::from_millis(10);
/// Clocks of packets and of looks may differ by that.
const SKEW: Duration = Duration::from_micros(500);
/// Where nothing happens for longer the time lines are broken. What the kernel does by itself over
/// loopback takes a tenth of that, and what it waits for, twice that or more.
const BREAK: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) at: Duration,
    pub(super) middle: Middle,
    /// By side: what was done there that the segment comes from.
    pub(super) deeds: [Vec<String>; 2],
    /// By side: what follows.
    pub(super) entries: [Vec<Entry>; 2],
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Middle {
    Nothing,
    Segment { from: Side, segment: Segment },
    Deed(String),
    Break(Duration),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Entry {
    Turned(Option<State>),
    Did(String),
}

pub(super) fn rows(moments: &[Moment]) -> Vec<Row> {
    let causes = causes(moments);
    // By segment, the states that it brings about.
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
                rows.push(moment.at, Middle::Deed(text.clone()));
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
    /// Deeds of one side that may be what the next segment comes from.
    pending: Vec<(Duration, Side, String)>,
}

impl Rows {
    fn push(&mut self, at: Duration, middle: Middle) -> &mut Row {
        self.done.push(Row {
            at,
            middle,
            deeds: Default::default(),
            entries: Default::default(),
        });
        let last = self.done.len() - 1;
        &mut self.done[last]
    }

    fn did(&mut self, at: Duration, side: Side, text: &str) {
        if self.pending.iter().any(|deed| deed.1 != side) {
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
        let comes_from =
            |deed: &(Duration, Side, String)| deed.1 == from && at - deed.0 <= TOGETHER;
        let deeds = match self.pending.iter().all(comes_from) {
            true => std::mem::take(&mut self.pending),
            false => Vec::new(),
        };
        self.settle();
        let row = self.push(at, Middle::Segment { from, segment });
        row.deeds[from as usize] = deeds.into_iter().map(|deed| deed.2).collect();
        for (side, state) in caused {
            row.entries[*side as usize].push(Entry::Turned(*state));
        }
    }

    /// Deeds that no segment came from stand by themselves.
    fn settle(&mut self) {
        for (at, side, text) in std::mem::take(&mut self.pending) {
            self.place(at, side, Entry::Did(text));
        }
    }

    fn enter(&mut self, at: Duration, side: Side, entry: Entry) {
        self.settle();
        self.place(at, side, entry);
    }

    /// In a row with the other side's, where that is as old and the place is free.
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

/// For each change of state the number of the segment that brought it about, where one did at that
/// time.
fn causes(moments: &[Moment]) -> Vec<Option<usize>> {
    let mut causes = vec![None; moments.len()];
    // By side: its state, and the moment behind which the next one has to be.
    let (mut before, mut behind) = ([None; 2], [0; 2]);
    for (number, moment) in moments.iter().enumerate() {
        let What::Turned { side, state } = moment.what else {
            continue;
        };
        let index = side as usize;
        let is_near =
            |other: &Moment| other.at <= moment.at + SKEW && other.at + TOGETHER >= moment.at;
        let found = moments.iter().enumerate().skip(behind[index]);
        let mut found = found
            .take_while(|(_, other)| other.at <= moment.at + SKEW)
            .filter(|(_, other)| is_near(other) && brings(&other.what, side, before[index], state))
            .map(|(cause, _)| cause);
        let cause = match state {
            // Whatever comes bears an acknowledgement: the last one is that of the FIN.
            Some(State::FinWait2 | State::TimeWait) | None => found.last(),
            _ => found.next(),
        };
        causes[number] = cause;
        behind[index] = cause.unwrap_or(number);
        before[index] = state;
    }
    causes
}

/// Whether this is what brings a side from one state to another: RFC 9293, figure 5.
fn brings(what: &What, side: Side, from: Option<State>, to: Option<State>) -> bool {
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
    let came = !sent && !segment.dropped;
    match (from, to) {
        (_, Some(State::SynSent)) => sent && syn,
        (_, Some(State::SynRecv)) => came && syn,
        (_, Some(State::Established)) => came && ack && !rst && syn == (side == Side::Client),
        (_, Some(State::FinWait1 | State::LastAck)) => sent && fin,
        (_, Some(State::CloseWait | State::Closing)) => came && fin,
        (_, Some(State::FinWait2)) => came && ack && !fin && !rst,
        (Some(State::FinWait2), Some(State::TimeWait)) => came && fin,
        (_, Some(State::TimeWait)) => came && (fin || ack) && !rst,
        (Some(State::CloseWait | State::LastAck), None) => (came && ack) || rst,
        (_, Some(State::Close) | None) => rst && (sent || came),
        (_, Some(State::Listen)) => false,
    }
}
