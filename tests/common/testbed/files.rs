//! A handler that sends files.
//!
//! Lines:
//!
//! | line | answer |
//! |---|---|
//! | `send PATH FROM TO` | that part of the file |
//! | `between PATH FROM TO` | `<`, the part, `>` and a newline |
//! | `last PATH FROM TO` | the part, and the end of the connection |
//! | `drained PATH FROM TO` | the part, and `drained` by that callback |
//! | `to ID PATH FROM TO` | `sent`; the part goes to another connection |
//! | `fail PATH FROM TO` | none: the callback fails behind it |
//! | `flushed PATH COUNT` | the first byte of the file as often, with a flush behind each |
//! | `many PATH COUNT` | the first byte of the file as often, in one commit, or the error |
//! | `kind KIND PATH` | the error of what is no file to send, or of a range that it has not |
//! | `id` | the id of the connection |
//!
//! Other lines come back.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use tine::{Closed, Conn, ConnId, Context, Handler, SendError};

pub(crate) struct Files;

impl Handler for Files {
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
    ) -> tine::Result {
        let words: Vec<&str> = std::str::from_utf8(message)?.split_whitespace().collect();
        match words[..] {
            ["send", path, from, to] => part(conn, path, from, to)?,
            ["between", path, from, to] => {
                conn.send(b"<")?;
                part(conn, path, from, to)?;
                conn.send(b">\n")?;
            }
            ["last", path, from, to] => {
                part(conn, path, from, to)?;
                conn.close();
            }
            ["drained", path, from, to] => {
                part(conn, path, from, to)?;
                conn.notify_drained()?;
            }
            ["to", id, path, from, to] => {
                let id = ConnId::from_u64(id.parse()?).ok_or("no id")?;
                let range = from.parse()?..to.parse()?;
                cx.conn(id).send_file(File::open(path)?, range)?;
                conn.send(b"sent\n")?;
            }
            ["fail", path, from, to] => {
                part(conn, path, from, to)?;
                return Err("asked to fail".into());
            }
            ["flushed", path, count] => {
                let file = File::open(path)?;
                for _ in 0..count.parse::<usize>()? {
                    conn.send_file(&file, 0..1)?;
                    conn.flush();
                }
            }
            ["many", path, count] => {
                let file = File::open(path)?;
                let mut sent = (0..count.parse::<usize>()?).map(|_| conn.send_file(&file, 0..1));
                if let Some(error) = sent.find_map(Result::err) {
                    conn.send(format!(" {error:?}\n").as_bytes())?;
                }
            }
            ["kind", kind, path] => {
                let error = refusal(conn, kind, path)?.err();
                conn.send(format!("{error:?}\n").as_bytes())?;
            }
            ["id"] => conn.send(format!("{}\n", conn.id().as_u64()).as_bytes())?,
            _ => conn.send(message)?,
        }
        Ok(())
    }

    fn drained(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
        Ok(conn.send(b"drained\n")?)
    }

    fn close(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, closed: Closed) -> tine::Result {
        log::info!("close of {} reason={:?}", conn.id(), closed.reason);
        Ok(())
    }
}

/// The file is closed behind it.
fn part(conn: &mut Conn<'_>, path: &str, from: &str, to: &str) -> tine::Result {
    let file = File::open(path)?;
    Ok(conn.send_file(&file, from.parse()?..to.parse()?)?)
}

fn refusal(conn: &mut Conn<'_>, kind: &str, path: &str) -> tine::Result<Result<(), SendError>> {
    let opened = |flags| {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags).open(path)
    };
    let file: OwnedFd = match kind {
        "pipe" => io::pipe()?.0.into(),
        "written" => OpenOptions::new().write(true).open(path)?.into(),
        "name" => opened(libc::O_PATH)?.into(),
        "fifo" => opened(libc::O_NONBLOCK)?.into(),
        "socket" => std::net::UdpSocket::bind("127.0.0.1:0")?.into(),
        "range" => return Ok(conn.send_file(File::open(path)?, 1..1 << 40)),
        #[expect(clippy::reversed_empty_ranges)] // What is tried.
        "reversed" => return Ok(conn.send_file(File::open(path)?, 5..4)),
        "empty" => return Ok(conn.send_file(File::open(path)?, 4..4)),
        _ => File::open(path)?.into(),
    };
    Ok(conn.send_file(file, 0..1))
}
