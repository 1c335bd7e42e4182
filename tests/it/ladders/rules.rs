//! The rules: RFC 9293, figure 5, as a table, and what a host may send in each state.

use super::{Figure, GONE, Moment, Segment};

/// An event that changes a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum On {
    SendSyn,
    SendFin,
    SendRst,
    HearSyn,
    HearSynAck,
    /// The acknowledgement of its own SYN.
    HearAckOfSyn,
    HearFin,
    /// The acknowledgement of its own FIN.
    HearAckOfFin,
    /// Both at once.
    HearFinAndAck,
    HearRst,
}

/// State, event, next state. No other event changes a state.
const TABLE: &[(&str, On, &str)] = &[
    (GONE, On::SendSyn, "SYN_SENT"),
    ("FIN_WAIT2", On::SendSyn, "SYN_SENT"),
    ("TIME_WAIT", On::SendSyn, "SYN_SENT"),
    (GONE, On::HearSyn, "SYN_RECV"),
    ("TIME_WAIT", On::HearSyn, "SYN_RECV"),
    ("SYN_SENT", On::HearSynAck, "ESTABLISHED"),
    ("SYN_RECV", On::HearAckOfSyn, "ESTABLISHED"),
    ("ESTABLISHED", On::SendFin, "FIN_WAIT1"),
    ("ESTABLISHED", On::HearFin, "CLOSE_WAIT"),
    ("CLOSE_WAIT", On::SendFin, "LAST_ACK"),
    ("FIN_WAIT1", On::HearAckOfFin, "FIN_WAIT2"),
    ("FIN_WAIT1", On::HearFin, "CLOSING"),
    ("FIN_WAIT1", On::HearFinAndAck, "TIME_WAIT"),
    ("FIN_WAIT2", On::HearFin, "TIME_WAIT"),
    ("CLOSING", On::HearAckOfFin, "TIME_WAIT"),
    ("LAST_ACK", On::HearAckOfFin, GONE),
];

/// The changes that a call makes whose FIN has to wait, and those of a timer.
const BY_CALL: [(&str, &str); 2] = [("ESTABLISHED", "FIN_WAIT1"), ("CLOSE_WAIT", "LAST_ACK")];
const BY_TIMER: [(&str, &str); 2] = [("FIN_WAIT2", GONE), ("TIME_WAIT", GONE)];

fn next(state: &str, on: On) -> Option<&'static str> {
    match on {
        On::SendRst if matches!(state, GONE | "SYN_SENT") => None,
        On::SendRst | On::HearRst if state != GONE => Some(GONE),
        _ => {
            let mut rows = TABLE.iter().filter(|row| row.0 == state && row.1 == on);
            rows.next().map(|row| row.2)
        }
    }
}

/// One side, by what the figure says of it.
struct Host {
    state: String,
    /// The state that the last segment leads to, until the figure says it.
    due: Option<&'static str>,
    /// The next number that it sends, once it has sent one.
    next: Option<u32>,
    /// Its last acknowledgement number.
    acknowledges: Option<u32>,
    /// The number that it has to hear next.
    heard: Option<u32>,
    /// The highest of its own numbers that the peer has acknowledged.
    acknowledged: Option<u32>,
    /// The number after its own FIN.
    fin: Option<u32>,
    /// Its last segment was dropped.
    unheard: bool,
    /// The last segment that has arrived, until another is sent.
    last_heard: Option<Segment>,
}

/// Returns the first rule that the figure breaks.
pub(crate) fn check(figure: &Figure) -> Result<(), String> {
    let mut hosts = [(); 2].map(|()| Host {
        state: GONE.to_owned(),
        due: None,
        next: None,
        acknowledges: None,
        heard: None,
        acknowledged: None,
        fin: None,
        unheard: false,
        last_heard: None,
    });
    for (number, moment) in figure.moments.iter().enumerate() {
        let checked = match moment {
            Moment::Did => Ok(()),
            Moment::Turned {
                side, state, cause, ..
            } => turned(&mut hosts[*side], state, cause),
            Moment::Sent(side, segment) => {
                let (before, after) = figure.moments.split_at(number);
                let is_copy = is_copy(before, *side, *segment);
                if segment.late && !is_copy {
                    Err(format!("no copy of an earlier one: {segment:?}"))
                } else {
                    sent(&mut hosts, *side, *segment, is_accepted(&after[1..]))
                }
            }
        };
        checked.map_err(|why| format!("moment {number}: {why}"))?;
    }
    for (side, host) in hosts.iter().enumerate() {
        if let Some(due) = host.due {
            return Err(format!("side {side} ends in {}, not in {due}", host.state));
        }
        as_shown(figure, side).map_err(|why| format!("side {side}: {why}"))?;
    }
    Ok(())
}

/// Whether this side has sent the same before.
fn is_copy(before: &[Moment], side: usize, it: Segment) -> bool {
    let earlier = Moment::Sent(side, Segment { late: false, ..it });
    before.contains(&earlier)
}

/// Whether the server answers the SYN before these moments with a SYN.
fn is_accepted(after: &[Moment]) -> bool {
    let answer = after.iter().find_map(|moment| match moment {
        Moment::Sent(1, segment) => Some(segment),
        _ => None,
    });
    answer.is_some_and(|segment| segment.syn)
}

fn turned(host: &mut Host, state: &str, cause: &str) -> Result<(), String> {
    let from = host.state.clone();
    let is_one_of = |pairs: [(&str, &str); 2]| pairs.contains(&(from.as_str(), state));
    // A kernel may show the acknowledgement of its FIN before it takes the FIN from the same segment.
    let is_on_the_way =
        (from.as_str(), state, host.due) == ("FIN_WAIT1", "FIN_WAIT2", Some("TIME_WAIT"));
    let is_allowed = match cause {
        "segment" if is_on_the_way => true,
        "segment" => host.due.take() == Some(state),
        "call" => host.due.is_none() && host.fin.is_none() && is_one_of(BY_CALL),
        // A segment that is not answered is sent again, and again, until the kernel gives up.
        "timer" => {
            let gives_up = host.unheard && from != GONE && state == GONE;
            host.due.is_none() && (is_one_of(BY_TIMER) || gives_up)
        }
        _ => false,
    };
    if !is_allowed {
        return Err(format!("{from} becomes {state} by no {cause}"));
    }
    state.clone_into(&mut host.state);
    Ok(())
}

fn sent(hosts: &mut [Host; 2], from: usize, it: Segment, is_accepted: bool) -> Result<(), String> {
    for host in hosts.iter() {
        if let Some(due) = host.due {
            return Err(format!("{} should have become {due}", host.state));
        }
    }
    let heard_by = 1 - from;
    if it.late {
        // No socket has sent it just now.
        let host = &mut hosts[heard_by];
        let on = hears(host, it, is_accepted);
        host.due = on.and_then(|on| next(&host.state, on));
        host.last_heard = Some(it);
        return Ok(());
    }
    may_send(&hosts[from], it)?;
    numbers(&mut hosts[from], it)?;
    let host = &mut hosts[from];
    (host.last_heard, host.unheard) = (None, it.dropped);
    let on = match it {
        Segment { rst: true, .. } => Some(On::SendRst),
        Segment {
            syn: true,
            ack: false,
            ..
        } => Some(On::SendSyn),
        Segment { fin: true, .. } => Some(On::SendFin),
        _ => None,
    };
    host.due = on.and_then(|on| next(&host.state, on));
    if it.fin {
        host.fin = Some(it.end());
    }
    if it.dropped {
        return Ok(());
    }
    let host = &mut hosts[heard_by];
    let on = hears(host, it, is_accepted);
    host.due = on.and_then(|on| next(&host.state, on));
    host.last_heard = Some(it);
    Ok(())
}

/// Whether a host in this state sends such a segment.
fn may_send(host: &Host, it: Segment) -> Result<(), String> {
    let state = host.state.as_str();
    let is_repeated = host.next.is_some_and(|next| !is_after(it.end(), next));
    let waits = host.fin.is_none();
    let allowed = match it {
        // To a segment that the host does not know; or the end of its own connection.
        Segment { rst: true, ack, .. } => match state {
            GONE | "SYN_SENT" => host.last_heard.is_some_and(|heard| !heard.rst),
            // These sockets acknowledge a FIN and a probe, and reset only data that no process will read.
            "FIN_WAIT2" | "TIME_WAIT" if !ack => {
                host.last_heard.is_some_and(|heard| heard.length > 0)
            }
            _ => true,
        },
        Segment {
            syn: true,
            ack: false,
            ..
        } => {
            matches!(state, GONE | "SYN_SENT" | "FIN_WAIT2" | "TIME_WAIT")
        }
        Segment { syn: true, .. } => state == "SYN_RECV",
        Segment {
            fin: false,
            length: 0,
            ..
        } => match state {
            GONE | "SYN_SENT" => false,
            // It has no timer to send by.
            "TIME_WAIT" => host.last_heard.is_some(),
            _ => true,
        },
        // A FIN or data.
        _ => match state {
            "ESTABLISHED" | "CLOSE_WAIT" => true,
            "FIN_WAIT1" | "CLOSING" | "LAST_ACK" => waits || is_repeated,
            _ => false,
        },
    };
    match allowed {
        true => Ok(()),
        false => Err(format!("a host that is {state} does not send {it:?}")),
    }
}

/// Whether the numbers follow those before.
fn numbers(host: &mut Host, it: Segment) -> Result<(), String> {
    if it.syn && !it.ack {
        let is_again = host.state == "SYN_SENT" && host.next == Some(it.end());
        if host.state == "SYN_SENT" && !is_again {
            return Err(format!("another SYN: {it:?}"));
        }
        host.next = Some(it.end());
        (host.acknowledges, host.heard, host.acknowledged, host.fin) = (None, None, None, None);
        return Ok(());
    }
    if it.rst
        && host
            .last_heard
            .is_some_and(|heard| heard.ack && heard.acknowledges == it.seq)
    {
        return Ok(());
    }
    if it.rst && matches!(host.state.as_str(), GONE | "SYN_SENT") {
        let is_answer = host
            .last_heard
            .is_some_and(|heard| it.acknowledges == heard.end());
        return if is_answer {
            Ok(())
        } else {
            Err(format!("an RST to nothing: {it:?}"))
        };
    }
    if let Some(next) = host.next.filter(|_| !it.syn) {
        // A probe has the number before.
        let is_next = it.seq == next || (it.end() == it.seq && it.seq == next.wrapping_sub(1));
        let is_again = it.end() != it.seq && !is_after(it.end(), next);
        if !is_next && !is_again {
            return Err(format!("{} was next: {it:?}", next));
        }
    }
    if host.next.is_none_or(|next| is_after(it.end(), next)) || it.syn {
        host.next = Some(it.end());
    }
    let is_falling = host
        .acknowledges
        .is_some_and(|last| is_after(last, it.acknowledges));
    let is_known = host
        .heard
        .is_some_and(|heard| !is_after(it.acknowledges, heard));
    if !it.ack || is_falling || !is_known {
        return Err(format!(
            "it acknowledges what has not arrived, or less than before: {it:?}"
        ));
    }
    host.acknowledges = Some(it.acknowledges);
    Ok(())
}

/// Returns the event of a segment that arrives.
fn hears(host: &mut Host, it: Segment, is_accepted: bool) -> Option<On> {
    let state = host.state.clone();
    if it.rst {
        let is_valid = match state.as_str() {
            "SYN_SENT" => it.ack && host.next == Some(it.acknowledges),
            _ => host.heard == Some(it.seq),
        };
        return is_valid.then_some(On::HearRst);
    }
    if it.syn {
        return match (it.ack, state.as_str()) {
            (false, GONE | "TIME_WAIT") if is_accepted => {
                (host.next, host.acknowledges, host.acknowledged, host.fin) =
                    (None, None, None, None);
                host.heard = Some(it.end());
                Some(On::HearSyn)
            }
            (true, "SYN_SENT") if host.next == Some(it.acknowledges) => {
                (host.heard, host.acknowledged) = (Some(it.end()), Some(it.acknowledges));
                Some(On::HearSynAck)
            }
            _ => None,
        };
    }
    if matches!(state.as_str(), GONE | "SYN_SENT") {
        return None;
    }
    let is_more = host
        .acknowledged
        .is_none_or(|so_far| is_after(it.acknowledges, so_far));
    if is_more {
        host.acknowledged = Some(it.acknowledges);
    }
    // A part of it may have arrived before.
    let is_next = host
        .heard
        .is_some_and(|heard| is_after(it.end(), heard) && !is_after(it.seq, heard));
    if is_next {
        host.heard = Some(it.end());
    }
    let has_fin = is_next && it.fin;
    let of_fin = is_more && host.fin == Some(it.acknowledges);
    match (has_fin, of_fin) {
        (true, true) => Some(On::HearFinAndAck),
        (true, false) => Some(On::HearFin),
        (false, true) => Some(On::HearAckOfFin),
        (false, false) if state == "SYN_RECV" && host.next == Some(it.acknowledges) => {
            Some(On::HearAckOfSyn)
        }
        (false, false) => None,
    }
}

/// Whether the kernel showed the states of a side in this order, and the last one at the end; and no state counts as
/// seen that it did not show.
fn as_shown(figure: &Figure, side: usize) -> Result<(), String> {
    let drawn: Vec<(&str, bool)> = figure
        .moments
        .iter()
        .filter_map(|moment| match moment {
            Moment::Turned {
                side: of,
                state,
                seen,
                ..
            } if *of == side => Some((state.as_str(), *seen)),
            _ => None,
        })
        .collect();
    let shown = &figure.shown[side];
    let mut rest = std::iter::once(GONE).chain(drawn.iter().map(|it| it.0));
    if let Some(missing) = shown
        .iter()
        .find(|state| !rest.any(|drawn| drawn == state.as_str()))
    {
        return Err(format!(
            "the kernel showed {missing} where that is not drawn"
        ));
    }
    if shown.last().map(String::as_str) != Some(drawn.last().map_or(GONE, |it| it.0)) {
        return Err(format!("the kernel showed {:?} at the end", shown.last()));
    }
    match drawn
        .iter()
        .find(|it| it.1 && !shown.iter().any(|state| state == it.0))
    {
        Some((state, _)) => Err(format!(
            "{state} counts as seen, and the kernel did not show it"
        )),
        None => Ok(()),
    }
}

/// Whether a number is after another one: they wrap.
fn is_after(one: u32, other: u32) -> bool {
    one != other && one.wrapping_sub(other) < 1 << 31
}
