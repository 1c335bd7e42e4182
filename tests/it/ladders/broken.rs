//! The checker finds what is broken on purpose, in figures of known connections.

use super::{Figure, GONE, Moment, Segment, check};

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// Reads `FA` as FIN and ACK, `x` as dropped, `l` as late.
fn sent(from: usize, what: &str, seq: u32, acknowledges: u32) -> Moment {
    let digits: String = what.chars().filter(char::is_ascii_digit).collect();
    let segment = Segment {
        syn: what.contains('S'),
        fin: what.contains('F'),
        rst: what.contains('R'),
        ack: what.contains('A'),
        seq,
        acknowledges,
        length: digits.parse().unwrap_or(0),
        dropped: what.contains('x'),
        late: what.contains('l'),
    };
    Moment::Sent(from, segment)
}

fn turned(side: usize, state: &str) -> Moment {
    by("segment", side, state)
}

fn by(cause: &str, side: usize, state: &str) -> Moment {
    Moment::Turned {
        side,
        state: state.to_owned(),
        cause: cause.to_owned(),
        seen: true,
    }
}

/// A figure of which the kernel showed every state.
fn figure(moments: Vec<Moment>) -> Figure {
    let shown = [CLIENT, SERVER].map(|side| {
        let states = moments.iter().filter_map(|moment| match moment {
            Moment::Turned {
                side: of, state, ..
            } if *of == side => Some(state.clone()),
            _ => None,
        });
        states.collect()
    });
    Figure {
        title: String::new(),
        moments,
        shown,
    }
}

fn handshake() -> Vec<Moment> {
    vec![
        sent(CLIENT, "S", u32::MAX, 0),
        turned(CLIENT, "SYN_SENT"),
        turned(SERVER, "SYN_RECV"),
        sent(SERVER, "SA", 500, 0),
        turned(CLIENT, "ESTABLISHED"),
        sent(CLIENT, "A", 0, 501),
        turned(SERVER, "ESTABLISHED"),
    ]
}

fn orderly() -> Figure {
    let mut moments = handshake();
    moments.extend([
        sent(CLIENT, "FAx", 0, 501),
        turned(CLIENT, "FIN_WAIT1"),
        sent(CLIENT, "FA", 0, 501),
        turned(SERVER, "CLOSE_WAIT"),
        sent(SERVER, "A", 501, 1),
        turned(CLIENT, "FIN_WAIT2"),
        sent(SERVER, "FA", 501, 1),
        turned(SERVER, "LAST_ACK"),
        turned(CLIENT, "TIME_WAIT"),
        sent(CLIENT, "A", 1, 502),
        turned(SERVER, GONE),
    ]);
    figure(moments)
}

fn at_once() -> Figure {
    let mut moments = handshake();
    moments.extend([
        sent(CLIENT, "FAx", 0, 501),
        turned(CLIENT, "FIN_WAIT1"),
        sent(SERVER, "FA", 501, 0),
        turned(SERVER, "FIN_WAIT1"),
        turned(CLIENT, "CLOSING"),
        sent(CLIENT, "A", 1, 502),
        turned(SERVER, "FIN_WAIT2"),
        sent(CLIENT, "FA", 0, 502),
        turned(SERVER, "TIME_WAIT"),
        sent(SERVER, "A", 502, 1),
        turned(CLIENT, "TIME_WAIT"),
    ]);
    figure(moments)
}

/// A leaked connection, and a new one from the same port.
fn reused() -> Figure {
    let mut moments = handshake();
    moments.extend([
        sent(CLIENT, "FA", 0, 501),
        turned(CLIENT, "FIN_WAIT1"),
        turned(SERVER, "CLOSE_WAIT"),
        sent(SERVER, "A", 501, 1),
        turned(CLIENT, "FIN_WAIT2"),
        by("timer", CLIENT, GONE),
        sent(CLIENT, "S", 9_000, 0),
        turned(CLIENT, "SYN_SENT"),
        sent(SERVER, "A", 501, 1),
        sent(CLIENT, "R", 1, 0),
        turned(SERVER, GONE),
        sent(CLIENT, "S", 9_000, 0),
        turned(SERVER, "SYN_RECV"),
        sent(SERVER, "SA", 700, 9_001),
        turned(CLIENT, "ESTABLISHED"),
        sent(CLIENT, "A", 9_001, 701),
        turned(SERVER, "ESTABLISHED"),
    ]);
    figure(moments)
}

fn reset() -> Figure {
    let mut moments = handshake();
    moments.extend([
        sent(CLIENT, "A9", 0, 501),
        sent(SERVER, "A", 501, 9),
        sent(SERVER, "RA", 501, 9),
        turned(SERVER, GONE),
        turned(CLIENT, GONE),
    ]);
    figure(moments)
}

fn refused() -> Figure {
    figure(vec![
        sent(CLIENT, "S", 7, 0),
        turned(CLIENT, "SYN_SENT"),
        sent(SERVER, "RA", 0, 8),
        turned(CLIENT, GONE),
    ])
}

/// A late segment, which TIME_WAIT acknowledges; the peer answers RST.
fn late() -> Figure {
    let mut moments = handshake();
    moments.extend([
        sent(CLIENT, "A9", 0, 501),
        sent(SERVER, "A", 501, 9),
        sent(SERVER, "FA", 501, 9),
        turned(SERVER, "FIN_WAIT1"),
        turned(CLIENT, "CLOSE_WAIT"),
        sent(CLIENT, "FA", 9, 502),
        turned(CLIENT, "LAST_ACK"),
        turned(SERVER, "TIME_WAIT"),
        sent(SERVER, "A", 502, 10),
        turned(CLIENT, GONE),
        sent(CLIENT, "A9l", 0, 501),
        sent(SERVER, "A", 502, 10),
        sent(CLIENT, "R", 10, 0),
        turned(SERVER, GONE),
    ]);
    figure(moments)
}

/// The bytes of a client whose numbers were taken by a late segment.
const FRESH: Segment = Segment {
    syn: false,
    fin: false,
    rst: false,
    ack: true,
    seq: 0,
    acknowledges: 701,
    length: 9,
    dropped: false,
    late: false,
};

/// A late segment, which the next connection takes for its own; then the client's own bytes count as repeated.
fn taken() -> Figure {
    let mut moments = handshake();
    moments.extend([
        sent(CLIENT, "A9", 0, 501),
        sent(SERVER, "A", 501, 9),
        sent(CLIENT, "RA", 9, 501),
        turned(CLIENT, GONE),
        turned(SERVER, GONE),
        sent(CLIENT, "S", u32::MAX, 0),
        turned(CLIENT, "SYN_SENT"),
        turned(SERVER, "SYN_RECV"),
        sent(SERVER, "SA", 700, 0),
        turned(CLIENT, "ESTABLISHED"),
        sent(CLIENT, "A", 0, 701),
        turned(SERVER, "ESTABLISHED"),
        sent(CLIENT, "A9l", 0, 501),
        sent(SERVER, "A", 701, 9),
        Moment::Sent(CLIENT, FRESH),
        sent(SERVER, "A", 701, 9),
    ]);
    figure(moments)
}

fn all() -> [Figure; 7] {
    let mut refused = refused();
    refused.shown[SERVER] = vec![GONE.to_owned()];
    let (late, taken) = (late(), taken());
    [
        orderly(),
        at_once(),
        reused(),
        reset(),
        refused,
        late,
        taken,
    ]
}

#[track_caller]
fn assert_broken(figure: &Figure, how: &str) {
    assert!(check(figure).is_err(), "not found: {how}: {figure:#?}");
}

#[test]
fn true_figures_break_no_rule() {
    for figure in all() {
        assert_eq!(check(&figure), Ok(()), "{figure:#?}");
    }
}

#[test]
fn a_moment_that_is_left_out_is_found() {
    for figure in all() {
        for number in 0..figure.moments.len() {
            let mut broken = figure.clone();
            match broken.moments.remove(number) {
                // The next segment has it too.
                Moment::Sent(_, Segment { dropped: true, .. }) => continue,
                Moment::Sent(
                    _,
                    Segment {
                        fin: false,
                        length: 0,
                        ack: true,
                        ..
                    },
                ) if is_repeated(&figure, number) => {
                    continue;
                }
                // Its numbers were taken by the late one.
                Moment::Sent(CLIENT, segment) if segment == FRESH => continue,
                left_out => assert_broken(&broken, &format!("without {number}: {left_out:?}")),
            }
        }
    }
}

/// Whether an acknowledgement changes no state.
fn is_repeated(figure: &Figure, number: usize) -> bool {
    let Moment::Sent(_, segment) = figure.moments[number] else {
        return false;
    };
    let is_plain = !segment.syn && !segment.rst;
    is_plain && !matches!(figure.moments.get(number + 1), Some(Moment::Turned { .. }))
}

#[test]
fn segments_that_are_exchanged_are_found() {
    for figure in all() {
        let segments: Vec<usize> = (0..figure.moments.len())
            .filter(|number| matches!(figure.moments[*number], Moment::Sent(..)))
            .collect();
        for pair in segments.windows(2) {
            let is_free = |number: &usize| figure.moments[*number] == Moment::Sent(CLIENT, FRESH);
            if figure.moments[pair[0]] == figure.moments[pair[1]] || pair.iter().any(is_free) {
                continue;
            }
            let mut broken = figure.clone();
            broken.moments.swap(pair[0], pair[1]);
            assert_broken(&broken, &format!("{pair:?} exchanged"));
        }
    }
}

#[test]
fn another_sender_number_or_flag_is_found() {
    let figure = orderly();
    for (number, moment) in figure.moments.iter().enumerate() {
        let Moment::Sent(side, segment) = *moment else {
            continue;
        };
        let seq = segment.seq.wrapping_sub(5);
        let acknowledges = segment.acknowledges.wrapping_add(5);
        let changes = [
            (1 - side, segment),
            (side, Segment { seq, ..segment }),
            (
                side,
                Segment {
                    acknowledges,
                    ..segment
                },
            ),
            (
                side,
                Segment {
                    rst: true,
                    ..segment
                },
            ),
            (
                side,
                Segment {
                    fin: !segment.fin,
                    ..segment
                },
            ),
            (
                side,
                Segment {
                    dropped: !segment.dropped,
                    ..segment
                },
            ),
        ];
        for (side, segment) in changes {
            // The number of a first SYN is free, and it acknowledges nothing.
            if number == 0
                && segment.syn
                && !segment.ack
                && side == CLIENT
                && !segment.rst
                && !segment.fin
                && !segment.dropped
            {
                continue;
            }
            let mut broken = figure.clone();
            broken.moments[number] = Moment::Sent(side, segment);
            assert_broken(&broken, &format!("{number} is {segment:?} from {side}"));
        }
    }
}

#[test]
fn a_late_segment_that_is_no_copy_is_found() {
    for figure in [late(), taken()] {
        for (number, moment) in figure.moments.iter().enumerate() {
            let Moment::Sent(side, segment @ Segment { late: true, .. }) = *moment else {
                continue;
            };
            let seq = segment.seq.wrapping_add(1);
            for (side, segment) in [
                (1 - side, segment),
                (side, Segment { seq, ..segment }),
                (
                    side,
                    Segment {
                        length: 8,
                        ..segment
                    },
                ),
                (
                    side,
                    Segment {
                        acknowledges: 502,
                        ..segment
                    },
                ),
                (
                    side,
                    Segment {
                        late: false,
                        ..segment
                    },
                ),
            ] {
                let mut broken = figure.clone();
                broken.moments[number] = Moment::Sent(side, segment);
                assert_broken(&broken, &format!("{number} is {segment:?} from {side}"));
            }
        }
    }
}

#[test]
fn a_state_that_the_kernel_did_not_show_is_found() {
    for figure in all() {
        for side in [CLIENT, SERVER] {
            for number in 0..figure.shown[side].len() {
                let mut broken = figure.clone();
                broken.shown[side].remove(number);
                // A state that it has twice is still shown once.
                if broken.shown[side].contains(&figure.shown[side][number]) {
                    continue;
                }
                if figure.shown[side][number] != GONE || !figure.moments.is_empty() {
                    assert_broken(&broken, &format!("{side} without {number}"));
                }
            }
            let mut broken = figure.clone();
            broken.shown[side].push("CLOSING".to_owned());
            assert_broken(&broken, "another state at the end");
        }
    }
}
