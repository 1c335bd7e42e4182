//! The text of a file for every client: a timer finds silent clients, and a post reaches all workers.
//!
//!     cargo run --example notice -- 127.0.0.1:9501 notice.txt
//!     $ nc 127.0.0.1 9501
//!     closed on Monday
//!     reload
//!     show
//!     closed on Tuesday
//!
//! Each worker has a copy of the text in its memory. `reload` posts to all workers, and each of them reads the
//! file again. A worker that starts later reads it at its start, so that every copy is as new as the last `reload`.
//! A post waits in the master until its callback has returned: no death of a worker loses it.
//!
//! A client that is silent for half a minute is sent `ping`, and is closed if it stays silent for another
//! one; any line is a sign of life. The timer and the state belong to the connection and not to its worker:
//! kill the workers, and the count goes on (`pkill -KILL -f '^tine\[9501\] worker'`).
#![allow(clippy::print_stdout)] // The line that says where it listens.

use std::time::Duration;
use std::{env, fs, io};

use tine::{Conn, Context, Handler, Listener, OnCrash, Protocol, Server, To};

/// The tag of the only timer of a connection.
const SILENCE: u64 = 1;

/// The state of a connection that was sent `ping`, and has said nothing since. At first, a state is empty.
const PINGED: &[u8] = b"pinged";

struct Notice {
    path: String,
    text: Vec<u8>,
    patience: Duration,
}

impl Notice {
    fn open(path: &str, patience: Duration) -> io::Result<Notice> {
        Ok(Notice {
            path: path.to_owned(),
            text: fs::read(path)?,
            patience,
        })
    }
}

impl Handler for Notice {
    fn connect(&mut self, _cx: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
        conn.send(&self.text)?;
        conn.after(self.patience, SILENCE)?;
        Ok(())
    }

    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
        match line.trim_ascii_end() {
            b"show" => conn.send(&self.text)?,
            b"reload" => cx.post(To::All, b"reload")?,
            _ => {}
        }
        // There is one timer for each tag: this one takes the place of the last.
        conn.set_state(b"")?;
        conn.after(self.patience, SILENCE)?;
        Ok(())
    }

    fn timer(&mut self, _cx: &mut Context<'_>, conn: &mut Conn<'_>, _tag: u64) -> tine::Result {
        if conn.state() == PINGED {
            conn.send(b"bye\n")?;
            conn.close();
            return Ok(());
        }
        conn.send(b"ping\n")?;
        conn.set_state(PINGED)?;
        // A timer fires once: its callback sets the next one.
        conn.after(self.patience, SILENCE)?;
        Ok(())
    }

    fn post(&mut self, _cx: &mut Context<'_>, _bytes: &[u8]) -> tine::Result {
        self.text = fs::read(&self.path)?;
        Ok(())
    }
}

fn main() -> tine::Result {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:9501".to_owned());
    let path = arguments.next().unwrap_or("notice.txt".to_owned());
    let patience = match arguments.next() {
        Some(milliseconds) => Duration::from_millis(milliseconds.parse()?),
        None => Duration::from_secs(30),
    };
    Server::new()
        .listen(
            Listener::tcp(address)
                .protocol(Protocol::lines())
                .max_message(4096),
        )
        .on_crash(OnCrash::Redeliver { attempts: 3 })
        .on_start(|started| println!("{started}"))
        .run(move |_worker| Notice::open(&path, patience))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tine::testing::TestServer;

    use super::*;

    fn server(text: &str) -> TestServer<Notice> {
        TestServer::new(Notice {
            path: String::new(),
            text: text.as_bytes().to_vec(),
            patience: Duration::from_secs(30),
        })
    }

    #[test]
    fn a_client_that_answers_the_ping_stays() {
        let mut server = server("closed\n");
        let client = server.connect();
        server.fire(client, SILENCE);
        assert_eq!(server.conn(client).sent(), b"closed\nping\n");
        server.send(client, b"here\n");
        server.fire(client, SILENCE);
        assert_eq!(server.conn(client).sent(), b"closed\nping\nping\n");
        server.fire(client, SILENCE);
        assert_eq!(server.conn(client).sent(), b"closed\nping\nping\nbye\n");
        assert!(server.conn(client).is_closed());
    }

    #[test]
    fn a_file_that_is_gone_leaves_the_text_as_it_was() {
        let mut server = server("closed\n");
        assert!(server.post(b"reload").error().is_some());
        let client = server.connect();
        assert_eq!(server.conn(client).sent(), b"closed\n");
    }
}
