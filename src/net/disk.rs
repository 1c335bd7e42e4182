//! Disk threads, which wait in the place of a loop: they read files, and close them.
//!
//! Their one rule: a device that does not answer, a dead file server for instance, holds up a few of them, and nothing
//! else. They start at first use, and end when they have been idle or with the server, which waits for none that is
//! held up.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::panics;
use crate::sys::signal;

/// The most threads.
const MOST: usize = 8;

/// The most of them that one device can hold up.
const MOST_OF_ONE: usize = 3;

/// A thread ends that has been idle for as long.
const IDLE: Duration = Duration::from_secs(10);

/// How long the end of a server waits for a read that is under way.
const PATIENCE: Duration = Duration::from_millis(200);

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The threads of this process.
static DISK: Disk = Disk::new();

/// Runs a job that may wait for this device. Its like are run in their order, a few at a time.
///
/// # Errors
/// No thread can be started, and none is there: the job is given back.
pub(super) fn run(device: u64, job: Job) -> Result<(), Job> {
    DISK.run(device, job)
}

/// Ends the threads, but for those that are held up, for which nobody can wait. No job may come any more.
pub(crate) fn finish() {
    DISK.finish();
}

struct Disk {
    state: Mutex<State>,
    has_work: Condvar,
    /// A thread has ended.
    has_ended: Condvar,
}

struct State {
    jobs: VecDeque<(u64, Job)>,
    /// The devices that threads are at.
    busy: Vec<u64>,
    threads: usize,
    handles: Vec<JoinHandle<()>>,
    is_ending: bool,
}

impl State {
    /// Removes and returns the first job of a device that does not hold up as many threads as it may.
    fn next(&mut self) -> Option<(u64, Job)> {
        let busy = &self.busy;
        let is_free = |device: u64| busy.iter().filter(|at| **at == device).count() < MOST_OF_ONE;
        let index = self.jobs.iter().position(|(device, _)| is_free(*device))?;
        let (device, job) = self.jobs.remove(index)?;
        self.busy.push(device);
        Some((device, job))
    }

    fn is_done(&mut self, device: u64) {
        if let Some(index) = self.busy.iter().position(|at| *at == device) {
            self.busy.swap_remove(index);
        }
    }
}

impl Disk {
    const fn new() -> Disk {
        Disk {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                busy: Vec::new(),
                threads: 0,
                handles: Vec::new(),
                is_ending: false,
            }),
            has_work: Condvar::new(),
            has_ended: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&'static self, device: u64, job: Job) -> Result<(), Job> {
        let mut state = self.lock();
        state.handles.retain(|handle| !handle.is_finished());
        state.jobs.push_back((device, job));
        let idle = state.threads - state.busy.len().min(state.threads);
        if state.threads < MOST && idle < state.jobs.len() {
            state.threads += 1;
            match self.start() {
                Ok(handle) => state.handles.push(handle),
                Err(error) => {
                    state.threads -= 1;
                    log::warn!("cannot start a disk thread: {error}");
                    if state.threads == 0
                        && let Some((_, job)) = state.jobs.pop_back()
                    {
                        return Err(job);
                    }
                }
            }
        }
        drop(state);
        self.has_work.notify_one();
        Ok(())
    }

    fn start(&'static self) -> std::io::Result<JoinHandle<()>> {
        // Signals are for the other threads.
        let mask = signal::block()?;
        let started = Builder::new()
            .name("tine disk".into())
            .spawn(|| self.work());
        drop(mask);
        started
    }

    fn finish(&self) {
        let end = Instant::now() + PATIENCE;
        let mut state = self.lock();
        state.is_ending = true;
        self.has_work.notify_all();
        while state.threads > 0 {
            let left = end.saturating_duration_since(Instant::now());
            let waited = self.has_ended.wait_timeout(state, left);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if timeout.timed_out() {
                break;
            }
        }
        state.is_ending = false;
        let (all_ended, handles) = (state.threads == 0, std::mem::take(&mut state.handles));
        drop(state);
        for handle in handles {
            if all_ended || handle.is_finished() {
                // A panic was logged by the thread itself.
                let _ = handle.join();
            }
        }
    }

    /// The life of a thread.
    fn work(&self) {
        panics::log_this_thread();
        let mut state = self.lock();
        loop {
            if let Some((device, job)) = state.next() {
                drop(state);
                job();
                state = self.lock();
                state.is_done(device);
                continue;
            }
            if state.is_ending {
                break;
            }
            let waited = self.has_work.wait_timeout(state, IDLE);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        self.has_ended.notify_all();
    }
}

#[cfg(all(test, not(miri)))] // Miri has no signals.
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Blocks the threads at a device until the sender is dropped.
    fn block(disk: &'static Disk, device: u64, jobs: usize) -> (Sender<()>, Receiver<()>) {
        let (go, begun) = (channel::<()>(), channel());
        let (sender, receiver) = go;
        let receiver = std::sync::Arc::new(Mutex::new(receiver));
        for _ in 0..jobs {
            let (wait, begin) = (receiver.clone(), begun.0.clone());
            let job = move || {
                begin.send(()).unwrap();
                let wait = wait.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = wait.recv();
            };
            assert!(disk.run(device, Box::new(job)).is_ok());
        }
        (sender, begun.1)
    }

    #[test]
    fn a_device_that_does_not_answer_holds_up_no_other() {
        static DISK: Disk = Disk::new();
        let (go, begun) = block(&DISK, 1, 50);
        (0..MOST_OF_ONE).for_each(|_| begun.recv().unwrap());
        let (done, answers) = channel();
        for number in 0..20 {
            let done = done.clone();
            let job = move || done.send(number).unwrap();
            assert!(DISK.run(2, Box::new(job)).is_ok());
        }
        let mut answers: Vec<i32> = answers.iter().take(20).collect();
        answers.sort_unstable();
        assert!(answers.into_iter().eq(0..20));
        assert_eq!(begun.try_recv().ok(), None, "no more than a few wait");
        assert!(DISK.lock().threads <= MOST);
        DISK.finish();
        assert!(DISK.lock().threads <= MOST_OF_ONE, "nobody waits for these");
        drop(go);
        (MOST_OF_ONE..50).for_each(|_| begun.recv().unwrap());
    }
}
