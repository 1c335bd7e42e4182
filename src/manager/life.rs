//! ONE WORKER'S LIFE: its states, the events in each state, and the manager's action for each event.
//!
//! Runs in the manager. Its one rule: it is a pure function from state and event to state and action.
//! The consequences for the other workers are in [`roster`](super::roster).

/// The state of a worker's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// There is no process.
    Down,
    /// It is forked, and makes its handler.
    Starting,
    /// It has reported that it is ready.
    Ready,
    /// It was asked to finish its callback and to leave.
    Draining,
    /// It was sent SIGKILL, and is not reaped yet.
    Killing,
    /// It did not start, and is not started again.
    Failed,
}

/// An event in a worker's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// The time to start a process has come.
    BackoffElapsed,
    /// The process has reported that it is ready.
    BecameReady,
    /// The process is to be asked to leave.
    StopRequested,
    /// The deadline to get ready, or to leave, has passed.
    DeadlinePassed,
    /// The process is to be killed at once.
    Condemned,
    /// waitpid(2) has returned for it.
    Exited(ExitReason),
}

/// The consequence of an exit for the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExitReason {
    /// Another process takes the seat.
    Replaceable,
    /// The server is still starting, and cannot start.
    NeverStarted,
}

/// The manager's action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Nothing,
    /// Fork a process.
    Fork,
    /// Tell the master that it is ready, and hand it the seat that it was forked for.
    Announce,
    /// Ask it to leave, and set the deadline for that.
    AskToLeave,
    /// Send SIGKILL.
    Kill,
    /// Log the exit, tell the master, and refill the seat.
    HandleExit,
    /// End the server with an error.
    GiveUp,
}

/// Returns the next state, and the action on the way there.
pub(crate) fn next(state: State, event: Event) -> (State, Action) {
    use Action::{Announce, AskToLeave, Fork, GiveUp, HandleExit, Kill, Nothing};
    match (state, event) {
        (State::Down, Event::BackoffElapsed) => (State::Starting, Fork),

        (State::Starting, Event::BecameReady) => (State::Ready, Announce),
        (State::Starting, Event::StopRequested) => (State::Draining, AskToLeave),
        (State::Starting, Event::Exited(ExitReason::Replaceable)) => (State::Down, HandleExit),
        (State::Starting, Event::Exited(ExitReason::NeverStarted)) => (State::Failed, GiveUp),

        (State::Ready, Event::StopRequested) => (State::Draining, AskToLeave),
        (State::Ready, Event::Exited(_)) => (State::Down, HandleExit),

        (State::Starting | State::Draining, Event::DeadlinePassed) => (State::Killing, Kill),
        (State::Starting | State::Ready | State::Draining, Event::Condemned) => {
            (State::Killing, Kill)
        }
        (State::Draining | State::Killing, Event::Exited(_)) => (State::Down, HandleExit),

        // A process that was asked to leave may get ready first.
        (State::Draining | State::Killing, Event::BecameReady | Event::StopRequested) => {
            (state, Nothing)
        }
        // SIGKILL is sent already.
        (State::Killing, Event::DeadlinePassed | Event::Condemned) => (state, Nothing),

        // A deadline of an earlier state, and requests to a process that does not exist.
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
                (State::Down, Action::HandleExit),
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
                (State::Down, Action::HandleExit),
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
                (State::Down, Action::HandleExit),
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
