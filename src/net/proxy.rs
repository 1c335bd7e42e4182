//! The header of the PROXY protocol, versions 1 and 2: who the client of a proxy is.
//!
//! The protocol is <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. Its one rule: only what the header
//! says is taken, and only from a proxy that is trusted; a header that is wrong in any part ends the connection.

use std::net::SocketAddr;
use std::ops::Range;

use ppp::{v1, v2};

use crate::handler::{Fact, add_fact};

/// The longest header of version 1, its end of line included.
const LONGEST_TEXT: usize = 107;

/// The longest header of version 2 that is taken. Proxies keep below 536 bytes.
pub(crate) const LONGEST: usize = 4096;

/// The bytes of version 2 before the addresses.
const FIXED: usize = 16;

/// The bytes of a part behind the addresses before its value.
const TLV: usize = 3;

/// The first byte of version 1. That of version 2 is another.
const TEXT: u8 = b'P';

/// What a header says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Header {
    /// The client; `None` for a connection of the proxy itself, such as a health check.
    pub(crate) client: Option<SocketAddr>,
    /// Facts about its connection, in the form of an origin.
    pub(crate) facts: Vec<u8>,
}

/// The beginning of a connection.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Begin {
    /// The rest of a header is to come.
    More,
    /// A header, and its length.
    Header(Header, usize),
    /// No header, or a wrong one, and what is wrong with it.
    Wrong(String),
}

/// Returns the header at the begin of `bytes`, which are not empty.
pub(crate) fn begin(bytes: &[u8]) -> Begin {
    match bytes.first() {
        None => Begin::More,
        Some(&TEXT) => text(bytes),
        Some(_) => binary(bytes),
    }
}

fn wrong(problem: impl ToString) -> Begin {
    Begin::Wrong(problem.to_string())
}

fn text(bytes: &[u8]) -> Begin {
    let most = &bytes[..bytes.len().min(LONGEST_TEXT)];
    let Some(end) = most.windows(2).position(|two| two == b"\r\n") else {
        return match bytes.len() < LONGEST_TEXT {
            true => Begin::More,
            false => wrong("it has no end of line within 107 bytes"),
        };
    };
    let len = end + 2;
    let parsed = match v1::Header::try_from(&bytes[..len]) {
        Ok(parsed) => parsed,
        Err(error) => return wrong(error),
    };
    let mut header = Header::default();
    let ends: Option<(SocketAddr, SocketAddr)> = match parsed.addresses {
        v1::Addresses::Tcp4(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
        v1::Addresses::Tcp6(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
        v1::Addresses::Unknown => None,
    };
    header.take_ends(ends);
    Begin::Header(header, len)
}

fn binary(bytes: &[u8]) -> Begin {
    let signature = v2::PROTOCOL_PREFIX;
    let common = bytes.len().min(signature.len());
    if bytes[..common] != signature[..common] {
        return wrong("it does not begin with a signature of the protocol");
    }
    let Some(fixed) = bytes.first_chunk::<FIXED>() else {
        return Begin::More;
    };
    let len = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len > LONGEST {
        return wrong(format_args!(
            "it has {len} bytes, and {LONGEST} are allowed"
        ));
    }
    let Some(whole) = bytes.get(..len) else {
        return Begin::More;
    };
    match v2::Header::try_from(whole) {
        Ok(parsed) => binary_header(&parsed, whole),
        Err(error) => wrong(error),
    }
}

fn binary_header(parsed: &v2::Header<'_>, whole: &[u8]) -> Begin {
    let mut header = Header::default();
    let is_proxied = parsed.command == v2::Command::Proxy;
    let ends: Option<(SocketAddr, SocketAddr)> = match parsed.addresses {
        v2::Addresses::IPv4(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
        v2::Addresses::IPv6(it) => Some((
            (it.source_address, it.source_port).into(),
            (it.destination_address, it.destination_port).into(),
        )),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    };
    if is_proxied && parsed.protocol == v2::Protocol::Datagram {
        return wrong("it is of a datagram");
    }
    header.take_ends(ends.filter(|_| is_proxied));
    let mut at = whole.len() - parsed.tlv_bytes().len();
    for tlv in parsed.tlvs() {
        let tlv = match tlv {
            Ok(tlv) => tlv,
            Err(error) => return wrong(error),
        };
        let value = at + TLV;
        at = value + tlv.value.len();
        let taken = match tlv.kind {
            CRC32C => check(whole, value..at),
            kind => header.take_tlv(kind, &tlv.value),
        };
        if let Err(problem) = taken {
            return wrong(problem);
        }
    }
    Begin::Header(header, whole.len())
}

/// Types of the parts behind the addresses.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;

/// Bits of the first byte of SSL: the client has used TLS, and has shown a certificate in this connection or in its
/// session.
const CLIENT_TLS: u8 = 1;
const CLIENT_CERTIFICATE: u8 = 2 | 4;

impl Header {
    fn take_ends(&mut self, ends: Option<(SocketAddr, SocketAddr)>) {
        if let Some((client, destination)) = ends {
            self.client = Some(client);
            self.add(Fact::Destination, destination.to_string().as_bytes());
        }
    }

    /// Always fits: a header is shorter than an origin may be.
    fn add(&mut self, fact: Fact, value: &[u8]) {
        let _ = add_fact(&mut self.facts, fact, value);
    }

    fn take_tlv(&mut self, kind: u8, value: &[u8]) -> Result<(), &'static str> {
        match kind {
            ALPN => self.add(Fact::ProxyApplication, value),
            AUTHORITY if str::from_utf8(value).is_err() => {
                return Err("its authority is not UTF-8");
            }
            AUTHORITY => self.add(Fact::Authority, value),
            UNIQUE_ID if value.len() > 128 => return Err("its unique id has more than 128 bytes"),
            UNIQUE_ID => self.add(Fact::UniqueId, value),
            SSL => self.take_ssl(value)?,
            // What is not known is passed over, as section 2.2.7 asks.
            _ => {}
        }
        Ok(())
    }

    fn take_ssl(&mut self, value: &[u8]) -> Result<(), &'static str> {
        const SHORT: &str = "its part about TLS is too short";
        let (client, rest) = value.split_first().ok_or(SHORT)?;
        let (verify, mut parts) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        let has_tls = client & CLIENT_TLS != 0;
        let is_verified = client & CLIENT_CERTIFICATE != 0 && *verify == [0; 4];
        while let Some(([kind, len @ ..], behind)) = parts.split_first_chunk::<3>() {
            let len = u16::from_be_bytes(*len).into();
            let (part, next) = behind.split_at_checked(len).ok_or(SHORT)?;
            match *kind {
                SSL_VERSION if has_tls => self.add(Fact::ProxyTls, part),
                SSL_CN if is_verified => self.add(Fact::ProxyName, part),
                _ => {}
            }
            parts = next;
        }
        Ok(())
    }
}

/// Compares the checksum of a header, which is taken with zeros in its own place.
fn check(whole: &[u8], place: Range<usize>) -> Result<(), &'static str> {
    let sum: [u8; 4] = whole[place.clone()]
        .try_into()
        .map_err(|_| "its checksum has not four bytes")?;
    let mut found = crc32c::crc32c(&whole[..place.start]);
    found = crc32c::crc32c_append(found, &[0; 4]);
    found = crc32c::crc32c_append(found, &whole[place.end..]);
    match found == u32::from_be_bytes(sum) {
        true => Ok(()),
        false => Err("its checksum (CRC32C) is wrong"),
    }
}

#[cfg(test)]
mod tests;
