//! Row 14: clients with TLS, behind a PROXY header, of a server whose workers are killed every 50 ms and replaced by
//! reloads. Every byte comes back, and each connection ends by TLS's own end.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Scale;
use super::report::Report;
use super::speech::Wrong;
use super::tally::{Harm, Tally};
use super::trial::Outcome;
use crate::common::launch::Launch;
use crate::common::tls::{Authority, Dial, TlsClient};
use crate::common::traffic::pattern;

const TIME: Duration = Duration::from_secs(6);
const BETWEEN_KILLS: Duration = Duration::from_millis(50);
const CLIENTS: usize = 16;

/// The bytes of messages, of which each client has its own.
const SIZES: [usize; 4] = [16, 3000, 20_000, 120_000];

/// After as many messages a client leaves, and comes again.
const STAY: u64 = 200;

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for protocol in ["raw", "length=4"] {
        let name = format!("TLS behind a PROXY header, {protocol}");
        report.row(14, &name, || {
            let authority = Authority::new();
            authority.vouch_for("localhost");
            let pair = authority.pair("localhost");
            let server = Launch::serve(&["--reactors", "2", "--on-crash", "redeliver=255"])
                .and(&["--workers", "3", "--protocol", protocol])
                .and(&["--tls", &pair, "--proxy-protocol", "127.0.0.0/8"])
                .start();
            let end = Instant::now() + TIME * scale.0 as u32;
            let (address, dial) = (server.address(), authority.dial());
            let mut tally = Tally::default();
            let kills = thread::scope(|scope| {
                let clients: Vec<_> = (0..CLIENTS)
                    .map(|number| {
                        let dial = &dial;
                        scope.spawn(move || speak(address, dial, number, end))
                    })
                    .collect();
                server.signal(Signal::SIGUSR1);
                let kills = server.kill_workers(BETWEEN_KILLS, || Instant::now() < end);
                for client in clients {
                    tally.add(client.join().expect("no panic"));
                }
                kills
            });
            if kills < 20 {
                tally.complain(format!("only {kills} kills"));
            }
            let done = format!("{kills} kills, a reload");
            Outcome { done, tally }
        });
    }
}

/// Connects as the client that a proxy names.
fn connect(server: SocketAddr, dial: &Dial, number: usize) -> std::io::Result<TlsClient> {
    let mut stream = TcpStream::connect(server)?;
    let header = format!("PROXY TCP4 192.0.2.{} 192.0.2.255 5000 443\r\n", number + 1);
    stream.write_all(header.as_bytes())?;
    dial.over(stream)
}

/// Sends one message after the other, and compares the answers, until it is time.
fn speak(server: SocketAddr, dial: &Dial, number: usize, end: Instant) -> Tally {
    let mut tally = Tally::default();
    let connection = number as u32;
    let mut message = pattern(number as u64 + 1, SIZES[number % SIZES.len()]);
    let rest = (message.len() - 4) as u32;
    message[..4].copy_from_slice(&rest.to_be_bytes());
    while Instant::now() < end {
        let mut client = match connect(server, dial, number) {
            Ok(client) => client,
            Err(error) => {
                tally.note(
                    connection,
                    &Harm::Dropped {
                        owed: 0,
                        error: Some(error),
                    },
                );
                return tally;
            }
        };
        for _ in 0..STAY {
            // Every message is another one.
            message[4..12].copy_from_slice(&tally.answered.to_be_bytes());
            let asked = Instant::now();
            match client.try_echo(&message) {
                Ok(true) => tally.longest_gap = tally.longest_gap.max(asked.elapsed()),
                Ok(false) => tally.note(connection, &Harm::Wrong(Wrong::Corrupt)),
                Err(error) => {
                    tally.note(
                        connection,
                        &Harm::Dropped {
                            owed: 1,
                            error: Some(error),
                        },
                    );
                    return tally;
                }
            }
            tally.answered += 1;
            if asked >= end {
                break;
            }
        }
        if let Err(error) = client.try_end() {
            tally.note(
                connection,
                &Harm::Dropped {
                    owed: 0,
                    error: Some(error),
                },
            );
        }
    }
    tally
}
