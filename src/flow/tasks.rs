//! Tasks: what callbacks have queued becomes frames of task workers.
//!
//! A task is submitted by a mailbox of its own, so that its frame is recalled and returned as any other. The first reactor
//! has all tasks, whichever has read the commit that queued them: there is one queue. Its one rule: a task ends once,
//! by the commit of its callback or by its last attempt.

use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;

use super::deliver::{Deliver, Place, Want};
use super::{Flow, Next};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::TaskOrder;
use crate::ipc::frame;
use crate::ipc::link::Returned;
use crate::ipc::memory::SharedBytes;
use crate::ipc::queued::Queued;
use crate::limited::{Topic, limited};
use crate::net::connection::Target;
use crate::net::mail::{LETTER_BYTES, Letter};
use crate::net::tasks::{Running, Task, Tasks};

impl Flow {
    /// This owner has the server's tasks.
    pub(crate) fn own_tasks(&mut self, queued: Queued) {
        let workers = self.config.task_workers;
        self.tasks = Some(Box::new(Tasks::new(queued, workers)));
    }

    /// Queues a task, which is counted already.
    pub(super) fn queue_task(&mut self, order: TaskOrder, bytes: SharedBytes<'_>) {
        let mut body = Vec::with_capacity(bytes.len());
        bytes.append_to(&mut body);
        // The clock shows whole milliseconds: one more, so that none is missing.
        let at = (order.delay > 0).then(|| {
            self.look_at_clock()
                .saturating_add(order.delay)
                .saturating_add(1)
        });
        let Some(tasks) = &mut self.tasks else { return };
        let body = Arc::new(body);
        tasks.add(Task { order, body }, at);
        if self.is_cut {
            return self.drop_tasks();
        }
        self.open_for_tasks();
    }

    /// Opens a mailbox for the next task, if there is one and no other mailbox asks for a place.
    fn open_for_tasks(&mut self) {
        if let Some(tasks) = &mut self.tasks
            && tasks.needs_box()
        {
            let id = self.table.add_mailbox(Target::Task).id;
            tasks.open(id);
            self.table.touch(id);
        }
    }

    /// Makes the tasks ready whose time has come.
    pub(super) fn fire_tasks(&mut self, now: u64, work: &mut usize) {
        if let Some(tasks) = &mut self.tasks
            && tasks.next().is_some()
        {
            tasks.fire(now, work);
            self.open_for_tasks();
        }
    }

    /// Whether it is the mailbox of tasks.
    pub(super) fn is_for_tasks(&self, id: ConnId) -> bool {
        self.tasks.as_ref().is_some_and(|tasks| tasks.has_box(id))
    }

    /// Takes the steps that are due for a mailbox of tasks.
    pub(super) fn advance_tasks(&mut self, workers: &mut impl Deliver, id: ConnId) {
        // `Break` needs no handling: the end of a wait touches it again.
        let _ = self.submit_task(workers, id);
        self.open_for_tasks();
        let is_idle = self.table.get(id).is_some_and(|it| it.work.in_flight == 0);
        if let Some(tasks) = &mut self.tasks
            && is_idle
            && tasks.try_close(id)
        {
            self.table.remove(id);
        }
    }

    fn submit_task(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        self.if_free(id)?;
        let next = self.tasks.as_mut().and_then(|tasks| tasks.first(id));
        let Some((order, body, attempt)) = next else {
            return Break(());
        };
        let place = self.place(workers, id, Want::Message(&body))?;
        let (Some(mailbox), Some(tasks)) = (self.table.get(id), &mut self.tasks) else {
            return Break(());
        };
        tasks.begin(id);
        let input = frame::Input {
            value: order.tag.unwrap_or(0),
            detail: u8::from(order.tag.is_some()),
            attempt,
            len: body.len() as u32,
            // No client waits for it.
            deadline: u64::MAX,
            ..self.header(mailbox, Event::Task)
        };
        let submitted = place.submit_copy(self, &input, &body);
        self.count(id, submitted);
        Continue(())
    }

    /// A task was not begun, or is to be run again.
    pub(super) fn task_returned(&mut self, frame: Returned) {
        if let Some(tasks) = &mut self.tasks {
            tasks.put_back(frame.conn, frame.body, frame.attempts);
            if self.is_cut {
                self.drop_tasks();
            }
        }
    }

    /// The callback of a task has committed its result.
    pub(super) fn set_result(&mut self, id: ConnId, bytes: SharedBytes<'_>) {
        if let Some(tasks) = &mut self.tasks {
            tasks.set_result(id, |result| bytes.append_to(result));
        }
    }

    /// The callback of a task has returned: its sender gets the result, if it waits for it.
    pub(super) fn task_done(&mut self, id: ConnId) {
        let Some(Running { order, result, .. }) = self.end_task(id) else {
            return;
        };
        if let Some(tag) = order.tag {
            let letter = Letter {
                event: Event::Finished,
                value: tag,
                charge: result.len() + LETTER_BYTES,
                body: Arc::new(result),
                attempts: 0,
            };
            self.post(Target::Seat(order.sender), letter);
        }
    }

    /// A task has ended: it is done or given up.
    pub(crate) fn end_task(&mut self, id: ConnId) -> Option<Running> {
        self.tasks.as_mut()?.end(id)
    }

    /// Drops all tasks that wait, since the server ends.
    pub(super) fn drop_tasks(&mut self) {
        let Some(tasks) = &mut self.tasks else { return };
        let count = tasks.clear();
        if count > 0 {
            limited!(
                warn,
                Topic::Tasks,
                "tasks are dropped, since the server ends: {count}"
            );
        }
    }
}
