//! Infers the segments where packets can't be captured: a shortest course of events that is causally
//! possible, makes every call of the experiment, and passes through every state that the socket table
//! showed, in their order.
//!
//! Loopback delivers a segment before a program on the same machine can react to it, so that no two
//! segments cross on their way; and the kernels are taken to acknowledge at once.

mod search;
#[cfg(test)]
mod tests;
mod world;

use std::time::Instant;

use self::search::{Mark, Tracks};
use self::world::Act;
use super::journal::{Call, Caller, Does};
use super::{Event, Evidence, Trouble};
use crate::lab::picture::Side;

/// Returns the segments, and the changes of state that they cause.
///
/// # Errors
/// `Unclear`, if no course of events explains what was seen.
pub(super) fn events(evidence: &Evidence) -> Result<Vec<Event>, Trouble> {
    let tracks = Tracks {
        looks: looks(evidence),
        calls: calls(&evidence.calls),
        is_free: !evidence.holds_server,
    };
    search::shortest(&tracks)
}

/// Returns the first and the last look at each state.
fn looks(evidence: &Evidence) -> Vec<Mark> {
    let mut looks = Vec::new();
    for seen in &evidence.seen {
        for look in [seen.first, seen.last] {
            let (side, state) = (seen.side, seen.state);
            looks.push(Mark {
                from: look.asked,
                until: Some(look.answered),
                act: Act::Look(side, state),
            });
        }
    }
    looks.sort_by_key(|mark| mark.from);
    looks
}

/// Returns the calls; those that together fill the peer's buffer are one.
fn calls(calls: &[Call]) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for call in calls {
        let act = match call.by {
            Caller::Listener(_) => Act::CloseListener,
            Caller::End(_, side) => Act::Call(side, call.does),
        };
        let mark = Mark {
            from: call.began,
            until: call.ended,
            act,
        };
        match act {
            Act::Call(side, Does::Fill(arrived)) => fill(&mut marks, side, arrived, call.ended),
            _ => marks.push(mark),
        }
    }
    marks
}

/// Replaces the last calls of a side, which filled the peer's buffer, by one.
fn fill(marks: &mut Vec<Mark>, side: Side, arrived: u32, until: Option<Instant>) {
    let mut sent = 0;
    let mut from = None;
    while let Some(Mark {
        from: began,
        act: Act::Call(by, Does::Send(bytes)),
        ..
    }) = marks.last()
        && *by == side
    {
        sent += bytes;
        from = Some(*began);
        marks.pop();
    }
    if let Some(from) = from {
        let waiting = sent.saturating_sub(arrived);
        marks.push(Mark {
            from,
            until,
            act: Act::Fill {
                side,
                arrived,
                waiting,
            },
        });
    }
}
