//! Hostile and faulty clients. Their answers are not checked.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;

use super::asker::{PATIENCE, new_socket};
use super::chaos::{pause, random};
use super::speech::Speech;
use crate::common::traffic::pattern;

/// The number of clients that do not read.
const READERS: u32 = 30;
/// The number of connections at once, or one after the other before a pause.
const BURST: u32 = 50;

/// The end of their work, and its amount.
#[derive(Default)]
pub(crate) struct Mischief {
    pub(crate) is_over: AtomicBool,
    /// Connections that were made.
    pub(crate) made: AtomicU64,
    /// Bytes that the server has taken from clients that do not read.
    pub(crate) unread: AtomicU64,
}

/// A stranger's work until the end.
pub(crate) type Manner = fn(SocketAddr, &Mischief) -> io::Result<()>;

pub(crate) const MANNERS: [(&str, Manner); 5] = [
    ("slow reader", read_nothing),
    ("resetter", reset),
    ("flood", come_and_go),
    ("garbage", talk_nonsense),
    ("half-closer", half_close_and_leave),
];

impl Mischief {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn connect(&self, server: SocketAddr, number: u32) -> io::Result<TcpStream> {
        let socket = new_socket(number)?;
        socket.connect_timeout(&server.into(), PATIENCE)?;
        // Other clients detect a lost answer, which must not block this one.
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(socket.into())
    }

    /// With buffers so small that its answers stay in the server.
    fn connect_narrow(&self, server: SocketAddr, number: u32) -> io::Result<TcpStream> {
        let socket = new_socket(number)?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect_timeout(&server.into(), PATIENCE)?;
        socket.set_nonblocking(true)?;
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(socket.into())
    }
}

/// Returns a message that any server takes.
fn message(number: u32) -> Vec<u8> {
    let mut said = Vec::new();
    Speech::new(number, 30_000).say(0, &mut said);
    said
}

/// Many clients send much and read nothing. Now and then one is replaced, as are those that the server closes.
fn read_nothing(server: SocketAddr, mischief: &Mischief) -> io::Result<()> {
    let said = message(0);
    let mut crowd = Vec::new();
    for number in 0..READERS {
        crowd.push((mischief.connect_narrow(server, number)?, 0));
    }
    while mischief.goes_on() {
        let one = usize::try_from(random(0..u64::from(READERS))).unwrap_or(0);
        crowd[one] = (mischief.connect_narrow(server, one as u32)?, 0);
        for (socket, at) in &mut crowd {
            // A client that is full has another turn, one that was closed is replaced.
            while let Ok(written) = socket.write(&said[*at..]) {
                *at = (*at + written) % said.len();
                mischief.unread.fetch_add(written as u64, Ordering::Relaxed);
            }
        }
        pause(5..20);
    }
    Ok(())
}

/// Asks, reads a little or nothing, and closes with a RST.
fn reset(server: SocketAddr, mischief: &Mischief) -> io::Result<()> {
    let said = message(1);
    while mischief.goes_on() {
        for number in 0..BURST {
            let mut socket = mischief.connect(server, number)?;
            SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
            let some = usize::try_from(random(0..30_000)).unwrap_or(0);
            let asked = socket.write_all(&said[..if number % 3 == 0 { said.len() } else { some }]);
            if asked.is_ok() && number % 3 == 0 {
                // Bytes that come are discarded.
                let _ = socket.read(&mut [0; 100]);
            }
        }
        pause(20..60);
    }
    Ok(())
}

/// Connects many times at once, and closes without a byte.
fn come_and_go(server: SocketAddr, mischief: &Mischief) -> io::Result<()> {
    while mischief.goes_on() {
        let connect = |number| mischief.connect(server, number);
        let crowd: Vec<_> = (0..BURST).map(connect).collect::<io::Result<_>>()?;
        drop(crowd);
        pause(20..60);
    }
    Ok(())
}

/// Sends bytes that are no message, or only the beginning of one.
fn talk_nonsense(server: SocketAddr, mischief: &Mischief) -> io::Result<()> {
    let promise = message(2);
    while mischief.goes_on() {
        for number in 0..BURST / 5 {
            let mut socket = mischief.connect(server, number)?;
            let noise = pattern(random(0..u64::MAX), 5_000);
            let said = if number % 2 == 0 {
                &noise
            } else {
                &promise[..5_000]
            };
            // The server may have closed it before its end.
            let _ = socket.write_all(said);
        }
        pause(20..60);
    }
    Ok(())
}

/// Shuts its sending side, and leaves before the answer.
fn half_close_and_leave(server: SocketAddr, mischief: &Mischief) -> io::Result<()> {
    let said = message(3);
    while mischief.goes_on() {
        for number in 0..BURST / 5 {
            let mut socket = mischief.connect(server, number)?;
            // The server may close it over its memory budget.
            let _ = socket.write_all(&said);
            let _ = socket.shutdown(Shutdown::Write);
        }
        pause(20..60);
    }
    Ok(())
}
