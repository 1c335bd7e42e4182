//! The handler that runs the C callbacks of a worker.

use std::ffi::c_void;
use std::ptr;

use super::Userdata;
use super::callbacks::{
    tine_close_fn, tine_close_reason, tine_closed, tine_conn_fn, tine_post_fn, tine_receive_fn,
    tine_timer_fn, tine_worker, tine_worker_seated_fn, tine_worker_start_fn, tine_worker_stop_fn,
};
use super::conn::Current;
use super::status::{callback_begins, outcome};
use super::tasks::{tine_finished_fn, tine_task_fn};
use super::timers::tine_server_timer_fn;
use crate::error::Result;
use crate::handler::{CloseReason, Closed, Conn, Context, Handler, Task, Worker};

/// The C callbacks of the workers, and their userdata.
#[derive(Clone, Copy, Default)]
pub(super) struct Callbacks {
    pub(super) worker_start: tine_worker_start_fn,
    pub(super) worker_seated: tine_worker_seated_fn,
    pub(super) connect: tine_conn_fn,
    pub(super) receive: tine_receive_fn,
    pub(super) close: tine_close_fn,
    pub(super) paused: tine_conn_fn,
    pub(super) resumed: tine_conn_fn,
    pub(super) idle: tine_conn_fn,
    pub(super) timer: tine_timer_fn,
    pub(super) drained: tine_conn_fn,
    pub(super) post: tine_post_fn,
    pub(super) task: tine_task_fn,
    pub(super) finished: tine_finished_fn,
    pub(super) server_timer: tine_server_timer_fn,
    pub(super) worker_stop: tine_worker_stop_fn,
}

/// The handler of one worker.
pub(super) struct CallbackHandler {
    callbacks: Callbacks,
    state: *mut c_void,
}

impl CallbackHandler {
    /// Made in a new worker, with the pointer that its `worker_start` has put in place of `userdata`.
    pub(super) fn start(
        callbacks: Callbacks,
        userdata: Userdata,
        worker: Worker,
    ) -> Result<CallbackHandler> {
        let mut handler = CallbackHandler {
            callbacks,
            state: userdata.get(),
        };
        if let Some(start) = callbacks.worker_start {
            callback_begins();
            // SAFETY: the user's function, called in a worker as tine.h says.
            outcome(unsafe { start(&worker.into(), &mut handler.state) })?;
        }
        Ok(handler)
    }

    fn call(&self, callback: tine_conn_fn, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        let Some(callback) = callback else {
            return Ok(());
        };
        callback_begins();
        let current = Current::new(cx, conn);
        // SAFETY: the user's function, called in a worker as tine.h says.
        outcome(unsafe { callback(current.conn, self.state) })
    }
}

impl Handler for CallbackHandler {
    fn seated(&mut self, worker: Worker) -> Result {
        callback_begins();
        match self.callbacks.worker_seated {
            // SAFETY: as above.
            Some(seated) => outcome(unsafe { seated(&worker.into(), self.state) }),
            None => Ok(()),
        }
    }

    fn connect(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        self.call(self.callbacks.connect, cx, conn)
    }

    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, message: &[u8]) -> Result {
        let Some(receive) = self.callbacks.receive else {
            return Ok(());
        };
        callback_begins();
        let current = Current::new(cx, conn);
        let (bytes, length) = (message.as_ptr().cast(), message.len());
        // SAFETY: as above, and the message is valid until it returns.
        outcome(unsafe { receive(current.conn, bytes, length, self.state) })
    }

    fn close(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, closed: Closed) -> Result {
        let Some(close) = self.callbacks.close else {
            return Ok(());
        };
        callback_begins();
        let current = Current::new(cx, conn);
        // SAFETY: as above, and the argument is valid until it returns.
        outcome(unsafe { close(current.conn, &closed.into(), self.state) })
    }

    fn paused(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        self.call(self.callbacks.paused, cx, conn)
    }

    fn resumed(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        self.call(self.callbacks.resumed, cx, conn)
    }

    fn idle(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        match self.callbacks.idle {
            Some(idle) => self.call(Some(idle), cx, conn),
            None => {
                conn.close();
                Ok(())
            }
        }
    }

    fn timer(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, tag: u64) -> Result {
        let Some(timer) = self.callbacks.timer else {
            return Ok(());
        };
        callback_begins();
        let current = Current::new(cx, conn);
        // SAFETY: as above.
        outcome(unsafe { timer(current.conn, tag, self.state) })
    }

    fn drained(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        self.call(self.callbacks.drained, cx, conn)
    }

    fn post(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result {
        let Some(post) = self.callbacks.post else {
            return Ok(());
        };
        callback_begins();
        let _current = Current::without_conn(cx);
        // SAFETY: as above, and the bytes are valid until it returns.
        outcome(unsafe { post(bytes.as_ptr().cast(), bytes.len(), self.state) })
    }

    fn task(&mut self, cx: &mut Context<'_>, task: &mut Task<'_>) -> Result {
        let Some(function) = self.callbacks.task else {
            return Ok(());
        };
        callback_begins();
        let bytes = task.bytes;
        let _current = Current::of_task(cx, task);
        // SAFETY: as above.
        outcome(unsafe { function(bytes.as_ptr().cast(), bytes.len(), self.state) })
    }

    fn finished(&mut self, cx: &mut Context<'_>, tag: u64, result: &[u8]) -> Result {
        let Some(finished) = self.callbacks.finished else {
            return Ok(());
        };
        callback_begins();
        let _current = Current::without_conn(cx);
        // SAFETY: as above.
        outcome(unsafe { finished(tag, result.as_ptr().cast(), result.len(), self.state) })
    }

    fn server_timer(&mut self, cx: &mut Context<'_>, tag: u64) -> Result {
        let Some(timer) = self.callbacks.server_timer else {
            return Ok(());
        };
        callback_begins();
        let _current = Current::without_conn(cx);
        // SAFETY: as above.
        outcome(unsafe { timer(tag, self.state) })
    }

    fn stop(&mut self) {
        let state = std::mem::replace(&mut self.state, ptr::null_mut());
        if let Some(stop) = self.callbacks.worker_stop {
            // SAFETY: as above. It may free the state: no callback follows.
            unsafe { stop(state) };
        }
    }
}

/// Returns a seat in the form of C.
pub(super) fn seat(seat: Option<usize>) -> i64 {
    seat.map_or(-1, |seat| seat as i64)
}

impl From<Worker> for tine_worker {
    fn from(worker: Worker) -> tine_worker {
        tine_worker {
            seat: seat(worker.seat()),
            generation: worker.generation(),
            runs_tasks: worker.runs_tasks(),
        }
    }
}

impl From<Closed> for tine_closed {
    fn from(closed: Closed) -> tine_closed {
        use tine_close_reason::*;
        tine_closed {
            reason: match closed.reason {
                CloseReason::Peer => TINE_CLOSE_PEER,
                CloseReason::Broken => TINE_CLOSE_BROKEN,
                CloseReason::Handler => TINE_CLOSE_HANDLER,
                CloseReason::Shutdown => TINE_CLOSE_SHUTDOWN,
                CloseReason::SlowReader => TINE_CLOSE_SLOW_READER,
                CloseReason::Refused => TINE_CLOSE_REFUSED,
                CloseReason::Crash => TINE_CLOSE_CRASH,
                CloseReason::OpenDeadline => TINE_CLOSE_OPEN_DEADLINE,
                CloseReason::MessageDeadline => TINE_CLOSE_MESSAGE_DEADLINE,
                CloseReason::IdleDeadline => TINE_CLOSE_IDLE_DEADLINE,
                CloseReason::WriteDeadline => TINE_CLOSE_WRITE_DEADLINE,
                CloseReason::QueueDeadline => TINE_CLOSE_QUEUE_DEADLINE,
                CloseReason::AnswerDeadline => TINE_CLOSE_ANSWER_DEADLINE,
                CloseReason::FileFailed => TINE_CLOSE_FILE_FAILED,
            },
            lost: closed.lost,
            past_deadline: closed.past_deadline,
            retried: closed.retried,
        }
    }
}
