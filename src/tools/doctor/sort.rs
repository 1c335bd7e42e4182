//! Sorts sockets: a connection belongs to a listener, or to a program on this machine that made it.
//!
//! A pure function of the table. The kernel does not tell the listener of a connection, but the local
//! address does: it is the listener of this very address, or else the one of all addresses.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::report::PortUse;
use super::scope::Subject;
use crate::sockets::counters::Settings;
use crate::sockets::{Socket, State};

/// The connections of the listener with this address, or of no listener.
pub(super) type Group = Option<SocketAddr>;

#[derive(Default)]
pub(super) struct Sorted<'a> {
    /// The examined listeners.
    pub(super) listeners: BTreeMap<SocketAddr, Vec<&'a Socket>>,
    /// The examined connections. Every examined listener has an entry.
    pub(super) connections: HashMap<Group, Vec<&'a Socket>>,
    /// All connections that were made from this machine, examined or not.
    made_here: Vec<&'a Socket>,
    /// The addresses of listeners that are not examined, which may be those of examined ones too.
    others: HashSet<SocketAddr>,
}

impl<'a> Sorted<'a> {
    /// `held` has the inodes of the examined processes, if processes are examined.
    pub(super) fn new(
        sockets: &'a [Socket],
        subject: Subject,
        held: Option<&HashSet<u64>>,
    ) -> Sorted<'a> {
        let mut sorted = Sorted::default();
        let is_held = |socket: &Socket| held.is_none_or(|held| held.contains(&socket.inode));
        let mut all = HashSet::new();
        for socket in sockets.iter().filter(|socket| socket.is_listener()) {
            all.insert(socket.local);
            let is_of_port = !matches!(subject, Subject::Port(port) if socket.local.port() != port);
            if !is_held(socket) {
                sorted.others.insert(socket.local);
            } else if is_of_port {
                sorted
                    .listeners
                    .entry(socket.local)
                    .or_default()
                    .push(socket);
                sorted.connections.entry(Some(socket.local)).or_default();
            }
        }
        for socket in sockets.iter().filter(|socket| !socket.is_listener()) {
            sorted.place(
                socket,
                listener_of(socket.local, &all),
                subject,
                is_held(socket),
            );
        }
        sorted
    }

    fn place(&mut self, socket: &'a Socket, listener: Group, subject: Subject, is_held: bool) {
        if listener.is_none() {
            self.made_here.push(socket);
        }
        let is_examined = match (listener, subject) {
            (Some(listener), _) if self.listeners.contains_key(&listener) => {
                // With SO_REUSEPORT other processes may listen on this address too, and an accepted
                // connection may have been handed to another process. A connection that no process
                // holds does not tell which of the address's listeners it is queued at.
                let is_theirs = match subject {
                    Subject::Process(_) if socket.inode == 0 => !self.others.contains(&listener),
                    Subject::Process(_) => is_held,
                    Subject::All | Subject::Port(_) => true,
                };
                if is_theirs {
                    self.add(Some(listener), socket);
                }
                return;
            }
            // Accepted by another process, and handed to this one.
            (Some(_), Subject::Process(_)) | (None, Subject::All | Subject::Process(_)) => is_held,
            (Some(_), _) | (None, Subject::Port(_)) => false,
        };
        if is_examined {
            self.add(None, socket);
        }
    }

    fn add(&mut self, group: Group, socket: &'a Socket) {
        self.connections.entry(group).or_default().push(socket);
    }

    /// Returns the use of the ports for outgoing connections, for each remote address of the subject, the
    /// most used first.
    pub(super) fn ports(&self, subject: Subject, settings: Settings) -> Vec<PortUse> {
        let connected: HashSet<SocketAddr> = match subject {
            Subject::Process(_) => {
                let own = self.connections.get(&None).into_iter().flatten();
                own.map(|socket| socket.remote).collect()
            }
            Subject::All | Subject::Port(_) => HashSet::new(),
        };
        let is_of_subject = |remote: SocketAddr| match subject {
            Subject::All => true,
            Subject::Port(port) => remote.port() == port,
            Subject::Process(_) => connected.contains(&remote),
        };
        let (first, last) = settings.ports;
        let mut uses: HashMap<(IpAddr, SocketAddr), (usize, usize)> = HashMap::new();
        for socket in &self.made_here {
            let takes_a_port = (first..=last).contains(&socket.local.port())
                && socket.remote.port() != 0
                && is_of_subject(socket.remote);
            if takes_a_port {
                let (used, waiting) = uses.entry((socket.local.ip(), socket.remote)).or_default();
                *used += 1;
                *waiting += usize::from(socket.state == State::TimeWait);
            }
        }
        let mut ports: Vec<PortUse> = uses
            .into_iter()
            .map(|((local, remote), (used, time_wait))| PortUse {
                local,
                remote,
                used,
                time_wait,
                of: settings.port_count(),
            })
            .collect();
        ports.sort_by_key(|port| (std::cmp::Reverse(port.used), port.remote, port.local));
        ports
    }
}

fn listener_of(local: SocketAddr, listeners: &HashSet<SocketAddr>) -> Group {
    let any = |ip: IpAddr| SocketAddr::new(ip, local.port());
    let (v4, v6) = (
        any(Ipv4Addr::UNSPECIFIED.into()),
        // Takes IPv4 as well, without IPV6_V6ONLY.
        any(Ipv6Addr::UNSPECIFIED.into()),
    );
    let candidates = [Some(local), local.is_ipv4().then_some(v4), Some(v6)];
    candidates
        .into_iter()
        .flatten()
        .find(|address| listeners.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        ports: (32_768, 60_999),
        reserved: 0,
        syncookies: Some(1),
        tw_reuse: 2,
        fin_timeout: 60,
        somaxconn: 4096,
    };

    fn table() -> Vec<Socket> {
        use State::{CloseWait, Established, Listen, TimeWait};
        let any = "0.0.0.0:0";
        vec![
            Socket::made_up(Listen, "127.0.0.1:80", any, 1),
            Socket::made_up(Listen, "0.0.0.0:80", any, 2),
            Socket::made_up(Listen, "[::]:443", "[::]:0", 3),
            Socket::made_up(Established, "127.0.0.1:80", "127.0.0.1:40000", 4),
            Socket::made_up(Established, "10.0.0.1:80", "10.0.0.9:1000", 5),
            Socket::made_up(CloseWait, "10.0.0.1:443", "10.0.0.9:1001", 6),
            Socket::made_up(Established, "127.0.0.1:40000", "127.0.0.1:80", 7),
            Socket::made_up(TimeWait, "10.0.0.1:40001", "10.0.0.5:5432", 0),
            Socket::made_up(CloseWait, "10.0.0.1:40002", "10.0.0.5:5432", 8),
            // Its port is outside the kernel's range.
            Socket::made_up(Established, "10.0.0.1:1023", "10.0.0.5:5432", 9),
        ]
    }

    fn inodes(sorted: &Sorted<'_>, group: Option<&str>) -> Vec<u64> {
        let group = group.map(|address| address.parse().unwrap());
        let sockets = sorted.connections.get(&group).into_iter().flatten();
        sockets.map(|socket| socket.inode).collect()
    }

    #[test]
    fn a_connection_belongs_to_the_listener_with_the_most_exact_address() {
        let table = table();
        let sorted = Sorted::new(&table, Subject::All, None);
        assert_eq!(sorted.listeners.len(), 3);
        assert_eq!(inodes(&sorted, Some("127.0.0.1:80")), [4]);
        assert_eq!(inodes(&sorted, Some("0.0.0.0:80")), [5]);
        assert_eq!(inodes(&sorted, Some("[::]:443")), [6]);
        assert_eq!(inodes(&sorted, None), [7, 0, 8, 9]);
    }

    #[test]
    fn a_port_is_examined_without_outgoing_connections() {
        let table = table();
        let sorted = Sorted::new(&table, Subject::Port(80), None);
        assert_eq!(sorted.listeners.len(), 2);
        assert_eq!(inodes(&sorted, None), [] as [u64; 0]);
        let ports = sorted.ports(Subject::Port(80), SETTINGS);
        assert_eq!((ports.len(), ports[0].used), (1, 1));
    }

    #[test]
    fn a_process_is_examined_with_the_sockets_that_it_holds() {
        let table = table();
        let held = HashSet::from([3, 6, 8, 5]);
        let sorted = Sorted::new(&table, Subject::Process(7), Some(&held));
        assert_eq!(sorted.listeners.len(), 1);
        assert_eq!(inodes(&sorted, Some("[::]:443")), [6]);
        assert_eq!(inodes(&sorted, None), [5, 8]);
        let ports = sorted.ports(Subject::Process(7), SETTINGS);
        assert_eq!(ports.len(), 1, "{ports:?}");
        assert_eq!((ports[0].used, ports[0].time_wait), (2, 1));
    }

    #[test]
    fn a_process_is_examined_without_the_sockets_of_others_at_its_address() {
        use State::{CloseWait, Established, Listen};
        let (own, shared, any) = ("127.0.0.1:80", "127.0.0.1:81", "0.0.0.0:0");
        let peer = "127.0.0.1:40000";
        let table = [
            Socket::made_up(Listen, own, any, 1),
            Socket::made_up(Listen, shared, any, 2),
            Socket::made_up(Listen, shared, any, 3),
            Socket::made_up(CloseWait, own, peer, 0),
            Socket::made_up(CloseWait, own, peer, 4),
            // Handed to another process.
            Socket::made_up(CloseWait, own, peer, 5),
            Socket::made_up(CloseWait, shared, peer, 0),
            Socket::made_up(Established, shared, peer, 6),
            Socket::made_up(CloseWait, shared, peer, 7),
        ];
        let held = HashSet::from([1, 2, 4, 6]);
        let sorted = Sorted::new(&table, Subject::Process(7), Some(&held));
        assert_eq!(inodes(&sorted, Some(own)), [0, 4]);
        assert_eq!(inodes(&sorted, Some(shared)), [6]);
        assert_eq!(inodes(&sorted, None), [] as [u64; 0]);
        let all = Sorted::new(&table, Subject::All, None);
        assert_eq!(inodes(&all, Some(own)), [0, 4, 5]);
        assert_eq!(inodes(&all, Some(shared)), [0, 6, 7]);
    }

    #[test]
    fn ports_are_counted_for_each_destination() {
        let table = table();
        let ports = Sorted::new(&table, Subject::All, None).ports(Subject::All, SETTINGS);
        let counts: Vec<_> = ports
            .iter()
            .map(|it| (it.used, it.time_wait, it.of))
            .collect();
        assert_eq!(counts, [(2, 1, 28_232), (1, 0, 28_232)]);
        assert_eq!(ports[0].remote, "10.0.0.5:5432".parse().unwrap());
    }
}
