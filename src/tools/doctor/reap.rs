//! `--reap`: ends connections that are stuck in CLOSE_WAIT, by SOCK_DESTROY of sock_diag(7).
//!
//! Its one rule: each connection is looked at right before it is destroyed, and its fate is printed.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use super::examination::Examination;
use super::watch::is_read;
use super::words::{age, bytes, count, grouped, list, seconds};
use super::{Failure, Problem};
use crate::sockets::owners::Owner;
use crate::sockets::{Socket, SocketTable, State};

/// The fate of one connection.
enum Fate {
    Destroyed,
    /// It has ended by itself, or has changed. With the reason.
    Spared(String),
    Failed(String),
}

/// Checks, before anything is looked at, that connections may be destroyed.
///
/// # Errors
/// When there is no terminal to ask on and no `--yes`, and when CAP_NET_ADMIN is missing.
pub(crate) fn is_allowed(yes: bool) -> Result<(), Problem> {
    let has_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !yes && !has_terminal {
        return Err(Problem(
            "--reap asks before it destroys anything, and there is no terminal to ask on: nothing was done; \
             --yes does it without asking"
                .to_owned(),
        ));
    }
    if may_destroy() == Some(false) {
        return Err(Problem(
            "--reap needs CAP_NET_ADMIN to destroy connections: nothing was done; run it as root"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Returns whether this process has CAP_NET_ADMIN, by proc(5); `None` if that cannot be read.
fn may_destroy() -> Option<bool> {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    Some(effective & CAP_NET_ADMIN != 0)
}

/// Destroys the connections that have been in CLOSE_WAIT for longer than `older`. Returns whether all was
/// done: nothing failed, and the user did not say no.
pub(crate) fn reap(
    mut examination: Examination,
    older: Duration,
    yes: bool,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    let stuck = examination.stuck()?;
    if stuck.is_empty() {
        let limit = seconds(older);
        is_read(writeln!(
            out,
            "No connection is in CLOSE_WAIT for longer than {limit}: nothing to do."
        ))?;
        return Ok(true);
    }
    if !yes {
        for (socket, owners) in &stuck {
            writeln!(out, "{}", describe(socket, owners))?;
        }
        let them = if stuck.len() == 1 { "it" } else { "them" };
        let number = count(stuck.len(), "connection");
        write!(out, "Destroy {them} ({number})? [y/N] ")?;
        out.flush()?;
        if !is_yes()? {
            writeln!(out, "Nothing was done.")?;
            return Ok(false);
        }
    }
    destroy(&mut examination, &stuck, older, out)
}

fn is_yes() -> io::Result<bool> {
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn destroy(
    examination: &mut Examination,
    stuck: &[(Socket, Vec<Owner>)],
    older: Duration,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    let (mut destroyed, mut spared, mut failed) = (0, 0, 0);
    // Without a reader the rest is destroyed all the same: stopping half-way would be worse than all or
    // nothing, since the output would not tell which half.
    let mut written = Ok(());
    for (socket, owners) in stuck {
        let fate = destroy_one(examination.table(), socket, older)?;
        let connection = describe(socket, owners);
        let line = match fate {
            Fate::Destroyed => {
                destroyed += 1;
                format!("destroyed  {connection}")
            }
            Fate::Spared(why) => {
                spared += 1;
                format!("spared     {connection}: {why}")
            }
            Fate::Failed(why) => {
                failed += 1;
                format!("FAILED     {connection}: {why}")
            }
        };
        written = written.and_then(|()| writeln!(out, "{line}"));
    }
    let sum = format!(
        "{} destroyed, {} spared, {} failed",
        count(destroyed, "connection"),
        grouped(spared),
        grouped(failed as u64)
    );
    written = written.and_then(|()| writeln!(out, "{sum}."));
    match written.and_then(|()| out.flush()) {
        Ok(()) => Ok(failed == 0),
        Err(error) => Err(Failure::Unsaid(sum, error)),
    }
}

/// # Errors
/// When the kernel cannot destroy sockets at all: the first one shows it, so nothing was done.
fn destroy_one(table: &mut SocketTable, socket: &Socket, older: Duration) -> Result<Fate, Problem> {
    let gone = || Ok(Fate::Spared("it has ended by itself".to_owned()));
    let now = match table.again(socket) {
        Ok(Some(now)) => now,
        Ok(None) => return gone(),
        Err(error) => return Ok(Fate::Failed(error.to_string())),
    };
    if now.state != State::CloseWait {
        return Ok(Fate::Spared(format!("it is in {} now", now.state)));
    }
    if now.close_wait_age() < Some(older) {
        return Ok(Fate::Spared("its peer has just sent a segment".to_owned()));
    }
    match table.destroy(&now) {
        Ok(()) => Ok(Fate::Destroyed),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => gone(),
            io::ErrorKind::Unsupported => Err(Problem(
                "this kernel cannot destroy sockets (it is built without CONFIG_INET_DIAG_DESTROY): nothing \
                 was done"
                    .to_owned(),
            )),
            io::ErrorKind::PermissionDenied => Ok(Fate::Failed(
                "the kernel requires CAP_NET_ADMIN in the network namespace's own user namespace".to_owned(),
            )),
            _ => Ok(Fate::Failed(error.to_string())),
        },
    }
}

fn describe(socket: &Socket, owners: &[Owner]) -> String {
    let held = match owners {
        [] if socket.inode == 0 => "not accepted".to_owned(),
        [] => "held by a process that cannot be seen".to_owned(),
        owners => format!("held by {}", list(owners, 5)),
    };
    format!(
        "{} with {}, CLOSE_WAIT for {}, {} unread, {held}",
        socket.local,
        socket.remote,
        age(socket.close_wait_age().unwrap_or_default()),
        bytes(socket.unread().into()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener, TcpStream};

    fn end_of(table: &mut SocketTable, stream: &TcpStream) -> Socket {
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        table.find(local, remote).unwrap().expect("this end")
    }

    #[track_caller]
    fn is_spared(table: &mut SocketTable, socket: &Socket, older: Duration, why: &str) {
        match destroy_one(table, socket, older).unwrap() {
            Fate::Spared(says) => assert!(says.contains(why), "{says}"),
            Fate::Destroyed => panic!("destroyed, and it should be spared: {why}"),
            Fate::Failed(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_connection_that_has_changed_is_spared() {
        let mut table = SocketTable::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let open = end_of(&mut table, &server);
        is_spared(&mut table, &open, Duration::ZERO, "in ESTABLISHED now");
        client.shutdown(Shutdown::Write).unwrap();
        server.peek(&mut [0]).unwrap();
        let closed = end_of(&mut table, &server);
        assert_eq!(closed.state, State::CloseWait);
        let long = Duration::from_secs(100_000);
        is_spared(&mut table, &closed, long, "has just sent");
        drop((server, client));
        // It may be in LAST_ACK for a moment.
        while table.again(&closed).unwrap().is_some() {}
        is_spared(&mut table, &closed, Duration::ZERO, "ended by itself");
    }

    #[test]
    fn this_process_knows_its_capabilities() {
        assert!(may_destroy().is_some());
    }
}
