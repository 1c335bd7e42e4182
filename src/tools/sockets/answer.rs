//! Reads a socket from the kernel's answer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6};
use netlink_packet_sock_diag::inet::InetResponse;
use netlink_packet_sock_diag::inet::nlas::Nla;

use super::{Quiet, Socket, State, Timer, TimerKind};

impl Socket {
    pub(super) fn family(&self) -> u8 {
        match self.id.source_address {
            IpAddr::V4(_) => AF_INET,
            IpAddr::V6(_) => AF_INET6,
        }
    }

    pub(super) fn of(response: &InetResponse, message: &[u8]) -> Option<Socket> {
        let header = &response.header;
        let state = State::from_number(header.state)?;
        let id = header.socket_id.clone();
        let info = response.nlas.iter().find_map(|nla| match nla {
            Nla::TcpInfo(info) => Some(info.as_slice()),
            _ => None,
        });
        Some(Socket {
            state,
            local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
            remote: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
            recv_q: header.recv_queue,
            send_q: header.send_queue,
            uid: header.uid,
            inode: u64::from(header.inode),
            timer: Timer::of(message),
            quiet: info.and_then(Quiet::of),
            id,
        })
    }
}

impl Timer {
    /// Reads `struct inet_diag_msg` itself, since the crate drops the time left in TIME_WAIT.
    pub(super) fn of(message: &[u8]) -> Option<Timer> {
        const MESSAGE: usize = size_of::<libc::nlmsghdr>();
        const KIND: usize = MESSAGE + 2;
        const RETRANSMITS: usize = MESSAGE + 3;
        // After four bytes, and the 48 that name the socket.
        const EXPIRES: usize = MESSAGE + 52;
        let kind = match message.get(KIND)? {
            1 => TimerKind::Retransmit,
            2 => TimerKind::Keepalive,
            3 => TimerKind::End,
            4 => TimerKind::Probe,
            _ => return None,
        };
        Some(Timer {
            kind,
            left: Duration::from_millis(u64::from(number_at(message, EXPIRES)?)),
            retransmits: *message.get(RETRANSMITS)?,
        })
    }
}

impl Quiet {
    pub(super) fn of(info: &[u8]) -> Option<Quiet> {
        use std::mem::offset_of;
        let at = |offset| number_at(info, offset).map(|ms| Duration::from_millis(u64::from(ms)));
        Some(Quiet {
            data_received: at(offset_of!(libc::tcp_info, tcpi_last_data_recv))?,
            segment_received: at(offset_of!(libc::tcp_info, tcpi_last_ack_recv))?,
            data_sent: at(offset_of!(libc::tcp_info, tcpi_last_data_sent))?,
        })
    }
}

fn number_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
