//! Socket addresses of C.

use std::ffi::c_char;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{sockaddr, sockaddr_in, sockaddr_in6};

use super::put_text;
use super::status::{Failure, boundary, tine_status};

/// Bytes that are enough for any text of tine_address_text().
#[allow(dead_code, reason = "for C; a test looks whether it is enough")]
pub const TINE_ADDRESS_TEXT: usize = 64;

/// Writes an address as text with its NUL: "127.0.0.1:9501" or "[::1]:9501". `address` is an IPv4 or an
/// IPv6 address; `text` has `size` bytes, of which TINE_ADDRESS_TEXT are always enough. Any thread of
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
unsafe fn read(address: *const sockaddr) -> Result<SocketAddr, Failure> {
    if address.is_null() {
        return Err(Failure::null("address"));
    }
    // SAFETY: not NULL, and every address begins with its family.
    match i32::from(unsafe { (&raw const (*address).sa_family).read_unaligned() }) {
        libc::AF_INET => {
            // SAFETY: an address of this family is one of these.
            let address = unsafe { address.cast::<sockaddr_in>().read_unaligned() };
            let ip = u32::from_be(address.sin_addr.s_addr).into();
            Ok(SocketAddrV4::new(ip, u16::from_be(address.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { address.cast::<sockaddr_in6>().read_unaligned() };
            let (flow, scope) = (address.sin6_flowinfo, address.sin6_scope_id);
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            Ok(SocketAddrV6::new(ip, u16::from_be(address.sin6_port), flow, scope).into())
        }
        other => Err(Failure::invalid(format!(
            "address: family {other} is neither AF_INET nor AF_INET6"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockAddr;

    use super::*;

    #[test]
    fn an_address_is_read_as_it_was_written() {
        for text in [
            "127.0.0.1:9501",
            "0.0.0.0:0",
            "[::1]:65535",
            "[fe80::1%7]:80",
        ] {
            let there: SocketAddr = text.parse().unwrap();
            let stored = SockAddr::from(there);
            // SAFETY: it is an address of its family.
            assert_eq!(unsafe { read(stored.as_ptr().cast()) }.unwrap(), there);
        }
    }

    #[test]
    fn the_longest_text_has_room() {
        let ip = Ipv6Addr::from([0xffff_u16; 8].map(|part| part));
        let longest = SocketAddrV6::new(ip, 65535, 0, u32::MAX).to_string();
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
