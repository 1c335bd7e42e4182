//! One examination: looks at the queues often and at every socket now and then, and keeps the facts that
//! a single look does not show: peaks, growth, and the time since which a state lasts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Problem;
use super::departed;
use super::holder::Holder;
use super::measure::{Counts, Known, counts, measure, silent_and_local};
use super::queues::Queues;
use super::report::{Connections, Departed, Listener, Queue, Report};
use super::scope::{Family, Subject};
use super::sort::{Group, Sorted};
use super::unclosed;
use super::verdict;
use super::words::counted;
use crate::sockets::counters::{Overflows, Settings};
use crate::sockets::owners::{Owner, Owners};
use crate::sockets::{Socket, SocketTable, State};
use tine::status;

/// The time between two looks at the queues.
pub(crate) const STEP: Duration = Duration::from_millis(50);

/// The time after which the owners of sockets are looked up again, even if every socket has one: a
/// descriptor may have been handed to another process.
const OWNERS_LAST: Duration = Duration::from_secs(5);

pub(crate) struct Examination {
    subject: Subject,
    limits: Limits,
    table: SocketTable,
    owners: Owners,
    owners_read: Instant,
    /// The examined processes, if the subject is a process.
    family: Option<Family>,
    begun: Instant,
    queues: Queues,
    /// The numbers at the first look.
    before: Option<HashMap<Group, Counts>>,
    close_wait_since: HashMap<u64, Instant>,
    departed: departed::Watch,
    /// By the last look.
    found_departed: Vec<Departed>,
    /// Connections with both ends in the table that are silent, by the last look.
    local: HashSet<u64>,
}

/// The ages from which on something counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of connections in CLOSE_WAIT, and of unread bytes.
    pub(crate) older: Duration,
    /// Of the last byte of a connection without keepalive.
    pub(crate) silent: Duration,
}

impl Examination {
    /// Begins with a first look at everything.
    ///
    /// # Errors
    /// When there is nothing to examine, or the kernel or `/proc` cannot be read.
    pub(crate) fn begin(subject: Subject, limits: Limits) -> Result<Examination, Problem> {
        let family = match subject {
            Subject::Process(pid) => Some(Family::find(pid)?),
            Subject::All | Subject::Port(_) => None,
        };
        let table = SocketTable::open().map_err(no_table)?;
        let counters = Overflows::now().map_err(no_counters)?;
        let now = Instant::now();
        let mut this = Examination {
            subject,
            limits,
            table,
            owners: Owners::default(),
            owners_read: now,
            family,
            begun: now,
            queues: Queues::new(counters),
            before: None,
            close_wait_since: HashMap::new(),
            departed: departed::Watch::default(),
            found_departed: Vec::new(),
            local: HashSet::new(),
        };
        this.look_at_queues()?;
        let sockets = this.look_at_all()?;
        if let Subject::Port(port) = subject {
            is_listened_on(port, &sockets)?;
        }
        Ok(this)
    }

    /// Returns whether the examined process has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.family.as_ref().is_some_and(Family::has_ended)
    }

    pub(crate) fn looks(&self) -> usize {
        self.queues.looks()
    }

    pub(crate) fn watched(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Looks at the listeners alone, which is quick.
    pub(crate) fn look_at_queues(&mut self) -> Result<(), Problem> {
        let listeners = self.table.listeners().map_err(no_table)?;
        let counters = Overflows::now().map_err(no_counters)?;
        self.queues.look(&listeners, counters);
        Ok(())
    }

    /// Looks at every socket of the subject, and at the processes that hold them.
    fn look_at_all(&mut self) -> Result<Vec<Socket>, Problem> {
        let sockets = match self.subject {
            Subject::Port(port) => self.table.of_port(port),
            Subject::All | Subject::Process(_) => self.table.all(),
        };
        let sockets = sockets.map_err(no_table)?;
        let now = Instant::now();
        self.refresh_owners(&sockets, now)?;
        let in_close_wait = sockets
            .iter()
            .filter(|socket| socket.state == State::CloseWait);
        let mut since = std::mem::take(&mut self.close_wait_since);
        self.close_wait_since = in_close_wait
            .map(|socket| socket.cookie())
            .map(|cookie| (cookie, since.remove(&cookie).unwrap_or(now)))
            .collect();
        let listeners = sockets.iter().filter(|socket| socket.is_listener());
        self.queues.add_some(listeners);
        self.local = silent_and_local(&sockets, self.limits.silent);
        self.look_for_departed(&sockets)?;
        if self.before.is_none() {
            let held = self.held();
            let sorted = Sorted::new(&sockets, self.subject, held.as_ref());
            let groups = sorted.connections.iter();
            self.before = Some(groups.map(|(group, all)| (*group, counts(all))).collect());
        }
        Ok(sockets)
    }

    /// Reads `/proc` again when the owner of a socket is unknown, and from time to time: reading all of it
    /// costs more than reading the table.
    fn refresh_owners(&mut self, sockets: &[Socket], now: Instant) -> Result<(), Problem> {
        let is_unknown = |socket: &Socket| {
            let matters = socket.is_listener() || socket.state == State::CloseWait;
            matters && socket.inode != 0 && self.owners.holders(socket.inode).is_empty()
        };
        let is_old = now.duration_since(self.owners_read) >= OWNERS_LAST;
        let is_first = self.before.is_none();
        if is_first || is_old || self.family.is_some() || sockets.iter().any(is_unknown) {
            self.family = self.family.as_ref().map(|family| {
                if is_first {
                    family.clone()
                } else {
                    family.again()
                }
            });
            self.owners = match &self.family {
                Some(family) => Owners::of(&family.pids),
                None => Owners::of_all().map_err(no_processes)?,
            };
            self.owners_read = now;
        }
        Ok(())
    }

    /// Looks at the descriptors of the subject's processes: for a port, those that listen on it.
    fn look_for_departed(&mut self, sockets: &[Socket]) -> Result<(), Problem> {
        let listeners = sockets.iter().filter(|socket| socket.is_listener());
        let pids: Vec<i32> = match (&self.family, self.subject) {
            (Some(family), _) => family.pids.clone(),
            (None, Subject::Port(port)) => {
                let of_port = listeners.filter(|socket| socket.local.port() == port);
                let owners = of_port.flat_map(|socket| self.owners.holders(socket.inode));
                let pids: BTreeSet<i32> = owners.map(|owner| owner.pid).collect();
                pids.into_iter().collect()
            }
            (None, Subject::All | Subject::Process(_)) => self.owners.pids().collect(),
        };
        let known: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
        let table = &mut self.table;
        // Not the table that was read before the processes: a connection may have come in between.
        let inodes = || {
            let all = table.all().map_err(no_table)?;
            let all: HashSet<u64> = all.iter().map(|socket| socket.inode).collect();
            Ok::<_, Problem>(all)
        };
        self.found_departed = self.departed.look(&self.owners, &pids, &known, inodes)?;
        Ok(())
    }

    fn held(&self) -> Option<HashSet<u64>> {
        let family = self.family.as_ref()?;
        Some(family.sockets(&self.owners))
    }

    /// Returns the connections that have been in CLOSE_WAIT for too long, with their owners. If the
    /// subject is a process, connections that another process may still accept are left out.
    pub(crate) fn stuck(&mut self) -> Result<Vec<(Socket, Vec<Owner>)>, Problem> {
        let sockets = self.look_at_all()?;
        let held = self.held();
        let sorted = Sorted::new(&sockets, self.subject, held.as_ref());
        let others = self.shared_listeners(&sorted)?;
        let known = self.known();
        let mut stuck: Vec<(Socket, Vec<Owner>)> = sorted
            .connections
            .into_iter()
            .flat_map(|(group, sockets)| {
                let is_queued_at_others = group.is_some_and(|address| others.contains(&address));
                let may_be_accepted =
                    move |socket: &&Socket| socket.inode == 0 && is_queued_at_others;
                sockets
                    .into_iter()
                    .filter(move |socket| !may_be_accepted(socket))
            })
            .filter(|socket| known.close_wait_age(socket) >= Some(self.limits.older))
            .map(|socket| (socket.clone(), self.owners.holders(socket.inode).to_vec()))
            .collect();
        stuck
            .sort_by_key(|(socket, _)| (std::cmp::Reverse(socket.close_wait_age()), socket.remote));
        Ok(stuck)
    }

    /// Returns the examined listeners that other processes, such as a parent or a sibling, have open as
    /// well. That may be any of them if some processes cannot be looked into.
    fn shared_listeners(&self, sorted: &Sorted<'_>) -> Result<HashSet<SocketAddr>, Problem> {
        let Some(family) = &self.family else {
            return Ok(HashSet::new());
        };
        let all = Owners::of_all().map_err(no_processes)?;
        let is_of_another = |socket: &&Socket| {
            let holders = all.holders(socket.inode);
            let is_foreign = |owner: &Owner| !family.pids.contains(&owner.pid);
            all.unseen > 0 || holders.iter().any(is_foreign)
        };
        let listeners = sorted.listeners.iter();
        Ok(listeners
            .filter(|(_, sockets)| sockets.iter().any(is_of_another))
            .map(|(address, _)| *address)
            .collect())
    }

    pub(crate) fn table(&mut self) -> &mut SocketTable {
        &mut self.table
    }

    /// Returns the result up to now.
    pub(crate) fn report(&mut self) -> Result<Report, Problem> {
        let sockets = self.look_at_all()?;
        let settings = Settings::now().map_err(|error| Problem(error.to_string()))?;
        let held = self.held();
        let sorted = Sorted::new(&sockets, self.subject, held.as_ref());
        let listeners: Vec<Listener> = sorted
            .listeners
            .iter()
            .map(|(address, of)| self.listener(*address, of, &sorted))
            .collect();
        let outgoing = self.connections(None, &sorted);
        let mut report = Report {
            subject: self.subject,
            watched: self.watched(),
            looks: self.queues.looks(),
            older: self.limits.older,
            silent: self.limits.silent,
            wrong: false,
            verdict: String::new(),
            findings: Vec::new(),
            processes: processes(&listeners, &outgoing, &self.found_departed),
            unseen: self.unseen(&listeners),
            ports: sorted.ports(self.subject, settings),
            listeners,
            outgoing,
            departed: self.found_departed.clone(),
            counters: self.queues.counters(),
            settings,
        };
        unclosed::fill_in(&mut report, |pid| status::ask(pid, unclosed::PATIENCE));
        verdict::judge(&mut report);
        self.queues.reported();
        Ok(report)
    }

    fn listener(&self, address: SocketAddr, of: &[&Socket], sorted: &Sorted<'_>) -> Listener {
        let mut queues: Vec<Queue> = of
            .iter()
            .filter_map(|socket| self.queues.of(socket, &self.owners))
            .collect();
        queues.sort_by_key(|queue| queue.cookie);
        Listener {
            address,
            queues,
            connections: self.connections(Some(address), sorted),
        }
    }

    fn connections(&self, group: Group, sorted: &Sorted<'_>) -> Connections {
        let sockets = sorted
            .connections
            .get(&group)
            .map_or(&[][..], Vec::as_slice);
        let none = Counts::new();
        let before = self.before.as_ref().and_then(|before| before.get(&group));
        measure(sockets, before.unwrap_or(&none), &self.known())
    }

    fn known(&self) -> Known<'_> {
        Known {
            owners: &self.owners,
            close_wait_since: &self.close_wait_since,
            local: &self.local,
            now: Instant::now(),
            older: self.limits.older,
            silent: self.limits.silent,
        }
    }

    /// Returns the things that could not be seen, and why.
    fn unseen(&self, listeners: &[Listener]) -> Vec<String> {
        let mut lines = Vec::new();
        let hidden = listeners
            .iter()
            .filter(|listener| listener.owners().is_empty());
        let hidden = hidden.count();
        let others = self.owners.unseen;
        if others > 0 {
            let which = match hidden {
                0 => String::new(),
                _ => format!(
                    ", those of {} among them",
                    counted(hidden, "listener", "listeners")
                ),
            };
            let processes = counted(others, "process", "processes");
            lines.push(format!(
                "{processes} of other users, so the owners of some sockets are not known{which}, nor \
                 their descriptors without a connection: run this as root to see them"
            ));
        } else if hidden > 0 {
            lines.push(format!(
                "the owners of {}: they are hidden (hidepid), or in another container that shares this \
                 network",
                counted(hidden, "listener", "listeners")
            ));
        }
        match &self.family {
            Some(family) if family.has_ended() => {
                lines.push("the state at the end, since the process has ended".to_owned());
            }
            Some(family) if family.elsewhere() > 0 => lines.push(format!(
                "{} in other network namespaces: `nsenter -t PID -n tine doctor --pid PID` shows one",
                counted(family.elsewhere(), "descendant", "descendants")
            )),
            _ => {}
        }
        lines
    }
}

/// Looks at every process that holds a listener, or a listed connection.
fn processes(
    listeners: &[Listener],
    outgoing: &Connections,
    departed: &[Departed],
) -> BTreeMap<i32, Holder> {
    let tables = listeners.iter().map(|listener| &listener.connections);
    let of_tables = tables.chain([outgoing]).flat_map(|connections| {
        let stuck = connections.stuck.iter().flat_map(|stuck| &stuck.owners);
        let unread = connections.unread.owners.iter();
        let silent = connections.silent.owners.iter();
        let held_back = connections.held_back.owners.iter();
        stuck.chain(unread).chain(held_back).chain(silent)
    });
    let of_departed = departed.iter().map(|departed| &departed.owner);
    let of_queues = listeners
        .iter()
        .flat_map(|listener| &listener.queues)
        .flat_map(|queue| &queue.owners);
    let mut found = BTreeMap::new();
    for owner in of_queues.chain(of_tables).chain(of_departed) {
        found
            .entry(owner.pid)
            .or_insert_with(|| Holder::look(owner));
    }
    found
}

fn is_listened_on(port: u16, sockets: &[Socket]) -> Result<(), Problem> {
    if sockets.iter().any(Socket::is_listener) {
        return Ok(());
    }
    let others = match sockets.len() {
        0 => String::new(),
        1 => ", though one connection has it at one of its ends".to_owned(),
        n => format!(", though {n} connections have it at one of their ends"),
    };
    Err(Problem(format!(
        "nothing listens on TCP port {port} in this network namespace{others}: `tine doctor` shows \
         everything that listens, `tine doctor --pid PID` a client's connections"
    )))
}

fn no_processes(error: io::Error) -> Problem {
    Problem(format!("cannot read /proc: {error}; it must be mounted"))
}

fn no_table(error: io::Error) -> Problem {
    Problem(format!(
        "cannot ask the kernel for its sockets: {error}; this needs sock_diag(7) (CONFIG_INET_DIAG, or \
         `modprobe tcp_diag`), and no sandbox that forbids netlink"
    ))
}

fn no_counters(error: io::Error) -> Problem {
    Problem(format!("cannot read the kernel's TCP counters: {error}"))
}
