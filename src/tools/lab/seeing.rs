//! How an experiment observes: it reads the kernel's sockets, repeatedly until they are as expected.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::end::{Ends, Expected};
use super::lesson::{Finding, Row};
use super::record::Found;
use super::stop::{Stop, Trying};
use super::{Lab, PATIENCE};
use crate::process::descendants;
use crate::sockets::Socket;
use crate::sockets::owners::{Owner, Owners};

/// Maximum of sockets that a step shows.
const MAX_ROWS: usize = 20;

impl Lab<'_> {
    /// # Errors
    /// `Interrupted`, if a signal has arrived.
    pub(crate) fn go_on(&self) -> Result<(), Stop> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Stop::Interrupted);
        }
        Ok(())
    }

    /// Waits for `time`.
    ///
    /// # Errors
    /// `Interrupted`, if a signal arrives.
    pub(crate) fn wait(&self, time: Duration) -> Result<(), Stop> {
        let begin = Instant::now();
        loop {
            self.go_on()?;
            match time.checked_sub(begin.elapsed()) {
                Some(left) if !left.is_zero() => {
                    std::thread::sleep(left.min(Duration::from_millis(20)));
                }
                _ => return Ok(()),
            }
        }
    }

    /// Calls `find` until it finds something, for `patience` at most.
    pub(crate) fn look_for<T>(
        &mut self,
        patience: Duration,
        mut find: impl FnMut(&mut Self) -> Result<Option<T>, Stop>,
    ) -> Result<Option<T>, Stop> {
        let begin = Instant::now();
        loop {
            if let Some(found) = find(self)? {
                return Ok(Some(found));
            }
            if begin.elapsed() > patience {
                return Ok(None);
            }
            self.wait(Duration::from_millis(2))?;
        }
    }

    /// Calls `find` until it finds something.
    ///
    /// # Errors
    /// `Cannot`, with `what` was tried, if it fails or finds nothing for [`PATIENCE`].
    pub(crate) fn await_some<T>(
        &mut self,
        what: &str,
        mut find: impl FnMut() -> io::Result<Option<T>>,
    ) -> Result<T, Stop> {
        let found = self.look_for(PATIENCE, |_| find().trying(what))?;
        found.ok_or_else(|| {
            let seconds = PATIENCE.as_secs();
            Stop::Cannot(format!(
                "cannot {what}: nothing happened within {seconds} s"
            ))
        })
    }

    /// Waits until all of these ends are as expected at the same time, shows the sockets, and checks the
    /// claim.
    pub(crate) fn see(&mut self, claim: &str, expected: &[Expected]) -> Result<(), Stop> {
        self.see_within(PATIENCE, claim, expected)
    }

    pub(crate) fn see_within(
        &mut self,
        patience: Duration,
        claim: &str,
        expected: &[Expected],
    ) -> Result<(), Stop> {
        let held = self.look_for(patience, |lab| {
            for end in expected {
                if !lab.is_as_expected(end)? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })?;
        self.show()?;
        let mut seen = Vec::new();
        for end in expected {
            let state = self.socket(end.local, end.remote)?.map(|it| it.state);
            seen.push(Expected { state, ..*end }.to_string());
        }
        let seen = match held {
            Some(()) => String::new(),
            None => seen.join(", "),
        };
        self.check(claim, held.is_some(), &seen)
    }

    fn is_as_expected(&mut self, end: &Expected) -> Result<bool, Stop> {
        let found = self.socket(end.local, end.remote)?;
        if found.as_ref().map(|socket| socket.state) != end.state {
            return Ok(false);
        }
        let (Some(role), Some(socket)) = (end.holder, found) else {
            return Ok(true);
        };
        let owners = Owners::of(&self.pids());
        let mut holders = owners.holders(socket.inode).iter();
        Ok(holders.any(|owner| owner.role() == Some(role)))
    }

    /// Returns the socket of one end of a connection.
    pub(crate) fn socket(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<Socket>, Stop> {
        let Lab {
            table, recorder, ..
        } = self;
        let found = |found: &io::Result<Option<Socket>>| match found {
            Ok(socket) => vec![Found {
                local,
                remote,
                state: socket.as_ref().map(|socket| socket.state),
            }],
            Err(_) => Vec::new(),
        };
        let mut ask = || table.find(local, remote);
        let socket = match recorder {
            Some(recorder) => recorder.look(ask, found),
            None => ask(),
        };
        socket.trying("ask the kernel about a socket")
    }

    /// Whether the server has read every byte that the client has sent.
    pub(crate) fn is_all_read(&mut self, ends: Ends) -> Result<bool, Stop> {
        let client = self.socket(ends.client, ends.server)?;
        let server = self.socket(ends.server, ends.client)?;
        Ok(client.is_some_and(|end| end.send_q == 0) && server.is_some_and(|end| end.recv_q == 0))
    }

    fn listeners(&mut self, at: SocketAddr) -> Result<Vec<Socket>, Stop> {
        let listeners = self.table.listeners();
        let mut listeners = listeners.trying("ask the kernel about its listeners")?;
        listeners.retain(|socket| socket.local == at);
        Ok(listeners)
    }

    /// Returns the number of connections that wait in the queue of each listener at that address.
    pub(crate) fn queues(&mut self, at: SocketAddr) -> Result<Vec<u32>, Stop> {
        let listeners = self.listeners(at)?;
        Ok(listeners.into_iter().map(|it| it.recv_q).collect())
    }

    /// Shows only the listeners at that address: Recv-Q is the number of connections that wait.
    pub(crate) fn show_listeners(&mut self, at: SocketAddr) -> Result<(), Stop> {
        let listeners = self.listeners(at)?;
        let rows = self.rows(&listeners);
        self.find(Finding::Sockets(rows));
        Ok(())
    }

    /// Returns every socket that has one of the experiment's ports.
    pub(crate) fn sockets(&mut self) -> Result<Vec<Socket>, Stop> {
        let mut sockets = Vec::new();
        for port in self.ports.clone() {
            let Lab {
                table, recorder, ..
            } = self;
            // It may overlook a socket that changes just then, so that it does not show that one is gone.
            let found = |found: &io::Result<Vec<Socket>>| {
                let sockets = found.iter().flatten();
                let found = |socket: &Socket| Found {
                    local: socket.local,
                    remote: socket.remote,
                    state: Some(socket.state),
                };
                sockets.map(found).collect()
            };
            let mut ask = || table.of_port(port);
            let of_port = match recorder {
                Some(recorder) => recorder.look(ask, found),
                None => ask(),
            };
            sockets.extend(of_port.trying("ask the kernel about its sockets")?);
        }
        Ok(sockets)
    }

    /// Returns the processes that may hold sockets of the experiment: this one and its descendants.
    fn pids(&self) -> Vec<i32> {
        let own = std::process::id() as i32;
        // If they can't be listed, the table shows `-` as their sockets' owner.
        let mut pids = descendants(own).unwrap_or_default();
        pids.push(own);
        pids
    }

    /// Shows the experiment's sockets.
    pub(crate) fn show(&mut self) -> Result<(), Stop> {
        let mut sockets = self.sockets()?;
        // The listener first, then its connections, by the client's state; of each, the client's end
        // first.
        let is_servers = |socket: &Socket| self.ports.contains(&socket.local.port());
        let clients: HashMap<_, _> = sockets
            .iter()
            .filter(|socket| !is_servers(socket))
            .map(|socket| (socket.ends(), socket.state))
            .collect();
        sockets.sort_by_key(|socket| {
            let (server, client) = match is_servers(socket) {
                true => (socket.local, socket.remote),
                false => (socket.remote, socket.local),
            };
            let state = clients.get(&(client, server)).copied();
            let state = state.unwrap_or(socket.state);
            (
                !socket.is_listener(),
                server.port(),
                state,
                client,
                is_servers(socket),
            )
        });
        let shown = &sockets[..sockets.len().min(MAX_ROWS)];
        let rows = self.rows(shown);
        self.find(Finding::Sockets(rows));
        if let Some(more) = sockets.len().checked_sub(MAX_ROWS).filter(|more| *more > 0) {
            self.printed(&format!("… and {more} more"));
        }
        Ok(())
    }
}

impl Lab<'_> {
    fn rows(&self, sockets: &[Socket]) -> Vec<Row> {
        let (own, owners) = (std::process::id() as i32, Owners::of(&self.pids()));
        let row = |socket: &Socket| {
            let holders = owners.holders(socket.inode).iter();
            let name = |owner: &Owner| {
                if owner.pid != own {
                    return owner.to_string();
                }
                let is_servers = self.ports.contains(&socket.local.port());
                let part = if is_servers { "server" } else { "client" };
                format!("{part}[{own}]")
            };
            Row::new(socket, holders.map(name).collect())
        };
        sockets.iter().map(row).collect()
    }
}
