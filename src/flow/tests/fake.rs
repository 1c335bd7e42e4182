//! The workers, played by a test.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::name;
use crate::conn_id::ConnId;
use crate::flow::Flow;
use crate::flow::deliver::{Deliver, For, Offer, Place, Submitted, Want};
use crate::ipc::frame::Input;
use crate::ipc::memory::Room;
use crate::net::connection::{Connection, Wait};

type Callback = Box<dyn FnMut(&mut Flow, &Input, &[u8])>;

pub(super) struct Fake {
    /// Their frames in flight.
    pub(super) frames: VecDeque<(Input, Vec<u8>)>,
    /// The number of frames that they still take.
    pub(super) left: usize,
    pub(super) waiting: VecDeque<ConnId>,
    /// The next frames go to another worker, once those in flight are done.
    pub(super) moves: bool,
    /// Runs each callback at once, as in base mode.
    pub(super) callback: Option<Callback>,
    pub(super) opened: Vec<ConnId>,
    pub(super) gone: Vec<ConnId>,
    seen: Vec<String>,
    /// The rooms that messages were wanted for.
    asked: Vec<RangeInclusive<usize>>,
    memory: Vec<u8>,
}

impl Fake {
    pub(super) fn new() -> Fake {
        Fake {
            frames: VecDeque::new(),
            left: usize::MAX,
            waiting: VecDeque::new(),
            moves: false,
            callback: None,
            opened: Vec::new(),
            gone: Vec::new(),
            seen: Vec::new(),
            asked: Vec::new(),
            memory: Vec::new(),
        }
    }

    #[track_caller]
    pub(super) fn last_opened(&self) -> ConnId {
        *self.opened.last().expect("a connection was opened")
    }

    /// Returns the names of the frames submitted since the last call.
    pub(super) fn seen(&mut self) -> Vec<String> {
        std::mem::take(&mut self.seen)
    }

    /// Returns the rooms that messages were wanted for since the last call.
    pub(super) fn asked(&mut self) -> Vec<RangeInclusive<usize>> {
        std::mem::take(&mut self.asked)
    }

    fn take(&mut self, flow: &mut Flow, input: &Input, body: &[u8]) -> Submitted {
        self.left -= 1;
        self.seen.push(name(input, body));
        if let Some(callback) = &mut self.callback {
            callback(flow, input, body);
            return Submitted::Done;
        }
        self.frames.push_back((*input, body.to_vec()));
        Submitted::InFlight
    }
}

impl Deliver for Fake {
    type Place<'a> = &'a mut Fake;

    fn offer(&mut self, conn: &mut Connection, want: Want<'_>) -> Offer<&mut Fake> {
        if want != Want::Event {
            self.asked.push(want.least()..=want.most());
        }
        if self.moves && conn.work.in_flight > 0 {
            return Offer::Wait(For::Quiet);
        }
        let is_next = conn.work.wait == Wait::Turn || self.waiting.is_empty();
        if self.left == 0 || !is_next {
            self.waiting.push_back(conn.id);
            return Offer::Wait(For::Room);
        }
        self.memory.resize(want.most(), 0);
        Offer::Place(self)
    }

    fn opened(&mut self, conn: &mut Connection) {
        self.opened.push(conn.id);
    }

    fn gone(&mut self, conn: &Connection) {
        self.gone.push(conn.id);
    }
}

impl Place for &mut Fake {
    fn room(&mut self) -> Room<'_> {
        Room::of(&mut self.memory)
    }

    fn submit(self, flow: &mut Flow, input: &Input) -> Submitted {
        let memory = std::mem::take(&mut self.memory);
        self.take(flow, input, &memory[..input.len as usize])
    }

    fn submit_copy(self, flow: &mut Flow, input: &Input, body: &[u8]) -> Submitted {
        assert_eq!(input.len as usize, body.len());
        self.take(flow, input, body)
    }
}
