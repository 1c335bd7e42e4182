//! A line protocol with commands, and a handler that is tested without a server.
//!
//!     cargo run --example lines -- 127.0.0.1:9501
//!     $ nc 127.0.0.1 9501
//!     add 2 3
//!     5
//!     quit
//!
//! Each line is one message, however TCP has delivered it: the server finds the ends of lines. With
//! `Dispatch::LeastBusy` a line goes to the worker with the fewest messages, as this handler keeps no
//! state between two lines.
#![allow(clippy::print_stdout)] // The line that says where it listens.

use std::env;

use tine::{Conn, Context, Dispatch, Handler, Listener, Protocol, Server};

struct Calculator;

impl Handler for Calculator {
    fn receive(&mut self, _cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
        let line = String::from_utf8_lossy(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["add", a, b] => match (a.parse::<i64>(), b.parse::<i64>()) {
                (Ok(a), Ok(b)) => conn.send(format!("{}\n", a.wrapping_add(b)).as_bytes())?,
                _ => conn.send(b"error: add takes two whole numbers\n")?,
            },
            ["quit"] => conn.close(),
            [] => {}
            _ => conn.send(b"error: the commands are: add A B, quit\n")?,
        }
        Ok(())
    }
}

fn main() -> Result<(), tine::Error> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:9501".to_owned());
    Server::new()
        .listen(
            Listener::tcp(address)
                .protocol(Protocol::lines())
                .max_message(4096),
        )
        .dispatch(Dispatch::LeastBusy)
        .on_start(|started| println!("{started}"))
        .run(|_worker| Calculator)
}

#[cfg(test)]
mod tests {
    use tine::testing::TestServer;

    use super::*;

    #[test]
    fn sums_are_answered_and_nonsense_is_refused() {
        let mut server = TestServer::new(Calculator);
        let client = server.connect();
        server.send(client, b"add 2 3\n");
        assert_eq!(server.conn(client).sent(), b"5\n");
        server.send(client, b"add two 3\n");
        assert!(server.conn(client).sent().starts_with(b"5\nerror: "));
        server.send(client, b"quit\n");
        assert!(server.conn(client).is_closed());
    }
}
