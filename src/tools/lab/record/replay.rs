//! Replays the captured segments through the model of both ends: the states between two looks at the
//! socket table follow from the segments. Each state that the table showed has to be one of them, in the
//! same order and at about the same time.

mod arrival;

use std::time::{Duration, Instant};

use super::journal::Caller;
use super::model::Host;
use super::states::Look;
use super::{Event, Evidence, Seen, Trouble, in_words};
use crate::lab::picture::{Cause, Segment, Side, What};
use crate::sockets::State::{self, FinWait1, FinWait2, LastAck, TimeWait};

/// Largest difference between the time of a segment and that of the change of state that it causes: on a
/// busy machine a process loses its processor between the two, while it has the socket locked.
const LATE: Duration = Duration::from_millis(200);

/// Returns the segments, and the changes of state that they cause.
///
/// # Errors
/// `Contradiction`, if the socket table showed another state.
pub(super) fn events(evidence: &Evidence) -> Result<Vec<Event>, Trouble> {
    let evidence = &evidence.uncrossed();
    let mut replay = Replay {
        evidence,
        hosts: Default::default(),
        events: Vec::new(),
    };
    for (at, step) in steps(evidence) {
        replay.step(at, step)?;
    }
    confirm(&mut replay.events, &evidence.seen)?;
    Ok(replay.events)
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The segment with this number is sent.
    Send(usize),
    /// A program closes, and its FIN has to wait.
    Close(Side),
    /// The socket table no longer shows this side.
    Vanish(Side),
}

fn steps(evidence: &Evidence) -> Vec<(Instant, Step)> {
    let sent = evidence.segments.iter().enumerate();
    let mut steps: Vec<(Instant, Step)> = sent
        .map(|(number, it)| (it.0, Step::Send(number)))
        .collect();
    for call in &evidence.calls {
        if let Caller::End(_, side) = call.by
            && evidence.waits(call, side)
        {
            steps.push((call.began, Step::Close(side)));
        }
    }
    for seen in &evidence.seen {
        match seen.state {
            Some(FinWait1 | LastAck) if evidence.closed_unseen(seen) => {
                steps.push((seen.first.asked, Step::Close(seen.side)));
            }
            None => steps.push((seen.first.asked, Step::Vanish(seen.side))),
            Some(_) => {}
        }
    }
    steps.sort_by_key(|step| step.0);
    steps
}

struct Replay<'a> {
    evidence: &'a Evidence,
    hosts: [Host; 2],
    events: Vec<Event>,
}

impl Replay<'_> {
    fn step(&mut self, at: Instant, step: Step) -> Result<(), Trouble> {
        match step {
            Step::Send(number) => self.send(at, number)?,
            Step::Close(side) => {
                let host = &mut self.hosts[side as usize];
                if host.closes() {
                    let state = host.state;
                    self.turned(at, side, state, Cause::Call);
                }
            }
            Step::Vanish(side) => {
                if self.may_end(side) && !self.evidence.is_reset_about(at, side) {
                    self.hosts[side as usize].end();
                    self.turned(at, side, None, Cause::Timer);
                }
            }
        }
        Ok(())
    }

    /// Whether a timer may end a side's socket: that of its state, or that of a segment which is not answered.
    fn may_end(&self, side: Side) -> bool {
        let mut sent = self.events.iter().rev().filter_map(|event| match event.1 {
            What::Sent { from, segment } if from == side => Some(segment.dropped),
            _ => None,
        });
        match self.hosts[side as usize].state {
            None => false,
            Some(FinWait2 | TimeWait) => true,
            Some(_) => sent.next() == Some(true),
        }
    }

    fn send(&mut self, at: Instant, number: usize) -> Result<(), Trouble> {
        let (_, from, segment) = self.evidence.segments[number];
        let to = from.other();
        if self.evidence.is_refused(number) {
            self.forget(at, to);
        }
        let before = [from, to].map(|side| self.hosts[side as usize].state);
        // One that comes late was sent by a socket before.
        if !segment.late {
            let is_sent = self.hosts[from as usize].sent(segment);
            is_sent.map_err(|how| Trouble::Unclear(format!("the {} {how}", from.name())))?;
        }
        let arrives = self.evidence.arrives(number);
        let what = What::Sent {
            from,
            segment: Segment {
                dropped: !arrives,
                ..segment
            },
        };
        self.events.push((at, what));
        if arrives {
            let host = &mut self.hosts[to as usize];
            host.listens = to == Side::Server && self.evidence.is_accepted(number);
            // The captured segments tell the answer.
            let _ = host.hears(segment);
        }
        for (side, before) in [from, to].into_iter().zip(before) {
            let state = self.hosts[side as usize].state;
            // Linux acknowledges its FIN first, and takes the peer's FIN from the same segment afterwards
            // (tcp_rcv_state_process): a look may come in between.
            if (before, state) == (Some(FinWait1), Some(TimeWait))
                && self.evidence.is_seen_about(at, side, FinWait2)
            {
                self.turned(at, side, Some(FinWait2), Cause::Segment);
            }
            if state != before {
                self.turned(at, side, state, Cause::Segment);
            }
        }
        Ok(())
    }

    /// Ends a side's socket by its timer, before a segment that it would have acknowledged.
    fn forget(&mut self, at: Instant, side: Side) {
        let host = &mut self.hosts[side as usize];
        if matches!(host.state, Some(FinWait2 | TimeWait)) {
            host.end();
            let since = self.events.last().map_or(at, |event| event.0);
            let looks = self.evidence.seen.iter().filter(|it| it.side == side);
            let mut gone = looks
                .filter(|it| it.state.is_none())
                .map(|it| it.first.asked);
            let shown = gone.find(|asked| (since..=at).contains(asked));
            self.turned(shown.unwrap_or(at), side, None, Cause::Timer);
        }
    }

    fn turned(&mut self, at: Instant, side: Side, state: Option<State>, cause: Cause) {
        let seen = false;
        let what = What::Turned {
            side,
            state,
            cause,
            seen,
        };
        self.events.push((at, what));
    }
}

/// A state of one side.
#[derive(Default)]
struct Span {
    /// `None`: open.
    begin: Option<Instant>,
    end: Option<Instant>,
    state: Option<State>,
    /// The number of its event.
    event: Option<usize>,
}

/// Marks the states that the socket table showed.
///
/// # Errors
/// `Contradiction`, if it showed another one.
fn confirm(events: &mut [Event], seen: &[Seen]) -> Result<(), Trouble> {
    for side in Side::BOTH {
        let spans = spans(events, side);
        let seen: Vec<&Seen> = seen.iter().filter(|seen| seen.side == side).collect();
        let (mut now, mut shown) = (0, Vec::new());
        for seen in &seen {
            for look in [seen.first, seen.last] {
                let found = (now..spans.len()).find(|it| spans[*it].is_shown(seen.state, look));
                now = found.ok_or_else(|| contradiction(&spans, seen))?;
                shown.push(now);
            }
        }
        // The last look was after everything else.
        if let (Some(seen), Some(last)) = (seen.last(), spans.last()) {
            if !last.is_shown(seen.state, seen.last) {
                return Err(contradicts(side, seen.state, last.state));
            }
            shown.push(spans.len() - 1);
        }
        for event in shown.into_iter().filter_map(|number| spans[number].event) {
            if let What::Turned { seen, .. } = &mut events[event].1 {
                *seen = true;
            }
        }
    }
    Ok(())
}

/// Returns the states of a side, one after the other; there is no socket before the first one.
fn spans(events: &[Event], side: Side) -> Vec<Span> {
    let mut spans = vec![Span::default()];
    for (number, event) in events.iter().enumerate() {
        if let What::Turned {
            side: of, state, ..
        } = event.1
            && of == side
        {
            if let Some(before) = spans.last_mut() {
                before.end = Some(event.0);
            }
            spans.push(Span {
                begin: Some(event.0),
                end: None,
                state,
                event: Some(number),
            });
        }
    }
    spans
}

impl Span {
    /// Whether the socket table may have shown this state at that look.
    fn is_shown(&self, state: Option<State>, look: Look) -> bool {
        self.state == state
            && self.begin.is_none_or(|begin| begin <= look.answered + LATE)
            && self.end.is_none_or(|end| end + LATE >= look.asked)
    }
}

fn contradiction(spans: &[Span], seen: &Seen) -> Trouble {
    let is_begun = |span: &&Span| span.begin.is_none_or(|begin| begin <= seen.first.answered);
    let implied = spans.iter().rfind(is_begun).and_then(|span| span.state);
    contradicts(seen.side, seen.state, implied)
}

fn contradicts(side: Side, shown: Option<State>, implied: Option<State>) -> Trouble {
    Trouble::Contradiction(format!(
        "the kernel showed the {} {}, where the segments imply {}",
        side.name(),
        in_words(shown),
        in_words(implied)
    ))
}

#[cfg(test)]
mod tests;
