//! An event, as a program is told of it.

use tine::{Closed, Conn, ConnId, Context, Peer};

/// What a program can be told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Start,
    Connect,
    Receive,
    Close,
}

impl Kind {
    /// Returns its name, in frames, in JSON and in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Start => "start",
            Kind::Connect => "connect",
            Kind::Receive => "receive",
            Kind::Close => "close",
        }
    }
}

/// An event with all that is said of it.
pub(super) struct Event<'a> {
    pub(super) kind: Kind,
    /// `None` for the start, which is of no connection.
    pub(super) origin: Option<Origin<'a>>,
    /// The message; empty for other events.
    pub(super) message: &'a [u8],
}

/// The connection of an event.
pub(super) struct Origin<'a> {
    pub(super) conn: ConnId,
    pub(super) peer: Peer,
    pub(super) listener: &'a str,
    /// The number of the message on its connection.
    pub(super) number: Option<u64>,
    pub(super) attempt: u8,
    pub(super) closed: Option<Closed>,
}

impl<'a> Event<'a> {
    pub(super) const START: Event<'static> = Event {
        kind: Kind::Start,
        origin: None,
        message: &[],
    };

    pub(super) fn new(
        kind: Kind,
        cx: &'a Context<'_>,
        conn: &Conn<'_>,
        message: &'a [u8],
        closed: Option<Closed>,
    ) -> Event<'a> {
        Event {
            kind,
            origin: Some(Origin {
                conn: conn.id(),
                peer: conn.peer(),
                listener: cx.listener_name(conn.listener()),
                number: conn.message_number(),
                attempt: conn.attempt(),
                closed,
            }),
            message,
        }
    }

    /// Returns where the worker is, for the log.
    pub(super) fn place(&self) -> String {
        let name = self.kind.name();
        let Some(Origin {
            conn, peer, number, ..
        }) = &self.origin
        else {
            return format!("in `{name}`");
        };
        let message = number.map(|number| format!("message {number} of "));
        let message = message.unwrap_or_default();
        format!("in `{name}`, {message}connection {conn} from {peer}")
    }
}

impl Origin<'_> {
    /// Returns the reason of a close, in lower case with hyphens: `peer`, `idle-deadline`.
    pub(super) fn reason(&self) -> Option<String> {
        self.closed
            .map(|closed| hyphened(&format!("{:?}", closed.reason)))
    }
}

fn hyphened(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('-');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::hyphened;

    #[test]
    fn a_reason_is_in_lower_case_with_hyphens() {
        assert_eq!(hyphened("Peer"), "peer");
        assert_eq!(hyphened("IdleDeadline"), "idle-deadline");
    }
}
