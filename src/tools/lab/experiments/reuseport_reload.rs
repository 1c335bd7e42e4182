//! Experiment `reuseport-reload`: the accept queue when a process ends, with `SO_REUSEPORT` and with one
//! shared listener.

use std::fs;
use std::io;
use std::net::SocketAddr;

use super::Experiment;
use crate::lab::end::{End, Ends};
use crate::lab::picture::Side;
use crate::lab::server::{Holder, LabServer};
use crate::lab::stop::Trying;
use crate::lab::{LOOPBACK, Lab, PATIENCE, Stop};
use crate::sockets::counters::Settings;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "reuseport-reload",
    title: "SO_REUSEPORT: a process that ends takes its queue with it",
    question: "During a reload, or when a worker crashes, some clients are reset, though another \
               worker listens all the time. Why?",
    run,
};

/// Number of clients, so that both queues get some: the probability that one gets none is less than one in
/// a million.
const CLIENTS: usize = 24;

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let count = client_count()?;
    each_has_its_own_queue(lab, count)?;
    all_share_one(lab, count)?;
    lab.advise(
        "With SO_REUSEPORT, a reload has to keep new connections out of the queue, accept the queued \
         ones, and only then close the listener. Linux 5.14 can move the queue to another listener \
         instead (net.ipv4.tcp_migrate_req=1); it is off by default.",
    );
    lab.advise(
        "A listener that is made before the fork and shared by all workers has one queue, which lives \
         as long as any of them, or the parent, holds the listener. tine's base mode does that; in \
         process mode only the master holds it.",
    );
    lab.advise(
        "SO_REUSEPORT spreads clients over the listeners by a hash, and not by load: a worker that \
         blocks still gets its share, and these clients wait for it.",
    );
    Ok(())
}

fn each_has_its_own_queue(lab: &mut Lab<'_>, count: usize) -> Result<(), Stop> {
    lab.step(
        "Two processes listen on the same port, each with a socket of its own (SO_REUSEPORT). \
         Neither accepts, as if both were busy.",
    )?;
    let one = Holder::start(LOOPBACK).trying("start a listener")?;
    let two = Holder::start(one.address).trying("start a second listener")?;
    let address = one.address;
    lab.watch_port(address.port())?;
    lab.show_listeners(address)?;

    lab.step(&format!("{count} clients connect."))?;
    let clients = connect(lab, address, count)?;
    lab.show_listeners(address)?;
    let queues = lab.queues(address)?;
    let counts: Vec<String> = queues.iter().map(u32::to_string).collect();
    let seen = counts.join(" and ");
    let is_spread = queues.len() == 2 && queues.iter().all(|queue| *queue > 0);
    lab.check("they wait in two queues", is_spread, &seen)?;
    lab.means(
        "All are ESTABLISHED: the kernel has completed the handshakes, and the clients may send. By a \
         hash of its address and port, each client is in the queue of one of the two.",
    );
    let all: u32 = queues.iter().sum();
    one_is_killed(lab, one, &clients, all)?;
    drop(two);
    Ok(())
}

/// Kills a process that listens, while `all` clients wait in its queue and in another process's.
fn one_is_killed(lab: &mut Lab<'_>, one: Holder, clients: &[End], all: u32) -> Result<(), Stop> {
    lab.step("One of the two processes is killed.")?;
    let migrates = migrates().trying("read net.ipv4.tcp_migrate_req")?;
    let (address, count) = (one.address, clients.len());
    lab.did(Side::Server, "is killed");
    lab.ran(&format!("kill -KILL {}", one.pid()));
    drop(one);
    let left = lab.look_for(PATIENCE, |lab| {
        let queues = lab.queues(address)?;
        Ok(<[u32; 1]>::try_from(queues).ok().map(|[left]| left))
    })?;
    let left = left.ok_or_else(|| Stop::Cannot("cannot find the other listener".to_owned()))?;
    lab.show_listeners(address)?;
    let resets = resets(lab, clients, (all - left) as usize)?;
    let reset = resets.len();
    let seen = format!("{reset} of {count} were reset, {left} still wait");
    if migrates {
        lab.check(
            "its queue moved to the other listener",
            reset == 0 && left == all,
            &seen,
        )?;
        lab.means(
            "net.ipv4.tcp_migrate_req is on here. By default it is off, and these clients are reset.",
        );
    } else {
        let is_lost = reset > 0 && reset + left as usize == count;
        lab.check(
            "the clients in its queue are reset, the others are not",
            is_lost,
            &seen,
        )?;
        lab.means(
            "The queue belonged to the socket, and the socket to the process. Another listener was \
             there all the time, but these clients were in this one's queue.",
        );
    }
    if let Some(one) = resets.first() {
        lab.draw_life("A client in the queue of the process that was killed", *one);
    }
    Ok(())
}

fn all_share_one(lab: &mut Lab<'_>, count: usize) -> Result<(), Stop> {
    lab.step(
        "The same with one listener that was made before the fork: base mode of tine, with two \
         workers. Both workers block in a message.",
    )?;
    lab.forget_ports();
    let server = lab.serve("--mode base --workers 2 --fault receive:sleep=1000")?;
    let busy = block_both(lab, &server)?;
    lab.show_listeners(server.address)?;

    lab.step(&format!("{count} clients connect. No worker accepts them."))?;
    let clients = connect(lab, server.address, count)?;
    let queues = lab.queues(server.address)?;
    lab.show_listeners(server.address)?;
    let seen = format!("{} of {count}", queues.iter().sum::<u32>());
    lab.check("they wait in one queue", queues == [count as u32], &seen)?;

    lab.step("Both workers are killed.")?;
    for role in ["worker#0", "worker#1"] {
        let pid = server.process(role);
        let pid = pid.ok_or_else(|| Stop::Cannot(format!("cannot find {role}")))?;
        lab.ran(&format!("kill -KILL {pid}"));
        server.kill(pid).trying("kill a worker")?;
    }
    let accepted = lab.look_for(PATIENCE, |lab| {
        Ok(Some(()).filter(|()| lab.queues(server.address).is_ok_and(|queues| queues == [0])))
    })?;
    lab.show_listeners(server.address)?;
    lab.check(
        "the new workers have accepted them all",
        accepted.is_some(),
        "",
    )?;
    let reset = resets(lab, &clients, 0)?.len();
    let seen = format!("{reset} of {count} were reset");
    lab.check("no client was reset", reset == 0, &seen)?;
    lab.means(
        "The manager held the listener too. The workers' death closed their descriptors, and the \
         queue stayed. Only the clients that the dead workers were serving lost their connections.",
    );
    drop(busy);
    Ok(())
}

/// Sends a message to each worker, in which it blocks.
fn block_both(lab: &mut Lab<'_>, server: &LabServer) -> Result<Vec<End>, Stop> {
    let mut busy = Vec::new();
    for _ in 0..2 {
        let client = lab.connect(server.address)?;
        lab.send(&client, b"x")?;
        let ends = client.ends;
        let read = lab.look_for(PATIENCE, |lab| Ok(lab.is_all_read(ends)?.then_some(())))?;
        lab.check("a worker has read a message", read.is_some(), "")?;
        busy.push(client);
    }
    Ok(busy)
}

fn connect(lab: &mut Lab<'_>, to: SocketAddr, count: usize) -> Result<Vec<End>, Stop> {
    (0..count).map(|_| lab.connect(to)).collect()
}

/// Returns the connections of the clients that were reset, once there are `expected` of them or after
/// [`PATIENCE`].
fn resets(lab: &mut Lab<'_>, clients: &[End], expected: usize) -> Result<Vec<Ends>, Stop> {
    let mut reset = Vec::new();
    lab.look_for(PATIENCE, |_| {
        for client in clients {
            let found = client.read(&mut [0; 16]);
            let is_reset =
                matches!(&found, Err(error) if error.raw_os_error() == Some(libc::ECONNRESET));
            if is_reset {
                reset.push(client.ends);
            }
        }
        Ok((reset.len() >= expected).then_some(()))
    })?;
    Ok(reset)
}

/// Returns the number of clients: [`CLIENTS`], or fewer if an accept queue has no room for them.
fn client_count() -> Result<usize, Stop> {
    let settings = Settings::now().trying("read the kernel's settings")?;
    Ok(CLIENTS.min(settings.somaxconn as usize))
}

/// Whether the kernel moves the queue of a closed listener to another one.
fn migrates() -> io::Result<bool> {
    match fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req") {
        Ok(text) => Ok(text.trim() == "1"),
        // Linux before 5.14 does not.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
