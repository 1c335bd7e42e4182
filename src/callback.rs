//! From a frame to the handler's method, in a worker of either mode.

use std::fmt;

use crate::handler::{CloseReason, Closed, Conn, Handler, Output, Worker};
use crate::ipc::frame::{Input, InputKind};
use crate::sys::process::{self, ProcessId};
use crate::sys::time::now_ms;

/// Runs the callback that a frame asks for. One that fails is logged, and its connection closed.
pub(crate) fn run(handler: &mut impl Handler, input: &Input, body: &[u8], output: &mut dyn Output) {
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
