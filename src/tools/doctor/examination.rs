//! One examination: looks at the queues often and at every socket now and then, and keeps the facts that
//! a single look does not show: peaks, growth, and the time since which a state lasts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Problem;
use super::holder::Holder;
use super::measure::{Counts, Known, counts, measure};
use super::report::{Connections, Counters, Listener, Queue, Report};
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

/// A queue is forgotten after this many looks without it. The kernel does not show its table in one
/// piece: while listeners come and go, one look may miss a listener that stays.
const FORGOTTEN_AFTER: usize = 20;

pub(crate) struct Examination {
    subject: Subject,
    older: Duration,
    table: SocketTable,
    owners: Owners,
    owners_read: Instant,
    /// The examined processes, if the subject is a process.
    family: Option<Family>,
    begun: Instant,
    looks: usize,
    queues: HashMap<u64, Waiting>,
    first: Overflows,
    last: Overflows,
    unexplained: u64,
    /// The numbers at the first look.
    before: Option<HashMap<Group, Counts>>,
    close_wait_since: HashMap<u64, Instant>,
}

/// The figures of one accept queue.
#[derive(Clone, Copy)]
struct Waiting {
    now: u32,
    peak: u32,
    lowest: u32,
    /// The peak since the last report.
    recent: u32,
    backlog: u32,
    overflows_while_full: u64,
    last_look: usize,
}

impl Examination {
    /// Begins with a first look at everything.
    ///
    /// # Errors
    /// When there is nothing to examine, or the kernel or `/proc` cannot be read.
    pub(crate) fn begin(subject: Subject, older: Duration) -> Result<Examination, Problem> {
        let family = match subject {
            Subject::Process(pid) => Some(Family::find(pid)?),
            Subject::All | Subject::Port(_) => None,
        };
        let table = SocketTable::open().map_err(no_table)?;
        let counters = Overflows::now().map_err(no_counters)?;
        let now = Instant::now();
        let mut this = Examination {
            subject,
            older,
            table,
            owners: Owners::default(),
            owners_read: now,
            family,
            begun: now,
            looks: 0,
            queues: HashMap::new(),
            first: counters,
            last: counters,
            unexplained: 0,
            before: None,
            close_wait_since: HashMap::new(),
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

    pub(crate) fn watched(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Looks at the listeners alone, which is quick.
    pub(crate) fn look_at_queues(&mut self) -> Result<(), Problem> {
        let listeners = self.table.listeners().map_err(no_table)?;
        let counters = Overflows::now().map_err(no_counters)?;
        let grown = counters.since(self.last).listen_overflows;
        self.last = counters;
        self.looks += 1;
        let mut is_explained = false;
        for listener in listeners {
            let waiting = Waiting::seen(&mut self.queues, &listener, self.looks);
            if waiting.now > waiting.backlog {
                waiting.overflows_while_full += grown;
                is_explained = true;
            }
        }
        if !is_explained {
            self.unexplained += grown;
        }
        // A listener that has ended is not shown again, and no other socket gets its cookie.
        let looks = self.looks;
        self.queues
            .retain(|_, waiting| looks - waiting.last_look < FORGOTTEN_AFTER);
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
        for listener in sockets.iter().filter(|socket| socket.is_listener()) {
            Waiting::seen(&mut self.queues, listener, self.looks);
        }
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
            .filter(|socket| known.close_wait_age(socket) >= Some(self.older))
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
            looks: self.looks,
            older: self.older,
            wrong: false,
            verdict: String::new(),
            findings: Vec::new(),
            processes: processes(&listeners, &outgoing),
            unseen: self.unseen(&listeners),
            ports: sorted.ports(self.subject, settings),
            listeners,
            outgoing,
            counters: Counters {
                since_boot: self.last,
                while_watched: self.last.since(self.first),
                unexplained: self.unexplained,
            },
            settings,
        };
        unclosed::fill_in(&mut report, |pid| status::ask(pid, unclosed::PATIENCE));
        verdict::judge(&mut report);
        for waiting in self.queues.values_mut() {
            waiting.recent = waiting.now;
        }
        Ok(report)
    }

    fn listener(&self, address: SocketAddr, of: &[&Socket], sorted: &Sorted<'_>) -> Listener {
        let mut queues: Vec<Queue> = of.iter().filter_map(|socket| self.queue(socket)).collect();
        queues.sort_by_key(|queue| queue.cookie);
        Listener {
            address,
            queues,
            connections: self.connections(Some(address), sorted),
        }
    }

    fn queue(&self, socket: &Socket) -> Option<Queue> {
        let waiting = self.queues.get(&socket.cookie())?;
        Some(Queue {
            now: waiting.now,
            peak: waiting.peak,
            lowest: waiting.lowest,
            recent_peak: waiting.recent,
            backlog: waiting.backlog,
            overflows_while_full: waiting.overflows_while_full,
            owners: self.owners.holders(socket.inode).to_vec(),
            uid: socket.uid,
            cookie: socket.cookie(),
        })
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
            now: Instant::now(),
            older: self.older,
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
                "{processes} of other users, so the owners of some sockets are not known{which}: run this \
                 as root to see them"
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

impl Waiting {
    /// Adds a look at a listener.
    fn seen<'a>(
        queues: &'a mut HashMap<u64, Waiting>,
        listener: &Socket,
        look: usize,
    ) -> &'a mut Waiting {
        let (now, backlog) = (listener.recv_q, listener.send_q);
        let waiting = queues.entry(listener.cookie()).or_insert(Waiting {
            now,
            peak: now,
            lowest: now,
            recent: now,
            backlog,
            overflows_while_full: 0,
            last_look: look,
        });
        waiting.now = now;
        waiting.last_look = look;
        waiting.backlog = backlog;
        waiting.peak = waiting.peak.max(now);
        waiting.recent = waiting.recent.max(now);
        waiting.lowest = waiting.lowest.min(now);
        waiting
    }
}

/// Looks at every process that holds a listener, or a listed connection.
fn processes(listeners: &[Listener], outgoing: &Connections) -> BTreeMap<i32, Holder> {
    let tables = listeners.iter().map(|listener| &listener.connections);
    let of_tables = tables.chain([outgoing]).flat_map(|connections| {
        let stuck = connections.stuck.iter().flat_map(|stuck| &stuck.owners);
        stuck.chain(&connections.unread.owners)
    });
    let of_queues = listeners
        .iter()
        .flat_map(|listener| &listener.queues)
        .flat_map(|queue| &queue.owners);
    let mut found = BTreeMap::new();
    for owner in of_queues.chain(of_tables) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_queue_is_forgotten_when_its_listener_has_ended() {
        let mut examination = Examination::begin(Subject::All, Duration::ZERO).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let all = examination.table().listeners().unwrap();
        let socket = all.iter().find(|socket| socket.local == address).unwrap();
        examination.look_at_queues().unwrap();
        assert!(examination.queues.contains_key(&socket.cookie()));
        drop(listener);
        // A child that another test has just forked may hold it for a moment longer.
        let is_forgotten = (0..100 * FORGOTTEN_AFTER).any(|_| {
            examination.look_at_queues().unwrap();
            !examination.queues.contains_key(&socket.cookie())
        });
        assert!(is_forgotten);
    }
}
