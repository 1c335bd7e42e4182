//! A binary protocol: each message begins with its length, four bytes in network byte order.
//!
//!     cargo run --example length_prefixed -- 127.0.0.1:9501
//!
//! A request is a length, a byte for the operation, and the operand. The reply has the same form. `U`
//! returns the operand in upper case, `R` reversed; other operations are refused with `?`. A length over
//! `max_message` closes the connection before the message is read.
#![allow(clippy::print_stdout)] // The line that says where it listens.

use std::env;

use tine::{Conn, Context, Handler, LengthPrefix, Listener, Protocol, Server};

/// The bytes of the length.
const WIDTH: usize = 4;

struct Transform {
    /// Kept from message to message, so that a reply does not allocate.
    reply: Vec<u8>,
}

impl Handler for Transform {
    fn receive(
        &mut self,
        _cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
    ) -> tine::Result {
        // The message has its framing: the length first.
        let request = &message[WIDTH..];
        self.reply.clear();
        self.reply.extend_from_slice(&[0; WIDTH]);
        match request {
            [b'U', bytes @ ..] => self.reply.extend(bytes.to_ascii_uppercase()),
            [b'R', bytes @ ..] => self.reply.extend(bytes.iter().rev()),
            _ => self.reply.push(b'?'),
        }
        let length = (self.reply.len() - WIDTH) as u32;
        self.reply[..WIDTH].copy_from_slice(&length.to_be_bytes());
        conn.send(&self.reply)?;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:9501".to_owned());
    let protocol = Protocol::length_prefix(LengthPrefix::new(WIDTH)?);
    Server::new()
        .listen(
            Listener::tcp(address)
                .protocol(protocol)
                .max_message(1 << 20),
        )
        .on_start(|started| println!("{started}"))
        .run(|_worker| Transform { reply: Vec::new() })?;
    Ok(())
}
