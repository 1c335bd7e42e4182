//! Mailboxes: posts and other work of the server become frames, as messages of clients do.
//!
//! A mailbox is in the table beside the connections, without a socket. So it waits for room and has its turns, its
//! frames are recalled and returned, and the crash policy is carried out, as for connections. Letters for one
//! seat have one mailbox, and keep their order; a letter for any worker has a mailbox of its own.

use std::ops::ControlFlow::{Break, Continue};

use super::deliver::{Deliver, Place, Want};
use super::{Flow, Next};
use crate::conn_id::ConnId;
use crate::event::Event;
use crate::handler::To;
use crate::ipc::frame;
use crate::ipc::link::Returned;
use crate::ipc::memory::SharedBytes;
use crate::net::connection::Target;
use crate::net::mail::Letter;

impl Flow {
    /// Puts a letter into the mailbox of its target.
    pub(crate) fn post(&mut self, target: Target, letter: Letter) {
        let seat = match target {
            Target::Seat(seat) => Some(seat),
            Target::Any | Target::Dispatched => None,
        };
        let known = seat.and_then(|seat| self.mail.of_seat(seat));
        let mailbox = known.unwrap_or_else(|| {
            let id = self.table.add_mailbox(target).id;
            self.mail.open(id, seat);
            id
        });
        self.kept += letter.charge();
        self.mail.push(mailbox, letter);
        self.table.touch(mailbox);
    }

    /// Delivers a post of a callback.
    pub(super) fn deliver_post(&mut self, to: To, bytes: SharedBytes<'_>) {
        let mut body = Vec::with_capacity(bytes.len());
        bytes.append_to(&mut body);
        let letter = Letter {
            event: Event::Post,
            value: 0,
            body: body.into(),
            attempts: 0,
        };
        let seats = self.config.workers as u16;
        match to {
            // Checked by the worker too, which may lie.
            To::Seat(seat) if seat < self.config.workers => {
                self.post(Target::Seat(seat as u16), letter);
            }
            To::Seat(_) => {}
            To::All => (0..seats).for_each(|seat| self.post(Target::Seat(seat), letter.clone())),
            To::LeastBusy => self.post(Target::Any, letter),
            To::Owner(id) => {
                let seat = self.table.get(id).map(|conn| conn.work.seat);
                if let Some(seat) = seat.filter(|_| !id.is_mailbox()) {
                    self.post(Target::Seat(seat), letter);
                }
            }
        }
    }

    /// Whether a mailbox is left, with letters or frames.
    pub(crate) fn has_mail(&self) -> bool {
        self.table.mailbox_count() > 0
    }

    /// Takes the steps that are due for a mailbox.
    pub(super) fn advance_mailbox(&mut self, workers: &mut impl Deliver, id: ConnId) {
        // `Break` needs no handling: the end of a wait touches it again.
        let _ = self.submit_letters(workers, id);
        let Some(mailbox) = self.table.get(id) else {
            return;
        };
        if self.mail.first(id).is_none() && mailbox.work.in_flight == 0 {
            let seat = match mailbox.target {
                Target::Seat(seat) => Some(seat),
                Target::Any | Target::Dispatched => None,
            };
            self.mail.close(id, seat);
            self.table.remove(id);
        }
    }

    fn submit_letters(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        self.if_free(id)?;
        while let Some(letter) = self.mail.first(id) {
            let body = std::sync::Arc::clone(&letter.body);
            let place = self.place(workers, id, Want::Message(&body))?;
            let (Some(mailbox), Some(letter)) = (self.table.get(id), self.mail.pop(id)) else {
                return Break(());
            };
            self.kept -= letter.charge();
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
        let letter = Letter {
            event: frame.kind,
            value: frame.value,
            body: frame.body.into(),
            attempts: frame.attempts,
        };
        self.kept += letter.charge();
        self.mail.put_back(frame.conn, letter);
    }
}
