//! Ports that bind() takes before the destination is known.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::few::{RANGES, all_taken, forget, is_exhausted, ports_of};
use super::{Course, any_port};
use crate::lab::end::{End, Listening, Sharing};
use crate::lab::stop::Trying;
use crate::lab::{LOOPBACK, Lab, Stop};
use crate::sys::options;

/// Number of ports; even, because bind() tries every other port first, then those between them, and may
/// leave out the last of an odd number.
const BOUND: u16 = 4;

/// The call in which the kernel gives a client its port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    AtBind,
    AtConnect,
}

impl Course {
    pub(super) fn bound(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step(&format!(
            "A client binds to an address and lets the kernel choose the port: bind() to port 0, \
             then connect(). It may use {BOUND} ports, and connects to a different port of the \
             server each time."
        ))?;
        lab.forget_ports();
        let mut servers = Vec::new();
        for _ in 0..=BOUND {
            let server = Listening::bind(LOOPBACK, 64, Sharing::default());
            servers.push(server.trying("listen")?);
        }
        let (clients, refusal) = self.one_to_each(lab, &servers, Port::AtBind)?;
        lab.check(
            &format!(
                "after {} connections bind() fails with EADDRINUSE",
                clients.len()
            ),
            matches!(&refusal, Some(error) if error.kind() == io::ErrorKind::AddrInUse),
            &refusal.map_or("it is connected".to_owned(), |error| error.to_string()),
        )?;
        lab.means(
            "At bind() the kernel does not know the destination yet. So it gives out each port \
             once, whatever the destination. Here the message is \"Address already in use\", though \
             no server is being restarted.",
        );
        self.others_suffer(lab, &servers[0])?;
        forget(clients)?;
        self.bind_without_port(lab, &servers)
    }

    /// Connects a client to each of the servers. Returns the clients, and the error that the last server's
    /// client met, if it did.
    fn one_to_each(
        &mut self,
        lab: &mut Lab<'_>,
        servers: &[Listening],
        port: Port,
    ) -> Result<(Vec<End>, Option<io::Error>), Stop> {
        for _ in 0..RANGES {
            let mut clients = Vec::new();
            let refusal = loop {
                let Some(server) = servers.get(clients.len()) else {
                    break None;
                };
                match self.bound_client(lab, server.address, port)? {
                    Ok(client) => clients.push(client),
                    Err(error) => break Some(error),
                }
            };
            if clients.len() >= usize::from(BOUND) {
                return Ok((clients, refusal));
            }
            match refusal {
                Some(error)
                    if error.kind() != io::ErrorKind::AddrInUse && !is_exhausted(&error) =>
                {
                    return Err(error).trying("bind and connect");
                }
                // Another program has one of these ports.
                _ => forget(clients)?,
            }
            self.few.change()?;
        }
        Err(all_taken())
    }

    /// Connects a client that binds to an address of its own.
    fn bound_client(
        &self,
        lab: &mut Lab<'_>,
        to: SocketAddr,
        port: Port,
    ) -> Result<io::Result<End>, Stop> {
        let ports = self.even();
        self.few.client(lab, to, |socket| {
            options::choose_port_from(socket, &ports)?;
            if port == Port::AtConnect {
                options::bind_without_port(socket)?;
            }
            socket.bind(&any_port(4).into())
        })
    }

    fn even(&self) -> RangeInclusive<u16> {
        let first = *self.few.ports.start();
        first..=first + (BOUND - 1)
    }

    /// Checks that clients that leave the choice to connect() can't use such a port either.
    fn others_suffer(&mut self, lab: &mut Lab<'_>, server: &Listening) -> Result<(), Stop> {
        let ports = self.even();
        let next = self.few.client(lab, server.address, |socket| {
            options::choose_port_from(socket, &ports)
        })?;
        lab.check(
            "from another address, a connect() without bind() fails with EADDRNOTAVAIL",
            matches!(&next, Err(error) if is_exhausted(error)),
            &words(&next),
        )?;
        lab.means(
            "connect() skips every port that a program has taken with bind(), even on another \
             address: these ports are lost to all programs of the network namespace that leave the \
             choice to connect().",
        );
        Ok(())
    }

    fn bind_without_port(&mut self, lab: &mut Lab<'_>, servers: &[Listening]) -> Result<(), Stop> {
        lab.step("The same, with IP_BIND_ADDRESS_NO_PORT set before bind().")?;
        let (clients, refusal) = self.one_to_each(lab, servers, Port::AtConnect)?;
        let used = ports_of(&clients).len();
        lab.check(
            &format!(
                "{} connections are made, and {BOUND} ports are enough",
                servers.len()
            ),
            refusal.is_none() && used <= usize::from(BOUND),
            &refusal.map_or(format!("{used} different ports"), |error| error.to_string()),
        )?;
        lab.means(
            "Now bind() takes the address alone, and the kernel chooses the port at connect(). A \
             proxy that binds to one of its addresses should always set this option (Linux 4.2).",
        );
        forget(clients)
    }
}

fn words(found: &io::Result<End>) -> String {
    match found {
        Ok(client) => format!("it is connected from {}", client.ends.client),
        Err(error) => error.to_string(),
    }
}
