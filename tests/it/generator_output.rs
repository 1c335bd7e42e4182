//! The output of `tine load`: after a signal, of replies that do not come, and as charts.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::generator::{echo, load, report, serve};
use crate::common::launch::Launch;
use crate::common::server::Running;
use crate::common::{SOON, eventually, eventually_some};

/// A server that tells how many bytes have come.
fn counting(echoes: bool) -> (SocketAddr, &'static AtomicUsize) {
    let count: &AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
    let server = serve(move |mut stream| {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut bytes) {
            count.fetch_add(n, Ordering::Relaxed);
            if echoes && stream.write_all(&bytes[..n]).is_err() {
                return;
            }
        }
    });
    (server, count)
}

/// Starts a load that would take an hour, and returns it when the server has received messages.
fn endless(server: SocketAddr, count: &AtomicUsize, arguments: &[&str]) -> Running {
    let server = server.to_string();
    let load = Launch::tine(&["load", &server, "--duration", "3600", "--clients", "2"])
        .and(arguments)
        .spawn();
    eventually(SOON, "messages come", || count.load(Ordering::Relaxed) > 0);
    load
}

/// Sends SIGINT until the load ends, and returns its exit status and its output.
fn interrupt(mut load: Running) -> (Option<i32>, String, String) {
    let pid = Pid::from_raw(load.pid());
    let status = eventually_some(SOON, "the load ends", || {
        // Fails when it has ended meanwhile.
        let _ = kill(pid, Signal::SIGINT);
        load.try_wait()
    });
    eventually(SOON, "all is printed", || {
        load.stdout.is_closed() && load.stderr.is_closed()
    });
    (status.code(), load.stdout.text(), load.stderr.text())
}

#[test]
fn an_interrupted_load_prints_what_it_has_measured() {
    let (server, count) = counting(true);
    let mut load = endless(server, count, &["--warm-up", "0"]);
    let pid = Pid::from_raw(load.pid());
    eventually(SOON, "the window has begun", || {
        count.load(Ordering::Relaxed) > 64_000
    });
    // Once: all replies come, so the load waits for none.
    kill(pid, Signal::SIGINT).expect("it runs");
    let status = eventually_some(SOON, "the load ends", || load.try_wait());
    assert_eq!(status.code(), Some(0));
    eventually(SOON, "all is printed", || load.stdout.is_closed());
    let text = load.stdout.text();
    for words in ["(interrupted)", "messages/s", "p99.9", "every byte correct"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}

#[test]
fn a_load_that_is_interrupted_before_it_measures_says_so() {
    let (server, count) = counting(true);
    let load = endless(server, count, &["--warm-up", "3600"]);
    let (status, stdout, stderr) = interrupt(load);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("nothing was measured"), "{stderr}");
}

#[test]
fn a_second_interruption_ends_the_wait_for_replies() {
    let (server, count) = counting(false);
    let load = endless(server, count, &["--warm-up", "0"]);
    let (status, stdout, stderr) = interrupt(load);
    assert_eq!(status, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("2 replies were not awaited"), "{stdout}");
}

#[test]
fn a_lost_reply_is_slower_than_every_reply_that_came() {
    let server = serve(|stream| {
        let mut messages = 0;
        let mut reader = stream.try_clone().expect("a descriptor");
        let mut bytes = [0; 100];
        while reader.read_exact(&mut bytes).is_ok() {
            messages += 1;
            // From the 30th on, none is answered.
            if messages < 30 && (&stream).write_all(&bytes).is_err() {
                return;
            }
        }
    });
    let arguments = ["--clients", "1", "--size", "100", "--rate", "200"];
    let (status, report) = report(server, &arguments);
    assert_eq!(status, 3, "{report}");
    let latency = &report["latency"];
    assert!(latency["unanswered"].as_u64() > Some(0), "{report}");
    assert_eq!(latency["max"], latency["unanswered_over"], "{report}");
    assert!(latency["max"].as_f64() > Some(5_000_000.0), "{report}");
}

#[test]
fn a_host_name_is_looked_up() {
    let server = serve(|stream| echo(stream, |_| {}));
    let name = format!("localhost:{}", server.port());
    let ended = Launch::tine(&["load", &name, "--warm-up", "0", "--duration", "0.1"]).run();
    assert!(ended.status.success(), "{ended:#?}");
    let ended = Launch::tine(&["load", "no-such-host.invalid:1"]).run();
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("cannot look up"), "{ended:#?}");
}

#[test]
fn charts_are_drawn_in_letters_and_as_svg() {
    let server = serve(|stream| echo(stream, |_| {}));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("load.svg");
    let path = file.to_str().expect("a path");
    let ended = load(server, &["--clients", "2", "--charts", "--svg", path]);
    assert!(ended.status.success(), "{ended:#?}");
    for words in [
        "latency      messages",
        "up to ",
        "█",
        "one letter for 0.01 s",
    ] {
        assert!(ended.stdout.contains(words), "no {words:?} in {ended:#?}");
    }
    let svg = std::fs::read_to_string(&file).expect("a picture");
    let tree = roxmltree::Document::parse(&svg).expect("well-formed");
    let texts = tree.descendants().filter(|node| node.has_tag_name("text"));
    let texts: Vec<String> = texts
        .map(|node| node.text().unwrap_or_default().trim().to_owned())
        .collect();
    for words in [
        "messages by latency, up to",
        "messages per second over time",
        "latency over time, by the time of the reply",
        "p99",
    ] {
        assert!(
            texts.iter().any(|text| text == words),
            "no {words:?} in {texts:?}"
        );
    }

    let ended = load(server, &["--svg", "/no/such/folder/load.svg"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    assert!(
        ended.stderr.contains("/no/such/folder/load.svg"),
        "{ended:#?}"
    );
}

#[test]
fn the_series_and_the_histogram_have_every_message() {
    let server = serve(|stream| echo(stream, |_| {}));
    let (_, report) = report(server, &["--rate", "1000", "--duration", "1"]);
    let bars = report["histogram"].as_array().expect("bars");
    let sum: u64 = bars
        .iter()
        .map(|bar| bar["messages"].as_u64().unwrap_or(0))
        .sum();
    assert_eq!(Some(sum), report["latency"]["count"].as_u64(), "{report}");
    let points = report["series"].as_array().expect("points");
    assert_eq!(points.len(), 50, "{report}");
    let rate = |point: &Value| point["messages_per_second"].as_f64().unwrap_or(0.0);
    let sum: f64 = points.iter().map(rate).sum();
    assert_eq!(
        (sum * 0.02).round() as u64,
        report["messages"].as_u64().unwrap_or(0)
    );
}
