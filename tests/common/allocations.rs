//! The heap allocations of a warm server for messages; the server is `tine-counted`.

use std::path::Path;

use super::client::Client;
use super::launch::Launch;
use super::server::Server;
use super::{SOON, eventually};

const COUNTED: &str = built!("tine-counted");

/// The number of clients.
pub(crate) const CLIENTS: usize = 4;

/// A server that counts allocations, and its clients.
pub(crate) struct Counted {
    server: Server,
    clients: Vec<Client>,
    asker: Client,
}

impl Counted {
    #[track_caller]
    pub(crate) fn start(mode: &str, protocol: &str) -> Counted {
        let server = Launch::listening(Path::new(COUNTED), &[mode, protocol]).start();
        let connect = |_| Client::connect(server.address());
        let clients = (0..CLIENTS).map(connect).collect();
        let asker = Client::connect(server.address());
        Counted {
            server,
            clients,
            asker,
        }
    }

    /// Each client sends these bytes `times` times, and gets them back.
    #[track_caller]
    pub(crate) fn echo(&mut self, bytes: &[u8], times: usize) {
        for _ in 0..times {
            self.clients
                .iter_mut()
                .for_each(|client| client.send(bytes));
            self.clients
                .iter_mut()
                .for_each(|client| client.expect(bytes));
        }
    }

    /// All clients are in the middle of these bytes at the same time, which allocates the buffers for
    /// that once.
    #[track_caller]
    fn echo_in_halves(&mut self, bytes: &[u8]) {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for client in &mut self.clients {
            client.send(first);
        }
        // When the second question is answered, all bytes before it have been read.
        self.asker.ask("count");
        self.asker.ask("count");
        for client in &mut self.clients {
            client.send(second);
            client.expect(bytes);
        }
    }

    /// Returns the number of allocations of all its processes so far.
    #[track_caller]
    fn taken(&mut self) -> u64 {
        let answer = self.asker.ask("count");
        let number = answer.parse();
        number.unwrap_or_else(|error| panic!("{answer}: {error}"))
    }

    /// Returns the allocations while these bytes come and go, in halves and whole `times` times, after as
    /// many rounds for warming up.
    #[track_caller]
    pub(crate) fn taken_for(&mut self, bytes: &[u8], times: usize) -> u64 {
        // The places of cuts are arbitrary: one may happen for the first time in the counted rounds.
        self.echo_in_halves(bytes);
        self.echo(bytes, times);
        // The manager reads the note of a worker's first callback, and may do so much later.
        eventually(SOON, "the manager has nothing to do", || {
            self.server.manager().waits_for_events()
        });
        let before = self.taken();
        self.echo_in_halves(bytes);
        self.echo(bytes, times);
        self.taken() - before
    }

    /// Returns the stacks of the last allocations, if there were any.
    pub(crate) fn log(&self) -> String {
        self.server.log().text()
    }
}

/// A line of `len` bytes.
pub(crate) fn line(size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|i| b'a' + (i % 26) as u8).collect();
    if let Some(last) = bytes.last_mut() {
        *last = b'\n';
    }
    bytes
}
