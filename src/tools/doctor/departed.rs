//! Finds descriptors of TCP sockets that are in no table of the kernel: their connections were reset, have
//! timed out, or were never made. A program that does not close them runs out of descriptors, and neither
//! `ss` nor a state of TCP shows them.
//!
//! Its one rule: a socket counts when two looks have seen it so. Between the look at the table and that at the
//! processes, a new socket appears in one of them alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::time::Instant;

use super::report::Departed;
use super::scope::is_elsewhere;
use crate::sockets::owners::{Owner, Owners};

/// The departed sockets that were seen, by their inode, and when each was seen first.
#[derive(Default)]
pub(super) struct Watch {
    since: HashMap<u64, Instant>,
}

/// A descriptor of a socket that is not in the table.
struct Candidate {
    pid: i32,
    descriptor: i32,
    inode: u64,
}

impl Candidate {
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", self.pid, self.descriptor)
    }

    /// Whether the process has it open still.
    fn is_open(&self) -> bool {
        let link = fs::read_link(self.path());
        link.is_ok_and(|link| link.as_os_str() == format!("socket:[{}]", self.inode).as_str())
    }

    /// Whether it is a TCP socket, by the attribute that the kernel gives every socket (`net/socket.c`).
    fn is_tcp(&self) -> bool {
        let mut name = [0; 64];
        match rustix::fs::getxattr(self.path(), "system.sockprotoname", &mut name) {
            Ok(length) => matches!(
                name[..length]
                    .strip_suffix(b"\0")
                    .unwrap_or(&name[..length]),
                b"TCP" | b"TCPv6"
            ),
            // It is closed, or belongs to another user.
            Err(_) => false,
        }
    }
}

impl Watch {
    /// Takes a look at the sockets of these processes. `table` returns the inodes of all TCP sockets, and is
    /// called only if a socket is not in `known`, a part of them.
    ///
    /// Returns the processes with departed sockets that an earlier look has seen.
    pub(super) fn look<E>(
        &mut self,
        owners: &Owners,
        pids: &[i32],
        known: &HashSet<u64>,
        table: impl FnOnce() -> Result<HashSet<u64>, E>,
    ) -> Result<Vec<Departed>, E> {
        let mut candidates: Vec<Candidate> = pids
            .iter()
            .filter(|pid| !is_elsewhere(**pid))
            .flat_map(|pid| candidates(owners, *pid, known))
            .filter(Candidate::is_tcp)
            .collect();
        if !candidates.is_empty() {
            let all = table()?;
            candidates.retain(|it| !all.contains(&it.inode) && it.is_open());
        }
        let now = Instant::now();
        let seen: HashSet<u64> = candidates.iter().map(|it| it.inode).collect();
        self.since.retain(|inode, _| seen.contains(inode));
        let mut found: BTreeMap<Owner, Departed> = BTreeMap::new();
        for inode in seen {
            let since = *self.since.entry(inode).or_insert(now);
            // A worker has inherited it from the oldest process that holds it.
            if let Some(owner) = owners.holders(inode).first().filter(|_| since < now) {
                let departed = found.entry(owner.clone()).or_insert_with(|| Departed {
                    owner: owner.clone(),
                    sockets: 0,
                    longest: now - since,
                });
                departed.sockets += 1;
                departed.longest = departed.longest.max(now - since);
            }
        }
        let mut found: Vec<Departed> = found.into_values().collect();
        found.sort_by_key(|it| std::cmp::Reverse(it.sockets));
        Ok(found)
    }
}

fn candidates(owners: &Owners, pid: i32, known: &HashSet<u64>) -> Vec<Candidate> {
    let unknown = owners
        .descriptors(pid)
        .filter(|(inode, _)| !known.contains(inode));
    let candidate = |(inode, descriptor)| Candidate {
        pid,
        descriptor,
        inode,
    };
    unknown.map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use crate::sockets::SocketTable;

    fn inode(of: &impl AsRawFd) -> u64 {
        let link = fs::read_link(format!("/proc/self/fd/{}", of.as_raw_fd())).unwrap();
        let link = link.to_str().unwrap();
        let number = link.strip_prefix("socket:[").unwrap();
        number.strip_suffix(']').unwrap().parse().unwrap()
    }

    fn in_table() -> HashSet<u64> {
        let all = SocketTable::open().unwrap().all().unwrap();
        all.iter().map(|socket| socket.inode).collect()
    }

    /// Other tests of this process have sockets too, so the answer is about one inode.
    fn is_departed(of: u64) -> bool {
        let pid = std::process::id() as i32;
        let (mut watch, none) = (Watch::default(), HashSet::new());
        for _ in 0..2 {
            let table = || Ok::<_, Infallible>(in_table());
            let Ok(_) = watch.look(&Owners::of(&[pid]), &[pid], &none, table);
        }
        watch.since.contains_key(&of)
    }

    #[test]
    fn a_reset_connection_has_left_the_table_and_others_have_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (unix, _other) = UnixStream::pair().unwrap();
        assert!(!is_departed(inode(&server)));
        assert!(!is_departed(inode(&listener)));
        assert!(!is_departed(inode(&udp)) && !is_departed(inode(&unix)));
        socket2::SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(client);
        assert!(is_departed(inode(&server)));
    }

    #[test]
    fn a_socket_counts_when_it_was_seen_twice() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let pid = std::process::id() as i32;
        let owners = Owners::of(&[pid]);
        let mut watch = Watch::default();
        let look = |watch: &mut Watch| {
            let table = || Ok::<_, Infallible>(in_table());
            let Ok(found) = watch.look(&owners, &[pid], &HashSet::new(), table);
            found
        };
        assert!(look(&mut watch).is_empty());
        let found = look(&mut watch);
        assert!(found.len() == 1 && found[0].owner.pid == pid, "{found:?}");
        let own = inode(&socket);
        assert!(watch.since.contains_key(&own));
        drop(socket);
        look(&mut watch);
        assert!(!watch.since.contains_key(&own));
    }
}
