//! The events of connections and of workers: the one table of kinds for frames, policies, log lines and status.
//!
//! Used by every process. Its one rule: a kind is written here, as a method of
//! [`Handler`](crate::Handler), where the worker calls that method, and as a callback of the C ABI; all
//! other code passes it on.

use std::fmt;

macro_rules! events {
    ($($(#[doc = $doc:literal])* $event:ident = $name:literal,)*) => {
        /// An event of a connection, or of a worker. Each kind is a method of [`Handler`](crate::Handler).
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Event {
            $($(#[doc = $doc])* $event,)*
        }

        impl Event {
            const ALL: &[Event] = &[$(Event::$event,)*];

            /// Returns the name of the handler's method: `connect`, `receive`, …
            pub fn name(self) -> &'static str {
                match self {
                    $(Event::$event => $name,)*
                }
            }
        }
    };
}

events! {
    /// A client has connected: [`Handler::connect`](crate::Handler::connect).
    Connect = "connect",
    /// A message has come: [`Handler::receive`](crate::Handler::receive).
    Receive = "receive",
    /// The connection has ended: [`Handler::close`](crate::Handler::close).
    Close = "close",
    /// Its unsent output is over the high-water mark:
    /// [`Handler::paused`](crate::Handler::paused).
    Paused = "paused",
    /// Its unsent output has fallen to half of the mark:
    /// [`Handler::resumed`](crate::Handler::resumed).
    Resumed = "resumed",
    /// Its idle deadline has passed, and its listener calls the handler for that:
    /// [`Handler::idle`](crate::Handler::idle).
    Idle = "idle",
    /// A timer of the connection has fired: [`Handler::timer`](crate::Handler::timer).
    Timer = "timer",
    /// The socket has taken all output, and a callback had asked to be told:
    /// [`Handler::drained`](crate::Handler::drained).
    Drained = "drained",
    /// A callback has posted something to this worker: [`Handler::post`](crate::Handler::post). The event of no
    /// connection.
    Post = "post",
    /// A task worker is given a task: [`Handler::task`](crate::Handler::task). The event of no connection.
    Task = "task",
    /// A task that a worker has queued is done: [`Handler::finished`](crate::Handler::finished). The event of no
    /// connection.
    Finished = "finished",
}

impl Event {
    /// Whether it is the event of a connection.
    pub(crate) fn has_connection(self) -> bool {
        match self {
            Event::Connect
            | Event::Receive
            | Event::Close
            | Event::Paused
            | Event::Resumed
            | Event::Idle
            | Event::Timer
            | Event::Drained => true,
            Event::Post | Event::Task | Event::Finished => false,
        }
    }

    /// Returns the event's number between the processes of one server.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_code(code: u8) -> Option<Event> {
        Event::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Event;

    #[test]
    fn an_event_survives_its_code() {
        for (code, event) in Event::ALL.iter().enumerate() {
            assert_eq!(usize::from(event.code()), code);
            assert_eq!(Event::from_code(event.code()), Some(*event));
        }
        assert_eq!(Event::from_code(Event::ALL.len() as u8), None);
    }
}
