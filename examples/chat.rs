//! A chat with rooms: each line of a client goes to all others in its room.
//!
//!     cargo run --example chat -- 127.0.0.1:9501
//!
//! A client comes to the room `lobby`. `/join ROOM` takes it to another one, `/who` tells how many are in its room.
//!
//! The rooms are groups of the server: they belong to the master, as the connections do, and change by commit. So no
//! worker has to know who is where, and `pkill -KILL '^tine worker'` loses no member and no line. All members of a room
//! see its lines in the same order.
#![allow(clippy::print_stdout)] // The line that says where it listens.

use std::env;

use tine::{Closed, Conn, Context, Handler, Listener, OnCrash, Protocol, Server};

struct Chat;

/// Returns the room that a client is in.
fn room_of(conn: &Conn<'_>) -> Vec<u8> {
    conn.groups().next().unwrap_or_default().to_vec()
}

impl Handler for Chat {
    fn connect(&mut self, _cx: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
        conn.join("lobby")?;
        conn.send(b"Welcome.\n")?;
        Ok(())
    }

    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
        let room = room_of(conn);
        let words = line.trim_ascii_end();
        if let Some(next) = words.strip_prefix(b"/join ") {
            if next.len() > Context::MOST_NAME {
                conn.send(b"* That name is too long.\n")?;
                return Ok(());
            }
            conn.leave(&room)?;
            conn.publish(&room, b"* Somebody has left.\n")?;
            conn.join(next)?;
            conn.publish(next, b"* Somebody has come.\n")?;
        } else if words == b"/who" {
            let size = cx.group_size(&room)?;
            conn.send(format!("* {size} in this room\n").as_bytes())?;
        } else {
            // One copy of the line, however many there are.
            conn.publish(&room, line)?;
        }
        Ok(())
    }

    fn close(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, _: Closed) -> tine::Result {
        let room = room_of(conn);
        Ok(conn.publish(room, b"* Somebody has left.\n")?)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:9501".to_owned());
    Server::new()
        .listen(
            Listener::tcp(address)
                .protocol(Protocol::lines())
                .max_message(4096),
        )
        .on_crash(OnCrash::Redeliver { attempts: 3 })
        .on_start(|started| println!("{started}"))
        .run(|_worker| Chat)?;
    Ok(())
}
