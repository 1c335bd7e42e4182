//! Experiment `addr-in-use`: "Address already in use", because a TIME_WAIT keeps a server from restarting;
//! and the option that helps.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::Experiment;
use crate::lab::end::{Ends, Listening, Sharing};
use crate::lab::picture::Side;
use crate::lab::stop::Trying;
use crate::lab::{Lab, PATIENCE, Stop};
use crate::sockets::State::{Established, TimeWait};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "addr-in-use",
    title: "Address already in use: a restarted server meets its own TIME_WAIT",
    question: "The server was stopped, and no process listens on its port now. Why can't it be \
               started again for a minute, and which option helps?",
    run,
};

const NONE: Sharing = Sharing {
    reuse_address: false,
    reuse_port: false,
};
const ADDRESS: Sharing = Sharing {
    reuse_address: true,
    reuse_port: false,
};
const PORT: Sharing = Sharing {
    reuse_address: false,
    reuse_port: true,
};

/// Number of clients, so that both listeners get some.
const CLIENTS: usize = 24;

/// Room for all clients in either queue, however they are spread.
const BACKLOG: i32 = 64;

/// An address for documentation, which no machine has (RFC 5737).
const FOREIGN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0);

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    without_the_option(lab)?;
    with_the_option(lab)?;
    several_listeners(lab)?;
    both_starts_need_it(lab)?;
    a_client_has_it(lab)?;
    another_address(lab)?;
    another_error(lab)?;
    lab.advise(
        "Always set SO_REUSEADDR before bind(), in every server that listens on a fixed port. tine \
         does. The TIME_WAIT itself stays, and with it the protection that it is for.",
    );
    lab.advise(
        "EADDRINUSE with SO_REUSEADDR set means that a socket has the port: it listens, or it is a \
         client's end of a connection, or the TIME_WAIT of a socket without the option. `ss -tanp \
         sport = :PORT` shows all three, `tine doctor PORT` the listener. A listener may be a child's \
         that has inherited the socket: open the socket with SOCK_CLOEXEC.",
    );
    lab.advise(
        "Set SO_REUSEPORT only where you want several listeners: with it a second start by mistake \
         does not fail, and takes a part of the clients.",
    );
    lab.advise(
        "\"Address already in use\" (EADDRINUSE): the port that you asked for is taken. \"Cannot \
         assign requested address\" (EADDRNOTAVAIL) from bind(): this machine does not have the \
         address; `ip address` lists those that it has. The same from connect(): the kernel has no \
         port left to choose, `tine lab ports-exhausted`.",
    );
    Ok(())
}

fn without_the_option(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("A server without SO_REUSEADDR. It closes a connection first, and ends.")?;
    let address = leave_time_wait(lab, NONE)?.server;
    refused(lab, address, NONE, "without SO_REUSEADDR")?;
    lab.means(
        "No process listens, and none is left. But bind() checks whether any socket has the port, and \
         the server's end of the closed connection has it for another minute.",
    );

    lab.step("Does it help to set SO_REUSEADDR on the second start alone?")?;
    refused(
        lab,
        address,
        ADDRESS,
        "with SO_REUSEADDR, on a port that was bound without",
    )?;
    lab.means(
        "Both sockets have to allow it: the socket in TIME_WAIT has inherited from its listener that \
         it does not share its port. So the first restart after you have added the option fails once \
         more, or has to wait a minute.",
    );
    Ok(())
}

fn with_the_option(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("SO_REUSEADDR on every start, the first one included.")?;
    lab.forget_ports();
    let ends = leave_time_wait(lab, ADDRESS)?;
    let address = ends.server;
    let again = bind(lab, address, ADDRESS)?;
    let seen = words(&again);
    lab.check(
        "the second start can bind beside the TIME_WAIT, and listens",
        again.is_ok(),
        &seen,
    )?;
    let _first = again.trying("bind")?;
    lab.see(
        "the TIME_WAIT is still there, beside the listener",
        &[ends.server_is(TimeWait)],
    )?;

    lab.step("A second server on the same port, while the first one listens.")?;
    refused(lab, address, ADDRESS, "both with SO_REUSEADDR")?;
    lab.means(
        "SO_REUSEADDR does not let two servers have one port. On Linux it tolerates the sockets of \
         old connections, but not a listener.",
    );
    Ok(())
}

/// Leaves the TIME_WAIT of a server that served a client, closed first and has ended.
fn leave_time_wait(lab: &mut Lab<'_>, sharing: Sharing) -> Result<Ends, Stop> {
    let listening = lab.listen(16, sharing)?;
    let address = listening.address;
    let client = lab.connect(address)?;
    let server = lab.accept(&listening)?;
    let ends = client.ends;
    lab.see(
        "a client is connected",
        &[ends.client_is(Established), ends.server_is(Established)],
    )?;
    lab.did(Side::Server, "closes first, and ends");
    drop(server);
    drop(listening);
    lab.read_end(&client)?.trying("read")?;
    drop(client);
    lab.see(
        "no process listens, and the server's end is in TIME_WAIT",
        &[ends.client_is(None), ends.server_is(TimeWait)],
    )?;
    let title = "The server closes first, and its port is taken for a minute";
    if !sharing.reuse_address {
        lab.draw_life(title, ends);
    }
    Ok(ends)
}

fn bind(
    lab: &mut Lab<'_>,
    address: SocketAddr,
    sharing: Sharing,
) -> Result<io::Result<Listening>, Stop> {
    lab.go_on()?;
    Ok(Listening::bind(address, BACKLOG, sharing))
}

fn refused(
    lab: &mut Lab<'_>,
    address: SocketAddr,
    sharing: Sharing,
    how: &str,
) -> Result<(), Stop> {
    let bound = bind(lab, address, sharing)?;
    let is_refused = matches!(&bound, Err(error) if error.kind() == io::ErrorKind::AddrInUse);
    lab.check(
        &format!("bind() fails with EADDRINUSE {how}"),
        is_refused,
        &words(&bound),
    )
}

fn words(bound: &io::Result<Listening>) -> String {
    match bound {
        Ok(listening) => format!("{} listens", listening.address),
        Err(error) => error.to_string(),
    }
}

fn several_listeners(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("SO_REUSEPORT is something else: several listeners on one port, on purpose.")?;
    lab.forget_ports();
    let one = lab.listen(BACKLOG, PORT)?;
    let two = also_listens(lab, one.address)?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(lab.connect(one.address)?);
    }
    let queues = lab.look_for(PATIENCE, |lab| {
        let queues = lab.queues(one.address)?;
        let is_all = queues.iter().sum::<u32>() as usize == CLIENTS;
        Ok(Some(queues).filter(|_| is_all))
    })?;
    lab.show_listeners(one.address)?;
    let queues = queues.unwrap_or_default();
    let counts: Vec<String> = queues.iter().map(u32::to_string).collect();
    let is_spread = queues.len() == 2 && !queues.contains(&0);
    lab.check(
        &format!("the kernel spreads {CLIENTS} clients over both (Recv-Q)"),
        is_spread,
        &counts.join(" and "),
    )?;
    lab.means(
        "Each listener has a queue of its own, and a hash of the addresses and ports selects one. \
         `tine lab reuseport-reload` shows what that means when one of them ends.",
    );
    drop((clients, two));
    Ok(())
}

/// Binds a second listener to the address, with SO_REUSEPORT like the first one.
fn also_listens(lab: &mut Lab<'_>, address: SocketAddr) -> Result<Listening, Stop> {
    let also = bind(lab, address, PORT)?;
    lab.check(
        "a second listener with SO_REUSEPORT is bound, and listens",
        also.is_ok(),
        &words(&also),
    )?;
    also.trying("listen a second time")
}

fn both_starts_need_it(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("Does one of the two listeners need the option, or do both?")?;
    lab.forget_ports();
    let with = lab.listen(BACKLOG, PORT)?;
    refused(
        lab,
        with.address,
        NONE,
        "if only the first has SO_REUSEPORT",
    )?;
    refused(
        lab,
        with.address,
        ADDRESS,
        "if the second has SO_REUSEADDR instead",
    )?;
    let without = lab.listen(BACKLOG, NONE)?;
    refused(
        lab,
        without.address,
        PORT,
        "if only the second has SO_REUSEPORT",
    )?;
    lab.means(
        "All listeners that share a port have to set the option before bind(), and must belong to the \
         same user, so that no other user can take a part of a server's clients (socket(7)).",
    );
    Ok(())
}

fn a_client_has_it(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("No process listens on a port, but a client's connection has it as its own.")?;
    lab.forget_ports();
    let other = lab.listen(BACKLOG, ADDRESS)?;
    let client = lab.connect(other.address)?;
    lab.show()?;
    refused(
        lab,
        client.ends.client,
        ADDRESS,
        "with SO_REUSEADDR, on the port of a client",
    )?;
    lab.means(
        "The kernel gives clients the ports of net.ipv4.ip_local_port_range. A server's port within \
         that range may be a client's when the server starts, for as long as that connection lasts: \
         choose one outside, or name it in net.ipv4.ip_local_reserved_ports.",
    );
    Ok(())
}

/// Returns an address of this machine that no other program is likely to use: that of this process's number.
fn own_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | high, middle, low)
}

fn another_address(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("A server listens on 127.0.0.1. Is its port free on other addresses?")?;
    lab.forget_ports();
    let one = lab.listen(BACKLOG, ADDRESS)?;
    let port = one.address.port();
    let elsewhere = own_address();
    let there = bind(lab, SocketAddr::new(elsewhere.into(), port), ADDRESS)?;
    lab.check(
        &format!("the same port of {elsewhere} can be bound"),
        there.is_ok(),
        &words(&there),
    )?;
    drop(there);
    let anywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    refused(lab, anywhere, NONE, "on 0.0.0.0")?;
    refused(lab, anywhere, ADDRESS, "on 0.0.0.0, both with SO_REUSEADDR")?;
    lab.means(
        "An address and a port belong together, and 0.0.0.0 stands for all addresses. So a server \
         that listens on 127.0.0.1 alone, which no other machine sees, can keep another one from its \
         port.",
    );
    Ok(())
}

fn another_error(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step(&format!(
        "A server asks for {}, an address that this machine does not have.",
        FOREIGN.ip()
    ))?;
    let bound = bind(lab, FOREIGN, ADDRESS)?;
    if bound.is_ok() {
        lab.means(
            "Here bind() succeeds: this machine has the address, or net.ipv4.ip_nonlocal_bind allows \
             any. Otherwise bind() fails with EADDRNOTAVAIL, \"Cannot assign requested address\".",
        );
        return Ok(());
    }
    let is_not_there =
        matches!(&bound, Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL));
    lab.check(
        "bind() fails with EADDRNOTAVAIL, which is not EADDRINUSE",
        is_not_there,
        &words(&bound),
    )?;
    lab.means("No port is taken: the address is wrong. No option of this lesson helps.");
    Ok(())
}
