//! Faults that a handler commits when it is told to: `--fault close:exit=255`, always, or
//! `--fault receive:abort@0.01`, by chance.

use std::hash::{BuildHasher, RandomState};
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
    /// How probable it is each time: over 0, and 1 at most.
    probability: f64,
}

const ALLOWED: &str = "EVENT:ACTION[@PROBABILITY] is expected: EVENT is worker_start, connect, receive or close; ACTION is \
                       sleep=SECONDS, exit=STATUS (0 to 255), panic, abort or segv; PROBABILITY is over 0 and 1 at most";

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let (event, action) = text
            .split_once(':')
            .ok_or_else(|| format!("there is no colon; {ALLOWED}"))?;
        let (action, probability) = match action.split_once('@') {
            Some((action, number)) => (action, probability(number)?),
            None => (action, 1.0),
        };
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
        Ok(Fault {
            event,
            action,
            probability,
        })
    }
}

fn probability(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0.0 && *number <= 1.0)
        .ok_or_else(|| format!("{text:?} is no probability; {ALLOWED}"))
}

/// A number from 0 on and below 1, another one each time. Workers inherit the keys of the hash from
/// the process that forked them, so it is of their own pid.
fn chance() -> f64 {
    let bits = RandomState::new().hash_one(std::process::id()) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

impl Fault {
    /// Goes wrong, if this is the callback for it and chance will have it.
    pub(crate) fn commit_in(self, event: Event) {
        if self.event != event || (self.probability < 1.0 && chance() >= self.probability) {
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
        let fault = |event, action| {
            Ok(Fault {
                event,
                action,
                probability: 1.0,
            })
        };
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
    fn a_fault_may_be_left_to_chance() {
        let fault = Fault {
            event: Event::Receive,
            action: Action::Exit(3),
            probability: 0.01,
        };
        assert_eq!("receive:exit=3@0.01".parse(), Ok(fault));
        assert_eq!(
            "receive:exit=3@1".parse::<Fault>().unwrap().probability,
            1.0
        );
    }

    #[test]
    fn chance_strikes_about_as_often_as_it_should() {
        let struck = (0..10_000).filter(|_| chance() < 0.3).count();
        assert!((2_700..3_300).contains(&struck), "{struck} of 10,000");
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
            "close:panic@",
            "close:panic@0",
            "close:panic@1.1",
            "close:panic@nan",
            "close:panic@0.1@0.1",
            "close@0.1:panic",
        ] {
            let refused = text.parse::<Fault>().unwrap_err();
            assert!(
                refused.contains("expected") || refused.contains("seconds"),
                "{text}: {refused}"
            );
        }
    }
}
