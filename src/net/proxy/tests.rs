use ppp::v2::{Addresses, Builder, Command, Protocol, Type, Version};
use proptest::prelude::*;

use super::*;
use crate::handler::Origin;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Returns a header of version 2 with these parts behind its addresses.
fn with_parts(parts: &[(u8, &[u8])]) -> Vec<u8> {
    let ends: Addresses = (address("192.0.2.1:5000"), address("192.0.2.2:443")).into();
    let proxied = Version::Two | Command::Proxy;
    let mut builder = Builder::with_addresses(proxied, Protocol::Stream, ends);
    for (kind, value) in parts {
        builder = builder.write_tlv(*kind, value).unwrap();
    }
    builder.build().unwrap()
}

/// Returns the header that these bytes are.
fn whole(bytes: &[u8]) -> Header {
    match begin(bytes) {
        Begin::Header(header, len) if len == bytes.len() => header,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn is_wrong(bytes: &[u8], why: &str) {
    match begin(bytes) {
        Begin::Wrong(problem) => assert!(problem.contains(why), "{problem}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_line_names_the_client() {
    let header = whole(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n");
    assert_eq!(header.client, Some(address("192.0.2.1:5000")));
    let origin = Origin::of(&header.facts);
    assert_eq!(origin.destination(), Some(address("192.0.2.2:443")));
    let header = whole(b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 443\r\n");
    assert_eq!(header.client, Some(address("[2001:db8::1]:5000")));
    assert_eq!(whole(b"PROXY UNKNOWN\r\n"), Header::default());
    assert_eq!(
        whole(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"),
        Header::default()
    );
    // What follows is not part of it.
    let begun = begin(b"PROXY UNKNOWN\r\nhello\n");
    assert_eq!(begun, Begin::Header(Header::default(), 15));
}

#[test]
fn a_line_that_is_wrong_is_refused() {
    for line in [
        &b"PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n"[..],
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 65536\r\n",
        b"PROXY TCP7 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PORXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"POST / HTTP/1.1\r\n",
    ] {
        is_wrong(line, "");
    }
    is_wrong(&[b'P'; 107], "107 bytes");
    assert_eq!(begin(&[b'P'; 106]), Begin::More);
}

#[test]
fn a_binary_header_names_the_client_and_more() {
    let bytes = with_parts(&[
        (AUTHORITY, b"example.org"),
        (UNIQUE_ID, b"0001"),
        (ALPN, b"h2"),
        (Type::NoOp as u8, b"   "),
        (SSL, b"\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x05alice"),
    ]);
    let header = whole(&bytes);
    assert_eq!(header.client, Some(address("192.0.2.1:5000")));
    let origin = Origin::of(&header.facts);
    assert_eq!(origin.authority(), Some("example.org"));
    assert_eq!(origin.unique_id(), Some(&b"0001"[..]));
    assert_eq!(origin.proxy_application_protocol(), Some(&b"h2"[..]));
    assert_eq!(origin.proxy_tls_version(), Some("TLSv1.3"));
    assert_eq!(origin.proxy_client_name(), Some("alice"));
    assert_eq!(origin.server_name(), None);
}

#[test]
fn a_name_that_the_proxy_has_not_verified_is_not_taken() {
    for client in [
        // No certificate was shown.
        &b"\x01\0\0\0\0\x22\0\x05alice"[..],
        // One was, and is not valid.
        b"\x07\0\0\0\x01\x22\0\x05alice",
    ] {
        let header = whole(&with_parts(&[(SSL, client)]));
        assert_eq!(Origin::of(&header.facts).proxy_client_name(), None);
    }
    is_wrong(&with_parts(&[(SSL, b"\x07\0\0")]), "too short");
    is_wrong(
        &with_parts(&[(SSL, b"\x07\0\0\0\0\x22\0\x09alice")]),
        "too short",
    );
}

#[test]
fn a_checksum_is_verified() {
    let mut bytes = with_parts(&[(CRC32C, &[0; 4]), (UNIQUE_ID, b"7")]);
    let sum = crc32c::crc32c(&bytes);
    let at = FIXED + 12 + 3;
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(whole(&bytes).client, Some(address("192.0.2.1:5000")));
    *bytes.last_mut().unwrap() ^= 1;
    is_wrong(&bytes, "CRC32C");
    is_wrong(&with_parts(&[(CRC32C, &[0; 3])]), "four bytes");
}

#[test]
fn a_connection_of_the_proxy_itself_has_no_client() {
    let local = Version::Two | Command::Local;
    let ends: Addresses = (address("192.0.2.1:1"), address("192.0.2.2:2")).into();
    let bytes = Builder::with_addresses(local, Protocol::Stream, ends).build();
    assert_eq!(whole(&bytes.unwrap()), Header::default());
}

#[test]
fn a_header_that_is_too_long_is_refused_before_it_has_come() {
    let mut bytes = v2::PROTOCOL_PREFIX.to_vec();
    bytes.extend_from_slice(&[0x21, 0x11]);
    bytes.extend_from_slice(&((LONGEST - FIXED + 1) as u16).to_be_bytes());
    is_wrong(&bytes, "4097 bytes");
    is_wrong(b"\r\n\r\nhello", "signature");
}

proptest! {
    /// Of a header that comes in parts, each part wants the rest. Whatever comes, it is read without a panic.
    #[test]
    fn a_part_of_a_header_is_the_begin_of_one(cut in 0usize..64, noise in prop::collection::vec(any::<u8>(), 0..200)) {
        for bytes in [
            with_parts(&[(UNIQUE_ID, b"0001")]),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n".to_vec(),
        ] {
            let part = &bytes[..cut.min(bytes.len() - 1)];
            prop_assert_eq!(begin(part), Begin::More);
            let _ = begin(&noise);
            let mut changed = bytes.clone();
            let at = cut.min(bytes.len());
            changed.splice(at.., noise.iter().copied());
            let _ = begin(&changed);
        }
    }
}
