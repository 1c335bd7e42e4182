//! The loads.

use crate::cores::Place;
use crate::peers::{Kind, Server};

/// One load, and the servers that have it.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Arguments of `tine load`.
    pub(crate) load: &'static [&'static str],
    /// Arguments of `tine serve`. Other servers have one worker and one reactor.
    pub(crate) serve: &'static [&'static str],
    pub(crate) servers: Servers,
    /// One of the workers is stopped during the load.
    pub(crate) stuck: bool,
    /// The cores of the servers.
    pub(crate) place: Place,
}

pub(crate) enum Servers {
    All,
    /// Without the servers of other projects, some of which take minutes for this number of clients.
    Tine,
    Process,
}

pub(crate) const ONE: &[&str] = &["--workers", "1", "--reactors", "1"];

const fn row(name: &'static str, load: &'static [&'static str]) -> Row {
    Row {
        name,
        load,
        serve: ONE,
        servers: Servers::All,
        stuck: false,
        place: Place::Servers,
    }
}

const fn tine(row: Row) -> Row {
    Row {
        servers: Servers::Tine,
        ..row
    }
}

const fn process(name: &'static str, serve: &'static [&'static str]) -> Row {
    Row {
        name,
        load: &["--clients", "100"],
        serve,
        servers: Servers::Process,
        stuck: false,
        // On one core, several workers or reactors would be pointless.
        place: Place::Anywhere,
    }
}

pub(crate) const ROWS: &[Row] = &[
    row("64 B x 1", &["--clients", "1"]),
    row("64 B x 100", &["--clients", "100"]),
    row("64 B x 1,000", &["--clients", "1000"]),
    tine(row("64 B x 10,000", &["--clients", "10000"])),
    row("64 B x 50, depth 32", &["--clients", "50", "--depth", "32"]),
    row("4 KiB x 50", &["--clients", "50", "--size", "4096"]),
    row("64 KiB x 20", &["--clients", "20", "--size", "65536"]),
    row("1 MiB x 8", &["--clients", "8", "--size", "1048576"]),
    row("churn x 50", &["--clients", "50", "--messages-each", "1"]),
    tine(row(
        "64 B x 100, 10,000 idle",
        &["--clients", "100", "--idle", "10000"],
    )),
    row(
        "64 B x 100, 20,000/s due",
        &["--clients", "100", "--rate", "20000"],
    ),
    process(
        "1 worker, 2 reactors",
        &["--workers", "1", "--reactors", "2"],
    ),
    process(
        "2 workers, 1 reactor",
        &["--workers", "2", "--reactors", "1"],
    ),
    process(
        "2 workers, 2 reactors",
        &["--workers", "2", "--reactors", "2"],
    ),
    process(
        "4 workers, 1 reactor",
        &["--workers", "4", "--reactors", "1"],
    ),
    process(
        "4 workers, 2 reactors",
        &["--workers", "4", "--reactors", "2"],
    ),
    process("4 workers, least busy", LEAST_BUSY),
    Row {
        stuck: true,
        ..process("4 workers, least busy, 1 stuck", LEAST_BUSY)
    },
];

const LEAST_BUSY: &[&str] = &[
    "--workers",
    "4",
    "--reactors",
    "1",
    "--dispatch",
    "least-busy",
];

impl Row {
    pub(crate) fn is_for(&self, server: &Server) -> bool {
        let is_selected = match self.servers {
            Servers::All => true,
            Servers::Tine => server.kind != Kind::Peer,
            Servers::Process => server.kind == Kind::Process && server.is_tine_program(),
        };
        is_selected && server.has(self.name)
    }
}
