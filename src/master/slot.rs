//! A reactor's side of a slot, the memory of one worker process: frames go in, commits come out.
//!
//! Runs in the reactor threads. Its one rule: a worker is never waited for; the time that it takes for a
//! frame is only recorded.

#[cfg(all(test, not(miri)))] // Miri has no shared mappings.
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::outlet::Outlet;
use super::transit::Transit;
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::flow::Flow;
use crate::flow::deliver::{Place, Submitted};
use crate::ipc::arena::SlotMemory;
use crate::ipc::carried::Carried;
use crate::ipc::frame::{self, InputKind};
use crate::ipc::layout::{Shared, SlotWords};
use crate::ipc::link::Commit;
use crate::ipc::link::{Broken, Legacy, ReactorLink, Returned};
use crate::ipc::memory::Room;
use crate::ipc::record::Output;
use crate::ipc::sleeper::Ringer;
#[cfg(feature = "status")]
use crate::status::SlotStatus;

/// After this time without a finished frame, the log says how much waits for the worker; then again each
/// time that the time has doubled.
const WARN_AFTER: Duration = Duration::from_secs(1);

/// A worker that sleeps in spite of frames is rung for again after this time, and each time that as much has
/// passed. A ring takes microseconds to arrive.
const LATE: Duration = Duration::from_millis(100);

/// The most that is collected from one worker before other work has its turn.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    pub(super) commits: usize,
    /// Bytes to send. Counted too, since a commit that refers to bytes of its message is short in the
    /// ring even if it sends many.
    pub(super) bytes: usize,
    /// Not read beyond the credit to another reactor.
    pub(super) keeps_credit: bool,
}

impl Batch {
    /// Everything that a dead worker has left: at most what its outbox holds.
    pub(super) const ALL: Batch = Batch {
        commits: usize::MAX,
        bytes: usize::MAX,
        keeps_credit: false,
    };
}

/// The frames that have left an inbox.
#[derive(Clone, Copy, Default)]
pub(super) struct Done {
    pub(super) frames: usize,
    /// Those that were not recalled before.
    pub(super) callbacks: usize,
}

/// One reactor's link to the worker in a slot, and its progress.
pub(super) struct Slot {
    pub(super) link: ReactorLink,
    /// The seat that its worker has or had last.
    pub(super) seat: usize,
    /// The worker that this is the memory of; 0 for none.
    filled_by: u32,
    memory: Arc<SlotMemory>,
    words: Shared<SlotWords>,
    ringer: Ringer,
    /// Frames were submitted since the last call of `ring`.
    unrung: bool,
    /// Its last commit found no credit to this reactor.
    held_for: Option<usize>,
    /// The oldest frame at the last check, and what the worker had finished, for all reactors.
    oldest: Option<u64>,
    done: usize,
    /// The check that first found it the oldest.
    since: Instant,
    /// The check that first found it begun.
    begun: Option<Instant>,
    warn_after: Duration,
    /// No message expires before, in the time of the reactor's loop.
    expires: u64,
    rung_again: Instant,
    /// Shared with its question to another reactor, while that is on its way.
    pub(super) under_way: Arc<()>,
}

impl Slot {
    pub(super) fn new(
        memory: Arc<SlotMemory>,
        generation: u32,
        reactor: usize,
        budget: usize,
    ) -> Slot {
        Slot {
            link: ReactorLink::new(&memory.links[reactor], budget),
            seat: 0,
            filled_by: generation,
            words: memory.words.clone(),
            memory,
            ringer: Ringer::default(),
            unrung: false,
            held_for: None,
            oldest: None,
            done: 0,
            since: Instant::now(),
            begun: None,
            warn_after: WARN_AFTER,
            expires: u64::MAX,
            rung_again: Instant::now(),
            under_way: Arc::new(()),
        }
    }

    // Which worker works here

    /// Opens the link to a new worker, which has this seat.
    pub(super) fn open(&mut self, seat: usize, generation: u32) {
        self.seat = seat;
        self.link.open(generation);
        self.memory.bell.ring();
    }

    /// Returns the generation of the worker that was forked into the slot; 0 for none.
    pub(super) fn filled_by(&self) -> u32 {
        self.filled_by
    }

    pub(super) fn into_memory(self) -> Arc<SlotMemory> {
        self.memory
    }

    /// Returns the generation that the link was opened for; 0 for none.
    pub(super) fn generation(&self) -> u32 {
        self.link.generation()
    }

    // Frames in

    /// Whether there is room for a frame with a body of `len` bytes.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.link.has_room(len)
    }

    /// Returns a place for a frame, if there is room: for a message of at least `least` bytes, and the `carried` bytes behind
    /// it. A submitted frame is counted in `frames`.
    pub(super) fn place<'a>(
        &'a mut self,
        least: usize,
        most: usize,
        carried: usize,
        frames: Option<&'a AtomicUsize>,
    ) -> Option<Vacancy<'a>> {
        self.link.takes(least + carried).then_some(Vacancy {
            slot: self,
            most,
            carried,
            frames,
            waited_since: 0,
        })
    }

    /// Rings the bell, if a frame was submitted and the worker sleeps.
    pub(super) fn ring(&mut self) {
        if std::mem::take(&mut self.unrung) && self.ringer.due(&self.words.sleeper) {
            self.memory.bell.ring();
        }
    }

    // Commits out

    /// Whether the worker has published output.
    pub(super) fn has_output(&mut self, transit: &Transit, own: usize) -> bool {
        !self.is_held(transit, own) && self.link.has_output()
    }

    /// Whether the worker is not read for want of credit.
    pub(super) fn is_held(&mut self, transit: &Transit, own: usize) -> bool {
        self.held_for = self.held_for.filter(|to| transit.holds_back(own, *to));
        self.held_for.is_some()
    }

    /// Applies the worker's commits, at most a batch. Returns how many frames have left the inbox, and whether
    /// the worker has kept to the protocol.
    pub(super) fn collect(
        &mut self,
        most: Batch,
        to: &mut Outlet<'_>,
    ) -> (Done, Result<(), Broken>) {
        let (mut done, mut bytes) = (Done::default(), 0);
        for _ in 0..most.commits {
            if bytes >= most.bytes || self.held_for.is_some() && most.keeps_credit {
                break;
            }
            let commit = match self.link.next_commit() {
                Ok(Some(commit)) => commit,
                Ok(None) => break,
                Err(broken) => return (done, Err(broken)),
            };
            if commit == Commit::Question {
                bytes += self.answer_question(to);
                continue;
            }
            bytes += self.link.charged() + std::mem::take(&mut to.read);
            let kept = to.flow.kept();
            let promised = self.apply_outputs(to);
            if let Some(delivery) = self.link.finish(commit) {
                done.frames += 1;
                done.callbacks += usize::from(delivery.kind != InputKind::Void);
                to.done(delivery.conn, delivery.kind);
            } else if commit == Commit::Flush {
                self.link
                    .under_way()
                    .into_iter()
                    .for_each(|id| to.flushed(id));
            }
            if let Some(id) = promised {
                self.recall_behind(id, commit, to);
            }
            self.held_for = to.full.take();
            if commit == Commit::Failed
                && let Some(failed) = self.link.fail()
            {
                done.frames += 1;
                done.callbacks += 1;
                // The worker waits until its frames are recalled.
                self.unrung = true;
                to.failed(failed);
            }
            if let Some(broken) = to.broken.take() {
                self.link.refuse(commit);
                return (done, Err(broken));
            }
            if to.flow.kept() > kept && to.flow.keeps_too_much() {
                self.link.refuse(commit);
                return (done, Err(Broken::Kept(to.flow.most_kept_of_all())));
            }
        }
        (done, Ok(()))
    }

    /// Applies the outputs of a commit. Returns the connection whose answer was promised for later.
    fn apply_outputs(&self, to: &mut Outlet<'_>) -> Option<ConnId> {
        let mut promised = None;
        for index in 0..self.link.output_count() {
            let (output, bytes) = self.link.output(index);
            if let Output::Promise(id, _) = output {
                promised = Some(id);
            }
            match (output, &self.memory.files) {
                (Output::File(id, span), Some(inbox)) => to.file(id, span, inbox),
                _ => to.output(output, bytes),
            }
        }
        promised
    }

    /// Recalls the frames of a connection whose answer was promised: they are behind the answer. The worker waits for
    /// that before it takes the next frame.
    fn recall_behind(&mut self, id: ConnId, commit: Commit, to: &mut Outlet<'_>) {
        let under_way = u32::from(commit == Commit::Flush);
        let conn = to.flow.conn(id);
        if conn.is_some_and(|it| it.work.awaits_answer && it.work.in_flight > under_way) {
            let behind = self.link.recall_of(id);
            self.unrung = true;
            to.flow.frames_returned(behind);
        }
    }

    /// Wakes the worker, which waits for an answer.
    pub(super) fn wake(&self) {
        self.memory.bell.ring();
    }

    /// Publishes how far the outbox was read, and wakes the worker if it sleeps for lack of room.
    pub(super) fn release(&mut self) {
        if self.link.release() {
            self.memory.bell.ring();
        }
    }

    /// Whether the inbox has pages that short messages do not need.
    pub(super) fn is_spread(&self) -> bool {
        self.link.is_spread()
    }

    /// Whether much output was held back, and is no more. Returns true once for each time.
    pub(super) fn has_freed_much(&mut self) -> bool {
        self.link.has_freed_much()
    }

    /// Gives back such pages. Returns whether more can be given back now.
    pub(super) fn give_back_pages(&mut self) -> bool {
        self.link.give_back_pages()
    }

    // Frames back

    /// Takes back the frames that the worker has not begun.
    pub(super) fn recall(&mut self) -> Vec<Returned> {
        let returned = self.link.recall();
        self.unrung = true;
        returned
    }

    /// Returns the time at which the next message may expire.
    pub(super) fn expires(&self) -> u64 {
        self.expires
    }

    /// Takes back the messages that have expired unbegun, and all frames of their connections behind them,
    /// oldest first.
    pub(super) fn take_expired(&mut self, now: u64) -> Vec<Returned> {
        let mut taken = Vec::new();
        if self.link.next_expiry() <= now {
            // In one recall: the worker begins nothing meanwhile, and no answer overtakes the reply to the
            // message before it.
            let mut conns = HashSet::new();
            taken = self.link.recall_if(|delivery| {
                conns.contains(&delivery.conn)
                    || delivery.has_expired(now) && conns.insert(delivery.conn)
            });
            self.unrung = true;
        }
        self.expires = self.link.next_expiry();
        taken
    }

    /// Returns the number of frames in the inbox, recalled ones included.
    pub(super) fn left(&self) -> usize {
        self.link.left()
    }

    /// The worker is dead: takes back all its frames.
    pub(super) fn cut(&mut self) -> Legacy {
        self.link.cut()
    }

    // The worker's progress

    /// Returns the number of frames with the worker.
    pub(super) fn in_flight(&self) -> usize {
        self.link.in_flight()
    }

    /// Returns the oldest frame that is not done.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.link.oldest()
    }

    /// Returns how long the oldest frame has been the oldest, measured from check to check.
    ///
    /// `done` changes when the worker finishes a frame of any reactor: behind those of others, the oldest
    /// frame waits for a worker that is not stuck. Nor is one whose output is held back.
    pub(super) fn check(&mut self, done: usize, now: Instant) -> Duration {
        let oldest = self.link.oldest();
        let has_changed = oldest != self.oldest || done != self.done;
        if has_changed || self.held_for.is_some() {
            (self.oldest, self.done, self.since, self.begun) = (oldest, done, now, None);
            self.warn_after = WARN_AFTER;
        }
        if self.begun.is_none() && self.link.has_begun() {
            self.begun = Some(now);
        }
        match oldest {
            Some(_) => now.duration_since(self.since),
            None => Duration::ZERO,
        }
    }

    /// Rings again for a worker that sleeps although it has been at a frame for long: a process that it has
    /// forked may have swallowed the ring.
    pub(super) fn ring_again(&mut self, age: Duration, now: Instant) {
        let is_late = age >= LATE && now.duration_since(self.rung_again) >= LATE;
        if is_late && (self.words.sleeper.is_asleep() || self.link.awaits_room()) {
            self.rung_again = now;
            self.memory.bell.ring();
        }
    }

    /// Whether this frame has been the oldest for at least `age`.
    pub(super) fn is_older_than(&self, frame: Option<u64>, age: Duration, now: Instant) -> bool {
        frame.is_some() && frame == self.oldest && now.duration_since(self.since) >= age
    }

    /// Returns the number of frames that the worker has not begun, by its own account.
    pub(super) fn unbegun(&self) -> usize {
        let has_begun = usize::from(self.link.has_begun());
        self.link.in_flight().saturating_sub(has_begun)
    }

    /// Returns the slot's part of the server's status.
    #[cfg(feature = "status")]
    pub(super) fn status(&mut self, now: Instant) -> SlotStatus {
        self.check(self.done, now);
        SlotStatus {
            generation: self.link.generation(),
            under_way: self.begun.map(|begun| now.duration_since(begun)),
            waiting: self.unbegun(),
        }
    }

    /// Logs that a worker makes no progress, if messages or connections wait for it.
    pub(super) fn warn_if_stuck(&mut self, age: Duration, queued: usize) {
        let unbegun = self.unbegun();
        if age < self.warn_after || unbegun + queued == 0 {
            return;
        }
        self.warn_after = age * 2;
        log::warn!(
            "worker#{} has finished no callback for {:.1} s; waiting in its inbox: {unbegun}, for room there: {queued} \
             (with callback_limit the log shows where it is)",
            self.seat,
            age.as_secs_f64()
        );
    }
}

/// A place in an inbox.
pub(crate) struct Vacancy<'a> {
    slot: &'a mut Slot,
    most: usize,
    carried: usize,
    /// In modes that dispatch each message: the frames in this slot's inboxes, of all reactors.
    frames: Option<&'a AtomicUsize>,
    /// Since when the connection has waited for it, in microseconds; 0 if it has not.
    pub(super) waited_since: u64,
}

impl Vacancy<'_> {
    fn submitted(self, input: &frame::Input) -> Submitted {
        self.slot.unrung = true;
        if self.waited_since != 0 {
            self.slot.link.had_waited(self.waited_since);
        }
        if input.kind != Event::Close.into() {
            // Of some that never expire, too: then a look finds nothing.
            self.slot.expires = self.slot.expires.min(input.deadline);
        }
        if let Some(frames) = self.frames {
            frames.fetch_add(1, Ordering::Relaxed);
        }
        Submitted::InFlight
    }
}

impl Place for Vacancy<'_> {
    fn room(&mut self) -> Room<'_> {
        self.slot.link.room(self.most, self.carried)
    }

    fn submit(self, flow: &mut Flow, input: &frame::Input) -> Submitted {
        let carried = carried(flow, input.conn);
        debug_assert_eq!(carried.len(), self.carried);
        self.slot.link.submit(input, carried);
        self.submitted(input)
    }

    fn submit_copy(self, flow: &mut Flow, input: &frame::Input, body: &[u8]) -> Submitted {
        let carried = carried(flow, input.conn);
        debug_assert_eq!(carried.len(), self.carried);
        self.slot.link.submit_copy(input, carried, body);
        self.submitted(input)
    }
}

/// Returns what the next frame of a connection carries.
fn carried(flow: &Flow, id: ConnId) -> Carried<'_> {
    let conn = flow.conn(id);
    conn.map_or(Carried::default(), |conn| conn.work.carried())
}
