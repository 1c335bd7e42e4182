//! The segments that changes of state imply, for a picture where packets can't be seen.

use std::net::SocketAddr;
use std::time::Instant;

use super::Turn;
use crate::inspect::sockets::State;
use crate::lab::picture::{Segment, Side, What};

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

/// What must have gone from whom, by RFC 9293, figure 5; each is given the time of the change that
/// shows it.
pub(super) fn segments(
    turns: &[Turn],
    deaf: &dyn Fn(SocketAddr, Instant) -> bool,
) -> Vec<(Instant, What)> {
    let mut found = Vec::new();
    let mut before: [Option<State>; 2] = [None; 2];
    let mut fins_missed = [false; 2];
    for turn in turns {
        let (me, peer) = (turn.side, other(turn.side));
        let from = std::mem::replace(&mut before[me as usize], turn.state);
        let missed = fins_missed;
        let mut send = |side: Side, segment: Segment| {
            let (to, _) = turn.ends.of(other(side));
            let dropped = deaf(to, turn.at);
            if segment.fin {
                fins_missed[side as usize] = dropped;
            }
            let segment = Segment { dropped, ..segment };
            found.push((
                turn.at,
                What::Sent {
                    from: side,
                    segment,
                },
            ));
        };
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
                if missed[me as usize] {
                    send(me, FIN_ACK);
                }
                send(peer, ACK);
            }
            (Some(FinWait1), Some(Closing)) => {
                // The peer's FIN, sent again where the first one was dropped.
                send(peer, FIN_ACK);
                send(me, ACK);
            }
            (Some(FinWait2), Some(TimeWait)) => {
                if missed[peer as usize] {
                    send(peer, FIN_ACK);
                }
                send(me, ACK);
            }
            (Some(CloseWait), None) if me == Side::Server => send(me, FIN_ACK),
            // Nothing goes over, or it can't be told what.
            _ => {}
        }
    }
    found
}

fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    }
}
