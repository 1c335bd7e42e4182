//! ONE CONNECTION'S BYTES, in order, top to bottom: accepted, read, cut into messages, submitted to a
//! worker, answered, written, closed.
//!
//! The stages are the same in both modes. What differs is the other end of *submit*: in process mode a
//! link to a worker, in base mode the handler itself ([`deliver`]).
//!
//! Runs in the reactor threads of the master, and in every base mode worker. Its one rule: whatever
//! happens to a connection only touches it, and [`Flow::settle`] does then what is due for it, in the
//! order of its life. That is the one place that decides what a connection does next.
//!
//! This page and 15 files are the whole way of a client's bytes in process mode, from accept to reply.
//! Rings and frames, on which the two ends of a link stand, can be taken on trust.
//!
//! | stage | where |
//! |---|---|
//! | accept: off a listener, by one reactor for another | `net/acceptor.rs`, `master/reactor.rs` |
//! | open: the connection gets its name and its place in the table | `flow/open.rs`, `net/table.rs`, `net/connection.rs` |
//! | input: what a socket has becomes bytes, and bytes become messages | `flow/input.rs` |
//! | submit: a message becomes a frame in a worker's inbox | `flow/submit.rs`, `flow/deliver.rs`, `master/seats.rs`, `master/slot.rs`, `ipc/link/reactor.rs` |
//! | callback: the handler runs, and its output is committed | `worker/process.rs`, `worker/callback.rs`, `ipc/link/worker.rs` |
//! | output: what was committed goes to the sockets | `flow/output.rs`, from `master/slot.rs` |
//! | close: FIN or RST, by either side, at a deadline, or with the server | `flow/close.rs`, which is the 16th |
//!
//! In base mode `worker/direct.rs` is the other end of *submit*: the callback runs there and then.

mod close;
pub(crate) mod deliver;
mod input;
mod open;
mod output;
mod submit;
#[cfg(all(test, not(miri)))] // Miri has no sockets.
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;

use self::deliver::Deliver;
use self::input::{Progress, Reads};
use crate::config::{Config, LARGE_BUFFER, LINGER};
use crate::conn_id::ConnId;
use crate::net::budget::Budget;
use crate::net::buffers::{Scratch, Spares};
use crate::net::connection::{Connection, Input, Wait};
use crate::net::loads::Load;
use crate::net::table::Table;
use crate::net::timers::{Clock, Deadlines};
use crate::sys::epoll;

/// The connections of one owner, a reactor or a base mode worker, and what the stages work with.
pub(crate) struct Flow {
    table: Table,
    config: Arc<Config>,
    load: Load,
    /// Where what is read comes first.
    reads: Reads,
    scratch: Scratch,
    spares: Spares,
    budget: Budget,
    clock: Clock,
    close_deadlines: Option<Deadlines>,
    linger_deadlines: Deadlines,
}

/// Whether the next step of a connection's life may follow, or it has to wait, or there is no more of it.
type Next = ControlFlow<()>;

impl Flow {
    pub(crate) fn new(table: Table, config: Arc<Config>, load: Load) -> Flow {
        Flow {
            table,
            load,
            reads: Reads::of(&config),
            scratch: Scratch::new(LARGE_BUFFER),
            spares: Spares::new(),
            // A base mode worker has the budget to itself.
            budget: Budget::new(config.memory_budget / config.reactors.max(1)),
            clock: Clock::default(),
            close_deadlines: config.close_deadline.map(Deadlines::new),
            linger_deadlines: Deadlines::new(LINGER),
            config,
        }
    }

    /// How many connections there are, those included whose socket is closed already.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// How many connections there have ever been.
    pub(crate) fn accepted(&self) -> u64 {
        self.table.named()
    }

    /// The owner's number, which is in the names of its connections.
    pub(crate) fn owner(&self) -> u16 {
        self.table.owner()
    }

    /// The connection of that name, as long as it is there.
    pub(crate) fn conn(&self, id: ConnId) -> Option<&Connection> {
        self.table.get(id)
    }

    /// All connections.
    #[cfg(feature = "status")]
    pub(crate) fn conns(&self) -> impl Iterator<Item = &Connection> {
        self.table.iter()
    }

    // What happens to connections.

    /// Acts on a report of epoll about a connection.
    pub(crate) fn ready(&mut self, workers: &mut impl Deliver, id: ConnId, event: epoll::Event) {
        if event.writable() {
            self.write_unsent(id);
        }
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if conn.wants_input() {
            if event.readable() || event.hung_up() {
                // Behind a FIN nothing new comes: what is there can be read at once, and the FIN
                // with it.
                let to_the_end = event.peer_closed();
                while self.read(workers, id) == Progress::More && to_the_end {}
            }
        } else if event.hung_up() {
            // Not reading, and the connection is dead: level-triggered, this report would come
            // again and again.
            self.broken(id, &std::io::ErrorKind::ConnectionReset.into());
        } else if event.peer_closed() {
            self.peer_closed(id);
        }
    }

    /// A connection that has waited for room has its turn: it submits one frame, before those that wait
    /// now.
    pub(crate) fn take_turn(&mut self, workers: &mut impl Deliver, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id) {
            conn.work.wait = Wait::Turn;
            self.advance(workers, id);
        }
    }

    /// A connection in a queue for room need not wait there any more: it asks for a place again.
    pub(crate) fn wait_is_over(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id) {
            conn.work.wait = Wait::Nothing;
            self.table.touch(id);
        }
    }

    // What follows.

    /// Advances every connection that was touched.
    pub(crate) fn settle(&mut self, workers: &mut impl Deliver) {
        while let Some(id) = self.table.next_touched() {
            self.advance(workers, id);
        }
    }

    /// Does what is due for a connection, in the order of its life.
    fn advance(&mut self, workers: &mut impl Deliver, id: ConnId) {
        // What has to wait is due again when the wait is over, which touches it.
        let _ = self.submit_due(workers, id);
        self.use_turn(workers, id);
        self.finish_output(id);
        self.end_or_watch(workers, id);
    }

    /// Submits what is due, as far as there is room.
    fn submit_due(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        self.pass_over_unheard(id)?;
        self.if_free(id)?;
        self.submit_connect(workers, id)?;
        self.submit_returned(workers, id)?;
        self.submit_level(workers, id)?;
        self.submit_kept(workers, id)?;
        self.read_last(workers, id)?;
        self.submit_close(workers, id)
    }

    /// A connection that has waited to be read is read. What it does not use of its turn is over.
    fn use_turn(&mut self, workers: &mut impl Deliver, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id)
            && conn.work.wait == Wait::Turn
        {
            if conn.reading.input == Input::Open {
                self.read(workers, id);
            }
            if let Some(conn) = self.table.get_mut(id)
                && conn.work.wait == Wait::Turn
            {
                conn.work.wait = Wait::Nothing;
            }
        }
    }

    /// Takes it out of the table when it is over; watches it for what it waits for until then.
    fn end_or_watch(&mut self, workers: &mut impl Deliver, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if !conn.is_over() {
            if let Err(error) = self.table.watch(id) {
                self.broken(id, &error);
            }
        } else if let Some(conn) = self.table.remove(id) {
            debug_assert_eq!(conn.held(), 0, "what it held went with its socket");
            self.load.leave();
            workers.gone(&conn);
        }
    }
}
