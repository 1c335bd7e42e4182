//! Tasks: what callbacks have queued for task workers, from the commit that brings a task to the end of its callback.
//!
//! Its one rule: a task is in one place at a time. It waits for its time, it waits for a worker, or a mailbox has it, whose
//! frame is with a worker or has been returned.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::wheel::{Key, Wheel};
use crate::conn_id::ConnId;
use crate::handler::TaskOrder;
use crate::ipc::queued::Queued;

/// The most mailboxes for tasks, for each task worker: one more asks for a place when the last one has got it.
const BOXES: usize = 64;

/// A task, as its sender has queued it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Task {
    pub(crate) order: TaskOrder,
    pub(crate) body: Arc<Vec<u8>>,
}

/// The task of a mailbox.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) order: TaskOrder,
    /// The length of its bytes.
    pub(crate) len: usize,
    /// What its callback has committed as its result.
    pub(crate) result: Vec<u8>,
    /// Its frame was returned, with its bytes and the attempts so far.
    returned: Option<(Arc<Vec<u8>>, u8)>,
}

/// All tasks of a server; its first reactor has them.
pub(crate) struct Tasks {
    queued: Queued,
    /// By number, in the order in which they have become ready.
    ready: BTreeMap<u64, Task>,
    delayed: HashMap<u64, (Key, Task)>,
    wheel: Wheel<u64>,
    /// The number of the waiting task with this key.
    keys: HashMap<u64, u64>,
    numbered: u64,
    /// A mailbox without a task asks for a place.
    boxes: HashMap<ConnId, Option<Running>>,
    asking: Option<ConnId>,
    most_boxes: usize,
}

impl Tasks {
    pub(crate) fn new(queued: Queued, task_workers: usize) -> Tasks {
        Tasks {
            queued,
            ready: BTreeMap::new(),
            delayed: HashMap::new(),
            wheel: Wheel::new(0),
            keys: HashMap::new(),
            numbered: 0,
            boxes: HashMap::new(),
            asking: None,
            most_boxes: BOXES * task_workers,
        }
    }

    // Waiting

    /// Adds a task, which is counted already: ready now, or at a time. It replaces the waiting one with its key; a ready
    /// task that replaces a ready one has its place.
    pub(crate) fn add(&mut self, task: Task, at: Option<u64>) {
        self.numbered += 1;
        let mut number = self.numbered;
        if let Some(key) = task.order.key
            && let Some(last) = self.keys.get(&key).copied()
        {
            if at.is_none() && self.ready.contains_key(&last) {
                number = last;
            }
            if let Some(replaced) = self.take(last) {
                self.queued.remove(replaced.body.len());
            }
        }
        if let Some(key) = task.order.key {
            self.keys.insert(key, number);
        }
        match at {
            Some(at) => {
                let timer = self.wheel.set(at, number);
                self.delayed.insert(number, (timer, task));
            }
            None => drop(self.ready.insert(number, task)),
        }
    }

    /// Removes a task that waits.
    fn take(&mut self, number: u64) -> Option<Task> {
        let task = match self.delayed.remove(&number) {
            Some((timer, task)) => {
                self.wheel.remove(timer);
                task
            }
            None => self.ready.remove(&number)?,
        };
        if let Some(key) = task.order.key {
            self.keys.remove(&key);
        }
        Some(task)
    }

    /// Returns the time at which [`fire`](Self::fire) is to be called.
    pub(crate) fn next(&self) -> Option<u64> {
        self.wheel.next()
    }

    /// Makes the tasks ready whose time has come, while there is work left ([`Wheel::pop`]).
    pub(crate) fn fire(&mut self, now: u64, work: &mut usize) {
        while let Some(number) = self.wheel.pop(now, work) {
            let Some((_, task)) = self.delayed.remove(&number) else {
                continue;
            };
            self.numbered += 1;
            if let Some(key) = task.order.key {
                self.keys.insert(key, self.numbered);
            }
            self.ready.insert(self.numbered, task);
        }
    }

    /// Whether a task waits for a worker alone.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    // Mailboxes

    /// Whether a mailbox is to be opened, which then asks for a place.
    pub(crate) fn needs_box(&self) -> bool {
        self.has_ready() && self.asking.is_none() && self.boxes.len() < self.most_boxes
    }

    /// A mailbox was opened.
    pub(crate) fn open(&mut self, id: ConnId) {
        self.boxes.insert(id, None);
        self.asking = Some(id);
    }

    /// Whether it is the mailbox of tasks.
    pub(crate) fn has_box(&self, id: ConnId) -> bool {
        self.boxes.contains_key(&id)
    }

    /// Returns the next task of a mailbox, and its attempts so far: the one that was returned to it, or one that
    /// waits. `None` while a worker has its task, and if there is none for it.
    pub(crate) fn first(&mut self, id: ConnId) -> Option<(TaskOrder, Arc<Vec<u8>>, u8)> {
        match self.boxes.get(&id)? {
            Some(running) => {
                let (body, attempts) = running.returned.as_ref()?;
                Some((running.order, Arc::clone(body), *attempts))
            }
            None if *self.asking.get_or_insert(id) == id => {
                let (_, task) = self.ready.first_key_value()?;
                Some((task.order, Arc::clone(&task.body), 0))
            }
            None => None,
        }
    }

    /// The task that [`first`](Self::first) has returned is with a worker.
    pub(crate) fn begin(&mut self, id: ConnId) {
        match self.boxes.get_mut(&id) {
            Some(Some(running)) => running.returned = None,
            Some(empty) => {
                let number = self.ready.first_key_value().map(|(number, _)| *number);
                if let Some((_, task)) = number.and_then(|number| self.ready.remove_entry(&number))
                {
                    if let Some(key) = task.order.key {
                        self.keys.remove(&key);
                    }
                    *empty = Some(Running {
                        order: task.order,
                        len: task.body.len(),
                        result: Vec::new(),
                        returned: None,
                    });
                }
                self.asking = None;
            }
            None => {}
        }
    }

    /// The frame of a mailbox was returned: it is to be submitted again, with these attempts so far.
    pub(crate) fn put_back(&mut self, id: ConnId, body: Vec<u8>, attempts: u8) {
        if let Some(Some(running)) = self.boxes.get_mut(&id) {
            running.returned = Some((Arc::new(body), attempts));
        }
    }

    /// Sets the result of the task of a mailbox.
    pub(crate) fn set_result(&mut self, id: ConnId, fill: impl FnOnce(&mut Vec<u8>)) {
        if let Some(Some(running)) = self.boxes.get_mut(&id) {
            running.result.clear();
            fill(&mut running.result);
        }
    }

    /// The task of a mailbox has ended.
    pub(crate) fn end(&mut self, id: ConnId) -> Option<Running> {
        let running = self.boxes.get_mut(&id)?.take()?;
        self.queued.remove(running.len);
        Some(running)
    }

    /// Whether a mailbox without a task is to be closed. Another one asks for a place, or there is nothing to ask for.
    pub(crate) fn try_close(&mut self, id: ConnId) -> bool {
        let is_needed = match self.boxes.get(&id) {
            Some(Some(_)) => true,
            Some(None) => self.has_ready() && self.asking == Some(id),
            None => false,
        };
        if !is_needed {
            self.boxes.remove(&id);
            self.asking = self.asking.filter(|asking| *asking != id);
        }
        !is_needed
    }

    /// Drops all tasks that wait, also those that were returned. Returns how many there were.
    pub(crate) fn clear(&mut self) -> usize {
        let mut numbers: Vec<u64> = self.delayed.keys().copied().collect();
        numbers.extend(self.ready.keys());
        for number in &numbers {
            if let Some(task) = self.take(*number) {
                self.queued.remove(task.body.len());
            }
        }
        let is_returned =
            |it: &Option<Running>| it.as_ref().is_some_and(|it| it.returned.is_some());
        let returned: Vec<ConnId> = self
            .boxes
            .iter()
            .filter_map(|(id, it)| is_returned(it).then_some(*id))
            .collect();
        for id in &returned {
            self.end(*id);
        }
        numbers.len() + returned.len()
    }
}

#[cfg(all(test, not(miri)))] // Miri has no shared mappings.
mod tests;
