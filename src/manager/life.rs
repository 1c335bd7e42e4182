//! ONE WORKER'S LIFE, top to bottom: what may happen to it, and what the manager does then.
//!
//! Runs in the manager. A pure function from state and event to state and action; what it means for
//! the other workers is in [`roster`](super::roster).

/// How far a worker's process is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// There is no process.
    Down,
    /// It is forked, and makes its handler.
    Starting,
    /// It has said that it is ready.
    Ready,
    /// It was asked to finish what it has begun and to leave.
    Draining,
    /// It did not leave in time, and was killed.
    Killing,
    /// It could not start, and is not tried again.
    Failed,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// It is time for a process.
    BackoffElapsed,
    /// The process has said that it is ready.
    BecameReady,
    /// The process is to leave.
    StopRequested,
    /// The time to leave, or for a successor to get ready, is over.
    DeadlinePassed,
    /// It is to end at once: it broke the protocol, or the server ends by force.
    Condemned,
    /// waitpid(2) has returned for it.
    Exited(ExitReason),
}

/// What an end means for the seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExitReason {
    /// Another process takes the seat.
    Replaceable,
    /// The server is still starting and this one never got ready: there is no server.
    NeverStarted,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Nothing,
    /// Fork a process.
    Fork,
    /// Tell the master, and give it the seat that it was forked for.
    Announce,
    /// Ask it to leave, and set the deadline.
    AskToLeave,
    /// SIGKILL.
    Kill,
    /// See to its log line, the master's news, and its seat.
    Bury,
    /// End the server with an error.
    GiveUp,
}

/// What follows.
pub(crate) fn next(state: State, event: Event) -> (State, Action) {
    use Action::{Announce, AskToLeave, Bury, Fork, GiveUp, Kill, Nothing};
    match (state, event) {
        (State::Down, Event::BackoffElapsed) => (State::Starting, Fork),

        (State::Starting, Event::BecameReady) => (State::Ready, Announce),
        (State::Starting, Event::StopRequested) => (State::Draining, AskToLeave),
        (State::Starting, Event::Exited(ExitReason::Replaceable)) => (State::Down, Bury),
        (State::Starting, Event::Exited(ExitReason::NeverStarted)) => (State::Failed, GiveUp),

        (State::Ready, Event::StopRequested) => (State::Draining, AskToLeave),
        (State::Ready, Event::Exited(_)) => (State::Down, Bury),

        (State::Starting | State::Draining, Event::DeadlinePassed) => (State::Killing, Kill),
        (State::Starting | State::Ready | State::Draining, Event::Condemned) => {
            (State::Killing, Kill)
        }
        (State::Draining | State::Killing, Event::Exited(_)) => (State::Down, Bury),

        // A process that was asked to leave may get ready first.
        (State::Draining | State::Killing, Event::BecameReady | Event::StopRequested) => {
            (state, Nothing)
        }
        // SIGKILL is under way.
        (State::Killing, Event::DeadlinePassed | Event::Condemned) => (state, Nothing),

        // A deadline that was set for what has ended since, and requests to what is not there.
        (State::Down | State::Ready | State::Failed, Event::DeadlinePassed) => (state, Nothing),
        (
            State::Down | State::Failed,
            Event::StopRequested | Event::BecameReady | Event::Condemned | Event::Exited(_),
        ) => (state, Nothing),
        (State::Ready, Event::BecameReady) => (state, Nothing),
        (
            State::Starting | State::Ready | State::Draining | State::Killing | State::Failed,
            Event::BackoffElapsed,
        ) => (state, Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXITED: Event = Event::Exited(ExitReason::Replaceable);

    #[track_caller]
    fn lives(events: &[Event], expected: &[(State, Action)]) {
        let mut state = State::Down;
        for (event, expected) in events.iter().zip(expected) {
            let (next, action) = next(state, *event);
            assert_eq!((next, action), *expected, "{state:?} + {event:?}");
            state = next;
        }
    }

    #[test]
    fn a_worker_that_crashes_goes_down_and_starts_again() {
        lives(
            &[
                Event::BackoffElapsed,
                Event::BecameReady,
                EXITED,
                Event::BackoffElapsed,
            ],
            &[
                (State::Starting, Action::Fork),
                (State::Ready, Action::Announce),
                (State::Down, Action::Bury),
                (State::Starting, Action::Fork),
            ],
        );
    }

    #[test]
    fn a_worker_that_does_not_leave_in_time_is_killed() {
        lives(
            &[
                Event::BackoffElapsed,
                Event::BecameReady,
                Event::StopRequested,
                Event::DeadlinePassed,
                EXITED,
            ],
            &[
                (State::Starting, Action::Fork),
                (State::Ready, Action::Announce),
                (State::Draining, Action::AskToLeave),
                (State::Killing, Action::Kill),
                (State::Down, Action::Bury),
            ],
        );
    }

    #[test]
    fn a_worker_that_cannot_start_ends_a_server_that_is_starting() {
        lives(
            &[
                Event::BackoffElapsed,
                Event::Exited(ExitReason::NeverStarted),
                Event::BackoffElapsed,
            ],
            &[
                (State::Starting, Action::Fork),
                (State::Failed, Action::GiveUp),
                (State::Failed, Action::Nothing),
            ],
        );
    }

    #[test]
    fn a_successor_that_does_not_get_ready_in_time_is_killed() {
        lives(
            &[Event::BackoffElapsed, Event::DeadlinePassed, EXITED],
            &[
                (State::Starting, Action::Fork),
                (State::Killing, Action::Kill),
                (State::Down, Action::Bury),
            ],
        );
    }

    #[test]
    fn a_condemned_worker_is_killed_in_every_state_that_has_a_process() {
        for state in [State::Starting, State::Ready, State::Draining] {
            let killed = (State::Killing, Action::Kill);
            assert_eq!(next(state, Event::Condemned), killed, "{state:?}");
        }
    }

    #[test]
    fn a_deadline_that_comes_late_does_nothing() {
        for state in [State::Down, State::Ready, State::Failed] {
            let nothing = (state, Action::Nothing);
            assert_eq!(next(state, Event::DeadlinePassed), nothing);
        }
    }
}
