//! Faults that a handler commits when it is told to: `--fault close:exit=255`.

use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::{Signal, raise};

/// The callback in which it happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    WorkerStart,
    Connect,
    Receive,
    Close,
}

/// What happens.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Action {
    Sleep(Duration),
    Exit(u8),
    Panic,
    Abort,
    Segv,
}

/// Something that goes wrong in a callback.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Fault {
    event: Event,
    action: Action,
}

const ALLOWED: &str = "EVENT:ACTION is expected: EVENT is worker_start, connect, receive or close; ACTION is sleep=SECONDS, \
                       exit=STATUS (0 to 255), panic, abort or segv";

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let (event, action) = text
            .split_once(':')
            .ok_or_else(|| format!("there is no colon; {ALLOWED}"))?;
        let event = match event {
            "worker_start" => Event::WorkerStart,
            "connect" => Event::Connect,
            "receive" => Event::Receive,
            "close" => Event::Close,
            _ => return Err(format!("{event:?} is no event; {ALLOWED}")),
        };
        let action = match action.split_once('=') {
            Some(("sleep", seconds)) => Action::Sleep(super::serve::seconds(seconds)?),
            Some(("exit", status)) => Action::Exit(
                status
                    .parse()
                    .map_err(|_| format!("{status:?} is no exit status; {ALLOWED}"))?,
            ),
            None if action == "panic" => Action::Panic,
            None if action == "abort" => Action::Abort,
            None if action == "segv" => Action::Segv,
            _ => return Err(format!("{action:?} is no action; {ALLOWED}")),
        };
        Ok(Fault { event, action })
    }
}

impl Fault {
    /// Goes wrong, if this is the callback for it.
    pub(crate) fn commit_in(self, event: Event) {
        if self.event != event {
            return;
        }
        match self.action {
            Action::Sleep(time) => std::thread::sleep(time),
            Action::Exit(status) => std::process::exit(status.into()),
            Action::Panic => panic!("asked to panic in {event:?}"),
            Action::Abort => std::process::abort(),
            Action::Segv => loop {
                // The runtime's handler takes the first one for a real fault, restores the default
                // and returns.
                if let Err(error) = raise(Signal::SIGSEGV) {
                    panic!("SIGSEGV: {error}");
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_articles_two_servers_can_be_told() {
        let fault = |event, action| Ok(Fault { event, action });
        assert_eq!(
            "close:sleep=1000".parse(),
            fault(Event::Close, Action::Sleep(Duration::from_secs(1000)))
        );
        assert_eq!(
            "close:exit=255".parse(),
            fault(Event::Close, Action::Exit(255))
        );
    }

    #[test]
    fn what_is_no_fault_is_refused_with_what_is_allowed() {
        for text in [
            "",
            "close",
            "close:",
            "open:panic",
            "close:exit",
            "close:exit=256",
            "close:panic=1",
            "close:sleep=-1",
        ] {
            let refused = text.parse::<Fault>().unwrap_err();
            assert!(
                refused.contains("expected") || refused.contains("seconds"),
                "{text}: {refused}"
            );
        }
    }
}
