//! Clients that may use few ports, so that these run out soon.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use crate::lab::end::{End, Listening, stream};
use crate::lab::stop::Trying;
use crate::lab::{LOOPBACK, Lab, Stop};
use crate::sockets::counters::Settings;
use crate::sys::options;

/// Number of ports that the client may use.
pub(super) const PORTS: u16 = 5;

/// Number of ranges to try until no other program has a port in one. On a busy machine most ports may be
/// taken.
pub(super) const RANGES: usize = 1000;

/// Consecutive ports, anywhere within net.ipv4.ip_local_port_range.
pub(super) struct Few {
    pub(super) ports: RangeInclusive<u16>,
    settings: Settings,
}

impl Few {
    /// # Errors
    /// `Cannot`, before Linux 6.3.
    pub(super) fn some(settings: Settings) -> Result<Few, Stop> {
        let few = Few {
            ports: some_ports(settings)?,
            settings,
        };
        let socket = stream(LOOPBACK).trying("make a socket")?;
        match options::choose_port_from(&socket, &few.ports) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Err(Stop::Cannot(
                "this experiment needs Linux 6.3 or newer, which can limit a client to few ports \
                     (IP_LOCAL_PORT_RANGE)"
                    .to_owned(),
            )),
            other => other
                .trying("limit a client to few ports (IP_LOCAL_PORT_RANGE)")
                .map(|()| few),
        }
    }

    /// Takes other ports, because another program has one of these.
    pub(super) fn change(&mut self) -> Result<(), Stop> {
        self.ports = some_ports(self.settings)?;
        Ok(())
    }

    /// Connects a client; the kernel chooses its port from the few. Returns the client, or the error of
    /// connect().
    pub(super) fn client(
        &self,
        lab: &mut Lab<'_>,
        to: SocketAddr,
        prepare: impl FnOnce(&socket2::Socket) -> io::Result<()>,
    ) -> Result<io::Result<End>, Stop> {
        let client = End::unbound(to, |socket| {
            options::choose_port_from(socket, &self.ports)?;
            prepare(socket)
        });
        let client = match client {
            Ok(client) => client,
            Err(error) => return Ok(Err(error)),
        };
        lab.await_some("connect", || Ok(client.is_connected()?.then_some(())))?;
        Ok(Ok(client))
    }

    /// Makes a connection from each of the few ports, or from other ports if another program has one of
    /// these.
    pub(super) fn one_of_each(
        &mut self,
        lab: &mut Lab<'_>,
        listening: &Listening,
    ) -> Result<Vec<End>, Stop> {
        for _ in 0..RANGES {
            let mut clients = Vec::new();
            let error = loop {
                match self.client(lab, listening.address, |_| Ok(()))? {
                    Ok(client) => clients.push(client),
                    Err(error) => break error,
                }
                if clients.len() == usize::from(PORTS) {
                    return Ok(clients);
                }
            };
            if !is_exhausted(&error) {
                return Err(error).trying("connect");
            }
            forget(clients)?;
            // Removes their other ends from the accept queue.
            while let Some(server) = listening.accept().trying("accept")? {
                drop(server);
            }
            self.change()?;
        }
        Err(all_taken())
    }
}

/// Closes these connections so that no TIME_WAIT is left on either side.
pub(super) fn forget(clients: Vec<End>) -> Result<(), Stop> {
    for client in clients {
        client.close_with_reset().trying("set SO_LINGER")?;
    }
    Ok(())
}

pub(super) fn all_taken() -> Stop {
    Stop::Cannot(format!(
        "cannot find {PORTS} consecutive free ports: other programs have too many"
    ))
}

pub(super) fn is_exhausted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
}

pub(super) fn ports_of(clients: &[End]) -> BTreeSet<u16> {
    clients.iter().map(|end| end.ends.client.port()).collect()
}

/// Returns ports at random, so that two experiments at the same time hardly ever share one.
fn some_ports(settings: Settings) -> Result<RangeInclusive<u16>, Stop> {
    let starts = settings.port_count().saturating_sub(u32::from(PORTS) - 1);
    let random = RandomState::new().build_hasher().finish();
    let offset = random.checked_rem(u64::from(starts)).ok_or_else(|| {
        Stop::Cannot(format!(
            "cannot choose {PORTS} ports: net.ipv4.ip_local_port_range has fewer"
        ))
    })?;
    let first = settings.ports.0 + offset as u16;
    Ok(first..=first + (PORTS - 1))
}
