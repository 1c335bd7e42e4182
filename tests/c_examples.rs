//! The programs in `c-examples`, built under sanitizers, do what their comments say.

mod common;

use common::c::{self, ends_well, example, launch, start};
use common::client::Client;

#[test]
fn echo_sends_back_what_came() {
    let server = start(launch(&example("echo"), &["127.0.0.1:0"]), "process");
    let mut client = Client::connect(server.address());
    client.echo(b"hello");
    client.echo(&[7; 100_000]);
    drop(client);
    ends_well(server);
}

#[test]
fn a_leak_in_a_worker_is_seen() {
    // What the other tests here stand on: without it they could not fail.
    let server = start(
        launch(&c::build("tests/c/leaky.c", &[]), &["127.0.0.1:0"]),
        "process",
    );
    Client::connect(server.address()).echo(b"hello");
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.logged(1, &["LeakSanitizer"]);
    server.logged(1, &["abnormal exit, status=23"]);
}
