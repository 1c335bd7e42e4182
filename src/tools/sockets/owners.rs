//! The processes that hold a socket: sock_diag(7) names a socket's inode, and `/proc/PID/fd` names the
//! inodes that a process has open.

use std::collections::HashMap;
use std::fmt;
use std::io;

use procfs::process::{FDTarget, Process, all_processes};
use serde::Serialize;

/// A process that has a socket open.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub(crate) struct Owner {
    pub(crate) pid: i32,
    /// Its name as `ps -o comm` shows it, without control characters; a tine process is named by
    /// its role.
    pub(crate) name: String,
}

impl Owner {
    /// Returns the role of a process of a tine server: master, manager, worker#0.
    pub(crate) fn role(&self) -> Option<&str> {
        self.name.strip_prefix("tine ")
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.role().unwrap_or(&self.name), self.pid)
    }
}

/// The owners of sockets at one moment.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    by_inode: HashMap<u64, Vec<Owner>>,
    /// The inodes of each process's sockets, each with one of its descriptors.
    by_pid: HashMap<i32, Vec<(u64, i32)>>,
    /// The number of processes that this user may not examine, without the kernel's threads.
    pub(crate) unseen: usize,
}

impl Owners {
    /// Reads the descriptors of every process that this user may examine.
    pub(crate) fn of_all() -> io::Result<Owners> {
        let mut owners = Owners::default();
        let processes = all_processes().map_err(io::Error::other)?;
        // A process that ends meanwhile is left out.
        for process in processes.flatten() {
            owners.look_into(&process);
        }
        Ok(owners)
    }

    /// Reads the descriptors of these processes.
    pub(crate) fn of(pids: &[i32]) -> Owners {
        let mut owners = Owners::default();
        for process in pids.iter().filter_map(|pid| Process::new(*pid).ok()) {
            owners.look_into(&process);
        }
        owners
    }

    fn look_into(&mut self, process: &Process) {
        let descriptors = match process.fd() {
            Ok(descriptors) => descriptors,
            Err(procfs::ProcError::PermissionDenied(_)) => {
                self.unseen += usize::from(!is_of_the_kernel(process));
                return;
            }
            // It has ended.
            Err(_) => return,
        };
        let Ok(name) = std::fs::read(format!("/proc/{}/comm", process.pid)) else {
            return;
        };
        let owner = Owner {
            pid: process.pid,
            name: shown(&name),
        };
        for descriptor in descriptors.flatten() {
            if let FDTarget::Socket(inode) = descriptor.target {
                let owners = self.by_inode.entry(inode).or_default();
                // Two descriptors of a process may be the same socket.
                if owners.last() != Some(&owner) {
                    owners.push(owner.clone());
                    let held = self.by_pid.entry(owner.pid).or_default();
                    held.push((inode, descriptor.fd));
                }
            }
        }
    }

    /// Returns the processes that hold the socket of this inode, the oldest first: the others have
    /// usually inherited it from that one.
    pub(crate) fn holders(&self, inode: u64) -> &[Owner] {
        self.by_inode.get(&inode).map_or(&[], Vec::as_slice)
    }

    /// Returns the inodes of a process's sockets.
    pub(crate) fn held_by(&self, pid: i32) -> impl Iterator<Item = u64> {
        self.descriptors(pid).map(|(inode, _)| inode)
    }

    /// Returns the inodes of a process's sockets, each with one of its descriptors.
    pub(crate) fn descriptors(&self, pid: i32) -> impl Iterator<Item = (u64, i32)> {
        self.by_pid.get(&pid).into_iter().flatten().copied()
    }

    /// Returns the processes that hold a socket.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> {
        self.by_pid.keys().copied()
    }
}

/// Returns a name that is safe to print. Any user can choose the name of a process, with control
/// characters that act on a terminal or look like another line of output.
fn shown(comm: &[u8]) -> String {
    let name = String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(comm));
    let mut shown = String::new();
    for letter in name.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// Whether the process is a thread of the kernel, which has no descriptors.
fn is_of_the_kernel(process: &Process) -> bool {
    /// `include/linux/sched.h`
    const PF_KTHREAD: u32 = 0x0020_0000;
    let stat = process.stat();
    stat.is_ok_and(|stat| stat.flags & PF_KTHREAD != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;
    use std::ffi::OsStr;
    use std::net::TcpListener;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn this_process_holds_its_own_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let copy = listener.try_clone().unwrap();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", copy.as_raw_fd())).unwrap();
        let inode = link.to_str().unwrap();
        let inode = inode.strip_prefix("socket:[").unwrap();
        let inode = inode.strip_suffix(']').unwrap().parse().unwrap();
        let pid = std::process::id() as i32;
        for owners in [Owners::of(&[pid]), Owners::of_all().unwrap()] {
            let pids: Vec<i32> = owners.holders(inode).iter().map(|it| it.pid).collect();
            assert_eq!(pids, [pid]);
            assert!(owners.held_by(pid).any(|held| held == inode));
        }
        assert!(Owners::of(&[i32::MAX]).holders(inode).is_empty());
    }

    #[test]
    fn control_characters_of_a_name_are_escaped() {
        assert_eq!(shown(b"nginx\n"), "nginx");
        assert_eq!(shown(b"\x1b[2J\n\r\x07\n"), r"\u{1b}[2J\n\r\u{7}");
        assert_eq!(shown("é \u{9b}1m\n".as_bytes()), r"é \u{9b}1m");
        assert_eq!(shown(b"\xff\n"), "\u{fffd}");
        assert_eq!(shown(b""), "");
    }

    #[test]
    fn a_process_with_control_characters_in_its_name_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(OsStr::from_bytes(b"\x1b[31m\n\xff"));
        symlink("/bin/sleep", &path).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut child = Command::new(&path)
            .arg0("sleep")
            .arg("1000")
            .stdin(OwnedFd::from(listener))
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        // The kernel resumes the parent slightly before it names the child.
        let comm = format!("/proc/{pid}/comm");
        while !std::fs::read(&comm).unwrap().starts_with(b"\x1b") {}
        let owners = Owners::of(&[pid]);
        let is_seen = process::activity(pid).is_ok();
        let descendants = process::descendants(std::process::id() as i32);
        child.kill().unwrap();
        child.wait().unwrap();
        let inode = owners.held_by(pid).next().expect("a socket");
        assert!(is_seen && descendants.unwrap().contains(&pid));
        let name = "\\u{1b}[31m\\n\u{fffd}".to_owned();
        assert_eq!(owners.holders(inode), [Owner { pid, name }]);
    }

    #[test]
    fn a_tine_process_is_shown_by_its_role() {
        let owner = |name: &str| Owner {
            pid: 7,
            name: name.to_owned(),
        };
        assert_eq!(owner("tine worker#3").to_string(), "worker#3[7]");
        assert_eq!(owner("nginx").to_string(), "nginx[7]");
    }
}
