//! Captures segments from a packet socket, in a thread of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use etherparse::TransportSlice;

use super::lock;
use crate::lab::end::Ends;
use crate::lab::picture::{Segment, Side};
use crate::sys::packets::PacketSocket;

/// The thread, and its segments. It stops when this is dropped.
pub(super) struct Capture {
    pub(super) segments: Arc<Mutex<Vec<Captured>>>,
    /// Number of times that the thread has found nothing more to read.
    idle: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A captured segment.
#[derive(Clone, Debug)]
pub(super) struct Captured {
    pub(super) at: Instant,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) segment: Segment,
    /// The segment itself, from its TCP header on; empty if it was cut.
    pub(super) bytes: Vec<u8>,
}

impl Capture {
    /// Starts the thread. Returns `None` where capturing is not permitted.
    pub(super) fn start(port: u16) -> io::Result<Option<Capture>> {
        let socket = match PacketSocket::of_port(port) {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            Err(error) => return Err(error),
        };
        let segments = Arc::new(Mutex::new(Vec::new()));
        let (idle, stop) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let (to, idles, ends) = (Arc::clone(&segments), Arc::clone(&idle), Arc::clone(&stop));
        let (day, now) = clocks();
        let thread = std::thread::Builder::new()
            .name("lab packets".to_owned())
            .spawn(move || {
                let mut buffer = [0; 256];
                while !ends.load(Ordering::Relaxed) {
                    match socket.next(&mut buffer) {
                        Ok(Some(packet)) => {
                            let after = packet.at.duration_since(day).unwrap_or_default();
                            lock(&to).extend(read(packet.bytes, now + after));
                        }
                        Ok(None) => drop(idles.fetch_add(1, Ordering::Release)),
                        // The picture is made of the segments captured until then.
                        Err(_) => return,
                    }
                }
            })?;
        Ok(Some(Capture {
            segments,
            idle,
            stop,
            thread: Some(thread),
        }))
    }

    /// Waits until every segment that is already in the socket's queue is read; for 2 s at most, on a busy
    /// machine.
    pub(super) fn settle(&self) {
        let (begin, before) = (Instant::now(), self.idle.load(Ordering::Acquire));
        // The first idle moment may have begun before the last packet.
        while self.idle.load(Ordering::Acquire) < before + 2
            && begin.elapsed() < Duration::from_secs(2)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

impl Captured {
    /// Whether that side of this connection has sent it.
    pub(super) fn is_of(&self, ends: Ends, side: Side) -> bool {
        (self.from, self.to) == ends.of(side)
    }
}

/// Returns one moment on both clocks: the kernel's timestamps are times of day. The two readings are tried
/// until no other process ran between them.
fn clocks() -> (SystemTime, Instant) {
    let read = |_| {
        let (before, day) = (Instant::now(), SystemTime::now());
        (before.elapsed(), day, before)
    };
    let closest = (0..20).map(read).min_by_key(|reading| reading.0);
    closest.map_or_else(
        || (SystemTime::now(), Instant::now()),
        |(_, day, now)| (day, now),
    )
}

/// Reads the headers of a packet.
fn read(packet: &[u8], at: Instant) -> Option<Captured> {
    // Lax, since the packet was cut after its headers.
    let sliced = etherparse::LaxSlicedPacket::from_ip(packet).ok()?;
    let etherparse::LaxNetSlice::Ipv4(ip) = sliced.net? else {
        return None;
    };
    let TransportSlice::Tcp(tcp) = sliced.transport? else {
        return None;
    };
    let header = ip.header();
    let headers = usize::from(header.ihl()) * 4 + usize::from(tcp.data_offset()) * 4;
    let whole = packet.get(usize::from(header.ihl()) * 4..usize::from(header.total_len()));
    Some(Captured {
        at,
        from: SocketAddr::new(header.source_addr().into(), tcp.source_port()),
        to: SocketAddr::new(header.destination_addr().into(), tcp.destination_port()),
        segment: Segment {
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            ack: tcp.ack(),
            seq: tcp.sequence_number(),
            acknowledges: if tcp.ack() {
                tcp.acknowledgment_number()
            } else {
                0
            },
            length: usize::from(header.total_len()).saturating_sub(headers),
            dropped: false,
            late: false,
        },
        bytes: whole.unwrap_or_default().to_vec(),
    })
}
