//! Faults that a handler commits on request: `--fault close:exit=255` each time,
//! `--fault receive:abort@0.01` with a probability.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::{Signal, raise};

/// The callback in which a fault happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    WorkerStart,
    Connect,
    Receive,
    Close,
}

impl Event {
    /// Returns its name, as `--fault` and the log have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Event::WorkerStart => "worker_start",
            Event::Connect => "connect",
            Event::Receive => "receive",
            Event::Close => "close",
        }
    }
}

/// What a fault does to the worker.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Action {
    Sleep(Duration),
    Exit(u8),
    Panic,
    Abort,
    Segv,
}

/// A fault in a callback.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Fault {
    event: Event,
    action: Action,
    /// The probability in each call: over 0, at most 1.
    probability: f64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.event.name())?;
        match self.action {
            Action::Sleep(time) => write!(f, "sleep={}", time.as_secs_f64()),
            Action::Exit(status) => write!(f, "exit={status}"),
            Action::Panic => f.write_str("panic"),
            Action::Abort => f.write_str("abort"),
            Action::Segv => f.write_str("segv"),
        }?;
        match self.probability {
            1.0 => Ok(()),
            probability => write!(f, "@{probability}"),
        }
    }
}

const ALLOWED: &str = "EVENT:ACTION[@PROBABILITY] is expected: EVENT is worker_start, connect, receive or close; ACTION is \
                       sleep=SECONDS, exit=STATUS (0 to 255), panic, abort or segv; PROBABILITY is over 0 and at most 1";

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
            _ => return Err(format!("{event:?} is not an event; {ALLOWED}")),
        };
        let action = match action.split_once('=') {
            Some(("sleep", seconds)) => Action::Sleep(super::values::seconds(seconds)?),
            Some(("exit", status)) => Action::Exit(
                status
                    .parse()
                    .map_err(|_| format!("{status:?} is not an exit status; {ALLOWED}"))?,
            ),
            None if action == "panic" => Action::Panic,
            None if action == "abort" => Action::Abort,
            None if action == "segv" => Action::Segv,
            _ => return Err(format!("{action:?} is not an action; {ALLOWED}")),
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
        .ok_or_else(|| format!("{text:?} is not a probability; {ALLOWED}"))
}

/// Returns a random number from 0 up to, but not including, 1. Workers inherit the keys of the hash from
/// the process that forked them, so the hash is of their own pid.
fn chance() -> f64 {
    let bits = RandomState::new().hash_one(std::process::id()) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

impl Fault {
    /// Commits the fault, if this is its callback and chance decides so.
    pub(crate) fn commit_in(self, event: Event) {
        if self.event != event || (self.probability < 1.0 && chance() >= self.probability) {
            return;
        }
        match self.action {
            Action::Sleep(time) => std::thread::sleep(time),
            Action::Exit(status) => std::process::exit(status.into()),
            Action::Panic => panic!("panic in {event:?}, as --fault asks"),
            Action::Abort => std::process::abort(),
            Action::Segv => loop {
                // The Rust runtime's handler takes the first signal for a real fault, restores the
                // default action and returns; the second signal kills.
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
    fn a_worker_that_sleeps_or_exits_in_close_can_be_asked_for() {
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
    fn a_fault_may_have_a_probability() {
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
    fn chance_is_uniform() {
        let struck = (0..10_000).filter(|_| chance() < 0.3).count();
        assert!((2_700..3_300).contains(&struck), "{struck} of 10,000");
    }

    #[test]
    fn a_malformed_fault_is_refused_and_the_error_says_what_is_allowed() {
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
