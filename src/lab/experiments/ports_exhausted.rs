//! "Cannot assign requested address": no port is left.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::Experiment;
use crate::inspect::counters::Settings;
use crate::inspect::sockets::State::{CloseWait, FinWait2, TimeWait};
use crate::lab::end::{End, Ends, Listening, Sharing, stream};
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

/// Ranges that are tried until one is found in which nobody else has a port. On a busy machine most
/// ports may be taken.
const RANGES: usize = 1000;

/// How often the ports are filled with TIME_WAIT, if it takes so long that the first is free again.
const ATTEMPTS: usize = 10;

/// Seconds of FIN_WAIT2, where they are set: far from 60, and long enough to be seen.
const FIN_WAIT2: u8 = 20;

/// The kernel's timer of a TIME_WAIT, less the time until somebody looks at it.
const MOST_OF_A_MINUTE: RangeInclusive<Duration> =
    Duration::from_secs(30)..=Duration::from_secs(61);

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let settings = Settings::now().trying("read the kernel's settings")?;
    let mut course = Course::new(lab, settings)?;
    course.open_connections(lab)?;
    course.what_helps(lab)?;
    course.time_wait(lab)?;
    course.reuse(lab)?;
    course.fin_timeout(lab)?;
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
        let ports = some_ports(settings)?;
        can_choose_from(&ports)?;
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

    /// A connection from each of the few ports; from others, if somebody else has one of these.
    fn one_of_each(&mut self, lab: &mut Lab<'_>) -> Result<Vec<End>, Stop> {
        for _ in 0..RANGES {
            let mut clients = Vec::new();
            let error = loop {
                match self.client(lab, self.listening.address, |_| Ok(()))? {
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
            self.forget(clients)?;
            self.ports = some_ports(self.settings)?;
        }
        Err(Stop::Cannot(format!(
            "cannot have {PORTS} ports in a row: other programs have too many"
        )))
    }

    /// Nothing of these is left on either side.
    fn forget(&self, clients: Vec<End>) -> Result<(), Stop> {
        for client in clients {
            client.close_with_reset().trying("set SO_LINGER")?;
        }
        while let Some(server) = self.listening.accept().trying("accept")? {
            drop(server);
        }
        Ok(())
    }

    fn open_connections(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step(&format!(
            "It opens {} connections to one server.",
            PORTS + 1
        ))?;
        let clients = self.one_of_each(lab)?;
        lab.show()?;
        lab.check(
            "each port serves for one of them",
            ports_of(&clients) == self.ports.clone().collect(),
            &format!("{} to {}", self.ports.start(), self.ports.end()),
        )?;
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

    /// With every port taken, what is possible all the same.
    fn other_ends(&mut self, lab: &mut Lab<'_>, clients: Vec<End>) -> Result<(), Stop> {
        lab.step("All ports are taken. What is possible all the same?")?;
        let next = self.client(lab, self.listening.address, |socket| {
            socket.set_reuse_address(true)
        })?;
        self.refused(lab, &next, "not with SO_REUSEADDR on the client")?;
        let other = Listening::bind(LOOPBACK, 64, Sharing::default()).trying("listen")?;
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
            "Each pair of addresses and server port has all the client's ports for itself. A \
             client that binds to an address should set IP_BIND_ADDRESS_NO_PORT before, as here: \
             without it the kernel takes the port at bind(), when it does not know the \
             destination, and each port serves once for all of them.",
        );
        for client in [one, two, three] {
            client.close_with_reset().trying("set SO_LINGER")?;
        }
        // Who closes first has TIME_WAIT: the servers' ends, so that the client has its ports back.
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
            "each TIME_WAIT is the server's, where it takes no port: they all have the listener's",
            &expected,
        )
    }

    fn what_helps(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        let next = self.client(lab, self.listening.address, |_| Ok(()))?;
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

    /// The client closes first, each time.
    fn time_wait(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step(&format!(
            "A new server. The client opens {PORTS} connections, closes each of them first, and \
             connects once more."
        ))?;
        let mut found = self.close_one_of_each(lab)?;
        for _ in 1..ATTEMPTS {
            // A second after the first close a port may be taken again; on older kernels as soon as
            // the clock shows another second. That is the next step.
            if found.1.is_err() {
                break;
            }
            found = self.close_one_of_each(lab)?;
        }
        let (closed, next) = found;
        let expected: Vec<_> = closed.iter().map(|ends| ends.client_is(TimeWait)).collect();
        lab.see("each port is in TIME_WAIT", &expected)?;
        self.refused(
            lab,
            &next,
            "the next connect() has failed with EADDRNOTAVAIL, though no connection is open",
        )?;
        let left = time_left(lab, closed[0])?;
        lab.check(
            "the kernel's timer keeps each for 60 s",
            MOST_OF_A_MINUTE.contains(&left),
            &seconds(left),
        )
    }

    /// Fills the ports with TIME_WAIT, and connects at once.
    fn close_one_of_each(
        &mut self,
        lab: &mut Lab<'_>,
    ) -> Result<(Vec<Ends>, io::Result<End>), Stop> {
        lab.turn_the_page();
        self.listening = lab.listen(64, Sharing::default())?;
        let clients = self.one_of_each(lab)?;
        let closed: Vec<Ends> = clients.iter().map(|client| client.ends).collect();
        let mut servers = Vec::new();
        for ends in &closed {
            servers.push(accept(lab, &self.listening, *ends)?);
        }
        drop(clients);
        for server in servers {
            lab.read_end(&server)?.trying("read")?;
        }
        for ends in &closed {
            await_time_wait(lab, *ends)?;
        }
        let next = self.client(lab, self.listening.address, |_| Ok(()))?;
        Ok((closed, next))
    }

    fn reuse(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        let reuse = self.settings.tw_reuse;
        if reuse == 0 {
            lab.means(
                "net.ipv4.tcp_tw_reuse is 0 here: they stay taken for the whole minute. With 1, or \
                 2 over loopback, a client may take such a port again after a second.",
            );
            return Ok(());
        }
        if !are_timestamps_on()? {
            lab.means(
                "net.ipv4.tcp_timestamps is 0 here: they stay taken for the whole minute. With \
                 timestamps a client may take such a port again after a second, if \
                 net.ipv4.tcp_tw_reuse allows it.",
            );
            return Ok(());
        }
        lab.step("It goes on connecting and closing, whenever it can.")?;
        let begin = Instant::now();
        let mut made = vec![(0.0, 0.0)];
        let enough = f64::from(PORTS) * 2.0;
        while begin.elapsed() < Duration::from_secs(3) || made[made.len() - 1].1 < enough {
            let next = self.client(lab, self.listening.address, |_| Ok(()))?;
            let mut count = made[made.len() - 1].1;
            match next {
                Ok(client) => {
                    close_first(lab, &self.listening, client)?;
                    count += 1.0;
                }
                Err(error) if is_exhausted(&error) => {
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
            "1 allows that for every outgoing connection, 2 (the default) for loopback alone. \
             TCP's timestamps keep it safe: a second has to pass, so that the new connection's are \
             higher (net.ipv4.tcp_tw_reuse_delay, where the kernel has it). So this client is \
             better off than one that connects over a network: that one waits for a minute.",
        );
        Ok(())
    }

    /// The setting that is named most often, and is about another state.
    fn fin_timeout(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step(&format!(
            "Does a lower net.ipv4.tcp_fin_timeout help ({} s here)? TCP_LINGER2 sets the same for \
             one socket, without a privilege: {FIN_WAIT2} s. The client closes, the server does \
             not yet.",
            self.settings.fin_timeout
        ))?;
        lab.turn_the_page();
        self.listening = lab.listen(64, Sharing::default())?;
        let client = self.client(lab, self.listening.address, |socket| {
            options::keep_fin_wait2_for(socket, FIN_WAIT2)
        })?;
        let client = client.trying("connect")?;
        let ends = client.ends;
        let server = accept(lab, &self.listening, ends)?;
        drop(client);
        lab.see(
            "the client is in FIN_WAIT2, without a process",
            &[ends.client_is(FinWait2), ends.server_is(CloseWait)],
        )?;
        let left = time_left(lab, ends)?;
        lab.check(
            &format!("FIN_WAIT2 lasts for the {FIN_WAIT2} s that were set"),
            left <= Duration::from_secs(u64::from(FIN_WAIT2) + 1),
            &seconds(left),
        )?;
        drop(server);
        lab.see(
            "the server closes too: TIME_WAIT",
            &[ends.client_is(TimeWait), ends.server_is(None)],
        )?;
        let left = time_left(lab, ends)?;
        lab.check(
            "TIME_WAIT lasts for 60 s all the same",
            MOST_OF_A_MINUTE.contains(&left),
            &seconds(left),
        )?;
        lab.means(
            "tcp_fin_timeout bounds the wait for a peer that does not close. It gives back no port \
             of a connection that was closed in good order.",
        );
        Ok(())
    }

    fn one_connection_for_many(&mut self, lab: &mut Lab<'_>) -> Result<(), Stop> {
        lab.step("And with one connection that is kept open?")?;
        lab.turn_the_page();
        let server = lab.serve("--workers 1")?;
        let client = self.client(lab, server.address, |_| Ok(()))?;
        let client = client.trying("connect")?;
        let requests = 250;
        let mut answered = 0;
        for _ in 0..requests {
            lab.send(&client, b"question")?;
            answered += usize::from(lab.read(&client, 8)? == b"question");
        }
        // The last answer's acknowledgement may be a moment late.
        let ends = client.ends;
        lab.look_for(PATIENCE, |lab| {
            let server = lab.socket(ends.server, ends.client)?;
            Ok(server.filter(|server| server.send_q == 0).map(drop))
        })?;
        lab.show()?;
        let sockets = lab.sockets()?;
        let of_clients = sockets
            .iter()
            .filter(|socket| socket.remote == server.address);
        let ports: BTreeSet<u16> = of_clients.map(|socket| socket.local.port()).collect();
        lab.check(
            &format!("{requests} requests are answered, and take one port"),
            answered == requests && ports.len() == 1,
            &format!("{answered} answers, {} port", ports.len()),
        )
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
    await_time_wait(lab, ends)?;
    Ok(ends)
}

fn await_time_wait(lab: &mut Lab<'_>, ends: Ends) -> Result<(), Stop> {
    let found = lab.look_for(PATIENCE, |lab| {
        let socket = lab.socket(ends.client, ends.server)?;
        Ok(socket.filter(|socket| socket.state == TimeWait).map(drop))
    })?;
    found.ok_or_else(|| Stop::Cannot("cannot see the client in TIME_WAIT".to_owned()))
}

/// What the kernel's timer of the client's end says.
fn time_left(lab: &mut Lab<'_>, ends: Ends) -> Result<Duration, Stop> {
    let socket = lab.socket(ends.client, ends.server)?;
    let timer = socket.and_then(|socket| socket.timer);
    let timer = timer.ok_or_else(|| Stop::Cannot("cannot see the client's timer".to_owned()))?;
    Ok(timer.left)
}

fn seconds(left: Duration) -> String {
    format!("{:.0} s are left", left.as_secs_f64())
}

fn is_exhausted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
}

/// # Errors
/// `Cannot`, before Linux 6.3.
fn can_choose_from(ports: &RangeInclusive<u16>) -> Result<(), Stop> {
    let socket = stream(LOOPBACK).trying("make a socket")?;
    match options::choose_port_from(&socket, ports) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Err(Stop::Cannot(
            "cannot leave a client few ports: this kernel has no IP_LOCAL_PORT_RANGE, which came \
             with Linux 6.3"
                .to_owned(),
        )),
        other => other.trying("leave a client few ports (IP_LOCAL_PORT_RANGE)"),
    }
}

/// Without them a port in TIME_WAIT is not taken again.
fn are_timestamps_on() -> Result<bool, Stop> {
    let setting = fs::read_to_string("/proc/sys/net/ipv4/tcp_timestamps");
    let setting = setting.trying("read net.ipv4.tcp_timestamps")?;
    Ok(setting.trim() != "0")
}

/// Ports in a row, anywhere within those that the kernel gives away, so that two experiments at a
/// time hardly meet.
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

fn ports_of(clients: &[End]) -> BTreeSet<u16> {
    clients.iter().map(|end| end.ends.client.port()).collect()
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
        "What does not help: SO_REUSEADDR on the client, a lower tcp_fin_timeout, a longer \
         backlog, more descriptors. `tine doctor` shows how many ports are taken for each \
         destination.",
    );
}
