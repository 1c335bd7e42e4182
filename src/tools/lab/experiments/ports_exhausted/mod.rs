//! Experiment `ports-exhausted`: "Cannot assign requested address", because no port is left.

mod bound;
mod few;
mod time_wait;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use self::few::{Few, PORTS, forget, is_exhausted, ports_of};
use super::Experiment;
use crate::lab::end::{End, Ends, Listening, Sharing};
use crate::lab::stop::Trying;
use crate::lab::{LOOPBACK, Lab, PATIENCE, Stop};
use crate::sockets::State::TimeWait;
use crate::sockets::counters::Settings;
use crate::sys::options;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "ports-exhausted",
    title: "Cannot assign requested address: no port is left",
    question: "connect() fails with EADDRNOTAVAIL though the server works. How many connections can \
               a client make, and how fast?",
    run,
};

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let settings = Settings::now().trying("read the kernel's settings")?;
    let mut course = Course::new(lab, settings)?;
    course.open_connections(lab)?;
    course.what_helps(lab)?;
    course.bound(lab)?;
    course.time_wait(lab)?;
    course.reuse(lab)?;
    course.fin_timeout(lab)?;
    course.one_connection_for_many(lab)?;
    arithmetic(lab, settings);
    Ok(())
}

struct Course {
    listening: Listening,
    /// The ports that the client may use.
    few: Few,
    settings: Settings,
}

impl Course {
    fn new(lab: &mut Lab<'_>, settings: Settings) -> Result<Course, Stop> {
        lab.step(&format!(
            "A client may use only {PORTS} ports (IP_LOCAL_PORT_RANGE), so that they run out soon. \
             By default it has those of net.ipv4.ip_local_port_range: {} to {} here.",
            settings.ports.0, settings.ports.1
        ))?;
        let listening = lab.listen(64, Sharing::default())?;
        Ok(Course {
            listening,
            few: Few::some(settings)?,
            settings,
        })
    }

    fn open_connections(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step(&format!(
            "It opens {} connections to one server.",
            PORTS + 1
        ))?;
        let clients = self.few.one_of_each(lab, &self.listening)?;
        lab.show()?;
        lab.check(
            "each port is used by one of them",
            ports_of(&clients) == self.few.ports.clone().collect(),
            &format!("{} to {}", self.few.ports.start(), self.few.ports.end()),
        )?;
        let next = self.few.client(lab, self.listening.address, |_| Ok(()))?;
        self.refused(lab, &next, "the next connect() fails with EADDRNOTAVAIL")?;
        lab.means(
            "Four numbers identify a connection: both addresses and both ports. Three of them are \
             fixed here, so that the client's port has to differ.",
        );
        self.other_ends(lab, clients)
    }

    fn refused(&self, lab: &mut Lab<'_>, found: &io::Result<End>, claim: &str) -> Result<(), Stop> {
        let is_refused = matches!(found, Err(error) if is_exhausted(error));
        let seen = match found {
            Ok(client) => format!("it is connected from {}", client.ends.client),
            Err(error) => error.to_string(),
        };
        lab.check(claim, is_refused, &seen)
    }

    fn connected(lab: &mut Lab<'_>, found: io::Result<End>, claim: &str) -> Result<End, Stop> {
        let seen = match &found {
            Ok(client) => format!("{} to {}", client.ends.client, client.ends.server),
            Err(error) => error.to_string(),
        };
        lab.check(claim, found.is_ok(), &seen)?;
        found.trying("connect")
    }

    /// Tries further connections while every port is taken.
    fn other_ends(&mut self, lab: &mut Lab<'_>, clients: Vec<End>) -> Result<(), Stop> {
        lab.step("All ports are taken. Which connections are still possible?")?;
        let next = self.few.client(lab, self.listening.address, |socket| {
            socket.set_reuse_address(true)
        })?;
        self.refused(lab, &next, "no further one with SO_REUSEADDR on the client")?;
        let other = Listening::bind(LOOPBACK, 64, Sharing::default()).trying("listen")?;
        let next = self.few.client(lab, other.address, |_| Ok(()))?;
        let one = Course::connected(lab, next, "one to another port of the server")?;
        let elsewhere = Listening::bind(any_port(2), 64, Sharing::default()).trying("listen")?;
        let next = self.few.client(lab, elsewhere.address, |_| Ok(()))?;
        let two = Course::connected(lab, next, "one to another address of the server")?;
        let next = self.few.client(lab, self.listening.address, |socket| {
            options::bind_without_port(socket)?;
            socket.bind(&any_port(3).into())
        })?;
        let three = Course::connected(lab, next, "one from another address of the client")?;
        lab.means(
            "For each combination of the two addresses and the server's port, the client has all its \
             ports again. All of 127.0.0.0/8 is on Linux's loopback device, so that this needs no \
             other machine.",
        );
        forget(vec![one, two, three])?;
        // The side that closes first has TIME_WAIT: here the server, so that the client gets its ports
        // back.
        self.server_closes_first(lab, clients)
    }

    fn server_closes_first(&mut self, lab: &mut Lab<'_>, clients: Vec<End>) -> Result<(), Stop> {
        lab.step("The server closes these connections first, then the client.")?;
        let mut expected = Vec::new();
        for client in clients {
            let ends = client.ends;
            let server = accept(lab, &self.listening, ends)?;
            drop(server);
            lab.read_end(&client)?.trying("read")?;
            expected.extend([ends.client_is(None), ends.server_is(TimeWait)]);
        }
        lab.see(
            "each TIME_WAIT is the server's, where it uses up no port: all have the listener's",
            &expected,
        )
    }

    fn what_helps(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        let next = self.few.client(lab, self.listening.address, |_| Ok(()))?;
        let client = Course::connected(lab, next, "the client can connect again at once")?;
        let ends = client.ends;
        drop(accept(lab, &self.listening, ends)?);
        lab.read_end(&client)?.trying("read")?;
        drop(client);
        lab.look_for(PATIENCE, |lab| {
            Ok(lab
                .socket(ends.client, ends.server)?
                .is_none()
                .then_some(()))
        })?;
        Ok(())
    }

    fn one_connection_for_many(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step("And with one connection that stays open?")?;
        lab.forget_ports();
        let server = lab.serve("--workers 1")?;
        let client = self.few.client(lab, server.address, |_| Ok(()))?;
        let client = client.trying("connect")?;
        // An earlier server may have had the same port, and left a TIME_WAIT.
        let before = client_ports(lab, server.address)?;
        let requests = 250;
        let mut answered = 0;
        for _ in 0..requests {
            lab.send(&client, b"question")?;
            answered += usize::from(lab.read(&client, 8)? == b"question");
        }
        // The acknowledgement of the last answer may arrive a moment later.
        let ends = client.ends;
        lab.look_for(PATIENCE, |lab| {
            let server = lab.socket(ends.server, ends.client)?;
            Ok(server.filter(|server| server.send_q == 0).map(drop))
        })?;
        lab.show()?;
        let more = &client_ports(lab, server.address)? - &before;
        lab.check(
            &format!("{requests} requests are answered, and use only this port"),
            answered == requests && before.contains(&ends.client.port()) && more.is_empty(),
            &format!("{answered} answers, {} more ports", more.len()),
        )
    }
}

/// Returns the ports with connections to this server, TIME_WAIT included.
fn client_ports(lab: &mut Lab<'_>, server: SocketAddr) -> Result<BTreeSet<u16>, Stop> {
    let mut sockets = lab.sockets()?;
    sockets.retain(|socket| socket.remote == server);
    Ok(sockets.iter().map(|socket| socket.local.port()).collect())
}

/// Accepts the server's end of this connection, and drops the others in the queue: their clients have
/// closed already.
fn accept(lab: &mut Lab<'_>, listening: &Listening, ends: Ends) -> Result<End, Stop> {
    lab.await_some("accept", || {
        while let Some(server) = listening.accept()? {
            if server.ends == ends {
                return Ok(Some(server));
            }
        }
        Ok(None)
    })
}

/// Any port of the loopback address 127.0.0.`address`.
fn any_port(address: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, address)), 0)
}

fn arithmetic(lab: &mut Lab<'_>, settings: Settings) {
    let ports = settings.port_count();
    lab.advise(&format!(
        "The arithmetic: {ports} ports with 60 s of TIME_WAIT each allow {} short connections per \
         second to one address and port of another machine, if the client closes first.",
        ports / 60
    ));
    lab.advise(
        "First, keep connections open: a pool, HTTP keep-alive, a proxy with upstream keepalive. \
         Then use more addresses: several ports or addresses of the server, or addresses of the \
         client. Then set net.ipv4.tcp_tw_reuse=1 on the client, and widen \
         net.ipv4.ip_local_port_range.",
    );
    lab.advise(
        "These do not help: SO_REUSEADDR on the client, a lower tcp_fin_timeout, a longer backlog, \
         more descriptors. `tine doctor` shows the number of ports taken for each destination.",
    );
}
