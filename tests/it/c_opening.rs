//! The C ABI from C: TLS and the PROXY protocol.

use crate::common::c::{build, ends_well, launch, start};
use crate::common::client::Client;
use crate::common::tls::Authority;

#[test]
fn a_server_in_c_has_tls_and_knows_how_a_connection_came() {
    let authority = Authority::new();
    authority.vouch_for("localhost");
    authority.vouch_for("client.example");
    let files = ["localhost.pem", "localhost.key", "ca.pem"].map(|name| authority.path(name));
    let files = files.each_ref().map(|file| file.to_str().expect("UTF-8"));
    let program = build("tests/c/opening.c", &[]);
    for mode in ["process", "base"] {
        let server = start(launch(&program, &[&[mode], &files[..]].concat()), mode);
        let mut client = Client::connect(server.address());
        client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n");
        let proxy = client.local.to_string();
        let mut dial = authority.dial();
        dial.certificate = Some(authority.path("client.example"));
        dial.protocols = vec![b"two".to_vec()];
        let mut client = dial.over(client.into_socket()).expect("a handshake");
        assert_eq!(client.ask("peer"), "192.0.2.1 5000", "{mode}");
        let facts = [
            "TLSv1.3",
            "localhost",
            "two",
            "long",
            &proxy,
            "192.0.2.2:443",
        ];
        for (number, fact) in facts.iter().enumerate() {
            assert_eq!(client.ask(&number.to_string()), *fact, "{mode}");
        }
        for number in facts.len()..=10 {
            assert_eq!(client.ask(&number.to_string()), "none 0", "{mode}");
        }
        assert_eq!(client.ask("11"), "status=3", "{mode}");
        drop(client);
        ends_well(server);
    }
}
