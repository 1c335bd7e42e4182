//! From a frame to the handler's method, in a worker of either mode.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use crate::control::{Note, Notes};
use crate::handler::{CloseReason, Closed, Conn, Handler, Outcome, Output, Worker};
use crate::ipc::frame::{Input, InputKind};
use crate::ipc::layout::{Shared, SlotWords};
use crate::role::Role;
use crate::sys::process::{self, ProcessId};
use crate::sys::time::now_ms;

/// Where the user's code ends in a stack that is looked at from the top.
pub(crate) const LAST_FRAME: &str = "run_callback";

/// The handler, and what a worker keeps count of around its callbacks.
pub(crate) struct Caller<H> {
    handler: H,
    pub(crate) worker: Worker,
    words: Shared<SlotWords>,
    pub(crate) notes: Notes,
    /// The manager knows that a callback was begun.
    served: bool,
    /// After so many messages more, the manager is asked for another worker.
    requests_left: Option<u64>,
}

impl<H: Handler> Caller<H> {
    pub(crate) fn new(
        handler: H,
        worker: Worker,
        words: Shared<SlotWords>,
        notes: Notes,
        max_requests: Option<u64>,
    ) -> Caller<H> {
        Caller {
            handler,
            worker,
            words,
            notes,
            served: false,
            requests_left: max_requests.map(|most| with_jitter(most, worker.generation)),
        }
    }

    /// Runs the callback that a frame asks for. One that fails is logged, and its connection closed.
    pub(crate) fn call(&mut self, input: &Input, body: &[u8], output: &mut dyn Output) {
        if !std::mem::replace(&mut self.served, true) {
            self.notes.tell(Note::Served);
        }
        self.words.activity.begin(input);
        run_callback(&mut self.handler, input, body, output);
        self.words.activity.end();
        if input.kind == InputKind::Receive
            && let Some(left) = &mut self.requests_left
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.requests_left = None;
                self.notes.tell(Note::Replace);
            }
        }
    }

    /// It has a seat, if it had none.
    pub(crate) fn take_seat(&mut self, seat: usize) -> Outcome {
        if self.worker.seat.is_some() {
            return Ok(());
        }
        self.worker.seat = Some(seat);
        Role::Worker(seat).take();
        self.handler
            .worker_seated(self.worker)
            .map_err(|error| format!("worker_seated failed: {error}"))?;
        self.notes.tell(Note::Seated);
        Ok(())
    }

    /// It leaves, as it was asked to.
    pub(crate) fn stop(&mut self) {
        self.handler.worker_stop();
        self.notes.tell(Note::Left);
    }
}

/// Up to a quarter more, so that workers which started together are not replaced together.
fn with_jitter(most: u64, generation: u32) -> u64 {
    most.saturating_add(RandomState::new().hash_one(generation) % (most / 4 + 1))
}

/// The user's code begins below this function, whose name is looked for in stacks.
#[inline(never)]
fn run_callback(handler: &mut impl Handler, input: &Input, body: &[u8], output: &mut dyn Output) {
    let mut conn = Conn {
        id: input.conn,
        peer: input.peer,
        listener: usize::from(input.listener),
        attempt: input.attempt,
        output,
    };
    let outcome = match input.kind {
        InputKind::Connect => handler.connect(&mut conn),
        InputKind::Receive => handler.receive(&mut conn, body),
        InputKind::Close => handler.close(&mut conn, closed(input)),
        InputKind::BufferFull => handler.buffer_full(&mut conn),
        InputKind::BufferEmpty => handler.buffer_empty(&mut conn),
        InputKind::Void => Ok(()),
    };
    if let Err(error) = outcome {
        log::error!(
            "{} of connection {} from {} failed, the connection is closed: {error}",
            input.kind,
            input.conn,
            input.peer
        );
        conn.close();
    }
}

fn closed(input: &Input) -> Closed {
    Closed {
        reason: CloseReason::from_code(input.detail).unwrap_or(CloseReason::Peer),
        late: input.deadline != 0 && now_ms() >= input.deadline,
        again: input.attempt > 0,
    }
}

impl fmt::Display for InputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InputKind::Connect => "connect",
            InputKind::Receive => "receive",
            InputKind::Close => "close",
            InputKind::BufferFull => "buffer_full",
            InputKind::BufferEmpty => "buffer_empty",
            InputKind::Void => "void",
        })
    }
}

/// Makes the handler and runs its `worker_start`. The user may give up privileges there, after
/// which the kernel forgets that the process is to die with its parent, prctl(2).
pub(crate) fn start<H: Handler>(
    make: &dyn Fn(Worker) -> H,
    worker: Worker,
    parent: ProcessId,
) -> Result<H, Box<dyn std::error::Error + Send + Sync>> {
    let mut handler = make(worker);
    let outcome = handler.worker_start(worker);
    process::die_with(parent);
    match outcome {
        Ok(()) => Ok(handler),
        Err(error) => Err(format!("worker_start failed: {error}").into()),
    }
}
