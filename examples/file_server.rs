//! The files of a folder over HTTP/1.0: answers of any length, of which no byte passes a worker.
//!
//!     cargo run --example file_server -- 127.0.0.1:9501 /usr/share/doc
//!     $ curl -O http://127.0.0.1:9501/bash/README
//!
//! A worker opens the file and hands its descriptor over with `send_file`; the server sends it as the client takes it.
//! A worker that is slow, crashes or is replaced meanwhile stops no download, and a thousand slow ones take no memory.
//!
//! Of HTTP it has only what this takes: GET and HEAD, one request for each connection. Names are resolved beneath the
//! folder by the kernel, openat2(2): neither `..` nor a symbolic link leads out of it.
#![allow(clippy::print_stdout)] // The line that says where it listens.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use tine::{Conn, Context, Handler, Listener, Protocol, Server};

struct FileServer {
    folder: File,
}

impl Handler for FileServer {
    fn receive(
        &mut self,
        _cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        request: &[u8],
    ) -> tine::Result {
        let line = request.split(|byte| *byte == b'\r').next();
        let mut words = line.unwrap_or_default().split(|byte| *byte == b' ');
        let (method, target) = (words.next(), words.next());
        let is_get = method == Some(b"GET");
        match (method, target) {
            (Some(b"GET" | b"HEAD"), Some(target)) => match self.open(target) {
                Ok((file, len)) => {
                    conn.send(head("200 OK", len).as_bytes())?;
                    if is_get {
                        // In order behind the head, and committed with it.
                        conn.send_file(&file, 0..len)?;
                    }
                }
                Err(error) => refuse(conn, status(&error), is_get)?,
            },
            _ => refuse(conn, "400 Bad Request", true)?,
        }
        conn.close();
        Ok(())
    }
}

impl FileServer {
    /// Opens the file that a request names, and returns its length.
    fn open(&self, target: &[u8]) -> io::Result<(File, u64)> {
        let target = target.split(|byte| *byte == b'?').next();
        let name = decode(target.unwrap_or_default()).ok_or(io::ErrorKind::InvalidInput)?;
        let name = name.strip_prefix(b"/").unwrap_or(&name);
        let how = OpenHow::new()
            // Not blocking: a FIFO would be waited for.
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file: OwnedFd = openat2(&self.folder, name, how)?;
        let file = File::from(file);
        let about = file.metadata()?;
        match about.is_file() {
            true => Ok((file, about.len())),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn head(status: &str, len: u64) -> String {
    format!("HTTP/1.0 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n")
}

fn refuse(conn: &mut Conn<'_>, status: &str, has_body: bool) -> tine::Result {
    conn.send(head(status, status.len() as u64 + 1).as_bytes())?;
    if has_body {
        conn.send(format!("{status}\n").as_bytes())?;
    }
    Ok(())
}

fn status(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "404 Not Found",
        io::ErrorKind::InvalidInput => "400 Bad Request",
        // EXDEV: the name leads out of the folder.
        io::ErrorKind::PermissionDenied | io::ErrorKind::CrossesDevices => "403 Forbidden",
        _ => "500 Internal Server Error",
    }
}

/// Returns a name without its %XX; `None` if it has a NUL, or half of one.
fn decode(name: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        let byte = match first {
            b'%' => {
                let (digits, behind) = rest.split_at_checked(2)?;
                rest = behind;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            byte => *byte,
        };
        decoded.push(byte);
    }
    (!decoded.contains(&0)).then_some(decoded)
}

fn main() -> Result<(), tine::Error> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:9501".to_owned());
    let folder = env::args().nth(2).unwrap_or(".".to_owned());
    let heads = Protocol::delimiter(b"\r\n\r\n").expect("it is a delimiter");
    Server::new()
        .listen(Listener::tcp(address).protocol(heads).max_message(16 << 10))
        .on_start(|started| println!("{started}"))
        .run(move |_worker| -> tine::Result<FileServer> {
            Ok(FileServer {
                folder: File::open(&folder)?,
            })
        })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tine::testing::TestServer;

    use super::*;

    #[track_caller]
    fn answer(request: &str) -> String {
        let folder = env::temp_dir().join(format!("tine-file-server-{}", std::process::id()));
        fs::create_dir_all(folder.join("inside")).unwrap();
        fs::write(folder.join("inside/a file"), "its text\n").unwrap();
        let folder = File::open(folder).unwrap();
        let mut server = TestServer::new(FileServer { folder });
        let client = server.connect();
        server.send(client, format!("{request} HTTP/1.1\r\n\r\n").as_bytes());
        assert!(server.conn(client).is_closed());
        String::from_utf8(server.conn(client).sent().to_vec()).unwrap()
    }

    #[test]
    fn files_of_the_folder_are_sent_and_no_others() {
        let whole = "HTTP/1.0 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nits text\n";
        assert_eq!(answer("GET /inside/a%20file"), whole);
        assert_eq!(answer("GET /inside/../inside/a%20file?x"), whole);
        let head = whole.strip_suffix("its text\n").unwrap();
        assert_eq!(answer("HEAD /inside/a%20file"), head);
        assert!(answer("GET /none").starts_with("HTTP/1.0 404 "));
        assert!(answer("GET /inside").starts_with("HTTP/1.0 404 "));
        for outside in ["/../etc/passwd", "//etc/passwd", "/%2e%2e/x"] {
            assert!(answer(&format!("GET {outside}")).starts_with("HTTP/1.0 403 "));
        }
        for bad in ["GET /%0", "GET /%00", "PUT /x", ""] {
            assert!(answer(bad).starts_with("HTTP/1.0 400 "), "{bad}");
        }
    }
}
