//! Calls the handler's method for a frame, in a worker of either mode.

use crate::limited::{self, Topic, limited};
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::config::{Config, ListenerConfig, ListenerId};
use crate::control::{Note, Notes};
use crate::error::Result;
use crate::event::Event;
use crate::handler::{CloseReason, Closed, Conn, Context, Handler, Output, Session, Task, Worker};
use crate::ipc::frame::Input;
use crate::ipc::layout::{Shared, SlotWords};
use crate::printable::printable;
use crate::role::Role;
use crate::sys::forks;
use crate::sys::process::{self, ProcessId};
use crate::sys::time::now_ms;

/// The function below which a stack holds no user code.
pub(crate) const LAST_FRAME: &str = "run_callback";

/// How a callback ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Its output is to be committed.
    Done,
    /// It returned an error: its output is to be dropped.
    Failed,
}

/// The handler, and the accounting around its callbacks.
pub(crate) struct Caller<H> {
    handler: H,
    pub(crate) worker: Worker,
    config: Arc<Config>,
    words: Shared<SlotWords>,
    pub(crate) notes: Notes,
    /// The manager was told that a callback has begun.
    served: bool,
    /// The messages left until this worker asks for its replacement.
    requests_left: Option<u64>,
}

impl<H: Handler> Caller<H> {
    pub(crate) fn new(
        handler: H,
        worker: Worker,
        words: Shared<SlotWords>,
        notes: Notes,
        config: Arc<Config>,
    ) -> Caller<H> {
        let max_requests = config.max_requests;
        Caller {
            handler,
            worker,
            config,
            words,
            notes,
            served: false,
            requests_left: max_requests.map(|most| with_jitter(most, worker.generation)),
        }
    }

    /// Runs the callback for the event of a frame. An error is logged, and the output must not be
    /// committed then.
    pub(crate) fn call(
        &mut self,
        event: Event,
        input: &Input,
        body: &[u8],
        session: &mut Session,
        output: &mut dyn Output,
    ) -> Outcome {
        if !std::mem::replace(&mut self.served, true) {
            self.notes.tell(Note::Served);
        }
        self.words.activity.begin(input);
        let frame = Frame {
            event,
            input,
            body,
            worker: self.worker,
            listeners: &self.config.listeners,
        };
        let outcome = run_callback(&mut self.handler, &frame, session, output);
        if forks::is_child() {
            // It would go on as a copy of the worker that it was forked from, and write to the same memory.
            log::error!("a process forked in a callback returned from the callback: it exits here");
            process::exit_now(0);
        }
        self.words.activity.end();
        if let Err(error) = &outcome {
            let (conn, peer) = (input.conn, input.peer);
            let error = printable(&error.to_string());
            let of = match event.has_connection() {
                true => format!(" of connection {conn} from {peer}"),
                false => String::new(),
            };
            limited!(warn, Topic::Failed, "{event}{of} failed: {error}");
        }
        if matches!(event, Event::Receive | Event::Task)
            && let Some(left) = &mut self.requests_left
        {
            *left = left.saturating_sub(1);
            // Or with the next message, if the pipe does not take it.
            if *left == 0 && self.notes.try_tell(Note::Replace).is_ok() {
                self.requests_left = None;
            }
        }
        match outcome {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::Failed,
        }
    }

    /// Takes the seat of a worker that was on standby.
    pub(crate) fn take_seat(&mut self, seat: usize) -> Result {
        if self.worker.seat.is_some() {
            return Ok(());
        }
        self.worker.seat = Some(seat);
        Role::Worker(seat).take();
        self.handler.seated(self.worker).map_err(|error| {
            let error = printable(&error.to_string());
            format!("the seated callback failed: {error}")
        })?;
        self.notes.try_tell(Note::Seated)?;
        Ok(())
    }

    /// Runs the last callback, before this worker leaves.
    pub(crate) fn stop_handler(&mut self) {
        self.handler.stop();
    }

    /// Leaves, as the manager has asked.
    pub(crate) fn left(&mut self) {
        limited::report_all();
        self.notes.tell(Note::Left);
    }
}

/// Adds up to 25 % jitter, so that workers which started together are not replaced together.
fn with_jitter(most: u64, generation: u32) -> u64 {
    most.saturating_add(RandomState::new().hash_one(generation) % (most / 4 + 1))
}

/// The arguments of a callback.
pub(crate) struct Frame<'a> {
    pub(crate) event: Event,
    pub(crate) input: &'a Input,
    pub(crate) body: &'a [u8],
    pub(crate) worker: Worker,
    pub(crate) listeners: &'a [ListenerConfig],
}

/// Calls the user's code. The watchdog looks for the name of this function in stacks: the user's frames
/// are above it.
#[inline(never)]
pub(crate) fn run_callback<H: Handler + ?Sized>(
    handler: &mut H,
    frame: &Frame<'_>,
    session: &mut Session,
    output: &mut dyn Output,
) -> Result {
    let Frame { input, body, .. } = *frame;
    // Shortens its lifetime to that of the borrows below.
    let output: &mut (dyn Output + '_) = output;
    let output = RefCell::new(output);
    let cx = &mut Context {
        output: &output,
        worker: frame.worker,
        listeners: frame.listeners,
        attempt: input.attempt,
    };
    let conn = &mut Conn {
        id: input.conn,
        peer: input.peer,
        listener: ListenerId(input.listener),
        attempt: input.attempt,
        message_number: (frame.event == Event::Receive).then_some(input.value),
        session,
        output: &output,
    };
    let result = match frame.event {
        Event::Connect => handler.connect(cx, conn),
        Event::Receive => handler.receive(cx, conn, body),
        Event::Close => handler.close(cx, conn, closed(input)),
        Event::Paused => handler.paused(cx, conn),
        Event::Resumed => handler.resumed(cx, conn),
        Event::Idle => handler.idle(cx, conn),
        Event::Timer => handler.timer(cx, conn, input.value),
        Event::Drained => handler.drained(cx, conn),
        Event::Post => handler.post(cx, body),
        Event::Task => {
            let task = &mut Task {
                bytes: body,
                tag: (input.detail != 0).then_some(input.value),
                output: &output,
            };
            handler.task(cx, task)
        }
        Event::Finished => handler.finished(cx, input.value, body),
        Event::ServerTimer => handler.server_timer(cx, input.value),
    };
    if result.is_ok() {
        conn.stage_session();
    }
    result
}

/// Whether the callback for this frame can't send to its own connection.
pub(crate) fn is_closed_to(event: Event, input: &Input) -> bool {
    // A deadline that was set again since may have left the socket open.
    let is_gone = input.is_gone || input.is_firm && is_past_deadline(input);
    event == Event::Close && (is_gone || !reason(input).takes_output())
}

/// Whether the close deadline of the connection has passed.
fn is_past_deadline(input: &Input) -> bool {
    input.deadline != 0 && now_ms() >= input.deadline
}

fn reason(input: &Input) -> CloseReason {
    CloseReason::from_code(input.detail).unwrap_or(CloseReason::Peer)
}

fn closed(input: &Input) -> Closed {
    Closed {
        reason: reason(input),
        lost: input.value,
        past_deadline: is_past_deadline(input),
        retried: input.attempt > 0,
    }
}

/// Makes the handler. The user may drop privileges there, after which the kernel forgets that the process
/// is to die with its parent, prctl(2).
pub(crate) fn start<H>(
    make: &dyn Fn(Worker) -> Result<H>,
    worker: Worker,
    parent: ProcessId,
) -> Result<H> {
    let made = make(worker);
    process::die_with(parent);
    made.map_err(|error| {
        let error = printable(&error.to_string());
        format!("the worker cannot start: {error}").into()
    })
}
