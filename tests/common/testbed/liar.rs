//! A worker that writes invalid content to its outbox, when a message asks for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tine::testing::Forgery;
use tine::{Conn, ConnId, Context, Handler};

/// Echoes, and lies to its reactor when a message asks for it.
pub(crate) struct Liar;

impl Handler for Liar {
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
    ) -> tine::Result {
        match message {
            b"lie:asks" => return ask_without_end(conn, message),
            b"lie:posts" => return flood(cx, conn),
            _ => {}
        }
        let text = std::str::from_utf8(message);
        if let Some(numbers) = text.ok().and_then(|text| text.strip_prefix("record:")) {
            record(conn, numbers)?;
            return Ok(conn.send(message)?);
        }
        lie(conn, message)
    }
}

/// Lies as the message says, or echoes it.
fn lie(conn: &mut Conn<'_>, message: &[u8]) -> tine::Result {
    match std::str::from_utf8(message) {
        Ok("lie:stranger") => {
            conn.forge(&Forgery::Bytes(header(0, 2, u64::MAX)));
            return Ok(conn.send(message)?);
        }
        // Records that are refused by what they say, once they are committed.
        Ok("lie:task") => {
            conn.forge(&Forgery::Bytes(header(0, 40, 0)));
            return Ok(());
        }
        Ok("lie:tasks") => {
            conn.forge(&Forgery::Bytes(header(0, 40, 0).repeat(1000)));
            return Ok(());
        }
        Ok("lie:finish") => conn.forge(&Forgery::Bytes(header(0, 44, conn.id().as_u64()))),
        Ok("lie:length") => conn.forge(&Forgery::Bytes(header(u32::MAX, 1, conn.id().as_u64()))),
        Ok("lie:long") => conn.forge(&Forgery::Bytes(header(1 << 19, 1, conn.id().as_u64()))),
        Ok("lie:kind") => conn.forge(&Forgery::Bytes(header(0, 200, 0))),
        Ok("lie:position") => conn.forge(&Forgery::Bytes(header(0, 5, 12_345))),
        Ok("lie:name") => conn.forge(&Forgery::Bytes(header(0, 2, 0))),
        Ok("lie:mark") => conn.forge(&Forgery::Mark(1 << 40)),
        Ok("lie:back") => conn.forge(&Forgery::Mark(-64)),
        Ok("lie:odd") => conn.forge(&Forgery::Mark(3)),
        // 200 bytes of a message of 8.
        Ok("lie:part") => {
            let mut bytes = header(0, 7, conn.id().as_u64());
            bytes[16..24].copy_from_slice(&200u64.to_ne_bytes());
            conn.forge(&Forgery::Bytes(bytes));
        }
        // A group whose name is longer than the frame.
        Ok("lie:group") => {
            let mut bytes = header(0, 32, 0);
            bytes[16..24].copy_from_slice(&9u64.to_ne_bytes());
            conn.forge(&Forgery::Bytes(bytes));
        }
        Ok("lie:member") => {
            let other = ConnId::from_u64(conn.id().as_u64() ^ 1 << 32).ok_or("no id")?;
            conn.forge(&Forgery::Bytes(header(0, 30, other.as_u64())));
        }
        // One group more than a connection can be in; the honest commit follows.
        Ok("lie:groups") => {
            for number in 0..=Conn::MOST_GROUPS as u32 {
                let mut bytes = header(4, 30, conn.id().as_u64());
                bytes.extend(number.to_ne_bytes());
                bytes.resize(128, 0);
                conn.forge(&Forgery::Bytes(bytes));
            }
            return Ok(conn.send(message)?);
        }
        Ok("lie:aside") => conn.forge(&Forgery::Bytes(aside(conn.id()))),
        Ok(lie) if lie.starts_with("lie:file") => return lie_about_files(conn, lie),
        Ok("lie:garbage") => conn.forge(&Forgery::Bytes(vec![0xa5; 4096])),
        _ => return Ok(conn.send(message)?),
    }
    // The true mark, which the commit would store, must not cover the lie.
    std::thread::sleep(Duration::from_secs(
        u64::from(message != b"lie:stranger") * 3600,
    ));
    Ok(())
}

/// Output of a callback, committed as if it were posts.
fn aside(conn: ConnId) -> Vec<u8> {
    [header(0, 2, conn.as_u64()), header(0, 34, 0)].concat()
}

/// Asks questions and does not wait for the answers, to both reactors and one that there is not, with numbers that are
/// none of its own.
fn ask_without_end(conn: &mut Conn<'_>, message: &[u8]) -> tine::Result {
    let mut asks = Vec::new();
    for number in 0..100_u64 {
        let mut ask = header(0, 36, number ^ 1);
        ask[16..24].copy_from_slice(&((number % 3) << 32).to_ne_bytes());
        asks.extend(ask);
    }
    (0..300).for_each(|_| conn.forge(&Forgery::Bytes(asks.clone())));
    Ok(conn.send(message)?)
}

/// Posts to its own seat without end, while it is in a callback and takes none. What is read of it is bounded by its
/// ring.
fn flood(cx: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
    let seat = cx.worker().seat().ok_or("no seat")? as u64;
    let mut posts = Vec::new();
    for _ in 0..100 {
        posts.extend(header(1000, 17, seat));
        posts.resize(posts.len() + 1024, b'x');
    }
    posts.extend(header(0, 34, 0));
    loop {
        conn.forge(&Forgery::Bytes(posts.clone()));
    }
}

/// `KIND WORD MORE LAST LENGTH`: a record with these fields before the honest ones of the callback. The word may be
/// `me` or `other` for a connection.
fn record(conn: &mut Conn<'_>, fields: &str) -> tine::Result {
    let id = conn.id().as_u64();
    let field = |word: &str| match word {
        "me" => Ok(id),
        "other" => Ok(id ^ 1 << 32),
        number => number.parse(),
    };
    let fields: Result<Vec<u64>, _> = fields.split(' ').map(field).collect();
    let [kind, word, more, last, len] = fields?[..] else {
        return Err("five numbers".into());
    };
    let mut bytes = header(len as u32, kind as u32, word);
    bytes[16..24].copy_from_slice(&more.to_ne_bytes());
    bytes[24..32].copy_from_slice(&last.to_ne_bytes());
    bytes.resize(64 + (len as usize).next_multiple_of(64), b'x');
    conn.forge(&Forgery::Bytes(bytes));
    Ok(())
}

/// Forges the descriptors, and the records that name them. The honest commit follows.
fn lie_about_files(conn: &mut Conn<'_>, lie: &str) -> tine::Result {
    let exe = || io::Result::Ok(Arc::new(OwnedFd::from(File::open("/proc/self/exe")?)));
    let link = (conn.id().as_u64() >> 54) as u16;
    let mut send = |link, files| conn.forge(&Forgery::Files(link, files));
    let (mut records, mut span) = (1, (0_u64, 10_u64));
    match lie {
        "lie:file-none" => {}
        "lie:file-two" => send(link, vec![exe()?, exe()?]),
        "lie:file-no-descriptor" => send(link, vec![]),
        "lie:file-link" => send(500, vec![exe()?]),
        "lie:file-pipe" => send(link, vec![Arc::new(io::pipe()?.0.into())]),
        "lie:file-folder" => send(link, vec![Arc::new(File::open("/")?.into())]),
        "lie:file-written" => {
            let file = OpenOptions::new().append(true).open("/proc/self/comm")?;
            send(link, vec![Arc::new(file.into())]);
        }
        // The kernel waits in the close of its last copy, which is not the worker's.
        "lie:file-linger" => send(link, vec![lingering()?]),
        "lie:file-two-linger" => send(link, vec![exe()?, lingering()?]),
        "lie:file-range" => {
            send(link, vec![exe()?]);
            span = (u64::MAX, 2);
        }
        // For the other reactor, which never asks for them.
        "lie:file-flood" => (0..200).try_for_each(|_| {
            send(link ^ 1, vec![exe()?]);
            io::Result::Ok(())
        })?,
        // Not a lie: the file has fewer bytes than it says.
        "lie:file-end" => {
            send(link, vec![exe()?]);
            span = (1 << 40, 10);
        }
        _ => records = 0,
    }
    for _ in 0..records {
        let mut bytes = header(0, 50, conn.id().as_u64());
        bytes[16..24].copy_from_slice(&span.0.to_ne_bytes());
        bytes[24..32].copy_from_slice(&span.1.to_ne_bytes());
        conn.forge(&Forgery::Bytes(bytes));
    }
    Ok(())
}

/// Returns a socket that waits for an hour when it is closed, since its peer reads nothing.
fn lingering() -> io::Result<Arc<OwnedFd>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    std::mem::forget(listener.accept()?);
    SockRef::from(&stream).set_linger(Some(Duration::from_secs(3600)))?;
    stream.set_nonblocking(true)?;
    while stream.write(&[0; 4096]).is_ok() {}
    stream.set_nonblocking(false)?;
    Ok(Arc::new(stream.into()))
}

/// A frame's header in the form of the outbox, padded to the beginning of the next frame.
fn header(len: u32, kind: u32, word: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(len.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(word.to_ne_bytes());
    bytes.resize(64, 0);
    bytes
}
