//! The subject of an examination: everything that listens, one port, or one process with its descendants.

use std::collections::HashSet;
use std::fs;
use std::io;

use serde::Serialize;

use super::Problem;
use crate::process::{self, Activity};
use crate::sockets::owners::Owners;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    All,
    Port(u16),
    /// With its descendants.
    Process(i32),
}

/// A process and its descendants, as they were at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Family {
    pub(super) pids: Vec<i32>,
}

impl Family {
    /// # Errors
    /// When there is no such process, its descriptors may not be read, or it is in another network
    /// namespace.
    pub(super) fn find(pid: i32) -> Result<Family, Problem> {
        let family = Family::of(pid)?;
        match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Problem(format!(
                    "process {pid} belongs to another user, and its sockets cannot be seen: run this as \
                     that user or as root"
                )));
            }
            Err(_) => return Err(no_such(pid)),
        }
        if is_elsewhere(pid) {
            return Err(Problem(format!(
                "process {pid} is in another network namespace: run `nsenter -t {pid} -n tine doctor \
                 --pid {pid}` as root"
            )));
        }
        Ok(family)
    }

    fn of(pid: i32) -> Result<Family, Problem> {
        let is_there = process::activity(pid).is_ok_and(|activity| activity != Activity::Zombie);
        if !is_there {
            return Err(no_such(pid));
        }
        let descendants = process::descendants(pid)
            .map_err(|error| Problem(format!("cannot read /proc: {error}; it must be mounted")))?;
        let pids = [&[pid], &descendants[..]].concat();
        Ok(Family { pids })
    }

    /// Returns the family as it is now; empty if its first process has ended.
    pub(super) fn again(&self) -> Family {
        let first = self.pids.first().copied();
        first
            .and_then(|pid| Family::of(pid).ok())
            .unwrap_or_default()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.pids.is_empty()
    }

    pub(super) fn sockets(&self, owners: &Owners) -> HashSet<u64> {
        self.pids
            .iter()
            .flat_map(|pid| owners.held_by(*pid))
            .collect()
    }

    /// Returns the number of processes in another network namespace: their sockets are not in the table.
    pub(super) fn elsewhere(&self) -> usize {
        self.pids.iter().filter(|pid| is_elsewhere(**pid)).count()
    }
}

fn no_such(pid: i32) -> Problem {
    Problem(format!(
        "there is no process {pid}: `ps -e` lists those that run"
    ))
}

/// Returns whether it is known to be in another network namespace than this process.
pub(super) fn is_elsewhere(pid: i32) -> bool {
    let own = fs::read_link("/proc/self/ns/net");
    let its = fs::read_link(format!("/proc/{pid}/ns/net"));
    matches!((own, its), (Ok(own), Ok(its)) if own != its)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_a_process_and_its_descendants() {
        let pid = std::process::id() as i32;
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let family = Family::find(pid).unwrap();
        let is_in = family.pids.contains(&(child.id() as i32));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.pids[0] == pid && is_in, "{family:?}");
        assert_eq!(family.elsewhere(), 0);
        let gone = Family {
            pids: vec![child.id() as i32],
        };
        assert!(gone.again().has_ended());
        assert!(Family::find(i32::MAX).unwrap_err().0.contains("no process"));
    }
}
