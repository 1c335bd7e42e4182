use std::time::{Duration, Instant};

use super::*;
use crate::lab::end::Ends;
use crate::lab::picture::{Segment, What};
use crate::lab::record::in_words;
use crate::lab::record::states::{Look, Seen};
use crate::sockets::State::{
    self, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynSent, TimeWait,
};
use Side::{Client, Server};

/// A connection that is made up, millisecond by millisecond.
struct Made {
    begin: Instant,
    now: u64,
    evidence: Evidence,
}

fn ends() -> Ends {
    Ends {
        client: ([127, 0, 0, 1], 1).into(),
        server: ([127, 0, 0, 1], 2).into(),
    }
}

impl Made {
    /// A connection, of which the server's end is a socket of this process or not.
    fn connection(holds_server: bool) -> Made {
        let evidence = Evidence {
            seen: Vec::new(),
            calls: Vec::new(),
            segments: Vec::new(),
            holds_server,
        };
        let (begin, now) = (Instant::now(), 0);
        let mut made = Made {
            begin,
            now,
            evidence,
        };
        made.look(None, None);
        made.does(Client, Does::Connect);
        made.look(Some(Established), Some(Established));
        if holds_server {
            made.does(Server, Does::Accept);
        }
        made
    }

    fn at(&mut self) -> Instant {
        self.now += 1;
        self.begin + Duration::from_millis(self.now)
    }

    fn does(&mut self, side: Side, does: Does) {
        let began = self.at();
        let ended = Some(self.at());
        let by = Caller::End(ends(), side);
        self.evidence.calls.push(Call {
            began,
            ended,
            by,
            does,
        });
    }

    /// The socket table shows these states.
    fn look(&mut self, client: Option<State>, server: Option<State>) {
        for (side, state) in [(Client, client), (Server, server)] {
            let look = Look {
                asked: self.at(),
                answered: self.at(),
            };
            let last = self.evidence.seen.iter_mut().rfind(|it| it.side == side);
            match last {
                Some(same) if same.state == state => same.last = look,
                _ => self.evidence.seen.push(Seen {
                    ends: ends(),
                    side,
                    state,
                    first: look,
                    last: look,
                }),
            }
        }
    }

    /// Returns the events after the handshake, in words; a state that was seen has an exclamation mark.
    fn words(&self) -> String {
        let events = events(&self.evidence).expect("a course of events");
        let words: Vec<String> = events.iter().map(|event| in_short(&event.1)).collect();
        let words = words.join(" ");
        let after = words.split_once("s:ESTABLISHED! ");
        after.map_or(words.clone(), |after| after.1.to_owned())
    }
}

fn in_short(what: &What) -> String {
    let of = |side: &Side| &side.name()[..1];
    match what {
        What::Sent { from, segment } => {
            let Segment {
                syn,
                fin,
                rst,
                ack,
                length,
                dropped,
                ..
            } = *segment;
            let mut flags = String::new();
            let letters = [
                (syn, "S"),
                (fin, "F"),
                (rst, "R"),
                (ack, "A"),
                (dropped, "x"),
            ];
            flags.extend(letters.iter().filter(|it| it.0).map(|it| it.1));
            let length = if length > 0 {
                length.to_string()
            } else {
                String::new()
            };
            let arrow = if *from == Client { ">" } else { "<" };
            format!("{arrow}{flags}{length}")
        }
        What::Turned {
            side, state, seen, ..
        } => {
            let seen = if *seen { "!" } else { "" };
            format!("{}:{}{seen}", of(side), in_words(*state))
        }
        What::Did { text, .. } => text.clone(),
    }
}

#[test]
fn a_close_has_both_fins_though_its_states_were_too_short_to_see() {
    let mut made = Made::connection(true);
    made.does(Client, Does::Close);
    made.does(Server, Does::ReadEnd);
    made.does(Server, Does::Close);
    made.look(Some(TimeWait), None);
    let all = ">FA c:FIN_WAIT1 s:CLOSE_WAIT <A c:FIN_WAIT2 <FA s:LAST_ACK c:TIME_WAIT! >A s:gone!";
    assert_eq!(made.words(), all);
}

#[test]
fn states_that_were_seen_are_passed_in_their_order() {
    let mut made = Made::connection(true);
    made.does(Client, Does::FinishWriting);
    made.look(Some(FinWait1), Some(CloseWait));
    made.look(Some(FinWait2), Some(CloseWait));
    made.does(Server, Does::Close);
    made.look(Some(FinWait2), Some(LastAck));
    made.look(Some(TimeWait), None);
    let all =
        ">FA c:FIN_WAIT1! s:CLOSE_WAIT! <A c:FIN_WAIT2! <FA s:LAST_ACK! c:TIME_WAIT! >A s:gone!";
    assert_eq!(made.words(), all);
}

#[test]
fn an_acknowledgement_that_was_not_there_yet_comes_with_the_fin() {
    let mut made = Made::connection(true);
    made.does(Client, Does::FinishWriting);
    made.look(Some(FinWait1), Some(CloseWait));
    made.does(Server, Does::Close);
    // The last look at the client is after the call began.
    let late = made.at();
    let client = made.evidence.seen.iter_mut().rfind(|it| it.side == Client);
    client.expect("the client").last = Look {
        asked: late,
        answered: late,
    };
    made.look(Some(TimeWait), None);
    let all = ">FA c:FIN_WAIT1! s:CLOSE_WAIT! <FA s:LAST_ACK c:TIME_WAIT! >A s:gone!";
    assert_eq!(made.words(), all);
}

#[test]
fn an_acknowledgement_arrives_before_its_receiver_sends_more() {
    let mut made = Made::connection(true);
    made.does(Client, Does::Send(8));
    made.does(Client, Does::FinishWriting);
    // The call of the first look is not over when the look is.
    let (from, until) = (made.evidence.calls[2].began, made.at());
    made.evidence.calls[2].ended = Some(until);
    made.evidence.calls[3].began = from;
    made.look(Some(FinWait1), Some(CloseWait));
    made.look(Some(FinWait2), Some(CloseWait));
    let all = ">A8 <A >FA c:FIN_WAIT1! s:CLOSE_WAIT! <A c:FIN_WAIT2!";
    assert_eq!(made.words(), all);
}

#[test]
fn unread_bytes_make_a_close_a_reset() {
    let mut made = Made::connection(true);
    made.does(Client, Does::Send(9));
    made.does(Server, Does::Close);
    made.look(None, None);
    assert_eq!(made.words(), ">A9 <A <RA s:gone! c:gone!");

    let mut made = Made::connection(true);
    made.does(Client, Does::Send(9));
    made.does(Server, Does::Read(9));
    made.does(Server, Does::Close);
    made.look(Some(CloseWait), Some(FinWait2));
    assert_eq!(
        made.words(),
        ">A9 <A <FA s:FIN_WAIT1 c:CLOSE_WAIT! >A s:FIN_WAIT2!"
    );
}

#[test]
fn bytes_for_a_socket_without_a_process_are_answered_by_rst() {
    let mut made = Made::connection(true);
    made.does(Server, Does::Close);
    made.look(Some(CloseWait), Some(FinWait2));
    made.does(Client, Does::Send(6));
    made.look(None, None);
    let all = "<FA s:FIN_WAIT1 c:CLOSE_WAIT! >A s:FIN_WAIT2! >A6 <R s:gone! c:gone!";
    assert_eq!(made.words(), all);
}

#[test]
fn the_calls_of_another_process_are_inferred_too() {
    let mut made = Made::connection(false);
    made.does(Client, Does::Send(5));
    made.does(Client, Does::Read(5));
    made.does(Client, Does::Close);
    made.look(Some(TimeWait), None);
    let words = made.words();
    assert!(words.starts_with(">A5 <A <A5 >A >FA"), "{words}");
    assert!(
        words.ends_with("<FA s:LAST_ACK c:TIME_WAIT! >A s:gone!"),
        "{words}"
    );
}

#[test]
fn a_leaked_connection_is_ended_by_a_challenge_and_its_answer() {
    let mut made = Made::connection(false);
    made.does(Client, Does::Close);
    made.look(Some(FinWait2), Some(CloseWait));
    made.look(None, Some(CloseWait));
    made.does(Client, Does::Connect);
    made.look(Some(SynSent), Some(CloseWait));
    made.look(Some(Established), Some(Established));
    let all = ">FA c:FIN_WAIT1 s:CLOSE_WAIT! <A c:FIN_WAIT2! c:gone! >S c:SYN_SENT! <A >R s:gone >S \
               s:SYN_RECV <SA c:ESTABLISHED! >A s:ESTABLISHED!";
    assert_eq!(made.words(), all);
}

#[test]
fn segments_to_a_deaf_end_are_dropped_and_sent_again() {
    let mut made = Made::connection(true);
    made.does(Server, Does::Deaf(true));
    made.does(Client, Does::FinishWriting);
    made.look(Some(FinWait1), Some(Established));
    made.does(Server, Does::Deaf(false));
    made.look(Some(FinWait2), Some(CloseWait));
    let all = ">FAx c:FIN_WAIT1! >FA s:CLOSE_WAIT! <A c:FIN_WAIT2!";
    assert_eq!(made.words(), all);
}

#[test]
fn a_fin_waits_behind_bytes_that_do_not_fit() {
    let mut made = Made::connection(true);
    made.does(Client, Does::Send(100));
    made.does(Client, Does::Send(50));
    made.does(Client, Does::Fill(60));
    made.does(Client, Does::FinishWriting);
    made.look(Some(FinWait1), Some(Established));
    made.does(Server, Does::Read(60));
    made.does(Server, Does::Read(90));
    made.does(Server, Does::ReadEnd);
    made.look(Some(FinWait2), Some(CloseWait));
    let all = ">A60 <A c:FIN_WAIT1! <A >A90 >FA s:CLOSE_WAIT! <A c:FIN_WAIT2!";
    assert_eq!(made.words(), all);
}

#[test]
fn a_queue_that_is_closed_is_reset() {
    let mut made = Made::connection(true);
    made.evidence.calls.retain(|call| call.does != Does::Accept);
    let began = made.at();
    made.evidence.calls.push(Call {
        began,
        ended: None,
        by: Caller::Listener(ends().server),
        does: Does::Close,
    });
    made.look(None, None);
    assert_eq!(made.words(), "<RA s:gone! c:gone!");
}

#[test]
fn without_a_possible_course_there_is_no_picture_but_a_reason() {
    let mut made = Made::connection(true);
    made.look(Some(Closing), Some(Established));
    let why = "no course of events that this program could find leads to the client CLOSING";
    let trouble = events(&made.evidence).expect_err("no client is in CLOSING by itself");
    assert_eq!(trouble, Trouble::Unclear(why.to_owned()));
}
