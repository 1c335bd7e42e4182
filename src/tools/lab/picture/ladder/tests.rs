use super::super::{Picture, samples};
use super::*;

fn sides() -> [(String, String); 2] {
    [("client", "1"), ("server", "2")].map(|(name, address)| (name.to_owned(), address.to_owned()))
}

#[track_caller]
fn assert_no_labels_overlap(ladder: &Ladder) {
    let (sheet, height) = sheet(ladder);
    let labels = sheet.labels();
    for (number, one) in labels.iter().enumerate() {
        let [left, top, right, bottom] = one.area();
        assert!(
            left >= 0.0 && top >= 0.0 && right <= WIDTH && bottom <= height,
            "outside: {one:?}"
        );
        for other in &labels[number + 1..] {
            let [its_left, its_top, its_right, its_bottom] = other.area();
            let apart =
                right <= its_left || its_right <= left || bottom <= its_top || its_bottom <= top;
            assert!(apart, "{one:?}\noverlaps {other:?}");
        }
    }
}

#[test]
fn no_labels_of_the_samples_overlap() {
    for (_, picture) in samples::ladders() {
        let Picture::Ladder(ladder) = picture else {
            unreachable!("they are ladders")
        };
        assert_no_labels_overlap(&ladder);
    }
}

/// Pseudo-random numbers, the same in each run: Knuth's linear congruential generator.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn side(&mut self) -> Side {
        SIDES[self.below(2) as usize]
    }

    fn text(&mut self) -> String {
        let words = [
            "closes",
            "a",
            "the server's",
            "/var/lib/a-file-of-some-length/and/more",
        ];
        let mut word = || words[self.below(4) as usize];
        [word(), word(), word()].join(" ")
    }

    /// One that TCP may send: no data in a SYN or an RST, and a copy that comes late has data alone.
    fn segment(&mut self) -> Segment {
        let (syn, rst) = (self.below(4) == 0, self.below(9) == 0);
        let has_data = !syn && !rst && self.below(2) == 0;
        let late = has_data && self.below(3) == 0;
        Segment {
            syn,
            fin: !late && self.below(3) == 0,
            rst,
            ack: self.below(4) > 0,
            length: if has_data { 65_483 } else { 0 },
            dropped: !late && self.below(4) == 0,
            late,
            ..Segment::default()
        }
    }

    fn moment(&mut self, at: Duration) -> Moment {
        let states = [
            State::SynSent,
            State::Established,
            State::FinWait1,
            State::FinWait2,
            State::CloseWait,
            State::Closing,
            State::LastAck,
            State::TimeWait,
        ];
        let what = match self.below(4) {
            0 => What::Turned {
                side: self.side(),
                state: states.get(self.below(9) as usize).copied(),
                cause: [Cause::Segment, Cause::Call, Cause::Timer][self.below(3) as usize],
                seen: self.below(2) == 0,
            },
            1 => What::Did {
                side: Some(self.side()).filter(|_| self.below(3) > 0),
                text: self.text(),
            },
            _ => What::Sent {
                from: self.side(),
                segment: self.segment(),
            },
        };
        Moment { at, what }
    }

    fn ladder(&mut self) -> Ladder {
        let mut at = Duration::ZERO;
        let moments = (0..40).map(|_| {
            at += Duration::from_micros([0, 20, 900, 8_000, 250_000][self.below(5) as usize]);
            self.moment(at)
        });
        let moments = moments.collect();
        Ladder {
            title: self.text(),
            sides: sides(),
            moments,
            shown: Vec::new(),
            captured: self.below(2) == 0,
        }
    }
}

#[test]
fn no_labels_of_random_ladders_overlap() {
    for seed in 0..200 {
        let ladder = Dice(seed).ladder();
        assert_no_labels_overlap(&ladder);
    }
}

#[test]
fn no_moment_is_left_out() {
    for seed in 0..200 {
        let ladder = Dice(seed).ladder();
        let (mut turned, mut sent, mut did) = (0, 0, 0);
        for row in rows(&ladder.moments) {
            sent += usize::from(matches!(row.middle, Middle::Segment { .. }));
            did += usize::from(matches!(row.middle, Middle::Action(_)));
            did += row.actions.concat().len();
            for entry in row.entries.concat() {
                match entry {
                    Entry::Turned(_) => turned += 1,
                    Entry::Did(_) => did += 1,
                }
            }
        }
        let count = |is: fn(&What) -> bool| ladder.moments.iter().filter(|it| is(&it.what)).count();
        assert_eq!(turned, count(|what| matches!(what, What::Turned { .. })));
        assert_eq!(sent, count(|what| matches!(what, What::Sent { .. })));
        assert_eq!(did, count(|what| matches!(what, What::Did { .. })));
    }
}

const FIN: Segment = Segment {
    syn: false,
    fin: true,
    rst: false,
    ack: true,
    seq: 0,
    acknowledges: 0,
    length: 0,
    dropped: false,
    late: false,
};

fn fin(micros: u64, dropped: bool) -> Moment {
    let segment = Segment { dropped, ..FIN };
    let from = Side::Client;
    Moment {
        at: Duration::from_micros(micros),
        what: What::Sent { from, segment },
    }
}

fn turned(side: Side, state: State, cause: Cause) -> Moment {
    Moment {
        at: Duration::from_millis(1),
        what: What::Turned {
            side,
            state: Some(state),
            cause,
            seen: true,
        },
    }
}

fn entry(state: State, cause: Cause) -> Entry {
    Entry::Turned(Turn {
        state: Some(state),
        cause,
        seen: true,
    })
}

#[test]
fn a_state_is_beside_the_segment_that_causes_it() {
    let moments = [
        fin(0, false),
        turned(Side::Client, State::FinWait1, Cause::Segment),
        turned(Side::Server, State::CloseWait, Cause::Segment),
    ];
    let rows = rows(&moments);
    let [row] = rows.as_slice() else {
        panic!("{rows:?}");
    };
    assert_eq!(row.entries[0], [entry(State::FinWait1, Cause::Segment)]);
    assert_eq!(row.entries[1], [entry(State::CloseWait, Cause::Segment)]);
}

#[test]
fn a_state_that_no_segment_causes_has_a_row_of_its_own() {
    for cause in [Cause::Call, Cause::Timer] {
        let rows = rows(&[fin(0, false), turned(Side::Client, State::LastAck, cause)]);
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_eq!(rows[1].middle, Middle::Nothing);
        assert_eq!(rows[1].entries[0], [entry(State::LastAck, cause)]);
    }
}

#[test]
fn a_long_time_without_events_breaks_the_lines() {
    let moments = [fin(0, true), fin(60_000_000, false)];
    let gap = Duration::from_secs(60);
    assert_eq!(rows(&moments)[1].middle, Middle::Break(gap));
}

#[test]
fn a_segment_is_named_by_its_flags_and_length() {
    let data = Segment {
        fin: false,
        length: 1,
        ..FIN
    };
    assert_eq!(name(FIN), "FIN, ACK");
    assert_eq!(name(data), "1 byte");
    assert_eq!(name(Segment::default()), "no flag");
}
