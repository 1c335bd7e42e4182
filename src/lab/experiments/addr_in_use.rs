//! "Address already in use": what a TIME_WAIT does to a restart, and which option helps.

use std::io;
use std::net::SocketAddr;

use super::Experiment;
use crate::inspect::sockets::State::{Established, TimeWait};
use crate::lab::end::{End, Listening, Sharing};
use crate::lab::picture::Side;
use crate::lab::stop::Trying;
use crate::lab::{Lab, PATIENCE, Stop};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "addr-in-use",
    title: "Address already in use: a restart meets its own TIME_WAIT",
    question: "The server was stopped and nothing listens on its port any more. Why can't it be \
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

/// Enough for both listeners to get some.
const CLIENTS: usize = 24;

fn run(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("A server without SO_REUSEADDR. It closes a connection first, and ends.")?;
    let address = leave_time_wait(lab, NONE)?;
    refused(lab, address, NONE, "without SO_REUSEADDR")?;
    lab.means(
        "Nobody listens, and no process is left. But bind() asks whether any socket has the port, \
         and the server's end of the closed connection has it for another minute.",
    );

    lab.step("Does it help to set SO_REUSEADDR in the second start alone?")?;
    refused(
        lab,
        address,
        ADDRESS,
        "with SO_REUSEADDR, on a port that was bound without",
    )?;
    lab.means(
        "Both sides have to agree: the socket in TIME_WAIT has inherited from its listener that it \
         does not share its port.",
    );

    lab.step("SO_REUSEADDR on every start, the first one included.")?;
    lab.turn_the_page();
    let address = leave_time_wait(lab, ADDRESS)?;
    let again = bind(lab, address, ADDRESS)?;
    let seen = words(&again);
    lab.check(
        "the second start can bind, beside the TIME_WAIT",
        again.is_ok(),
        &seen,
    )?;
    let again = again.trying("bind")?;
    lab.show()?;

    lab.step("A second server on the same port, while the first one listens.")?;
    refused(lab, address, ADDRESS, "both with SO_REUSEADDR")?;
    lab.means(
        "SO_REUSEADDR does not let two servers have one port. On Linux it forgives what is left of \
         connections; a listener it does not.",
    );
    drop(again);
    several_listeners(lab)?;
    lab.advise(
        "Set SO_REUSEADDR before bind(), in every server that listens on a fixed port, always. tine \
         does. There is no risk in it: a segment of an old connection is not taken for one of a new \
         one, for the TIME_WAIT itself is still there.",
    );
    lab.advise(
        "EADDRINUSE with SO_REUSEADDR set means that somebody listens: `tine doctor PORT` or \
         `ss -ltnp sport = :PORT` says who. Often it is a child that has inherited the socket: open \
         it with SOCK_CLOEXEC.",
    );
    lab.advise(
        "\"Address already in use\" is about the one port that you asked for. \"Cannot assign \
         requested address\" from connect() means that the kernel has no port left to choose: \
         `tine lab ports-exhausted`.",
    );
    Ok(())
}

/// A server that listened there, served somebody, closed first and is gone.
fn leave_time_wait(lab: &mut Lab<'_>, sharing: Sharing) -> Result<SocketAddr, Stop> {
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
        "nobody listens, and the server's end is in TIME_WAIT",
        &[ends.client_is(None), ends.server_is(TimeWait)],
    )?;
    let title = "The server closes first, and its port is taken for a minute";
    if !sharing.reuse_address {
        lab.draw_life(title, ends);
    }
    Ok(address)
}

fn bind(
    lab: &mut Lab<'_>,
    address: SocketAddr,
    sharing: Sharing,
) -> Result<io::Result<Listening>, Stop> {
    lab.go_on()?;
    Ok(Listening::bind(address, 64, sharing))
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
        Ok(_) => "it is bound".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn several_listeners(lab: &mut Lab<'_>) -> Result<(), Stop> {
    lab.step("SO_REUSEPORT is something else: several listeners on one port, on purpose.")?;
    lab.turn_the_page();
    let one = lab.listen(64, PORT)?;
    let two = bind(lab, one.address, PORT)?;
    let seen = two
        .as_ref()
        .err()
        .map(ToString::to_string)
        .unwrap_or_default();
    lab.check(
        "a second listener with SO_REUSEPORT is bound",
        two.is_ok(),
        &seen,
    )?;
    let two = two.trying("listen a second time")?;
    refused(lab, one.address, NONE, "for a third one without it")?;
    let clients: Vec<End> = (0..CLIENTS)
        .map(|_| lab.connect(one.address))
        .collect::<Result<_, Stop>>()?;
    lab.show_listeners(one.address)?;
    let spread = lab.look_for(PATIENCE, |lab| {
        let queues = lab.queues(one.address)?;
        let is_all = queues.iter().sum::<u32>() as usize == CLIENTS;
        Ok(Some(queues).filter(|_| is_all))
    })?;
    let queues = spread.unwrap_or_default();
    let counts: Vec<String> = queues.iter().map(u32::to_string).collect();
    let seen = counts.join(" and ");
    let is_spread = queues.len() == 2 && !queues.contains(&0);
    lab.check("the kernel spreads the clients over both", is_spread, &seen)?;
    lab.means(
        "Each listener has a queue of its own. What that means when one of them ends is shown by \
         `tine lab reuseport-reload`.",
    );
    drop((clients, two, one));
    Ok(())
}
