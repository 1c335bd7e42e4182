//! Which worker of a tine server owes the close of a connection, and what keeps it: asked of the
//! server itself, since in process mode the kernel knows no workers.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use super::report::{Connections, Owing};

/// Both ends of a connection, the server's first.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// Asks each tine process among the owners of what is stuck, and notes what it says. One that says
/// nothing is no failure: it may be stopped, or another version.
pub(super) fn fill_in<'a>(
    tables: impl Iterator<Item = &'a mut Connections>,
    ask: impl Fn(i32) -> Vec<(Ends, Owing)>,
) {
    let mut stuck: Vec<_> = tables.flat_map(|table| &mut table.stuck).collect();
    let owners = stuck.iter().flat_map(|stuck| &stuck.owners);
    let servers: BTreeSet<i32> = owners
        .filter(|owner| owner.role().is_some())
        .map(|owner| owner.pid)
        .collect();
    let told: HashMap<Ends, Owing> = servers.into_iter().flat_map(ask).collect();
    for stuck in &mut stuck {
        stuck.owing = told.get(&(stuck.local, stuck.remote)).cloned();
    }
}

/// What a tine process says of the connections that it has not closed.
pub(super) fn ask(_pid: i32) -> Vec<(Ends, Owing)> {
    Vec::new()
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
            worker: "worker#0[9]".to_owned(),
            callback: None,
            since: None,
        };
        fill_in([&mut *connections].into_iter(), |pid| {
            assert_eq!(pid, 7, "nginx is not asked");
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
