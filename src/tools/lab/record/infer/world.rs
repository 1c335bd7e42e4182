//! Both ends of a connection, their programs, and the segments on their way: the state of the search.

use std::collections::VecDeque;

use crate::lab::picture::{Cause, Segment, Side};
use crate::lab::record::journal::Does;
use crate::lab::record::model::Host;
use crate::sockets::State::{self, CloseWait, Established, FinWait1, SynSent};

/// Something that is known to have happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// The socket table showed this state.
    Look(Side, Option<State>),
    Call(Side, Does),
    /// A program sends until nothing more fits: some bytes arrive, and some wait.
    Fill {
        side: Side,
        arrived: u32,
        waiting: u32,
    },
    CloseListener,
}

/// A step that nothing is known of, and its cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Free {
    /// The server's program, which is not part of this process, reads everything.
    Reads,
    Answers(u32),
    Closes,
    /// It ends with RST, though nothing is unread: the queue of a listener that is closed.
    Aborts,
    /// A kernel sends again what was not acknowledged.
    Repeats(Side),
    /// A kernel asks its peer whether it is still there.
    Probes(Side),
    /// The timer of a TIME_WAIT, or of a FIN_WAIT2 without a process; or a kernel gives up.
    Expires(Side),
}

impl Free {
    /// Shorter courses of events, and likelier ones, cost less.
    pub(super) fn cost(self) -> u32 {
        match self {
            // The segment has its own cost.
            Free::Reads | Free::Repeats(_) | Free::Probes(_) => 0,
            Free::Answers(_) => 1,
            Free::Closes | Free::Expires(_) => 2,
            Free::Aborts => 4,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Sent(Side, Segment),
    Turned(Side, Option<State>, Cause),
    /// An acknowledgement was delayed until another segment brings it.
    Withheld,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct World {
    ends: [End; 2],
    /// In the order in which they were sent.
    on_the_way: VecDeque<(Side, Segment)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
struct End {
    host: Host,
    is_accepted: bool,
    is_deaf: bool,
    keeps_alive: bool,
    /// Its receive buffer is full.
    is_full: bool,
    /// It was, so that the number of bytes that have arrived at a time is not known.
    was_full: bool,
    /// Bytes that wait until the peer's buffer has room.
    waiting: u32,
    /// A FIN waits behind them.
    fin_waits: bool,
    unacknowledged: Vec<Segment>,
}

impl End {
    /// A socket that is gone leaves nothing behind.
    fn forget_if_gone(&mut self) {
        if self.host.state.is_none() {
            *self = End {
                host: self.host.clone(),
                ..End::default()
            };
        }
    }
}

impl World {
    pub(super) fn new() -> World {
        let mut ends = <[End; 2]>::default();
        ends[Side::Server as usize].host.listens = true;
        World {
            ends,
            on_the_way: VecDeque::new(),
        }
    }

    pub(super) fn state(&self, side: Side) -> Option<State> {
        self.end(side).host.state
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.on_the_way.is_empty()
    }

    /// Whether a program may call its kernel while segments are on their way. The arrival of an
    /// acknowledgement may be late: Linux delays it by up to 40 ms (`TCP_DELACK_MIN`). But it has arrived when
    /// its receiver sends something: a change of state is drawn beside the last segment.
    pub(super) fn allows(&self, act: Act) -> bool {
        match act {
            Act::Look(..) => true,
            Act::Call(side, Does::Read(_)) => !self.end(side).is_full || self.is_quiet(),
            Act::Call(_, Does::ReadEnd) => true,
            Act::Call(_, Does::Deaf(_)) => self.only_acknowledgements(),
            Act::Call(side, Does::Close) if !self.may_close(side) => self.only_acknowledgements(),
            Act::Call(side, _) | Act::Fill { side, .. } => self.allows_sending(side),
            Act::CloseListener => self.allows_sending(Side::Server),
        }
    }

    /// Whether only acknowledgements of this side are on their way.
    pub(super) fn allows_sending(&self, side: Side) -> bool {
        let is_own = |it: &(Side, Segment)| it.0 == side && is_plain(it.1);
        self.on_the_way.iter().all(is_own)
    }

    fn may_close(&self, side: Side) -> bool {
        matches!(self.state(side), Some(Established | CloseWait))
    }

    pub(super) fn only_acknowledgements(&self) -> bool {
        self.on_the_way.iter().all(|it| is_plain(it.1))
    }

    fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    /// Sends a segment. Returns `None` if the socket can't.
    fn send(&mut self, from: Side, segment: Segment, effects: &mut Vec<Effect>) -> Option<()> {
        let is_dropped = self.end(from.other()).is_deaf;
        let end = self.end_mut(from);
        let before = end.host.state;
        end.host.sent(segment).ok()?;
        let is_known = end
            .unacknowledged
            .iter()
            .any(|it| it.end() == segment.end());
        if segment.is_acknowledged() && !is_known {
            if segment.syn {
                end.unacknowledged.clear();
            }
            end.unacknowledged.push(segment);
        }
        let after = end.host.state;
        end.forget_if_gone();
        let count = self.on_the_way.len();
        self.on_the_way.retain(|it| it.0 != from || !is_plain(it.1));
        effects.extend((self.on_the_way.len()..count).map(|_| Effect::Withheld));
        // A plain acknowledgement is sent when it arrives.
        if is_dropped || !is_plain(segment) {
            let dropped = is_dropped;
            effects.push(Effect::Sent(from, Segment { dropped, ..segment }));
        }
        if after != before {
            effects.push(Effect::Turned(from, after, Cause::Segment));
        }
        if !is_dropped {
            self.on_the_way.push_back((from, segment));
        }
        Some(())
    }

    /// Lets the next segment arrive.
    pub(super) fn deliver(&mut self, effects: &mut Vec<Effect>) -> Option<()> {
        let (from, segment) = self.on_the_way.pop_front()?;
        let to = from.other();
        if is_plain(segment) {
            effects.push(Effect::Sent(from, segment));
        }
        let end = self.end_mut(to);
        let before = end.host.state;
        let answer = end.host.hears(segment);
        let (after, host) = (end.host.state, end.host.clone());
        end.unacknowledged.retain(|it| !host.is_known(*it));
        if after != before {
            effects.push(Effect::Turned(to, after, Cause::Segment));
        }
        end.forget_if_gone();
        match answer {
            Some(answer) => self.send(to, answer, effects),
            None => Some(()),
        }
    }

    /// Makes a step that is known. Returns `None` if it is not possible now.
    pub(super) fn act(&mut self, act: Act, effects: &mut Vec<Effect>) -> Option<()> {
        match act {
            Act::Look(side, state) => (self.state(side) == state).then_some(()),
            Act::Call(side, does) => self.call(side, does, effects),
            Act::Fill {
                side,
                arrived,
                waiting,
            } => {
                let segment = self.end(side).host.next_segment(arrived, false);
                self.end_mut(side).waiting = waiting;
                let peer = self.end_mut(side.other());
                (peer.is_full, peer.was_full) = (true, true);
                self.send(side, segment, effects)
            }
            Act::CloseListener => {
                let server = self.end_mut(Side::Server);
                server.host.listens = false;
                match server.host.state {
                    Some(_) if !server.is_accepted => self.abort(Side::Server, effects),
                    _ => Some(()),
                }
            }
        }
    }

    fn call(&mut self, side: Side, does: Does, effects: &mut Vec<Effect>) -> Option<()> {
        let end = self.end_mut(side);
        match does {
            Does::Connect => {
                let syn = end.host.syn();
                end.host.state.is_none().then_some(())?;
                self.send(side, syn, effects)
            }
            Does::Accept => {
                end.is_accepted = true;
                end.host.state.map(drop)
            }
            Does::Send(bytes) => self.write(side, bytes, effects),
            // Replaced by `Act::Fill`.
            Does::Fill(_) => None,
            Does::Read(bytes) => self.read(side, bytes, effects),
            Does::ReadEnd => {
                if end.was_full {
                    end.host.unread = 0;
                }
                let is_told = !matches!(end.host.state, Some(SynSent | Established | FinWait1));
                (is_told && end.host.unread == 0).then_some(())
            }
            Does::FinishWriting => self.finish(side, effects),
            Does::Close => self.close(side, effects),
            Does::Abort => self.abort(side, effects),
            Does::KeepAlive => {
                end.keeps_alive = true;
                Some(())
            }
            Does::Deaf(begins) => {
                end.is_deaf = begins;
                Some(())
            }
        }
    }

    fn write(&mut self, side: Side, bytes: u32, effects: &mut Vec<Effect>) -> Option<()> {
        if self.end(side.other()).is_full {
            self.end_mut(side).waiting += bytes;
            return Some(());
        }
        let segment = self.end(side).host.next_segment(bytes, false);
        self.send(side, segment, effects)
    }

    /// A process reads. If its buffer was full, the peer's kernel goes on.
    fn read(&mut self, side: Side, bytes: u32, effects: &mut Vec<Effect>) -> Option<()> {
        let end = self.end_mut(side);
        if end.host.state.is_none() {
            // What arrived before a reset can still be read.
            return Some(());
        }
        let left = end.host.unread.checked_sub(bytes);
        end.host.unread = if end.was_full {
            left.unwrap_or(0)
        } else {
            left?
        };
        if !std::mem::take(&mut end.is_full) {
            return Some(());
        }
        effects.push(Effect::Sent(side, end.host.next_segment(0, false)));
        let peer = self.end_mut(side.other());
        let (waiting, fin_waits) = (
            std::mem::take(&mut peer.waiting),
            std::mem::take(&mut peer.fin_waits),
        );
        for (bytes, fin) in [(waiting, false), (0, fin_waits)] {
            if bytes > 0 || fin {
                let segment = self.end(side.other()).host.next_segment(bytes, fin);
                self.send(side.other(), segment, effects)?;
            }
        }
        Some(())
    }

    fn finish(&mut self, side: Side, effects: &mut Vec<Effect>) -> Option<()> {
        if self.end(side).waiting > 0 {
            let end = self.end_mut(side);
            end.fin_waits = true;
            end.host.closes().then_some(())?;
            effects.push(Effect::Turned(side, end.host.state, Cause::Call));
            return Some(());
        }
        let fin = self.end(side).host.next_segment(0, true);
        self.send(side, fin, effects)
    }

    fn close(&mut self, side: Side, effects: &mut Vec<Effect>) -> Option<()> {
        let end = self.end_mut(side);
        end.host.is_orphan = true;
        match end.host.state {
            // RFC 1122, 4.2.2.13: bytes that were acknowledged will never be read.
            Some(Established | CloseWait) if end.host.unread > 0 => self.abort(side, effects),
            Some(Established | CloseWait) => self.finish(side, effects),
            _ => Some(()),
        }
    }

    fn abort(&mut self, side: Side, effects: &mut Vec<Effect>) -> Option<()> {
        let rst = self.end(side).host.abort();
        match self.state(side) {
            None | Some(SynSent) => Some(()),
            Some(_) => self.send(side, rst, effects),
        }
    }

    /// Returns the steps that are possible without any trace. `is_free`: the server's program is not part of
    /// this process. `wanted`: the client reads these bytes next.
    pub(super) fn free(&self, is_free: bool, wanted: Option<u32>) -> Vec<Free> {
        let mut free = Vec::new();
        let server = &self.end(Side::Server).host;
        let is_open = !server.is_orphan && self.may_close(Side::Server);
        if is_free && is_open && self.allows_sending(Side::Server) {
            free.extend([Free::Closes, Free::Aborts]);
            free.extend((server.unread > 0).then_some(Free::Reads));
            free.extend(wanted.map(Free::Answers));
        }
        for side in Side::BOTH {
            let end = self.end(side);
            let may_repeat = !end.unacknowledged.is_empty() && self.allows_sending(side);
            free.extend(may_repeat.then_some(Free::Repeats(side)));
            let may_probe = end.keeps_alive && self.is_quiet() && self.may_close(side);
            free.extend(may_probe.then_some(Free::Probes(side)));
            let is_unheard = self.end(side.other()).is_deaf && !end.unacknowledged.is_empty();
            let may_end = is_unheard || end.host.has_end_timer();
            free.extend(may_end.then_some(Free::Expires(side)));
        }
        free
    }

    pub(super) fn make(&mut self, step: Free, effects: &mut Vec<Effect>) -> Option<()> {
        match step {
            Free::Reads => {
                self.end_mut(Side::Server).host.unread = 0;
                Some(())
            }
            Free::Answers(bytes) => self.write(Side::Server, bytes, effects),
            Free::Closes => self.close(Side::Server, effects),
            Free::Aborts => self.abort(Side::Server, effects),
            Free::Repeats(side) => {
                let end = self.end(side);
                let segment = end.host.repeated(*end.unacknowledged.first()?);
                self.send(side, segment, effects)
            }
            Free::Probes(side) => {
                let probe = self.end(side).host.probe();
                self.send(side, probe, effects)
            }
            Free::Expires(side) => {
                let end = self.end_mut(side);
                end.host.end();
                end.forget_if_gone();
                effects.push(Effect::Turned(side, None, Cause::Timer));
                Some(())
            }
        }
    }
}

/// Whether it is an acknowledgement alone.
fn is_plain(it: Segment) -> bool {
    !it.rst && !it.is_acknowledged()
}
