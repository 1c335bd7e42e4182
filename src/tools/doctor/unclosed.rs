//! Asks tine servers about their unclosed connections: the worker that each waits for, and the callback
//! that this worker is in. In process mode the kernel cannot tell, since the master holds the sockets. And
//! whether they have room for one more connection.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use procfs::process::Process;

use super::report::{Report, Stuck, WaitsFor};
use crate::sockets::owners::Owner;
use tine::Peer;
use tine::status::{AskError, Reason, Status, Unclosed, WorkerStatus};

/// The time that a server has to answer. It needs less than a millisecond.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// Asks each tine server with a stuck connection or a full queue, and adds its answer to the report. A
/// server that does not answer is named in [`Report::unseen`].
pub(super) fn fill_in(report: &mut Report, ask: impl Fn(i32) -> Result<Status, AskError>) {
    for server in servers(report) {
        match ask(server) {
            Ok(status) => note(report, &status),
            Err(error) => report
                .unseen
                .push(format!("the workers that connections wait for ({error})")),
        }
    }
}

/// Returns the processes to ask.
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

/// Returns the process that answers for this one: in base mode, the manager for its workers.
fn server_of(owner: &Owner) -> Option<i32> {
    match owner.role()? {
        "master" | "manager" => Some(owner.pid),
        _ => Some(Process::new(owner.pid).ok()?.stat().ok()?.ppid),
    }
}

fn note(report: &mut Report, status: &Status) {
    if status.is_partial {
        let line = format!(
            "a part of the tine server {}, which has not answered",
            status.pid
        );
        report.unseen.push(line);
    }
    for worker in &status.workers {
        if let Some(holder) = report.processes.get_mut(&worker.pid) {
            holder.callback = worker.callback.clone();
            holder.room = worker.room;
        }
    }
    if let Some(room) = status.room
        && let Some(master) = report.processes.get_mut(&status.pid)
    {
        let is_busy = |worker: &&WorkerStatus| worker.callback.is_some();
        let busy = status.workers.iter().filter(is_busy).count();
        master.busy_workers = Some((busy, status.workers.len()));
        master.room = Some(room);
    }
    // The kernel knows the proxy, and not its client.
    let ends = |conn: &Unclosed| (conn.local, conn.proxy.map_or(conn.peer, Peer::Ip));
    let unclosed = status.unclosed.iter();
    let unclosed: HashMap<(SocketAddr, Peer), &Unclosed> =
        unclosed.map(|conn| (ends(conn), conn)).collect();
    let tables = report
        .listeners
        .iter_mut()
        .map(|listener| &mut listener.connections);
    for stuck in tables
        .chain([&mut report.outgoing])
        .flat_map(|table| &mut table.stuck)
    {
        if let Some(conn) = unclosed.get(&(stuck.local, Peer::Ip(stuck.remote))) {
            stuck.waits_for = Some(in_process_mode(status, conn));
        } else if let Some(worker) = holder_of(status, stuck) {
            stuck.waits_for = Some(in_base_mode(worker, stuck));
        }
    }
}

/// Returns the worker that holds the socket, in base mode.
fn holder_of<'a>(status: &'a Status, stuck: &Stuck) -> Option<&'a WorkerStatus> {
    let holds = |worker: &&WorkerStatus| stuck.owners.iter().any(|owner| owner.pid == worker.pid);
    status.workers.iter().find(holds)
}

/// In base mode, a connection waits for the worker that holds its socket. The words are those of
/// [`Status::explain`].
fn in_base_mode(worker: &WorkerStatus, stuck: &Stuck) -> WaitsFor {
    let callback = worker.callback.as_ref();
    let (name, doing) = (worker.name(), worker.doing(Peer::Ip(stuck.remote)));
    WaitsFor {
        worker: Some(shown(worker)),
        callback: callback.cloned(),
        is_its_own: callback.is_some_and(|callback| callback.peer == Peer::Ip(stuck.remote)),
        reason: Reason::Close,
        closes_in: None,
        says: format!("{name} has not finished its `close` callback: {doing}"),
    }
}

/// Returns `worker#0[4711]`.
fn shown(worker: &WorkerStatus) -> String {
    format!("{}[{}]", worker.role, worker.pid)
}

/// In process mode, the server's answer says what a connection waits for.
fn in_process_mode(status: &Status, conn: &Unclosed) -> WaitsFor {
    let worker = status.worker_of(conn);
    let callback = worker.and_then(|worker| worker.callback.as_ref());
    WaitsFor {
        worker: worker.map(shown),
        callback: callback.cloned(),
        is_its_own: callback.is_some_and(|callback| callback.conn == conn.conn),
        reason: conn.reason,
        closes_in: conn.deadline,
        says: status.explain(conn),
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

    /// A connection that waits for the `close` callback of the worker of generation 1.
    fn unclosed(stuck: &Stuck) -> Unclosed {
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

    fn status(workers: Vec<WorkerStatus>, unclosed: Vec<Unclosed>) -> Status {
        made(json!({
            "version": "0.1.0",
            "mode": "process",
            "addresses": [],
            "pid": 7,
            "manager": 8,
            "workers": workers,
            "room": { "connections": 3, "max_connections": 3 },
            "unclosed": unclosed,
            "more_unclosed": 0,
            "ended": { "open": 0, "message": 0, "idle": 0, "write": 0, "queue": 0, "refused": 0 },
            "is_partial": false,
        }))
    }

    /// Only the library can make a status from its fields.
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
    fn the_answer_of_a_server_is_added_to_the_connection_that_it_is_about() {
        let mut report = stuck(vec![
            Holder::made_up(7, "tine master", Activity::Sleeping, "ep_poll"),
            Holder::made_up(6, "nginx", Activity::Sleeping, "ep_poll"),
        ]);
        let last = report.listeners[0].connections.stuck[2].clone();
        let worker = worker(9, Peer::Ip(last.remote));
        let conn = unclosed(&last);
        fill_in(&mut report, |pid| {
            assert_eq!(pid, 7, "nginx is not asked");
            Ok(status(vec![worker.clone()], vec![conn.clone()]))
        });
        let master = &report.processes[&7];
        assert!(master.is_out_of_room(), "{master:?}");
        assert_eq!(master.busy_workers, Some((1, 1)));
        let stuck = &report.listeners[0].connections.stuck;
        assert!(stuck[0].waits_for.is_none() && stuck[1].waits_for.is_none());
        let waits_for = stuck[2].waits_for.as_ref().expect("an answer");
        assert_eq!(waits_for.worker.as_deref(), Some("worker#0[9]"));
        assert_eq!(
            waits_for.says,
            "worker#0[pid=9] has not finished its `close` callback: it has been in `close` for at least 12.0 s"
        );
    }

    #[test]
    fn in_base_mode_a_connection_waits_for_the_worker_that_holds_it() {
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
        let says = |i: usize| {
            stuck[i]
                .waits_for
                .as_ref()
                .expect("an answer")
                .says
                .as_str()
        };
        assert!(
            says(0).ends_with("it has been in `close` for at least 12.0 s"),
            "{}",
            says(0)
        );
        assert!(says(2).contains("of another connection"), "{}", says(2));
        assert!(report.processes[&own].says().contains("in `close` of"));
    }

    #[test]
    fn a_server_that_does_not_answer_is_named_as_not_seen() {
        let mut report = stuck(vec![Holder::made_up(
            7,
            "tine master",
            Activity::Stopped,
            "do_signal_stop",
        )]);
        fill_in(&mut report, |pid| Err(AskError::Silent(pid)));
        assert_eq!(report.unseen.len(), 1, "{:?}", report.unseen);
        assert!(report.unseen[0].contains("process 7 does not answer"));
    }
}
