//! Socket addresses of C.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use libc::{sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage};
use socket2::SockAddr;

use super::status::{Failure, boundary, tine_status};
use super::{put, put_text};
use crate::peer::{Credentials, Peer};

/// Bytes that are enough for any text of tine_address_text().
#[allow(dead_code, reason = "for C; a test looks whether it is enough")]
pub const TINE_ADDRESS_TEXT: usize = 64;

/// The process that has connected to a unix socket, as it was then, unix(7): SO_PEERCRED.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct tine_credentials {
    /// Its process, 0 for one that the server's namespace of pids does not have; its user; its group.
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// The bytes behind the family in the address of a client of a unix socket: that of an abstract name, so that no
/// program takes it for a file. Behind them are pid, uid and gid.
const MARK: [u8; 6] = *b"\0tine:";

/// Returns a client's address as C has it.
pub(super) fn storage(peer: Peer) -> sockaddr_storage {
    let mut storage = MaybeUninit::<sockaddr_storage>::zeroed();
    let mut fill = |bytes: *const u8, len: usize| {
        // SAFETY: a storage has room for any address.
        unsafe { ptr::copy_nonoverlapping(bytes, storage.as_mut_ptr().cast(), len) };
    };
    match peer {
        Peer::Ip(address) => {
            let address = SockAddr::from(address);
            fill(address.as_ptr().cast(), address.len() as usize);
        }
        Peer::Unix(Credentials { pid, uid, gid }) => {
            let mut bytes = (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes().to_vec();
            bytes.extend(MARK);
            bytes.extend([pid, uid, gid].iter().flat_map(|it| it.to_ne_bytes()));
            fill(bytes.as_ptr(), bytes.len());
        }
    }
    // SAFETY: all zeros are an address, and so are the bytes above.
    unsafe { storage.assume_init() }
}

/// Reads the credentials of a client of a unix socket. `address` is one that tine_conn_peer(), tine_connections(), a
/// dispatch function or a crash function has had from the server. Any thread of any process may call it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for any other address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_address_credentials(
    address: *const sockaddr,
    credentials: *mut tine_credentials,
) -> tine_status {
    boundary(|| {
        // SAFETY: tine.h asks it of the caller.
        let Some(Credentials { pid, uid, gid }) = unsafe { read(address) }?.credentials() else {
            return Err(Failure::invalid(
                "address: it is no client of a unix socket".to_owned(),
            ));
        };
        let found = tine_credentials { pid, uid, gid };
        // SAFETY: tine.h asks it of the caller.
        unsafe { put("credentials", credentials, found) }
    })
}

/// Writes an address as text with its NUL: "127.0.0.1:9501" or "[::1]:9501", or of a client of a unix socket
/// "unix:pid=4711,uid=1000,gid=1000". `address` is an IPv4 or an
/// IPv6 address, or one that the server has written; `text` has `size` bytes, of which TINE_ADDRESS_TEXT are always enough. Any thread of
/// any process may call it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for another family, TINE_ERROR_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_address_text(
    address: *const sockaddr,
    text: *mut c_char,
    size: usize,
) -> tine_status {
    boundary(|| {
        // SAFETY: tine.h asks it of the caller.
        let address = unsafe { read(address) }?.to_string();
        // SAFETY: tine.h asks it of the caller.
        unsafe { put_text("text", text, size, &address) }
    })
}

/// # Safety
/// As above.
unsafe fn read(address: *const sockaddr) -> Result<Peer, Failure> {
    if address.is_null() {
        return Err(Failure::null("address"));
    }
    // SAFETY: not NULL, and every address begins with its family.
    match i32::from(unsafe { (&raw const (*address).sa_family).read_unaligned() }) {
        libc::AF_INET => {
            // SAFETY: an address of this family is one of these.
            let address = unsafe { address.cast::<sockaddr_in>().read_unaligned() };
            let ip = u32::from_be(address.sin_addr.s_addr).into();
            let port = u16::from_be(address.sin_port);
            Ok(Peer::Ip(SocketAddrV4::new(ip, port).into()))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { address.cast::<sockaddr_in6>().read_unaligned() };
            let (flow, scope) = (address.sin6_flowinfo, address.sin6_scope_id);
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            let port = u16::from_be(address.sin6_port);
            Ok(Peer::Ip(SocketAddrV6::new(ip, port, flow, scope).into()))
        }
        libc::AF_UNIX => {
            let bytes = address.cast::<u8>();
            const FAMILY: usize = size_of::<libc::sa_family_t>();
            // SAFETY: a sockaddr of any family has as many bytes.
            let mark = unsafe { bytes.add(FAMILY).cast::<[u8; MARK.len()]>().read() };
            if mark != MARK {
                let problem = "address: of AF_UNIX, and no client of a listener: AF_INET and AF_INET6 have a text";
                return Err(Failure::invalid(problem.to_owned()));
            }
            // SAFETY: what begins so was made by `storage`, which has put the numbers there.
            let numbers = unsafe { bytes.add(FAMILY + MARK.len()).cast::<[u8; 12]>().read() };
            let (numbers, _) = numbers.as_chunks::<4>();
            let number = |index: usize| numbers.get(index).map_or(0, |it| u32::from_ne_bytes(*it));
            Ok(Peer::Unix(Credentials::new(
                number(0),
                number(1),
                number(2),
            )))
        }
        other => Err(Failure::invalid(format!(
            "address: family {other} is none of AF_INET, AF_INET6 and AF_UNIX"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn an_address_is_read_as_it_was_written() {
        for peer in crate::peer::samples() {
            let stored = storage(peer);
            // SAFETY: it is an address of its family.
            let read = unsafe { read((&raw const stored).cast()) };
            assert_eq!(read.unwrap(), peer);
        }
        let other = SockAddr::unix("/run/app.sock").unwrap();
        // SAFETY: as above.
        assert!(unsafe { read(other.as_ptr().cast()) }.is_err());
    }

    #[test]
    fn the_longest_text_has_room() {
        let ip = Ipv6Addr::from([0xffff_u16; 8].map(|part| part));
        let longest = SocketAddrV6::new(ip, 65535, 0, u32::MAX).to_string();
        assert!(longest.len() < TINE_ADDRESS_TEXT, "{longest}");
        let longest = Credentials::new(u32::MAX, u32::MAX, u32::MAX).to_string();
        assert!(longest.len() < TINE_ADDRESS_TEXT, "{longest}");
    }

    #[test]
    fn too_little_memory_is_left_as_it_was() {
        let stored = SockAddr::from("127.0.0.1:9501".parse::<SocketAddr>().unwrap());
        let mut text = [b'x' as c_char; 15];
        let mut put = |size| {
            // SAFETY: the address is one, and no size is more than the text has.
            unsafe { tine_address_text(stored.as_ptr().cast(), text.as_mut_ptr(), size) }
        };
        assert_eq!(put(14), tine_status::TINE_ERROR_TOO_SMALL);
        assert_eq!(put(0), tine_status::TINE_ERROR_TOO_SMALL);
        assert_eq!(put(15), tine_status::TINE_OK);
        assert_eq!(text[14], 0);
    }
}
