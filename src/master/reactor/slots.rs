//! The workers of a reactor come and go: memory for a new one, frames that move to another one, and the end
//! of a dead one.

use std::sync::Arc;

use super::{BATCH, BELL, Reactor, Report};
use crate::ipc::arena::SlotMemory;
use crate::ipc::link::Legacy;
use crate::master::crash::Cause;
use crate::master::slot::Batch;
use crate::net::files::close_all;
use crate::sys::epoll::Interest;

impl Reactor {
    /// Takes back the frames that a living worker has not begun.
    pub(super) fn take_back_from(&mut self, slot: usize) {
        self.collect_from(slot, BATCH);
        let returned = self.seats.recall(slot);
        self.flow.frames_returned(returned);
        self.flow.settle(&mut self.seats);
    }

    /// A worker was forked into an empty slot.
    pub(super) fn slot_forked(&mut self, slot: usize, generation: u32, memory: Arc<SlotMemory>) {
        let bell = &memory.links[usize::from(self.flow.owner())].bell;
        if let Err(error) = self.poller.add(bell, BELL, Interest::BELL) {
            let number = self.flow.owner();
            log::error!("reactor#{number} can't watch the doorbell of a new worker: {error}");
            let report = Report::CannotServe { slot, generation };
            return self.master.send(report);
        }
        self.seats.fill_slot(slot, generation, memory);
    }

    /// A worker takes a seat. The worker before it may still run its last callback, and keeps that frame.
    pub(super) fn seat_taken(&mut self, seat: usize, slot: usize, generation: u32) {
        if let Some(last) = self.seats.take_seat(seat, slot, generation) {
            self.take_back_from(last);
        }
    }

    /// A worker is dead. Its commits are applied, uncommitted output is dropped; the frame under way gets
    /// the fate that the crash policy declares, and the other frames go to the next worker.
    pub(super) fn slot_emptied(&mut self, slot: usize, generation: u32) {
        if self.seats.filled_by(slot) != generation {
            return;
        }
        self.seats.look_last(slot);
        self.collect_from(slot, Batch::ALL);
        let (seat, Legacy { under_way, rest }) = self.seats.empty_slot(slot);
        let memory = self.seats.vacate(slot);
        if let Some(files) = &memory.files {
            close_all(files.drain(usize::from(self.flow.owner())));
        }
        // Not by closing it: a process that the worker has left behind may have a copy, and ring.
        let removed = self
            .poller
            .remove(&memory.links[usize::from(self.flow.owner())].bell);
        if let Err(error) = removed {
            log::debug!("cannot stop watching a worker's doorbell: {error}");
        }
        self.master.send(Report::Left(memory));
        self.flow.frames_returned(rest);
        if let Some(frame) = under_way {
            // Last: each returned frame goes to the front, and this one must be first.
            self.decide(seat, frame, Cause::Died);
        }
    }
}
