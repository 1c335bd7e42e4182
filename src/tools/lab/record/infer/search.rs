//! Finds a cheapest course of events (Dijkstra's algorithm over the states of the world).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::time::Instant;

use super::world::{Act, Effect, World};
use crate::lab::picture::{Side, What};
use crate::lab::record::journal::Does;
use crate::lab::record::{Event, Trouble};

/// Something that is known to have happened, and when: at some moment from `from` to `until`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) from: Instant,
    /// `None`: open.
    pub(super) until: Option<Instant>,
    pub(super) act: Act,
}

/// Everything that is known to have happened. Each track is in the order of time; of two marks on different
/// tracks, the one that ends before the other one begins is the earlier one.
pub(super) struct Tracks {
    pub(super) looks: Vec<Mark>,
    pub(super) calls: Vec<Mark>,
    /// The server's program is not part of this process: its calls are not known.
    pub(super) is_free: bool,
}

/// The cost of a segment.
const SEGMENT: u32 = 1_000;
/// The cost of passing a mark before one that begins earlier, on the other track, or of a call before a
/// segment has arrived.
const EARLY: u32 = 1;

/// Largest number of states of the world that are considered. The experiments need 10 to 2,000.
const LIMIT: usize = 200_000;

/// The world, and the numbers of looks and calls that have been passed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Node {
    world: World,
    looks: usize,
    calls: usize,
}

/// How a node was reached.
struct Reached {
    node: Node,
    cost: u32,
    before: usize,
    /// The mark that was passed by this step.
    mark: Option<Mark>,
    effects: Vec<Effect>,
}

pub(super) fn shortest(tracks: &Tracks) -> Result<Vec<Event>, Trouble> {
    let mut search = Search {
        tracks,
        reached: Vec::new(),
        queue: BinaryHeap::new(),
        done: HashSet::new(),
        furthest: 0,
    };
    let first = Node {
        world: World::new(),
        looks: 0,
        calls: 0,
    };
    search.reach(first, 0, 0, None, Vec::new());
    match search.run() {
        Some(last) => Ok(search.course(last)),
        None => Err(search.trouble()),
    }
}

struct Search<'a> {
    tracks: &'a Tracks,
    reached: Vec<Reached>,
    /// By cost, then in the order in which they were reached.
    queue: BinaryHeap<Reverse<(u32, usize)>>,
    done: HashSet<Node>,
    /// Largest number of looks that a course of events has passed.
    furthest: usize,
}

impl Search<'_> {
    /// Returns the number of the first node at which everything has happened.
    fn run(&mut self) -> Option<usize> {
        while let Some(Reverse((_, number))) = self.queue.pop() {
            let node = &self.reached[number].node;
            if !self.done.insert(node.clone()) {
                continue;
            }
            self.furthest = self.furthest.max(node.looks);
            let is_all =
                node.looks == self.tracks.looks.len() && node.calls == self.tracks.calls.len();
            if is_all && node.world.is_quiet() {
                return Some(number);
            }
            if self.reached.len() > LIMIT {
                return None;
            }
            self.go_on(number);
        }
        None
    }

    fn reach(
        &mut self,
        node: Node,
        cost: u32,
        before: usize,
        mark: Option<Mark>,
        effects: Vec<Effect>,
    ) {
        if self.done.contains(&node) {
            return;
        }
        self.queue.push(Reverse((cost, self.reached.len())));
        self.reached.push(Reached {
            node,
            cost,
            before,
            mark,
            effects,
        });
    }

    /// Reaches the nodes after this one.
    fn go_on(&mut self, number: usize) {
        let Reached { node, cost, .. } = &self.reached[number];
        let (node, cost) = (node.clone(), *cost);
        let (look, call) = self.next(&node);
        if let Some(look) = look {
            let looks = node.looks + 1;
            self.pass(
                number,
                Node {
                    looks,
                    ..node.clone()
                },
                look,
                call,
            );
        }
        if !node.world.is_quiet() {
            let (mut next, mut effects) = (node.clone(), Vec::new());
            if next.world.deliver(&mut effects).is_some() {
                let cost = cost + sent(&effects);
                self.reach(next, cost, number, None, effects);
            }
        }
        if let Some(call) = call.filter(|call| node.world.allows(call.act)) {
            let calls = node.calls + 1;
            self.pass(
                number,
                Node {
                    calls,
                    ..node.clone()
                },
                call,
                look,
            );
        }
        if node.world.only_acknowledgements() {
            self.go_on_freely(number, &node, cost);
        }
    }

    /// Reaches the nodes after this one by steps that nothing is known of.
    fn go_on_freely(&mut self, number: usize, node: &Node, cost: u32) {
        let wanted = match self.tracks.calls.get(node.calls).map(|mark| mark.act) {
            Some(Act::Call(Side::Client, Does::Read(bytes))) => Some(bytes),
            _ => None,
        };
        for step in node.world.free(self.tracks.is_free, wanted) {
            let (mut next, mut effects) = (node.clone(), Vec::new());
            if next.world.make(step, &mut effects).is_some() {
                let early = if node.world.is_quiet() { 0 } else { EARLY };
                let cost = cost + step.cost() * SEGMENT + sent(&effects) + early;
                self.reach(next, cost, number, None, effects);
            }
        }
    }

    /// Returns the next look and the next call, where no mark of the other track is earlier.
    fn next(&self, node: &Node) -> (Option<Mark>, Option<Mark>) {
        let look = self.tracks.looks.get(node.looks).copied();
        let call = self.tracks.calls.get(node.calls).copied();
        let is_after = |one: &Mark, other: Option<Mark>| {
            other.is_some_and(|other| other.until.is_some_and(|until| until < one.from))
        };
        (
            look.filter(|look| !is_after(look, call)),
            call.filter(|call| !is_after(call, look)),
        )
    }

    /// Passes a mark; `other` is the next one of the other track.
    fn pass(&mut self, number: usize, mut next: Node, mark: Mark, other: Option<Mark>) {
        let mut effects = Vec::new();
        if next.world.act(mark.act, &mut effects).is_some() {
            let is_before = other.is_some_and(|other| other.from < mark.from);
            let is_call = !matches!(mark.act, Act::Look(..));
            let is_early = is_before || is_call && !self.reached[number].node.world.is_quiet();
            let early = if is_early { EARLY } else { 0 };
            let cost = self.reached[number].cost + sent(&effects) + early;
            self.reach(next, cost, number, Some(mark), effects);
        }
    }

    /// Returns the events on the way to a node.
    fn course(&self, last: usize) -> Vec<Event> {
        let mut way = Vec::new();
        let mut number = last;
        while number != 0 {
            way.push(&self.reached[number]);
            number = self.reached[number].before;
        }
        way.reverse();
        let times = times(&way);
        let mut events: Vec<Event> = Vec::new();
        for (step, at) in way.into_iter().zip(times) {
            if let Some(Mark {
                act: Act::Look(side, _),
                ..
            }) = step.mark
            {
                see(&mut events, side);
            }
            let happened = step.effects.iter().filter_map(|effect| what(*effect));
            events.extend(happened.map(|what| (at, what)));
        }
        events
    }

    fn trouble(&self) -> Trouble {
        let at = self.tracks.looks.get(self.furthest).map(|mark| mark.act);
        let why = match at {
            Some(Act::Look(side, state)) => format!(
                "no course of events that this program could find leads to the {} {}",
                side.name(),
                super::super::in_words(state)
            ),
            _ => "no course of events that this program could find explains its states".to_owned(),
        };
        Trouble::Unclear(why)
    }
}

/// Returns the cost of the segments. One that brings an acknowledgement saves nothing: the common course of a close
/// is preferred.
fn sent(effects: &[Effect]) -> u32 {
    let is_sent = |effect: &&Effect| matches!(effect, Effect::Sent(..) | Effect::Withheld);
    effects.iter().filter(is_sent).count() as u32 * SEGMENT
}

/// Returns the times of the steps: that of the mark, or of the mark before for what follows from it, or of
/// the next mark for what that shows.
fn times(way: &[&Reached]) -> Vec<Instant> {
    let now = Instant::now();
    let last = way.iter().rev().find_map(|step| step.mark);
    let last = last.map_or(now, |mark| mark.from);
    let mut times = vec![last; way.len()];
    let mut next = last;
    // Whether the step is a consequence of an earlier mark.
    let mut is_free = false;
    for (number, step) in way.iter().enumerate() {
        let was_quiet = number == 0 || way[number - 1].node.world.is_quiet();
        is_free = match step.mark {
            Some(Mark {
                act: Act::Look(..), ..
            }) => is_free,
            Some(_) => false,
            None => is_free || was_quiet,
        };
        times[number] = match (step.mark, number) {
            (Some(mark), _) => mark.from,
            (None, _) if is_free => {
                let later = way[number..].iter().find_map(|step| step.mark);
                later.map_or(last, |mark| mark.from)
            }
            (None, 0) => last,
            (None, number) => times[number - 1],
        };
    }
    // Time does not run backwards.
    for time in times.iter_mut().rev() {
        next = next.min(*time);
        *time = next;
    }
    times
}

/// Marks the present state of a side as seen.
fn see(events: &mut [Event], side: Side) {
    let last = events
        .iter_mut()
        .rev()
        .find_map(|event| match &mut event.1 {
            What::Turned { side: of, seen, .. } if *of == side => Some(seen),
            _ => None,
        });
    if let Some(seen) = last {
        *seen = true;
    }
}

fn what(effect: Effect) -> Option<What> {
    match effect {
        Effect::Sent(from, segment) => Some(What::Sent { from, segment }),
        Effect::Turned(side, state, cause) => Some(What::Turned {
            side,
            state,
            cause,
            seen: false,
        }),
        Effect::Withheld => None,
    }
}
