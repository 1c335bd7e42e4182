//! An echo server: the bytes of each read are sent back.
//!
//!     cargo run --example echo -- 127.0.0.1:9501
//!
//! Kill the workers while a client is connected (`pkill -KILL -f '^tine\[9501\] worker'`): the connection stays open, and
//! the worker that replaces it answers the next message.
#![allow(clippy::print_stdout)] // The line that says where it listens.

use std::env;

use tine::{Conn, Context, Handler, Server};

struct Echo;

impl Handler for Echo {
    fn receive(
        &mut self,
        _cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
    ) -> tine::Result {
        conn.send(message)?;
        Ok(())
    }
}

fn main() -> Result<(), tine::Error> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:9501".to_owned());
    Server::new()
        .listen(address)
        .on_start(|started| println!("{started}"))
        .run(|_worker| Echo)
}
