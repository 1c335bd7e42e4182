//! What a server takes from the heap for messages once it is warm: the server is `tine-counted`.

use std::path::Path;

use super::client::Client;
use super::launch::Launch;
use super::server::Server;
use super::{SOON, eventually};

const COUNTED: &str = built!("tine-counted");

/// As many talk at the same time.
pub(crate) const CLIENTS: usize = 4;

/// A server that counts, and its clients.
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

    /// So many times each client sends these bytes, and gets them back.
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

    /// All clients are in the middle of these bytes at the same time, which takes what it takes
    /// once.
    #[track_caller]
    fn echo_in_halves(&mut self, bytes: &[u8]) {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for client in &mut self.clients {
            client.send(first);
        }
        // What was there before the second question was has been read when that is answered.
        self.asker.ask("count");
        self.asker.ask("count");
        for client in &mut self.clients {
            client.send(second);
            client.expect(bytes);
        }
    }

    /// How often all its processes have taken something from the heap so far.
    #[track_caller]
    fn taken(&mut self) -> u64 {
        let answer = self.asker.ask("count");
        let number = answer.parse();
        number.unwrap_or_else(|error| panic!("{answer}: {error}"))
    }

    /// How often they do while these bytes come and go, in halves and so many times whole, after as
    /// many rounds for warming up.
    #[track_caller]
    pub(crate) fn taken_for(&mut self, bytes: &[u8], times: usize) -> u64 {
        // Where a message is cut is chance, and may happen for the first time when it is counted.
        self.echo_in_halves(bytes);
        self.echo(bytes, times);
        // It is told of a worker's first callback, and may hear of it much later.
        eventually(SOON, "the manager has nothing to do", || {
            self.server.manager().waits_for_events()
        });
        let before = self.taken();
        self.echo_in_halves(bytes);
        self.echo(bytes, times);
        self.taken() - before
    }

    /// Where the last of them came from, if there were any.
    pub(crate) fn log(&self) -> String {
        self.server.log().text()
    }
}

/// A message of so many bytes: a line, and no other line end in it.
pub(crate) fn line(size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|i| b'a' + (i % 26) as u8).collect();
    if let Some(last) = bytes.last_mut() {
        *last = b'\n';
    }
    bytes
}
