//! Infers segments from changes of state, for a picture where packets can't be captured.

use std::net::SocketAddr;
use std::time::Instant;

use super::Turn;
use crate::lab::picture::{Segment, Side, What};
use crate::sockets::State;

const SYN: Segment = Segment {
    syn: true,
    fin: false,
    rst: false,
    ack: false,
    length: 0,
    dropped: false,
};
const ACK: Segment = Segment {
    syn: false,
    ack: true,
    ..SYN
};
const SYN_ACK: Segment = Segment { ack: true, ..SYN };
const FIN_ACK: Segment = Segment { fin: true, ..ACK };

/// Returns the segments that each side must have sent, by RFC 9293, figure 5. Each has the time of the
/// change of state that implies it.
pub(super) fn segments(
    turns: &[Turn],
    deaf: &dyn Fn(SocketAddr, Instant) -> bool,
) -> Vec<(Instant, What)> {
    let mut inferred = Inferred {
        deaf,
        segments: Vec::new(),
        states: [None; 2],
        fin_dropped: [false; 2],
    };
    for turn in turns {
        inferred.turn(turn);
    }
    inferred.segments
}

struct Inferred<'a> {
    /// Whether the end with an address dropped every segment at a time.
    deaf: &'a dyn Fn(SocketAddr, Instant) -> bool,
    segments: Vec<(Instant, What)>,
    /// By side: its state so far.
    states: [Option<State>; 2],
    /// By side: whether the last FIN that it sent was dropped.
    fin_dropped: [bool; 2],
}

impl Inferred<'_> {
    fn turn(&mut self, turn: &Turn) {
        let (me, peer) = (turn.side, other(turn.side));
        let from = std::mem::replace(&mut self.states[me as usize], turn.state);
        let fin_dropped = self.fin_dropped;
        let mut send = |side: Side, segment: Segment| self.send(turn, side, segment);
        use State::{
            CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynSent, TimeWait,
        };
        match (from, turn.state) {
            (None, Some(SynSent)) => send(me, SYN),
            (None, Some(Established)) if me == Side::Client => {
                for (side, segment) in [(me, SYN), (peer, SYN_ACK), (me, ACK)] {
                    send(side, segment);
                }
            }
            (Some(SynSent), Some(Established)) => {
                send(peer, SYN_ACK);
                send(me, ACK);
            }
            (Some(Established), Some(FinWait1)) | (Some(CloseWait), Some(LastAck)) => {
                send(me, FIN_ACK);
            }
            (Some(Established), Some(FinWait2)) => {
                send(me, FIN_ACK);
                send(peer, ACK);
            }
            (Some(FinWait1), Some(FinWait2)) => {
                if fin_dropped[me as usize] {
                    send(me, FIN_ACK);
                }
                send(peer, ACK);
            }
            (Some(FinWait1), Some(Closing)) => {
                // The peer's FIN; sent again, where the first one was dropped.
                send(peer, FIN_ACK);
                send(me, ACK);
            }
            (Some(FinWait2), Some(TimeWait)) => {
                if fin_dropped[peer as usize] {
                    send(peer, FIN_ACK);
                }
                send(me, ACK);
            }
            (Some(CloseWait), None) if me == Side::Server => send(me, FIN_ACK),
            // The change implies no segment, or does not tell which one.
            _ => {}
        }
    }

    fn send(&mut self, turn: &Turn, from: Side, segment: Segment) {
        let (to, _) = turn.ends.of(other(from));
        let dropped = (self.deaf)(to, turn.at);
        if segment.fin {
            self.fin_dropped[from as usize] = dropped;
        }
        let segment = Segment { dropped, ..segment };
        self.segments.push((turn.at, What::Sent { from, segment }));
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::end::Ends;
    use State::{CloseWait, Established, FinWait1, FinWait2, LastAck, TimeWait};

    /// Returns the inferred segments in words, when the sides change their states in this order.
    fn sent(turns: &[(Side, Option<State>)], deaf: Option<SocketAddr>) -> Vec<String> {
        let ends = Ends {
            client: ([127, 0, 0, 1], 1).into(),
            server: ([127, 0, 0, 1], 2).into(),
        };
        let turn = |(side, state): &(Side, Option<State>)| Turn {
            at: Instant::now(),
            ends,
            side: *side,
            state: *state,
        };
        let turns: Vec<Turn> = turns.iter().map(turn).collect();
        let words = |what: What| match what {
            What::Sent { from, segment } => {
                let flags = [
                    (segment.syn, "SYN"),
                    (segment.fin, "FIN"),
                    (segment.ack, "ACK"),
                ];
                let mut words: Vec<&str> = vec![if from == Side::Client { ">" } else { "<" }];
                words.extend(flags.iter().filter(|flag| flag.0).map(|flag| flag.1));
                words.extend(segment.dropped.then_some("lost"));
                words.join(" ")
            }
            other => panic!("{other:?}"),
        };
        let is_deaf = |end: SocketAddr, _: Instant| Some(end) == deaf;
        segments(&turns, &is_deaf)
            .into_iter()
            .map(|sent| words(sent.1))
            .collect()
    }

    const CLIENT: Side = Side::Client;
    const SERVER: Side = Side::Server;

    #[test]
    fn an_orderly_close_takes_four_segments() {
        let turns = [
            (CLIENT, Some(Established)),
            (SERVER, Some(Established)),
            (CLIENT, Some(FinWait1)),
            (SERVER, Some(CloseWait)),
            (CLIENT, Some(FinWait2)),
            (SERVER, Some(LastAck)),
            (CLIENT, Some(TimeWait)),
            (SERVER, None),
        ];
        let expected = [
            "> SYN",
            "< SYN ACK",
            "> ACK",
            "> FIN ACK",
            "< ACK",
            "< FIN ACK",
            "> ACK",
        ];
        assert_eq!(sent(&turns, None), expected);
    }

    #[test]
    fn a_fin_to_a_deaf_end_is_dropped() {
        let server = ([127, 0, 0, 1], 2).into();
        let turns = [(CLIENT, Some(Established)), (CLIENT, Some(FinWait1))];
        let until_then = sent(&turns, Some(server));
        assert_eq!(
            until_then.last().map(String::as_str),
            Some("> FIN ACK lost")
        );
    }
}
