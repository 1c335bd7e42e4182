//! The PROXY protocol: the client that the proxy names is the peer everywhere, and nobody else can name one.

use std::thread;
use std::time::Duration;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::tls::Authority;
use crate::common::{SOON, eventually};

const MODES: [&str; 2] = ["process", "base"];

/// The signature of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn script(mode: &str, options: &[&str]) -> Server {
    Launch::testbed("script", mode)
        .and(&["proxy=127.0.0.1/32"])
        .and(options)
        .start()
}

/// Returns a header of version 2 of a client with this port.
fn binary(port: u16, parts: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([0x21, 0x11]);
    header.extend((12 + parts.len() as u16).to_be_bytes());
    header.extend([192, 0, 2, 1, 192, 0, 2, 2]);
    header.extend(port.to_be_bytes());
    header.extend(443_u16.to_be_bytes());
    header.extend(parts);
    header
}

#[test]
fn the_peer_is_the_client_of_the_proxy() {
    for mode in MODES {
        let server = script(mode, &[]);
        let mut client = Client::connect(server.address());
        client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\npeer\n");
        client.expect(b"192.0.2.1:5000\n");
        assert_eq!(client.ask("peer"), "192.0.2.1:5000");
        let proxy = client.local;
        assert_eq!(
            client.ask("origin"),
            format!("tls=none name=none protocol=none certificate=none proxy={proxy}")
        );
        let mut client = Client::connect(server.address());
        client.send(&binary(6000, b"\x05\0\x041234"));
        client.send(b"peer\n");
        client.expect(b"192.0.2.1:6000\n");
        assert_eq!(client.ask("origin id"), "1234");
        // A check of the proxy's own.
        let mut client = Client::connect(server.address());
        let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
        client.send(&[&local[..], b"peer\n"].concat());
        let own = client.local.to_string();
        assert_eq!(client.read_line(), own);
    }
}

#[test]
fn a_header_may_come_in_parts() {
    for mode in MODES {
        let server = script(mode, &[]);
        for header in [
            b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 443\r\n".to_vec(),
            binary(5000, b"\x02\0\x07example"),
        ] {
            let mut client = Client::connect(server.address());
            for byte in header {
                client.send(&[byte]);
            }
            assert!(client.ask("peer").ends_with(":5000"));
        }
    }
}

#[test]
fn a_wrong_header_is_refused_and_no_callback_knows_of_it() {
    for mode in MODES {
        let server = script(mode, &["opening=0.5"]);
        for bytes in [
            &b"peer\n"[..],
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n",
            b"PROXY TCP4",
            b"",
            &binary(5000, b"\x03\0\x04\0\0\0\0"),
        ] {
            let mut client = Client::connect(server.address());
            client.send(bytes);
            assert_eq!(client.read_until_reset(), b"");
        }
        server.logged(3, &["is refused before it is open", "PROXY header"]);
        let mut client = Client::connect(server.address());
        client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n");
        eventually(SOON, "the others are gone", || {
            client.ask("stats").starts_with("1 ")
        });
        assert!(server.log().with(&["close of"]).is_empty());
    }
}

#[test]
fn a_proxy_from_elsewhere_names_nobody() {
    for mode in MODES {
        let server = script(mode, &[]);
        // It may be reset before it has said a word.
        if let Ok(mut stranger) = Client::try_connect_nth(server.address(), 5)
            && stranger
                .try_send(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\npeer\n")
                .is_ok()
        {
            assert_eq!(stranger.read_until_reset(), b"");
        }
        server.logged(1, &["is refused before it is open", "not from a network"]);
    }
}

#[test]
fn clients_are_counted_and_not_their_proxy() {
    for mode in MODES {
        let server = script(mode, &["per-address=2", "workers=1", "reactors=1"]);
        let named = |client: &str| {
            let mut connection = Client::connect(server.address());
            connection.send(format!("PROXY TCP4 {client} 192.0.2.2 5000 443\r\n").as_bytes());
            connection
        };
        let mut kept: Vec<Client> = (1..=5).map(|i| named(&format!("192.0.2.{i}"))).collect();
        kept.push(named("192.0.2.1"));
        for client in &mut kept {
            assert_eq!(client.ask("echo it"), "echo it");
        }
        assert_eq!(named("192.0.2.1").read_until_reset(), b"");
        // A place is free again, exactly one.
        drop(kept.pop());
        eventually(SOON, "another one may come", || {
            named("192.0.2.1").try_ask("echo it").is_ok()
        });
    }
}

#[test]
fn a_client_is_always_at_the_same_seat_whatever_proxy_it_comes_through() {
    let server = script("process", &["dispatch=client-address", "workers=8"]);
    for last in 1..=20 {
        let ask = || {
            let mut client = Client::connect(server.address());
            let header = format!("PROXY TCP4 192.0.2.{last} 192.0.2.2 5000 443\r\n");
            client.send(header.as_bytes());
            client.ask("seat")
        };
        assert_eq!(ask(), ask());
    }
}

#[test]
fn tls_may_be_behind_the_header() {
    let authority = Authority::new();
    authority.vouch_for("localhost");
    let folder = format!("tls={}", authority.folder().display());
    for mode in MODES {
        let server = script(mode, &[&folder]);
        let mut client = Client::connect(server.address());
        client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n");
        let proxy = client.local;
        // The client's first record comes later than the header, or with it.
        thread::sleep(Duration::from_millis(20));
        let mut client = authority
            .dial()
            .over(client.into_socket())
            .expect("a handshake");
        assert_eq!(client.ask("peer"), "192.0.2.1:5000");
        assert_eq!(
            client.ask("origin"),
            format!("tls=TLSv1.3 name=localhost protocol=none certificate=none proxy={proxy}")
        );
    }
}
