use super::*;
use crate::lab::end::Ends;
use crate::lab::record::journal::{Call, Does};
use crate::lab::record::{in_order, in_words};
use crate::sockets::State::{CloseWait, Established, SynSent};
use Side::{Client, Server};

/// A connection that was captured, by microseconds.
struct Made {
    begin: Instant,
    evidence: Evidence,
}

fn ends() -> Ends {
    Ends {
        client: ([127, 0, 0, 1], 1).into(),
        server: ([127, 0, 0, 1], 2).into(),
    }
}

/// Reads `FA` as FIN and ACK, `l` as late, and a digit as bytes.
fn segment(what: &str, seq: u32, acknowledges: u32) -> Segment {
    Segment {
        syn: what.contains('S'),
        fin: what.contains('F'),
        rst: what.contains('R'),
        ack: what.contains('A'),
        seq,
        acknowledges,
        length: what.matches('1').count(),
        dropped: false,
        late: what.contains('l'),
    }
}

impl Made {
    fn connection() -> Made {
        let mut made = Made {
            begin: Instant::now(),
            evidence: Evidence {
                seen: Vec::new(),
                calls: Vec::new(),
                segments: Vec::new(),
                holds_server: true,
            },
        };
        made.sent(0, Client, segment("S", 100, 0));
        made.sent(20, Server, segment("SA", 500, 101));
        made.sent(40, Client, segment("A", 101, 501));
        made.look(1_000, Client, Some(Established));
        made.look(1_010, Server, Some(Established));
        made
    }

    fn at(&self, micros: u64) -> Instant {
        self.begin + Duration::from_micros(micros)
    }

    fn sent(&mut self, micros: u64, from: Side, segment: Segment) {
        let at = self.at(micros);
        self.evidence.segments.push((at, from, segment));
    }

    fn look(&mut self, micros: u64, side: Side, state: Option<State>) {
        let look = Look {
            asked: self.at(micros),
            answered: self.at(micros + 5),
        };
        self.evidence.seen.push(Seen {
            ends: ends(),
            side,
            state,
            first: look,
            last: look,
        });
    }

    fn does(&mut self, micros: u64, side: Side, does: Does) {
        self.evidence.calls.push(Call {
            began: self.at(micros),
            ended: Some(self.at(micros + 5)),
            by: Caller::End(ends(), side),
            does,
        });
    }

    /// A close by four segments, by the client first.
    fn close(&mut self, micros: u64) {
        self.sent(micros, Client, segment("FA", 101, 501));
        self.sent(micros + 10, Server, segment("A", 501, 102));
        self.sent(micros + 20, Server, segment("FA", 501, 102));
        self.sent(micros + 30, Client, segment("A", 102, 502));
    }

    /// Returns the states of a side, with an exclamation mark if they were seen, and the causes other than
    /// segments.
    fn states(&self, of: Side) -> String {
        let events = events(&self.evidence).expect("no contradiction");
        let words = events.iter().filter_map(|event| match event.1 {
            What::Turned {
                side,
                state,
                cause,
                seen,
            } if side == of => {
                let seen = if seen { "!" } else { "" };
                let by = match cause {
                    Cause::Segment => "",
                    Cause::Call => " by a call",
                    Cause::Timer => " by a timer",
                };
                Some(format!("{}{seen}{by}", in_words(state)))
            }
            _ => None,
        });
        words.collect::<Vec<_>>().join(", ")
    }

    #[track_caller]
    fn contradicts(&self, what: &str) {
        let trouble = events(&self.evidence).expect_err("a contradiction");
        assert_eq!(trouble, Trouble::Contradiction(what.to_owned()));
    }
}

#[test]
fn the_states_between_two_looks_follow_from_the_segments() {
    let mut made = Made::connection();
    made.close(5_000);
    made.look(6_000, Client, Some(TimeWait));
    made.look(6_010, Server, None);
    let client = "SYN_SENT, ESTABLISHED!, FIN_WAIT1, FIN_WAIT2, TIME_WAIT!";
    let server = "SYN_RECV, ESTABLISHED!, CLOSE_WAIT, LAST_ACK, gone!";
    assert_eq!(made.states(Client), client);
    assert_eq!(made.states(Server), server);
}

#[test]
fn a_look_and_a_segment_at_about_the_same_time_may_be_in_either_order() {
    let mut made = Made::connection();
    made.close(5_000);
    // The time of the segment is that of its queueing; the socket may change a moment before or after.
    made.look(4_995, Client, Some(FinWait1));
    made.look(5_200, Server, Some(CloseWait));
    made.look(6_000, Client, Some(TimeWait));
    made.look(6_010, Server, None);
    assert!(made.states(Client).contains("FIN_WAIT1!"));
    assert!(made.states(Server).contains("CLOSE_WAIT!"));
}

#[test]
fn a_state_that_the_segments_do_not_imply_is_a_contradiction() {
    let mut made = Made::connection();
    made.close(5_000);
    made.look(6_000, Client, Some(CloseWait));
    made.contradicts("the kernel showed the client CLOSE_WAIT, where the segments imply TIME_WAIT");
}

#[test]
fn states_in_another_order_are_a_contradiction() {
    let mut made = Made::connection();
    made.close(5_000);
    made.look(5_015, Client, Some(FinWait2));
    made.look(5_020, Client, Some(FinWait1));
    made.contradicts("the kernel showed the client FIN_WAIT1, where the segments imply TIME_WAIT");
}

#[test]
fn a_state_long_before_its_segment_is_a_contradiction() {
    let mut made = Made::connection();
    made.look(2_000, Server, Some(CloseWait));
    made.close(900_000);
    made.look(901_000, Client, Some(TimeWait));
    made.contradicts(
        "the kernel showed the server CLOSE_WAIT, where the segments imply ESTABLISHED",
    );
}

#[test]
fn a_last_look_that_shows_an_earlier_state_is_a_contradiction() {
    let mut made = Made::connection();
    made.close(5_000);
    made.evidence.seen.retain(|seen| seen.side == Client);
    made.look(900_000, Client, Some(FinWait2));
    made.contradicts("the kernel showed the client FIN_WAIT2, where the segments imply TIME_WAIT");
}

#[test]
fn a_close_whose_fin_waits_is_a_change_of_its_own() {
    let mut made = Made::connection();
    // No look shows it: the thread that looks had no processor.
    made.does(2_000, Client, Does::FinishWriting);
    made.sent(9_000, Client, segment("1A", 101, 501));
    made.sent(9_010, Client, segment("FA", 102, 501));
    made.sent(9_020, Server, segment("A", 501, 103));
    made.look(9_500, Client, Some(FinWait2));
    made.look(9_510, Server, Some(CloseWait));
    let client = "SYN_SENT, ESTABLISHED!, FIN_WAIT1 by a call, FIN_WAIT2!";
    assert_eq!(made.states(Client), client);
}

#[test]
fn a_close_by_another_process_whose_fin_waits_is_seen() {
    let mut made = Made::connection();
    made.look(2_000, Server, Some(FinWait1));
    made.sent(900_000, Server, segment("1FA", 501, 101));
    made.sent(900_010, Client, segment("A", 101, 503));
    made.look(901_000, Client, Some(CloseWait));
    made.look(901_010, Server, Some(FinWait2));
    let server = "SYN_RECV, ESTABLISHED!, FIN_WAIT1! by a call, FIN_WAIT2!";
    assert_eq!(made.states(Server), server);
}

#[test]
fn a_look_may_come_between_the_two_effects_of_a_fin_that_also_acknowledges() {
    for looks in [true, false] {
        let mut made = Made::connection();
        made.sent(5_000, Client, segment("FA", 101, 501));
        made.sent(5_010, Server, segment("FA", 501, 102));
        if looks {
            made.look(5_012, Client, Some(FinWait2));
        }
        made.sent(5_020, Client, segment("A", 102, 502));
        made.look(6_000, Client, Some(TimeWait));
        made.look(6_010, Server, None);
        let between = if looks { "FIN_WAIT2!, " } else { "" };
        let client = format!("SYN_SENT, ESTABLISHED!, FIN_WAIT1, {between}TIME_WAIT!");
        assert_eq!(made.states(Client), client);
    }
}

#[test]
fn a_fin_that_is_answered_by_rst_came_to_a_socket_whose_timer_had_ended() {
    // With and without a look between the end of the timer and the FIN.
    for looks in [true, false] {
        let mut made = Made::connection();
        made.sent(5_000, Client, segment("FA", 101, 501));
        made.sent(5_010, Server, segment("A", 501, 102));
        made.look(6_000, Client, Some(FinWait2));
        made.look(6_010, Server, Some(CloseWait));
        if looks {
            made.look(1_005_000, Client, None);
        }
        made.sent(1_006_000, Server, segment("FA", 501, 102));
        made.sent(1_006_010, Client, segment("R", 102, 0));
        made.look(1_007_000, Client, None);
        made.look(1_007_010, Server, None);
        let client = "SYN_SENT, ESTABLISHED!, FIN_WAIT1, FIN_WAIT2!, gone! by a timer";
        assert_eq!(made.states(Client), client);
    }
}

#[test]
fn a_socket_whose_timer_ends_is_gone() {
    let mut made = Made::connection();
    made.sent(5_000, Client, segment("FA", 101, 501));
    made.sent(5_010, Server, segment("A", 501, 102));
    made.look(6_000, Client, Some(FinWait2));
    made.look(6_010, Server, Some(CloseWait));
    made.look(1_006_000, Client, None);
    made.sent(1_026_000, Client, segment("S", 7_000, 0));
    made.look(1_027_000, Client, Some(SynSent));
    let client = "SYN_SENT, ESTABLISHED!, FIN_WAIT1, FIN_WAIT2!, gone! by a timer, SYN_SENT!";
    assert_eq!(made.states(Client), client);
}

#[test]
fn a_segment_to_a_deaf_end_is_dropped() {
    let mut made = Made::connection();
    made.does(2_000, Server, Does::Deaf(true));
    made.does(9_000, Server, Does::Deaf(false));
    for micros in [3_000, 8_000, 200_000] {
        made.sent(micros, Client, segment("FA", 101, 501));
    }
    made.sent(200_010, Server, segment("A", 501, 102));
    made.look(201_000, Client, Some(FinWait2));
    made.look(201_010, Server, Some(CloseWait));
    let events = events(&made.evidence).expect("no contradiction");
    let dropped = events.iter().filter_map(|event| match event.1 {
        What::Sent { segment, .. } if segment.fin => Some(segment.dropped),
        _ => None,
    });
    assert_eq!(dropped.collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn a_segment_that_no_socket_sends_leaves_no_picture() {
    let mut made = Made::connection();
    made.close(5_000);
    made.sent(6_000, Server, segment("1A", 502, 102));
    let why = "the server sends data where it should be gone".to_owned();
    assert_eq!(
        events(&made.evidence).expect_err("no socket"),
        Trouble::Unclear(why)
    );
}

#[test]
fn a_fin_that_is_sent_again_by_a_probe_arrived_the_first_time() {
    let mut made = Made::connection();
    made.sent(5_000, Client, segment("11FA", 101, 501));
    made.look(6_000, Server, Some(CloseWait));
    // Only its end.
    made.sent(13_000, Client, segment("1FA", 102, 501));
    made.sent(45_000, Server, segment("A", 501, 104));
    made.look(46_000, Client, Some(FinWait2));
    assert_eq!(made.states(Server), "SYN_RECV, ESTABLISHED!, CLOSE_WAIT!");
}

#[test]
fn a_challenge_and_its_answer_end_a_leak() {
    let mut made = Made::connection();
    made.sent(5_000, Client, segment("FA", 101, 501));
    made.sent(5_010, Server, segment("A", 501, 102));
    made.look(6_000, Client, Some(FinWait2));
    made.look(6_010, Server, Some(CloseWait));
    made.look(1_006_000, Client, None);
    made.sent(1_026_000, Client, segment("S", 7_000, 0));
    made.sent(1_026_010, Server, segment("A", 501, 102));
    made.sent(1_026_020, Client, segment("R", 102, 0));
    made.sent(1_036_000, Client, segment("S", 7_000, 0));
    made.sent(1_036_010, Server, segment("SA", 9_000, 7_001));
    made.sent(1_036_020, Client, segment("A", 7_001, 9_001));
    made.look(1_037_000, Client, Some(Established));
    made.look(1_037_010, Server, Some(Established));
    let server = "SYN_RECV, ESTABLISHED!, CLOSE_WAIT!, gone, SYN_RECV, ESTABLISHED!";
    assert_eq!(made.states(Server), server);
}

#[test]
fn a_peer_that_has_vanished_ends_a_socket_by_a_timer() {
    let mut made = Made::connection();
    for micros in [10_000, 1_010_000, 2_010_000] {
        // Keepalive probes.
        made.sent(micros, Client, segment("A", 100, 501));
    }
    made.look(3_010_000, Client, None);
    made.look(3_010_010, Server, Some(Established));
    assert_eq!(
        made.states(Client),
        "SYN_SENT, ESTABLISHED!, gone! by a timer"
    );

    let mut made = Made::connection();
    for micros in [10_000, 210_000, 630_000] {
        made.sent(micros, Client, segment("FA", 101, 501));
    }
    made.look(3_010_000, Client, None);
    made.look(3_010_010, Server, Some(Established));
    let client = "SYN_SENT, ESTABLISHED!, FIN_WAIT1, gone! by a timer";
    assert_eq!(made.states(Client), client);
}

#[test]
fn segments_that_cross_are_in_the_order_in_which_they_were_sent() {
    let mut made = Made::connection();
    made.does(2_000, Client, Does::Deaf(true));
    made.sent(3_000, Client, segment("FA", 101, 501));
    made.sent(3_010, Server, segment("A", 501, 102));
    made.sent(4_000, Server, segment("FA", 501, 102));
    made.does(9_000, Client, Does::Deaf(false));
    made.sent(200_000, Server, segment("FA", 501, 102));
    // Its timer has run out before that FIN arrived.
    made.sent(200_005, Client, segment("FA", 101, 501));
    made.sent(200_010, Server, segment("A", 502, 102));
    made.sent(200_015, Client, segment("A", 102, 502));
    made.look(201_000, Client, Some(TimeWait));
    made.look(201_010, Server, None);
    let client = "SYN_SENT, ESTABLISHED!, FIN_WAIT1, TIME_WAIT!";
    assert_eq!(made.states(Client), client);
}

#[test]
fn segments_that_two_processors_took_from_their_queues_are_put_in_order() {
    let mut made = Made::connection();
    made.sent(5_000, Client, segment("FA", 101, 501));
    made.sent(5_020, Server, segment("FA", 501, 102));
    // It was sent before that FIN.
    made.sent(5_030, Server, segment("A", 501, 101));
    made.sent(5_040, Client, segment("A", 102, 502));
    in_order(&mut made.evidence.segments);
    let acknowledges = made.evidence.segments.iter().filter(|it| it.1 == Server);
    let acknowledges: Vec<u32> = acknowledges.map(|it| it.2.acknowledges).collect();
    assert_eq!(acknowledges, [101, 101, 102]);
    assert!(made.evidence.segments.is_sorted_by_key(|it| it.0));
}

#[test]
fn a_late_segment_comes_from_no_socket_and_stays_where_it_arrived() {
    let mut made = Made::connection();
    made.sent(2_000, Server, segment("A1", 501, 101));
    made.sent(2_010, Client, segment("A", 101, 502));
    made.sent(3_000, Client, segment("FA", 101, 502));
    made.sent(3_010, Server, segment("FA", 502, 102));
    made.sent(3_020, Client, segment("A", 102, 503));
    // The server is gone.
    made.sent(9_000, Server, segment("A1l", 501, 101));
    made.sent(9_010, Client, segment("A", 102, 503));
    made.sent(9_020, Server, segment("R", 503, 0));
    in_order(&mut made.evidence.segments);
    made.look(20_000, Client, None);
    made.look(20_010, Server, None);
    assert!(made.states(Client).ends_with("TIME_WAIT, gone!"));
    let events = events(&made.evidence).expect("no contradiction");
    let mut sent = events.iter().filter_map(|event| match event.1 {
        What::Sent { segment, .. } => Some(segment),
        _ => None,
    });
    assert!(sent.nth(8).is_some_and(|it| it.late && !it.dropped));
    // Not marked, it comes from a socket that is gone.
    made.evidence.segments[8].2.late = false;
    assert!(super::events(&made.evidence).is_err());
}
