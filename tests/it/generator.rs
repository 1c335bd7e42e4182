//! `tine load` against good servers and faulty ones.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::launch::{Ended, Launch};
use serde_json::Value;

/// Runs a load, as short as possible unless the arguments say otherwise: these tests are not about speed.
pub(crate) fn load(server: SocketAddr, arguments: &[&str]) -> Ended {
    let server = server.to_string();
    let launch = Launch::tine(&["load", &server, "--warm-up", "0.1"]).and(arguments);
    let is_short = !arguments.contains(&"--duration");
    launch
        .and(if is_short {
            &["--duration", "0.3"]
        } else {
            &[]
        })
        .run()
}

/// Returns the exit status and the JSON report of a load.
#[track_caller]
pub(crate) fn report(server: SocketAddr, arguments: &[&str]) -> (i32, Value) {
    let ended = load(server, &[arguments, &["--json"]].concat());
    let report = serde_json::from_str(&ended.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {ended:#?}"));
    (ended.status.code().expect("an exit status"), report)
}

/// Starts a server in this process, with a thread for each connection.
pub(crate) fn serve(each: impl Fn(TcpStream) + Send + Sync + Copy + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || each(stream));
        }
    });
    address
}

/// Sends back all bytes, after `change`.
pub(crate) fn echo(mut stream: TcpStream, mut change: impl FnMut(&mut [u8])) {
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut bytes) {
        change(&mut bytes[..n]);
        if stream.write_all(&bytes[..n]).is_err() {
            return;
        }
    }
}

#[test]
fn a_good_server_has_no_faults() {
    for mode in ["process", "base"] {
        let server = Launch::serve(&["--mode", mode, "--workers", "2"]).start();
        for arguments in [
            &["--clients", "3"][..],
            &["--clients", "3", "--depth", "32"],
            &["--clients", "3", "--size", "1000000"],
            &["--clients", "3", "--size", "1"],
            &["--clients", "5", "--messages-each", "20"],
            &["--clients", "3", "--depth", "4", "--messages-each", "22"],
            &["--clients", "3", "--rate", "500"],
            &["--clients", "3", "--rate", "500", "--messages-each", "3"],
            &["--clients", "3", "--idle", "300"],
        ] {
            let (status, report) = report(server.address(), arguments);
            assert_eq!(status, 0, "{mode} {arguments:?}: {report}");
            assert!(
                report["messages"].as_u64() > Some(0),
                "{arguments:?}: {report}"
            );
            let latency = |name: &str| report["latency"][name].as_f64().expect("a time");
            assert!(
                latency("min") > 0.0 && latency("min") <= latency("p50"),
                "{report}"
            );
            assert!(latency("p99") <= latency("p99.9") && latency("p99.9") <= latency("max"));
            let busy = report["generator_busy"].as_f64().expect("a part");
            assert!((0.0..=1.0).contains(&busy), "{report}");
            let reconnects = arguments.contains(&"--messages-each");
            assert_eq!(
                report["connections"].as_u64() > Some(0),
                reconnects,
                "{report}"
            );
        }
    }
}

#[test]
fn a_rate_is_kept() {
    let server = Launch::serve(&["--workers", "1"]).start();
    let (_, report) = report(server.address(), &["--rate", "1000", "--duration", "1"]);
    // Due within the second; whether they are also answered within it depends on the machine.
    let count = report["latency"]["count"].as_u64();
    assert_eq!(count, Some(1000), "{report}");
    assert_eq!(report["rate"].as_u64(), Some(1000));
    assert_eq!(report["faults"]["unanswered"].as_u64(), Some(0));
}

#[test]
fn a_wrong_byte_is_found_with_its_place() {
    let server = serve(|stream| {
        let mut seen = 0_usize;
        echo(stream, |bytes| {
            if (seen..seen + bytes.len()).contains(&5000) {
                bytes[5000 - seen] ^= 1;
            }
            seen += bytes.len();
        });
    });
    // The only client is lost, and the report is written all the same.
    let (status, report) = report(server, &["--clients", "1", "--size", "100"]);
    assert_eq!(status, 3, "{report}");
    assert_eq!(report["faults"]["wrong"].as_u64(), Some(1), "{report}");
    let first = report["faults"]["first"].as_str().expect("a fault");
    let words = "client 0: wrong from byte 5000 on: \"";
    assert!(first.starts_with(words), "{report}");
    assert!(
        first.contains("\" came where \"") && first.ends_with("\" was due"),
        "{report}"
    );
}

#[test]
fn bytes_that_the_client_did_not_send_are_wrong() {
    let server = serve(|mut stream| {
        let _ = stream.write_all(b"hello");
        echo(stream, |_| {});
    });
    let ended = load(server, &["--clients", "1"]);
    assert_eq!(ended.status.code(), Some(3), "{ended:#?}");
    // An echo of the first message may have come with it.
    let words = "wrong from byte 0 on: \"hello";
    assert!(ended.stdout.contains(words), "{ended:#?}");
}

#[test]
fn a_client_that_is_closed_is_a_fault_and_the_others_go_on() {
    static IS_FIRST: AtomicBool = AtomicBool::new(true);
    let server = serve(|mut stream| {
        if IS_FIRST.swap(false, Ordering::Relaxed) {
            // Reads the first bytes, and closes.
            let _ = stream.read(&mut [0; 100]);
            return;
        }
        echo(stream, |_| {});
    });
    let (status, report) = report(server, &["--clients", "40", "--size", "10"]);
    assert_eq!(status, 3, "{report}");
    let faults = &report["faults"];
    assert_eq!(faults["closed"].as_u64(), Some(1), "{report}");
    assert_eq!(faults["unanswered"].as_u64(), Some(1), "{report}");
    assert!(
        faults["first"]
            .as_str()
            .is_some_and(|first| first.starts_with("client ")),
        "{report}"
    );
}

#[test]
fn a_missing_reply_is_counted() {
    let server = serve(|mut stream| {
        let mut bytes = [0; 100];
        let first = stream
            .read_exact(&mut bytes)
            .and_then(|()| stream.write_all(&bytes));
        // Reads on, and sends nothing more.
        if first.is_ok() {
            while let Ok(1..) = stream.read(&mut bytes) {}
        }
    });
    let arguments = ["--clients", "2", "--size", "100", "--rate", "200"];
    let (status, report) = report(server, &arguments);
    assert_eq!(status, 3, "{report}");
    assert!(
        report["faults"]["unanswered"].as_u64() > Some(0),
        "{report}"
    );
}

/// Messages of the warm-up count as unanswered too: they were awaited in the measured time.
#[test]
fn a_silent_server_has_answered_nothing() {
    let server = serve(|mut stream| {
        let mut bytes = [0; 100];
        while let Ok(1..) = stream.read(&mut bytes) {}
    });
    let (status, report) = report(server, &["--clients", "2", "--depth", "3"]);
    assert_eq!(status, 3, "{report}");
    assert_eq!(report["faults"]["unanswered"].as_u64(), Some(6), "{report}");
    let latency = &report["latency"];
    assert_eq!(
        (&latency["count"], &latency["unanswered"]),
        (&6.into(), &6.into())
    );
    // The measured time, and five seconds without a reply.
    let over = latency["unanswered_over"].as_f64().expect("a time");
    assert!(over > 5_000_000.0, "{report}");
    for name in ["min", "p50", "max"] {
        assert_eq!(latency[name].as_f64(), Some(over), "{name}: {report}");
    }
}

/// Messages that are due while a client is busy wait for the client that takes its place.
#[test]
fn a_due_message_outlives_its_client() {
    let server = serve(|stream| echo(stream, |_| thread::sleep(Duration::from_millis(20))));
    let arguments = ["--clients", "1", "--rate", "100", "--messages-each", "1"];
    let (status, report) = report(server, &arguments);
    assert_eq!(status, 0, "{report}");
    // Due within 0.3 s. The server manages half of that.
    assert_eq!(report["latency"]["count"].as_u64(), Some(30), "{report}");
}

#[test]
fn a_client_sends_its_number_of_messages_and_no_more() {
    static TOO_MUCH: AtomicUsize = AtomicUsize::new(0);
    let server = serve(|mut stream| {
        let mut bytes = [0; 4096];
        let mut all = 0;
        while let Ok(n @ 1..) = stream.read(&mut bytes) {
            all += n;
            if stream.write_all(&bytes[..n]).is_err() {
                break;
            }
        }
        if all > 60 {
            TOO_MUCH.fetch_add(1, Ordering::Relaxed);
        }
    });
    for pace in [["--depth", "4"], ["--rate", "5000"]] {
        let arguments = ["--clients", "3", "--size", "10", "--messages-each", "6"];
        let (status, report) = report(server, &[&arguments[..], &pace].concat());
        assert_eq!(status, 0, "{report}");
    }
    assert_eq!(TOO_MUCH.load(Ordering::Relaxed), 0);
}

/// The load would otherwise send without end, and never read a reply.
#[test]
fn an_impossible_rate_ends_with_an_error() {
    let server = serve(|stream| echo(stream, |_| {}));
    // Whether the generator is too slow or the server depends on the machine.
    let arguments = ["--rate", "100000000", "--size", "1000", "--duration", "2"];
    let ended = load(server, &arguments);
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("the rate"), "{ended:#?}");
}

#[test]
fn a_client_that_is_refused_during_the_load_is_a_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok).take(20) {
            thread::spawn(move || echo(stream, |_| {}));
        }
    });
    // The load ends when no client is left.
    let arguments = [
        "--clients",
        "3",
        "--messages-each",
        "1",
        "--duration",
        "3600",
    ];
    let (status, report) = report(address, &arguments);
    assert_eq!(status, 3, "{report}");
    // Connections in the accept queue were reset.
    let faults = &report["faults"];
    let count = |name: &str| faults[name].as_u64().unwrap_or(0);
    assert_eq!(count("refused") + count("broken"), 3, "{report}");
}

/// A closed loop would send nothing while the server stalls, and see one slow reply. In an open loop, each
/// message that was due meanwhile is late too.
#[test]
fn messages_that_are_due_while_the_server_stalls_are_late() {
    let server = serve(|stream| {
        let mut messages = 0;
        echo(stream, |_| {
            messages += 1;
            if messages == 100 {
                thread::sleep(Duration::from_millis(500));
            }
        });
    });
    let arguments = ["--clients", "1", "--rate", "1000", "--duration", "1"];
    let (status, report) = report(server, &arguments);
    assert_eq!(status, 0, "{report}");
    let p90 = report["latency"]["p90"].as_f64().expect("a time");
    assert!(p90 > 100_000.0, "the server stalled for 0.5 s: {report}");
}

#[test]
fn the_cost_of_the_server_that_pid_names_is_measured() {
    let server = Launch::serve(&["--workers", "2"]).start();
    let pid = server.root.pid.to_string();
    let (status, with) = report(server.address(), &["--pid", &pid]);
    assert_eq!(status, 0, "{with}");
    let cost = &with["cost"];
    assert_eq!(cost["processes"].as_u64(), Some(4), "{with}");
    assert!(cost["cpu_per_message"].as_f64() > Some(0.0), "{with}");
    assert!(cost["memory"].as_u64() > Some(1 << 16), "{with}");
    let (_, without) = report(server.address(), &[]);
    assert!(without["cost"].is_null(), "{without}");

    let server = Launch::serve(&["--workers", "2", "--max-requests", "50"]).start();
    let pid = server.root.pid.to_string();
    let (status, with) = report(server.address(), &["--pid", &pid]);
    assert_eq!(status, 0, "with workers that are recycled: {with}");
    assert!(
        with["cost"]["cpu_per_message"].as_f64() > Some(0.0),
        "{with}"
    );

    let ended = load(server.address(), &["--pid", "4194304"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("process 4194304"), "{ended:#?}");
}

#[test]
fn a_failed_measurement_is_one_line_of_error() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let closed = closed.expect("a port is free");
    let ended = load(closed, &[]);
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.contains(&closed.to_string()), "{ended:#?}");
    assert!(ended.stderr.contains("Connection refused"), "{ended:#?}");
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended:#?}");

    let too_many = ["--clients", "300", "--depth", "65536"];
    let ended = load(SocketAddr::from(([127, 0, 0, 1], 1)), &too_many);
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("outstanding messages"), "{ended:#?}");

    for arguments in [
        &["--clients", "0"][..],
        &["--size", "0"],
        &["--depth", "0"],
        &["--rate", "0"],
        &["--rate", "5", "--depth", "2"],
        &["--duration", "0"],
        &["localhost"],
        &["--charts", "--json"],
    ] {
        let ended = Launch::tine(&["load"]).and(arguments).run();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:#?}");
    }
}

#[test]
fn the_report_is_printed_in_words() {
    let server = Launch::serve(&["--workers", "1"]).start();
    let ended = load(
        server.address(),
        &["--clients", "2", "--idle", "3", "--depth", "5"],
    );
    assert!(ended.status.success(), "{ended:#?}");
    let words = [
        "2 clients, 64 B, 5 outstanding each, 3 idle clients",
        "messages/s",
        "p99.9",
    ];
    for word in words
        .iter()
        .chain(&["all replies arrived, every byte correct"])
    {
        assert!(ended.stdout.contains(word), "{word}: {}", ended.stdout);
    }
}
