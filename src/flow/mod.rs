//! ONE CONNECTION'S BYTES, from accept to close: accepted, read, cut into messages, submitted to a
//! worker, answered, written, closed.
//!
//! The stages are the same in both modes. The receiving end of *submit* differs: in process mode it is a
//! link to a worker, in base mode the handler itself ([`deliver`]).
//!
//! Runs in the reactor threads of the master, and in every base mode worker. Its one rule: an event only
//! changes a connection's state and touches it; [`Flow::settle`] then takes the steps that are due, in
//! the order of the connection's life. That is the only place that decides what a connection does next.
//!
//! This page and 15 files are the whole path of a client's bytes in process mode, from accept to reply.
//! Rings and frames, below the two ends of a link, can be taken on trust.
//!
//! | stage | where |
//! |---|---|
//! | accept: from a listener, by any reactor for any other | `net/acceptor.rs`, `master/reactor.rs` |
//! | open: the connection gets its id and its place in the table | `flow/open.rs`, `net/table.rs`, `net/connection.rs` |
//! | input: bytes are read from the socket and cut into messages | `flow/input.rs` |
//! | submit: a message becomes a frame in a worker's inbox | `flow/submit.rs`, `flow/deliver.rs`, `master/seats.rs`, `master/slot.rs`, `ipc/link/reactor.rs` |
//! | callback: the handler runs, and its output is committed | `worker/process.rs`, `worker/callback.rs`, `ipc/link/worker.rs` |
//! | output: committed output goes to the sockets | `flow/output.rs`, from `master/slot.rs` |
//! | close: by either side, at a deadline, or with the server; the last bytes, and FIN or RST | `flow/close.rs`, `flow/finish.rs`: beyond the 15 |
//!
//! The ways of a connection from one base mode worker to another are beside it, in `flow/moving.rs`.
//!
//! Deadlines of peers that are silent, slow or gone are beside that path, in `flow/silence.rs`, and the timers that
//! callbacks set in `flow/timers.rs`; answers that are promised for later are in `flow/promise.rs`.
//! Posts and tasks become frames in `flow/mailbox.rs` and `flow/tasks.rs`, and what is published goes to the members of
//! its group in `flow/groups.rs`. TLS is between the socket and the other stages, in `flow/sealed.rs`. Files are sent in `flow/files.rs`. Timers of the server are in `flow/server_timers.rs`.
//!
//! In base mode `worker/direct.rs` is the receiving end of *submit*: the callback runs at once.

mod close;
pub(crate) mod deliver;
mod files;
mod finish;
mod groups;
mod input;
mod listing;
mod mailbox;
mod moving;
mod open;
mod output;
mod promise;
mod sealed;
mod server_timers;
mod silence;
mod submit;
mod tasks;
#[cfg(all(test, not(miri)))] // Miri has no sockets.
mod tests;
mod timers;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use self::deliver::Deliver;
use self::files::Files;
use self::finish::has_much_outstanding;
use self::input::{Progress, Reads};
pub(crate) use self::moving::Move;
use self::moving::Movements;
use self::sealed::Sealing;
use crate::config::{Config, GRACE, LARGE_BUFFER, LONGEST_HOLD, LOOK, PAUSE};
use crate::conn_id::ConnId;
use crate::handler::CloseReason;
use crate::net::alarms::Alarms;
use crate::net::budget::Budget;
use crate::net::buffers::{Scratch, Spares};
use crate::net::connection::{Connection, Fin, Input, Wait};
use crate::net::ended::Ended;
use crate::net::groups::Groups;
use crate::net::loads::Load;
use crate::net::mail::Mail;
use crate::net::pace::Pace;
use crate::net::server_timers::ServerTimers;
use crate::net::table::Table;
use crate::net::tasks::Tasks;
use crate::net::timers::{Clock, Deadlines, Timers};
use crate::net::tls::Contexts;
use crate::sys::epoll;

/// The connections of one owner, a reactor or a base mode worker, and the resources of the stages.
pub(crate) struct Flow {
    table: Table,
    config: Arc<Config>,
    load: Load,
    /// Where bytes are read to first.
    reads: Reads,
    scratch: Scratch,
    spares: Spares,
    budget: Budget,
    clock: Clock,
    close_deadlines: Option<Deadlines>,
    looks: Deadlines,
    pauses: Deadlines,
    graces: Deadlines,
    /// Of connections that a callback has asked not to be read.
    holds: Deadlines,
    /// The time of the loop, for the deadlines of silent peers, and these.
    pace: Pace,
    silence: Timers,
    /// The connections that these have ended.
    ended: Ended,
    /// The server shuts down.
    is_draining: bool,
    movements: Movements,
    /// How far the functions of protocols are in incomplete messages, where that is not 0.
    cursors: HashMap<ConnId, u64>,
    /// The timers that callbacks have set.
    alarms: Alarms,
    mail: Mail,
    /// In the first reactor of a server that has task workers.
    tasks: Option<Box<Tasks>>,
    /// In the first reactor, and in base mode; `None` before the first one is set.
    server_timers: Option<Box<ServerTimers>>,
    /// Every socket is closed, and letters are dropped: the workers end their last callbacks.
    is_cut: bool,
    /// The bytes that are kept for users: states, timers, groups and posts.
    kept: usize,
    /// A worker has made a record for this connection that none makes which keeps to the protocol.
    liar: Option<ConnId>,
    groups: Groups,
    files: Files,
    /// The certificates of the listeners.
    contexts: Arc<Contexts>,
    sealing: Sealing,
    /// The handshakes that this turn has gone on with.
    handshakes: u32,
}

/// Whether the next step of a connection's life may follow. `Break` if the connection waits or is gone.
type Next = ControlFlow<()>;

impl Flow {
    pub(crate) fn new(table: Table, config: Arc<Config>, load: Load) -> Flow {
        let clock = Clock::default();
        Flow {
            files: Files::new(table.poller()),
            table,
            load,
            reads: Reads::of(&config),
            scratch: Scratch::new(LARGE_BUFFER),
            spares: Spares::new(),
            // A base mode worker has the budget to itself.
            budget: Budget::new(config.memory_budget / config.reactors.max(1)),
            pace: Pace::new(clock.now()),
            silence: Timers::new(),
            ended: Ended::default(),
            is_draining: false,
            movements: Movements::default(),
            cursors: HashMap::new(),
            alarms: Alarms::new(),
            mail: Mail::default(),
            tasks: None,
            server_timers: None,
            is_cut: false,
            kept: 0,
            liar: None,
            groups: Groups::default(),
            contexts: Arc::default(),
            sealing: Sealing::default(),
            handshakes: 0,
            clock,
            close_deadlines: config.close_deadline.map(Deadlines::new),
            looks: Deadlines::new(LOOK),
            pauses: Deadlines::new(PAUSE),
            graces: Deadlines::new(GRACE),
            holds: Deadlines::new(LONGEST_HOLD),
            config,
        }
    }

    /// The connections have TLS with these certificates, where their listener says so.
    pub(crate) fn with_contexts(self, contexts: Arc<Contexts>) -> Flow {
        Flow { contexts, ..self }
    }

    /// Returns the number of connections, including those with a closed socket.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether much memory was held for clients, and is free again. Returns true once for each such peak.
    pub(crate) fn has_passed_peak(&mut self) -> bool {
        self.budget.has_passed_peak()
    }

    /// Returns the bytes that are kept for users.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// Returns the most bytes that are kept for users whatever the workers say: twice of what they may ask for, since
    /// their figures are some commits old.
    pub(crate) fn most_kept_of_all(&self) -> usize {
        2 * self.config.most_kept()
    }

    /// Whether more is kept than that: a worker does not look at its limit.
    pub(crate) fn keeps_too_much(&self) -> bool {
        self.kept > self.most_kept_of_all()
    }

    /// Returns the number of connections that were accepted since the start.
    pub(crate) fn accepted(&self) -> u64 {
        self.entered() - self.movements.count()
    }

    /// Returns the number of connections since the start, with those of other owners.
    pub(crate) fn entered(&self) -> u64 {
        self.table.named()
    }

    /// Returns the ids of all connections.
    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.table.ids()
    }

    /// Returns the owner's number, which is part of its connections' ids.
    pub(crate) fn owner(&self) -> u16 {
        self.table.owner()
    }

    /// Returns a connection, as long as it exists.
    pub(crate) fn conn(&self, id: ConnId) -> Option<&Connection> {
        self.table.get(id)
    }

    /// Returns all connections.
    #[cfg(feature = "status")]
    pub(crate) fn conns(&self) -> impl Iterator<Item = &Connection> {
        self.table.iter()
    }

    // Events of connections.

    /// Handles an epoll event of a connection.
    pub(crate) fn ready(&mut self, workers: &mut impl Deliver, id: ConnId, event: epoll::Event) {
        if event.writable() {
            self.write_unsent(id);
        }
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if conn.wants_input() {
            if event.readable() || event.hung_up() {
                // After a FIN no more bytes come: the rest can be read at once, and the FIN with it.
                let to_the_end = event.peer_closed();
                while self.read(workers, id) == Progress::More && to_the_end {}
            }
        } else if event.hung_up() {
            // Not reading, and the connection is dead: level-triggered, this event would be reported in
            // a loop.
            if conn.writing.fin == Fin::Sent && conn.reading.input == Input::Ended {
                // Not dead: both sides have sent their FIN, which the kernel reports as a hang-up before the
                // peer has acknowledged ours. `look` waits for that.
                if event.failed() || !has_much_outstanding(conn) {
                    self.hang_up(id, CloseReason::Peer);
                }
                return;
            }
            if conn.ends_as_a_whole() && !event.failed() {
                return self.peer_closed(id);
            }
            self.broken(id, &std::io::ErrorKind::ConnectionReset.into());
        } else if event.peer_closed() {
            self.peer_closed(id);
        }
    }

    /// A connection that has waited for room has its turn: it submits one frame, before those that still
    /// wait.
    pub(crate) fn take_turn(&mut self, workers: &mut impl Deliver, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id) {
            conn.work.wait = Wait::Turn;
            self.advance(workers, id);
        }
    }

    /// A connection leaves its queue for room, and asks for a place again.
    pub(crate) fn wait_is_over(&mut self, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id) {
            conn.work.wait = Wait::Nothing;
            self.table.touch(id);
        }
    }

    // Steps of connections.

    /// Advances every connection that was touched.
    pub(crate) fn settle(&mut self, workers: &mut impl Deliver) {
        while let Some(id) = self.table.next_touched() {
            self.advance(workers, id);
        }
    }

    /// Takes the steps that are due for a connection, in the order of its life.
    fn advance(&mut self, workers: &mut impl Deliver, id: ConnId) {
        if id.is_mailbox() {
            return self.advance_mailbox(workers, id);
        }
        // `Break` needs no handling: the end of a wait touches the connection again.
        let _ = self.submit_due(workers, id);
        self.use_turn(workers, id);
        self.finish_output(id);
        self.end_or_watch(workers, id);
    }

    /// Submits the events that are due, as far as there is room.
    fn submit_due(&mut self, workers: &mut impl Deliver, id: ConnId) -> Next {
        self.skip_unannounced(id)?;
        self.if_open(id)?;
        self.finish_late(id)?;
        self.if_free(id)?;
        self.submit_connect(workers, id)?;
        self.submit_returned(workers, id)?;
        self.submit_level(workers, id)?;
        self.submit_idle(workers, id)?;
        self.submit_timers(workers, id)?;
        self.submit_drained(workers, id)?;
        self.if_answered(id)?;
        self.submit_kept(workers, id)?;
        self.read_last(workers, id)?;
        // A callback of base mode has returned.
        self.if_answered(id)?;
        self.submit_close(workers, id)
    }

    /// Reads a connection that has its turn and has not used it for a frame. Afterwards the turn is over
    /// in any case.
    fn use_turn(&mut self, workers: &mut impl Deliver, id: ConnId) {
        if let Some(conn) = self.table.get_mut(id)
            && conn.work.wait == Wait::Turn
            && matches!(conn.reading.input, Input::Open | Input::First | Input::Rest)
        {
            self.read(workers, id);
        }
        if let Some(conn) = self.table.get_mut(id)
            && conn.work.is_free()
        {
            // Nothing that is due waits for a place, also if the connection was free before.
            conn.work.wait = Wait::Nothing;
            conn.pulse.waiting_since = None;
        }
    }

    /// Removes a connection from the table when it is over; until then, watches its socket for the events
    /// that it waits for.
    fn end_or_watch(&mut self, workers: &mut impl Deliver, id: ConnId) {
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        if !conn.is_over() {
            if let Err(error) = self.table.watch(id) {
                self.broken(id, &error);
            }
            return;
        }
        self.cancel_timers(id);
        self.end_promise(id);
        if let Some(conn) = self.table.remove(id) {
            debug_assert_eq!(conn.held(), 0, "what it held went with its socket");
            self.kept -= conn.work.state_len();
            self.leave_all(&conn);
            self.load.leave();
            self.forget_deadlines(id);
            self.movements.forget(&conn);
            workers.gone(&conn);
        }
    }
}
