//! Mailboxes: posts and other work of the server become frames, as messages of clients do.
//!
//! A mailbox is in the table beside the connections, without a socket. So it waits for room and has its turns, its
//! frames are recalled and returned, and the crash policy is carried out, as for connections. Letters for one
//! seat have one mailbox, and keep their order. A letter for any worker has a mailbox to itself, while that has no other;
//! there are only so many of these.

use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;

use super::deliver::{Deliver, Place, Want};
use super::{Flow, Next};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::To;
use crate::ipc::frame;
use crate::ipc::link::Returned;
use crate::ipc::memory::SharedBytes;
use crate::limited::{Topic, limited};
use crate::net::connection::Target;
use crate::net::mail::{LETTER_BYTES, Letter};

impl Flow {
    /// Puts a letter into the mailbox of its target.
    pub(crate) fn post(&mut self, target: Target, letter: Letter) {
        if self.is_cut || self.keeps_too_much() {
            // Of workers that keep to their limit, only at the end of the server.
            limited!(
                error,
                Topic::Posts,
                "a {} is dropped: {}",
                letter.event,
                match self.is_cut {
                    true => "the server ends",
                    false => "what is kept for users is over twice its limit",
                }
            );
            return;
        }
        self.kept += letter.charge;
        let seat = seat_of(target);
        let known = seat.and_then(|seat| self.mail.of_seat(seat));
        if seat.is_none() && !self.mail.may_open_any() {
            return self.mail.wait(letter);
        }
        let mailbox = known.unwrap_or_else(|| {
            let id = self.table.add_mailbox(target).id;
            self.mail.open(id, seat);
            id
        });
        self.mail.push(mailbox, letter);
        self.table.touch(mailbox);
    }

    /// Delivers a post of a callback.
    pub(super) fn deliver_post(&mut self, to: To, bytes: SharedBytes<'_>) {
        let mut body = Vec::with_capacity(bytes.len());
        bytes.append_to(&mut body);
        let seats = self.config.workers;
        let copies = match to {
            To::All => seats,
            To::Seat(_) | To::LeastBusy | To::Owner(_) => 1,
        };
        let letter = Letter {
            event: Event::Post,
            value: 0,
            charge: body.len().div_ceil(copies) + LETTER_BYTES,
            body: Arc::new(body),
            attempts: 0,
        };
        match to {
            // Checked by the worker too, which may lie.
            To::Seat(seat) if seat < seats => self.post(Target::Seat(seat as u16), letter),
            To::Seat(_) => {}
            To::All => {
                (0..seats).for_each(|seat| self.post(Target::Seat(seat as u16), letter.clone()));
            }
            To::LeastBusy => self.post(Target::Any, letter),
            To::Owner(id) => {
                let seat = self.table.get(id).map(|conn| conn.work.seat);
                if let Some(seat) = seat.filter(|_| !id.is_mailbox()) {
                    self.post(Target::Seat(seat), letter);
                }
            }
        }
    }

    /// Drops all letters, since the server ends.
    pub(super) fn drop_mail(&mut self) {
        self.is_cut = true;
        let letters = self.mail.clear();
        if !letters.is_empty() {
            log::warn!(
                "posts are dropped, since the server ends: {}",
                letters.len()
            );
        }
        self.drop_tasks();
        self.kept -= letters.iter().map(|letter| letter.charge).sum::<usize>();
        self.table.touch_mailboxes();
    }

    #[cfg(test)]
    pub(crate) fn mailboxes(&self) -> usize {
        self.table.mailbox_count()
    }

    /// Whether a mailbox is left, with letters or frames.
    pub(crate) fn has_mail(&self) -> bool {
        self.table.mailbox_count() > 0
    }

    /// Takes the steps that are due for a mailbox.
    pub(super) fn advance_mailbox(&mut self, workers: &mut impl Deliver, id: ConnId) {
        if self.is_for_tasks(id) {
            return self.advance_tasks(workers, id);
        }
        // `Break` needs no handling: the end of a wait touches it again.
        let _ = self.submit_letters(workers, id);
        let Some(mailbox) = self.table.get(id) else {
            return;
        };
        if self.mail.first(id).is_some() || mailbox.work.in_flight > 0 {
            return;
        }
        let seat = seat_of(mailbox.target);
        let next = match seat {
            Some(_) => None,
            None => self.mail.next_waiting(),
        };
        if let Some(letter) = next {
            self.mail.push(id, letter);
            return self.table.touch(id);
        }
        self.mail.close(id, seat);
        self.table.remove(id);
    }

    fn submit_letters(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        self.if_free(id)?;
        while let Some(letter) = self.mail.first(id) {
            let body = Arc::clone(&letter.body);
            let place = self.place(workers, id, Want::Message(&body))?;
            let (Some(mailbox), Some(letter)) = (self.table.get(id), self.mail.pop(id)) else {
                return Break(());
            };
            self.kept -= letter.charge;
            let input = frame::Input {
                value: letter.value,
                attempt: letter.attempts,
                len: body.len() as u32,
                // No client waits for it.
                deadline: u64::MAX,
                ..self.header(mailbox, letter.event)
            };
            let submitted = place.submit_copy(self, &input, &body);
            self.count(id, submitted);
        }
        Continue(())
    }

    /// A letter was not begun, or is to be run again.
    pub(super) fn letter_returned(&mut self, frame: Returned) {
        if self.is_for_tasks(frame.conn) {
            return self.task_returned(frame);
        }
        if self.is_cut {
            return;
        }
        let letter = Letter {
            event: frame.kind,
            value: frame.value,
            charge: frame.body.len() + LETTER_BYTES,
            body: Arc::new(frame.body),
            attempts: frame.attempts,
        };
        self.kept += letter.charge;
        self.mail.put_back(frame.conn, letter);
    }
}

/// Returns the seat of a mailbox; `None` if it is for any.
fn seat_of(target: Target) -> Option<u16> {
    match target {
        Target::Seat(seat) => Some(seat),
        Target::Any | Target::Task | Target::Dispatched => None,
    }
}
