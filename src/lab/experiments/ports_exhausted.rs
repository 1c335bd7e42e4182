//! "Cannot assign requested address": no port is left.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::Experiment;
use crate::inspect::counters::Settings;
use crate::inspect::sockets::State::TimeWait;
use crate::lab::end::{End, Ends, Listening, Sharing};
use crate::lab::picture::{Chart, Series, Style};
use crate::lab::stop::Trying;
use crate::lab::{LOOPBACK, Lab, PATIENCE, Stop};
use crate::sys::options;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "ports-exhausted",
    title: "Cannot assign requested address: no port is left",
    question: "connect() fails with EADDRNOTAVAIL though the server is well. How many connections \
               can a client make, and how fast?",
    run,
};

/// How many ports the client may use, so that the end comes soon.
const PORTS: u16 = 5;

/// Ranges that are tried until one is found in which nobody else has a port.
const ATTEMPTS: u16 = 200;

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let settings = Settings::now().trying("read the kernel's settings")?;
    let mut course = Course::new(lab, settings)?;
    course.open_connections(lab)?;
    course.what_helps(lab)?;
    course.time_wait(lab)?;
    course.one_connection_for_many(lab)?;
    arithmetic(lab, settings);
    Ok(())
}

struct Course {
    listening: Listening,
    /// What the client may choose from.
    ports: RangeInclusive<u16>,
    settings: Settings,
}

impl Course {
    fn new(lab: &mut Lab<'_>, settings: Settings) -> Result<Course, Stop> {
        lab.step(&format!(
            "A client may use {PORTS} ports (IP_LOCAL_PORT_RANGE), so that it is soon over. By \
             default it has those of net.ipv4.ip_local_port_range: {} to {} here.",
            settings.ports.0, settings.ports.1
        ))?;
        let listening = lab.listen(64, Sharing::default())?;
        let ports = free_ports(lab, settings)?;
        lab.means(&format!("These are {} to {}.", ports.start(), ports.end()));
        Ok(Course {
            listening,
            ports,
            settings,
        })
    }

    /// A client whose port the kernel chooses from the few; connected, or refused.
    fn client(
        &mut self,
        lab: &mut Lab<'_>,
        to: SocketAddr,
        prepare: impl FnOnce(&socket2::Socket) -> io::Result<()>,
    ) -> Result<io::Result<End>, Stop> {
        let ports = self.ports.clone();
        let client = End::unbound(to, |socket| {
            options::choose_port_from(socket, &ports)?;
            prepare(socket)
        });
        let client = match client {
            Ok(client) => client,
            Err(error) => return Ok(Err(error)),
        };
        lab.await_some("connect", || Ok(client.is_connected()?.then_some(())))?;
        Ok(Ok(client))
    }

    fn open_connections(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step(&format!(
            "It opens {} connections to one server.",
            PORTS + 1
        ))?;
        let mut clients = Vec::new();
        for _ in 0..PORTS {
            let client = self.client(lab, self.listening.address, |_| Ok(()))?;
            clients.push(client.trying("connect")?);
        }
        lab.show()?;
        let next = self.client(lab, self.listening.address, |_| Ok(()))?;
        self.refused(lab, &next, "the next connect() fails with EADDRNOTAVAIL")?;
        lab.means(
            "A connection is known by four numbers: both addresses, both ports. Three of them are \
             given, so that the client's port has to differ.",
        );
        self.other_ends(lab, clients)
    }

    fn refused(
        &mut self,
        lab: &mut Lab<'_>,
        found: &io::Result<End>,
        claim: &str,
    ) -> Result<(), Stop> {
        let is_refused =
            matches!(found, Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL));
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

    /// With every port taken, what is possible all the same.
    fn other_ends(&mut self, lab: &mut Lab<'_>, clients: Vec<End>) -> Result<(), Stop> {
        lab.step("All ports are taken. What is possible all the same?")?;
        let next = self.client(lab, self.listening.address, |socket| {
            socket.set_reuse_address(true)
        })?;
        self.refused(lab, &next, "not with SO_REUSEADDR on the client")?;
        let other = lab.listen(64, Sharing::default())?;
        let next = self.client(lab, other.address, |_| Ok(()))?;
        let one = Course::connected(lab, next, "another port of the server")?;
        let there = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), 0);
        let elsewhere = Listening::bind(there, 64, Sharing::default()).trying("listen")?;
        let next = self.client(lab, elsewhere.address, |_| Ok(()))?;
        let two = Course::connected(lab, next, "another address of the server")?;
        let from = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 3).into(), 0);
        let next = self.client(lab, self.listening.address, |socket| {
            options::bind_without_port(socket)?;
            socket.bind(&from.into())
        })?;
        let three = Course::connected(lab, next, "another address of the client")?;
        lab.means(
            "Each pair of addresses and server port has all the client's ports for itself. A client \
             that binds to an address should set IP_BIND_ADDRESS_NO_PORT before, as here: without \
             it the kernel takes the port at bind(), when it does not know the destination, and each \
             port serves once for all of them.",
        );
        drop((one, two, three));
        // Who closes first has TIME_WAIT: the servers' ends, so that the client has its ports back.
        self.server_closes_first(lab, clients)
    }

    fn server_closes_first(&mut self, lab: &mut Lab<'_>, clients: Vec<End>) -> Result<(), Stop> {
        lab.step("The server closes these connections first, then the client.")?;
        for client in clients {
            let ends = client.ends;
            let server = accept(lab, &self.listening, ends)?;
            drop(server);
            lab.read_end(&client)?.trying("read")?;
        }
        Ok(())
    }

    fn what_helps(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        let next = self.client(lab, self.listening.address, |_| Ok(()))?;
        let client = Course::connected(lab, next, "the client can connect again at once")?;
        lab.means("TIME_WAIT is on the server's side now, where it takes no port.");
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

    /// The client closes first, each time.
    fn time_wait(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step(&format!(
            "A new server. {PORTS} short connections, one after the other, and the client closes \
             each one first."
        ))?;
        lab.turn_the_page();
        self.listening = lab.listen(64, Sharing::default())?;
        let mut last = None;
        for _ in 0..PORTS {
            let client = self.client(lab, self.listening.address, |_| Ok(()))?;
            let client = client.trying("connect")?;
            last = Some(close_first(lab, &self.listening, client)?);
        }
        lab.show()?;
        let next = self.client(lab, self.listening.address, |_| Ok(()))?;
        self.refused(
            lab,
            &next,
            "the next connect() fails with EADDRNOTAVAIL, though no connection is open",
        )?;
        if let Some(ends) = last {
            let left = lab
                .socket(ends.client, ends.server)?
                .and_then(|socket| socket.timer);
            let left = left.map_or(Duration::ZERO, |timer| timer.left);
            lab.check(
                &format!(
                    "each port is taken for 60 s, though net.ipv4.tcp_fin_timeout is {}: that is for \
                     FIN_WAIT2",
                    self.settings.fin_timeout
                ),
                left > Duration::from_secs(25),
                &format!("{:.0} s are left", left.as_secs_f64()),
            )?;
        }
        self.reuse(lab)
    }

    fn reuse(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        let reuse = self.settings.tw_reuse;
        if reuse == 0 {
            lab.means(
                "net.ipv4.tcp_tw_reuse is 0 here: they stay taken for the whole minute. With 1, or 2 \
                 over loopback, a client may take such a port again after a second.",
            );
            return Ok(());
        }
        lab.step("It goes on connecting and closing, whenever it can.")?;
        let begin = Instant::now();
        let mut made = vec![(0.0, 0.0)];
        let enough = f64::from(PORTS) * 2.0;
        while begin.elapsed() < Duration::from_secs(4) || made[made.len() - 1].1 < enough {
            let next = self.client(lab, self.listening.address, |_| Ok(()))?;
            let mut count = made[made.len() - 1].1;
            match next {
                Ok(client) => {
                    close_first(lab, &self.listening, client)?;
                    count += 1.0;
                }
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                    lab.wait(Duration::from_millis(20))?;
                }
                Err(error) => return Err(error).trying("connect"),
            }
            made.push((begin.elapsed().as_secs_f64(), count));
            if begin.elapsed() > PATIENCE {
                break;
            }
        }
        let (seconds, count) = made[made.len() - 1];
        lab.check(
            &format!("ports in TIME_WAIT are taken again: net.ipv4.tcp_tw_reuse is {reuse}"),
            count >= enough,
            &format!("{count} connections in {seconds:.1} s"),
        )?;
        lab.draw(Chart {
            title: format!("A client with {PORTS} ports that connects and closes, whenever it can"),
            x: "seconds".to_owned(),
            y: "connections made".to_owned(),
            series: vec![Series {
                name: format!("{PORTS} for each second, since a port is taken for one"),
                style: Style::Steps,
                points: made,
            }],
            levels: Vec::new(),
            marks: Vec::new(),
        });
        lab.means(
            "1 allows that for every outgoing connection, 2 (the default) for loopback alone. TCP's \
             timestamps keep it safe: a second has to pass, so that the new connection's are higher.",
        );
        Ok(())
    }

    fn one_connection_for_many(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step("And with one connection that is kept open?")?;
        lab.turn_the_page();
        let server = lab.serve("--workers 1")?;
        let client = lab.connect(server.address)?;
        let requests = 1000;
        for _ in 0..requests {
            lab.send(&client, b"question")?;
            lab.read(&client, 8)?;
        }
        lab.check(&format!("{requests} requests, one port"), true, "")
    }
}

/// The server's end of this connection. Others wait there too, whose clients have closed already.
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

/// The client closes first and has TIME_WAIT.
fn close_first(lab: &mut Lab<'_>, listening: &Listening, client: End) -> Result<Ends, Stop> {
    let ends = client.ends;
    let server = accept(lab, listening, ends)?;
    drop(client);
    lab.read_end(&server)?.trying("read")?;
    drop(server);
    let found = lab.look_for(PATIENCE, |lab| {
        let socket = lab.socket(ends.client, ends.server)?;
        Ok(socket.filter(|socket| socket.state == TimeWait).map(drop))
    })?;
    found.ok_or_else(|| Stop::Cannot("cannot see the client in TIME_WAIT".to_owned()))?;
    Ok(ends)
}

/// Ports in a row that nobody has, within those that the kernel gives away.
fn free_ports(lab: &mut Lab<'_>, settings: Settings) -> Result<RangeInclusive<u16>, Stop> {
    let (first, last) = settings.ports;
    let span = last.saturating_sub(first);
    // From anywhere in the range, so that two experiments at a time hardly meet.
    let begin = std::process::id() as u16 % span.max(1);
    for attempt in 0..ATTEMPTS {
        lab.go_on()?;
        let offset = (u32::from(begin) + u32::from(attempt) * 131) % u32::from(span.max(1));
        let from = first + offset as u16;
        let Some(to) = from.checked_add(PORTS - 1).filter(|to| *to <= last) else {
            continue;
        };
        if (from..=to).all(is_free) {
            return Ok(from..=to);
        }
    }
    Err(Stop::Cannot(format!(
        "cannot find {PORTS} free ports from {first} to {last}"
    )))
}

fn is_free(port: u16) -> bool {
    let at = SocketAddr::new(LOOPBACK.ip(), port);
    Listening::bind(at, 1, Sharing::default()).is_ok()
}

fn arithmetic(lab: &mut Lab<'_>, settings: Settings) {
    let ports = settings.port_count();
    lab.advise(&format!(
        "The arithmetic: {ports} ports, 60 s each, so that {} short connections a second to one \
         address and port are the end, if the client closes first.",
        ports / 60
    ));
    lab.advise(
        "First keep connections open: a pool, HTTP keep-alive, a proxy with upstream keepalive. \
         Then more pairs of addresses: several ports or addresses of the server, or of the client. \
         Then net.ipv4.tcp_tw_reuse=1 on the client, and a wider net.ipv4.ip_local_port_range.",
    );
    lab.advise(
        "What does not help: SO_REUSEADDR on the client, a lower tcp_fin_timeout, a longer backlog, \
         more descriptors. `tine doctor` shows how many ports are taken for each destination.",
    );
}
