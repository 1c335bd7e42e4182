//! The examples `job_queue`, in Rust and in C: their protocol, late answers, and jobs that are done once while workers
//! are killed.

use std::collections::HashSet;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::server::Server;
use crate::example_resp::In;

/// A server with a database of its own.
#[track_caller]
fn start(language: In) -> (tempfile::TempDir, Server) {
    language.start("job_queue", &[])
}

/// Sends each command, and expects its answer.
#[track_caller]
fn talk(client: &mut Client, lines: &[(&str, &str)]) {
    for (command, answer) in lines {
        client.send(format!("{command}\r\n").as_bytes());
        client.expect(format!("{answer}\r\n").as_bytes());
    }
}

#[test]
fn jobs_are_put_reserved_and_deleted_in_the_order_of_their_priorities() {
    for language in [In::Rust, In::C] {
        let (_folder, server) = start(language);
        let mut client = Client::connect(server.address());
        talk(
            &mut client,
            &[
                ("put 5 0 60 3\r\nlow", "INSERTED 1"),
                ("put 0 0 60 6\r\nur\r\nnt", "INSERTED 2"),
                ("reserve", "RESERVED 2 6\r\nur\r\nnt"),
                ("touch 2", "TOUCHED"),
                ("touch 1", "NOT_FOUND"),
                ("delete 2", "DELETED"),
                ("delete 2", "NOT_FOUND"),
                ("reserve", "RESERVED 1 3\r\nlow"),
                ("release 1 7 0", "RELEASED"),
                ("reserve-with-timeout 0", "RESERVED 1 3\r\nlow"),
                ("release 1 7 9", "RELEASED"),
                ("reserve-with-timeout 0", "TIMED_OUT"),
                ("delete 1", "DELETED"),
                ("put 1", "BAD_FORMAT"),
                ("put 1 2 3 x", "BAD_FORMAT"),
                ("dance", "UNKNOWN_COMMAND"),
                ("put 0 0 1 0\r\n", "INSERTED 3"),
                ("reserve", "RESERVED 3 0\r\n"),
                ("put 0 0 1 1\r\nxyz", "EXPECTED_CRLF\r\nUNKNOWN_COMMAND"),
            ],
        );
        client.send(b"quit\r\n");
        client.expect_closed();
        let mut client = Client::connect(server.address());
        client.send(&[b'x'; 300]);
        let said = client.read_to_end();
        assert!(said.is_empty() || said == b"BAD_FORMAT\r\n", "{said:?}");
    }
}

#[test]
fn tubes_buried_jobs_and_statistics_are_in_rust() {
    let (_folder, server) = start(In::Rust);
    let mut client = Client::connect(server.address());
    talk(
        &mut client,
        &[
            ("put 5 0 60 3\r\nlow", "INSERTED 1"),
            ("put 0 0 60 6\r\nur\r\nnt", "INSERTED 2"),
            ("reserve", "RESERVED 2 6\r\nur\r\nnt"),
            ("peek 1", "FOUND 1 3\r\nlow"),
            ("delete 2", "DELETED"),
            ("delete 2", "NOT_FOUND"),
            ("reserve", "RESERVED 1 3\r\nlow"),
            ("release 1 7 0", "RELEASED"),
            ("reserve-with-timeout 0", "RESERVED 1 3\r\nlow"),
            ("bury 1 3", "BURIED"),
            ("reserve-with-timeout 0", "TIMED_OUT"),
            ("kick 5", "KICKED 1"),
            ("delete 1", "DELETED"),
            ("use mail", "USING mail"),
            ("list-tube-used", "USING mail"),
            ("put 0 0 0 1\r\nm", "INSERTED 3"),
            ("reserve-with-timeout 0", "TIMED_OUT"),
            ("watch mail", "WATCHING 2"),
            ("ignore default", "WATCHING 1"),
            ("ignore mail", "NOT_IGNORED"),
            ("stats-job 9", "NOT_FOUND"),
            ("list-tubes-watched", "OK 11\r\n---\n- mail\n"),
            ("reserve", "RESERVED 3 1\r\nm"),
            ("use -x", "BAD_FORMAT"),
        ],
    );
    client.send(b"put 0 0 1 65536\r\n");
    client.expect(b"JOB_TOO_BIG\r\n");
    client.expect_closed();
    let mut client = Client::connect(server.address());
    client.send(&[b'x'; 300]);
    client.expect(b"BAD_FORMAT\r\n");
    client.expect_closed();
}

#[test]
fn a_reserve_waits_for_a_job_or_for_its_time() {
    waits(In::Rust);
    waits(In::C);
}

#[track_caller]
fn waits(language: In) {
    let (_folder, server) = start(language);
    let mut waiter = Client::connect(server.address());
    // The command behind it waits, too.
    waiter.send(b"reserve\r\ntouch 9\r\n");
    let mut other = Client::connect(server.address());
    talk(&mut other, &[("put 0 0 1 2\r\nhi", "INSERTED 1")]);
    waiter.expect(b"RESERVED 1 2\r\nhi\r\nNOT_FOUND\r\n");
    talk(&mut other, &[("reserve", "RESERVED 1 2\r\nhi")]);
    talk(&mut waiter, &[("delete 1", "NOT_FOUND")]);
    // A connection that ends gives its jobs back.
    waiter.send(b"reserve-with-timeout 30\r\n");
    drop(other);
    waiter.expect(b"RESERVED 1 2\r\nhi\r\n");
    let begin = Instant::now();
    talk(
        &mut waiter,
        &[
            ("delete 1", "DELETED"),
            ("reserve-with-timeout 1", "TIMED_OUT"),
        ],
    );
    assert!(begin.elapsed() >= Duration::from_secs(1));
    let begin = Instant::now();
    talk(
        &mut waiter,
        &[
            ("put 0 1 60 2\r\nhi", "INSERTED 2"),
            ("reserve", "RESERVED 2 2\r\nhi"),
        ],
    );
    assert!(begin.elapsed() >= Duration::from_secs(1));
    // Its time to run passes, and another client gets it.
    let mut other = Client::connect(server.address());
    talk(&mut waiter, &[("put 0 0 1 3\r\nttr", "INSERTED 3")]);
    let begin = Instant::now();
    talk(&mut waiter, &[("delete 2", "DELETED")]);
    talk(&mut waiter, &[("reserve", "RESERVED 3 3\r\nttr")]);
    talk(&mut other, &[("reserve", "RESERVED 3 3\r\nttr")]);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    talk(&mut waiter, &[("delete 3", "NOT_FOUND")]);
}

#[test]
fn every_job_is_done_once_while_workers_are_killed() {
    are_done_once(In::Rust);
    are_done_once(In::C);
}

#[track_caller]
fn are_done_once(language: In) {
    let (_folder, server) = start(language);
    let (address, end) = (server.address(), Instant::now() + Duration::from_secs(3));
    let producers = (0..2).map(|producer| {
        thread::spawn(move || {
            let (mut client, mut count) = (Client::connect(address), 0);
            while Instant::now() < end {
                let job = format!("{producer}.{count}");
                client.send(format!("put 0 0 60 {}\r\n{job}\r\n", job.len()).as_bytes());
                assert!(client.read_line().starts_with("INSERTED "));
                count += 1;
            }
            count
        })
    });
    let producers: Vec<JoinHandle<usize>> = producers.collect();
    let consumers: Vec<_> = (0..3)
        .map(|_| thread::spawn(move || consume(Client::connect(address))))
        .collect();
    let kills = server.kill_workers(Duration::from_millis(50), || Instant::now() < end);
    let put = producers.into_iter().map(|it| it.join().expect("no panic"));
    let put: usize = put.sum();
    let mut done = HashSet::new();
    for consumer in consumers {
        for job in consumer.join().expect("no panic") {
            assert!(done.insert(job.clone()), "{job} was done twice");
        }
    }
    eprintln!("{kills} kills, {put} jobs");
    assert_eq!(done.len(), put);
    assert!(kills >= 10 && put > 50, "{kills} kills, {put} jobs");
}

/// Reserves and deletes jobs until none comes for two seconds. Returns them.
fn consume(mut client: Client) -> Vec<String> {
    let mut done = Vec::new();
    loop {
        client.send(b"reserve-with-timeout 2\r\n");
        let line = client.read_line();
        let line = line.trim_end();
        if line == "TIMED_OUT" {
            return done;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let ["RESERVED", job, _] = words[..] else {
            panic!("{line}");
        };
        done.push(client.read_line().trim_end().to_owned());
        client.send(format!("delete {job}\r\n").as_bytes());
        assert_eq!(client.read_line().trim_end(), "DELETED");
    }
}
