//! Which worker of a tine server owes the close of a connection, and what keeps it: asked of the
//! server itself, since in process mode the kernel knows no workers.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::report::{Connections, Owing};
use crate::inspect::owners::Owner;
use crate::inspect::process;
use crate::status::{self, Owed, Reason, WorkerStatus};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Both ends of a connection, the server's first.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// Asks each tine server that has some of these open, and notes what it says. One that says nothing
/// is no failure: it may be stopped, or another version.
pub(super) fn fill_in<'a>(
    tables: impl Iterator<Item = &'a mut Connections>,
    ask: impl Fn(&Owner, &[Ends]) -> Vec<(Ends, Owing)>,
) {
    let mut stuck: Vec<_> = tables.flat_map(|table| &mut table.stuck).collect();
    let mut held: BTreeMap<&Owner, Vec<Ends>> = BTreeMap::new();
    for stuck in &stuck {
        let is_tine = |owner: &&Owner| owner.role().is_some();
        for owner in stuck.owners.iter().filter(is_tine) {
            let ends = (stuck.local, stuck.remote);
            held.entry(owner).or_default().push(ends);
        }
    }
    let told = held.into_iter().flat_map(|(owner, ends)| ask(owner, &ends));
    let told: HashMap<Ends, Owing> = told.collect();
    for stuck in &mut stuck {
        stuck.owing = told.get(&(stuck.local, stuck.remote)).cloned();
    }
}

/// What a server says of connections that one of its processes has open.
pub(super) fn ask(owner: &Owner, ends: &[Ends]) -> Vec<(Ends, Owing)> {
    match owner.role() {
        Some("master") => ask_master(owner.pid),
        Some(_) => ask_about(owner.pid, ends),
        None => Vec::new(),
    }
}

fn ask_master(pid: i32) -> Vec<(Ends, Owing)> {
    let Ok(status) = status::ask(pid, PATIENCE) else {
        return Vec::new();
    };
    let tell = |owed: &Owed| {
        let by = match (status.worker_of(owed), owed.reason) {
            (Some(worker), _) => by(worker, owed.peer),
            (None, Reason::Kept) => "nobody: kept".to_owned(),
            (None, Reason::Output) => "its client does not read".to_owned(),
            (None, _) => "no worker yet".to_owned(),
        };
        let owing = Owing {
            worker: owed.worker,
            by,
            says: status.explain(owed),
        };
        ((owed.local, owed.peer), owing)
    };
    status.owed.iter().map(tell).collect()
}

/// In base mode a worker has its connections open itself, and its manager knows what it is at.
fn ask_about(worker: i32, ends: &[Ends]) -> Vec<(Ends, Owing)> {
    let manager = process::parent(worker).ok();
    let status = manager.and_then(|manager| status::ask(manager, PATIENCE).ok());
    let workers = status.map(|status| status.workers).unwrap_or_default();
    let Some(worker) = workers.into_iter().find(|it| it.pid == worker) else {
        return Vec::new();
    };
    let tell = |ends: &Ends| {
        let (name, doing) = (worker.name(), worker.doing(ends.1));
        let owing = Owing {
            worker: Some(worker.pid),
            by: by(&worker, ends.1),
            says: format!("{name} owes the close: {doing}"),
        };
        (*ends, owing)
    };
    ends.iter().map(tell).collect()
}

/// A worker, and what it is in.
fn by(worker: &WorkerStatus, peer: SocketAddr) -> String {
    let (role, pid) = (&worker.role, worker.pid);
    match &worker.callback {
        Some(callback) if callback.peer == peer => format!("{role}[{pid}] in `{}`", callback.kind),
        Some(callback) => format!("{role}[{pid}] in `{}` of another", callback.kind),
        None => format!("{role}[{pid}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::holder::Holder;
    use crate::doctor::verdict::made::{Made, report};
    use crate::inspect::process::Activity;

    #[test]
    fn what_a_server_says_is_noted_at_the_connection_it_is_about() {
        let owners = vec![
            Holder::made_up(7, "tine master", Activity::Sleeping, "ep_poll"),
            Holder::made_up(8, "nginx", Activity::Sleeping, "ep_poll"),
        ];
        let made = Made {
            owners,
            stuck: 3,
            ..Made::default()
        };
        let mut report = report(made);
        let connections = &mut report.listeners[0].connections;
        let ends = (connections.stuck[2].local, connections.stuck[2].remote);
        let owing = Owing {
            worker: Some(9),
            by: "worker#0[9]".to_owned(),
            says: "worker#0[pid=9] owes the close".to_owned(),
        };
        fill_in([&mut *connections].into_iter(), |master, held| {
            assert_eq!(held.len(), 3);
            assert_eq!(master.pid, 7, "nginx is not asked");
            vec![(ends, owing.clone())]
        });
        let told: Vec<bool> = connections
            .stuck
            .iter()
            .map(|it| it.owing.is_some())
            .collect();
        assert_eq!(told, [false, false, true]);
    }
}
