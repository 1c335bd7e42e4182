//! Which worker of a tine server owes the close of a connection, and what keeps it: asked of the
//! server itself, since in process mode the kernel knows no workers.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use procfs::process::Process;

use super::report::{Owing, Report, Stuck};
use crate::sockets::owners::Owner;
use tine::Peer;
use tine::status::{AskError, Owed, Reason, Status, WorkerStatus};

/// How long a server may think about its answer, which takes it less than a millisecond.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// Asks each tine server that holds something that may be wrong, and notes what it says. One that
/// does not answer is told among what could not be seen.
pub(super) fn fill_in(report: &mut Report, ask: impl Fn(i32) -> Result<Status, AskError>) {
    for server in servers(report) {
        match ask(server) {
            Ok(status) => note(report, &status),
            Err(error) => report
                .unseen
                .push(format!("which worker owes what is not known: {error}")),
        }
    }
}

/// The processes to ask.
fn servers(report: &Report) -> BTreeSet<i32> {
    let queues = report
        .listeners
        .iter()
        .flat_map(|listener| &listener.queues);
    let queues = queues.filter(|queue| queue.was_full() || queue.lowest > 0);
    let tables = report
        .listeners
        .iter()
        .map(|listener| &listener.connections);
    let tables = tables.chain([&report.outgoing]).flat_map(|table| {
        let stuck = table.stuck.iter().flat_map(|stuck| &stuck.owners);
        stuck.chain(&table.unread.owners)
    });
    let owners = queues.flat_map(|queue| &queue.owners).chain(tables);
    owners.filter_map(server_of).collect()
}

/// The process that answers for this one: in base mode, the manager does for its workers.
fn server_of(owner: &Owner) -> Option<i32> {
    match owner.role()? {
        "master" | "manager" => Some(owner.pid),
        _ => Some(Process::new(owner.pid).ok()?.stat().ok()?.ppid),
    }
}

fn note(report: &mut Report, status: &Status) {
    if status.is_partial {
        let line = format!("a part of the tine server {} has not answered", status.pid);
        report.unseen.push(line);
    }
    for worker in &status.workers {
        if let Some(holder) = report.processes.get_mut(&worker.pid) {
            holder.callback = worker.callback.clone();
        }
    }
    let ends = |owed: &Owed| (owed.local, owed.peer);
    let owed: HashMap<(SocketAddr, Peer), &Owed> =
        status.owed.iter().map(|owed| (ends(owed), owed)).collect();
    let tables = report
        .listeners
        .iter_mut()
        .map(|listener| &mut listener.connections);
    for stuck in tables
        .chain([&mut report.outgoing])
        .flat_map(|table| &mut table.stuck)
    {
        if let Some(owed) = owed.get(&(stuck.local, Peer::Ip(stuck.remote))) {
            stuck.owing = Some(as_told(status, owed));
        } else if let Some(worker) = holder_of(status, stuck) {
            stuck.owing = Some(as_held(worker, stuck));
        }
    }
}

/// In base mode, the worker that holds the socket.
fn holder_of<'a>(status: &'a Status, stuck: &Stuck) -> Option<&'a WorkerStatus> {
    let holds = |worker: &&WorkerStatus| stuck.owners.iter().any(|owner| owner.pid == worker.pid);
    status.workers.iter().find(holds)
}

/// In base mode that worker owes the close, in the words of process mode.
fn as_held(worker: &WorkerStatus, stuck: &Stuck) -> Owing {
    let callback = worker.callback.as_ref();
    let (name, doing) = (worker.name(), worker.doing(Peer::Ip(stuck.remote)));
    Owing {
        worker: Some(shown(worker)),
        callback: callback.cloned(),
        is_its_own: callback.is_some_and(|callback| callback.peer == Peer::Ip(stuck.remote)),
        reason: Reason::Close,
        closes_in: None,
        says: format!("{name} owes the close: {doing}"),
    }
}

/// As `worker#0[4711]`.
fn shown(worker: &WorkerStatus) -> String {
    format!("{}[{}]", worker.role, worker.pid)
}

/// In process mode the server says it by itself.
fn as_told(status: &Status, owed: &Owed) -> Owing {
    let worker = status.worker_of(owed);
    let callback = worker.and_then(|worker| worker.callback.as_ref());
    Owing {
        worker: worker.map(shown),
        callback: callback.cloned(),
        is_its_own: callback.is_some_and(|callback| callback.conn == owed.conn),
        reason: owed.reason,
        closes_in: owed.deadline,
        says: status.explain(owed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::holder::Holder;
    use crate::doctor::verdict::made::{Made, report};
    use crate::process::Activity;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn worker(pid: i32, peer: Peer) -> WorkerStatus {
        made(json!({
            "role": "worker#0",
            "seat": 0,
            "pid": pid,
            "callback": { "kind": "close", "conn": "1.1.1", "peer": peer, "at_least": 12.0 },
            "waiting": 1,
            "generation": 1,
        }))
    }

    /// That worker is to close the connection that it is in a callback of.
    fn owed(stuck: &Stuck) -> Owed {
        made(json!({
            "local": stuck.local,
            "peer": Peer::Ip(stuck.remote),
            "conn": "1.1.1",
            "reason": "close",
            "messages": 0,
            "since": 12.0,
            "deadline": null,
            "generation": 1,
        }))
    }

    fn status(workers: Vec<WorkerStatus>, owed: Vec<Owed>) -> Status {
        made(json!({
            "version": "0.1.0",
            "mode": "process",
            "addresses": [],
            "pid": 7,
            "manager": 8,
            "workers": workers,
            "owed": owed,
            "more_owed": 0,
            "is_partial": false,
        }))
    }

    /// The library alone can make a status by its fields.
    fn made<T: DeserializeOwned>(fields: Value) -> T {
        serde_json::from_value(fields).expect("the fields of a status")
    }

    fn stuck(owners: Vec<Holder>) -> Report {
        report(Made {
            owners,
            stuck: 3,
            ..Made::default()
        })
    }

    #[test]
    fn what_a_server_says_is_noted_at_the_connection_it_is_about() {
        let mut report = stuck(vec![
            Holder::made_up(7, "tine master", Activity::Sleeping, "ep_poll"),
            Holder::made_up(6, "nginx", Activity::Sleeping, "ep_poll"),
        ]);
        let last = report.listeners[0].connections.stuck[2].clone();
        let worker = worker(9, Peer::Ip(last.remote));
        let owed = owed(&last);
        fill_in(&mut report, |pid| {
            assert_eq!(pid, 7, "nginx is not asked");
            Ok(status(vec![worker.clone()], vec![owed.clone()]))
        });
        let stuck = &report.listeners[0].connections.stuck;
        assert!(stuck[0].owing.is_none() && stuck[1].owing.is_none());
        let owing = stuck[2].owing.as_ref().expect("told");
        assert_eq!(owing.worker.as_deref(), Some("worker#0[9]"));
        assert_eq!(
            owing.says,
            "worker#0[pid=9] owes the close: it is in `close` for at least 12.0 s"
        );
    }

    #[test]
    fn in_base_mode_who_holds_a_connection_owes_its_close() {
        let own = std::process::id() as i32;
        let mut report = stuck(vec![Holder::made_up(
            own,
            "tine worker#0",
            Activity::Sleeping,
            "hrtimer_nanosleep",
        )]);
        let peer = report.listeners[0].connections.stuck[0].remote;
        fill_in(&mut report, |_| {
            Ok(status(vec![worker(own, Peer::Ip(peer))], Vec::new()))
        });
        let stuck = &report.listeners[0].connections.stuck;
        let says = |i: usize| stuck[i].owing.as_ref().expect("told").says.as_str();
        assert!(
            says(0).ends_with("it is in `close` for at least 12.0 s"),
            "{}",
            says(0)
        );
        assert!(says(2).contains("of another connection"), "{}", says(2));
        assert!(report.processes[&own].says().contains("in `close` of"));
    }

    #[test]
    fn a_server_that_does_not_answer_is_told_as_not_seen() {
        let mut report = stuck(vec![Holder::made_up(
            7,
            "tine master",
            Activity::Stopped,
            "do_signal_stop",
        )]);
        fill_in(&mut report, |pid| Err(AskError::Silent(pid)));
        assert_eq!(report.unseen.len(), 1, "{:?}", report.unseen);
        assert!(report.unseen[0].contains("process 7 says nothing"));
    }
}
