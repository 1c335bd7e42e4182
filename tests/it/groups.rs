//! Groups: who gets what is published, in which order, and what becomes of it when workers die.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::{SOON, eventually};

/// The reactors and workers of a server.
const SERVERS: [&[&str]; 2] = [&["workers=2"], &["workers=3", "reactors=2"]];

fn clients(server: &crate::common::server::Server, count: usize) -> Vec<Client> {
    (0..count)
        .map(|_| Client::connect(server.address()))
        .collect()
}

#[test]
fn members_get_what_is_published_to_their_groups() {
    for options in SERVERS {
        let server = Launch::testbed("script", "process").and(options).start();
        let mut members = clients(&server, 4);
        for member in &mut members {
            assert_eq!(member.ask("join room"), "Ok(())");
            assert_eq!(member.ask("join room"), "Ok(())", "again");
        }
        assert_eq!(members[0].ask("join other"), "Ok(())");
        assert_eq!(members[0].ask("groups"), r#"["room", "other"]"#);
        assert_eq!(members[1].ask("groups"), r#"["room"]"#);
        let mut publisher = Client::connect(server.address());
        assert_eq!(publisher.ask("publish room one"), "Ok(())");
        assert_eq!(publisher.ask("publish nobody none"), "Ok(())");
        for member in &mut members {
            assert_eq!(member.read_line(), "one", "{options:?}");
        }
        // A member that publishes gets it too, or only the others do.
        members[0].send(b"publish room two\n");
        let lines: HashSet<String> = (0..2).map(|_| members[0].read_line()).collect();
        assert_eq!(lines, HashSet::from(["Ok(())".into(), "two".into()]));
        assert_eq!(members[0].ask("tell room three"), "Ok(())");
        for member in &mut members[1..] {
            assert_eq!(member.read_line(), "two");
            assert_eq!(member.read_line(), "three");
        }
        assert_eq!(members[3].ask("leave room"), "Ok(())");
        assert_eq!(members[3].ask("groups"), "[]");
        assert_eq!(publisher.ask("publish room four"), "Ok(())");
        assert_eq!(members[1].read_line(), "four");
        for member in &mut members {
            let answer = member.ask("echo end");
            assert!(answer == "echo end" || answer == "four", "{answer}");
        }
        assert_eq!(members[3].ask("echo end"), "echo end", "nothing came");
    }
}

#[test]
fn a_group_has_as_many_members_as_have_joined_and_not_ended() {
    for options in SERVERS {
        let server = Launch::testbed("script", "process")
            .and(options)
            .and(&["close=part"])
            .start();
        let mut members = clients(&server, 6);
        assert_eq!(members[0].ask("size room"), "Ok(0)");
        for (number, member) in members.iter_mut().enumerate() {
            assert_eq!(member.ask("join room"), "Ok(())");
            assert_eq!(member.ask("size room"), format!("Ok({})", number + 1));
        }
        assert_eq!(members[1].ask("leave room"), "Ok(())");
        assert_eq!(members[2].ask("size room"), "Ok(5)", "{options:?}");
        drop(members.pop());
        // Its close has told the others.
        for member in [0, 2, 3, 4] {
            assert_eq!(members[member].read_line(), "left room");
        }
        eventually(SOON, "it is counted no more", || {
            members[0].ask("size room") == "Ok(4)"
        });
    }
}

#[test]
fn a_callback_that_fails_or_whose_worker_dies_has_joined_nothing() {
    let server = Launch::testbed("script", "process")
        .and(&["workers=2", "reactors=2", "on-crash=redeliver=2"])
        .start();
    let mut members = clients(&server, 2);
    let [member, other] = &mut members[..] else {
        panic!("two members")
    };
    assert_eq!(other.ask("join room"), "Ok(())");
    assert_eq!(member.ask("join first"), "Ok(())");
    member.send(b"join-and-die-once room hello\n");
    assert_eq!(other.read_line(), "hello", "once");
    let lines: HashSet<String> = (0..2).map(|_| member.read_line()).collect();
    let expected = ["hello", "survived 1"].map(str::to_owned);
    assert_eq!(lines, HashSet::from(expected));
    assert_eq!(member.ask("groups"), r#"["first", "room"]"#);
    assert_eq!(other.ask("size room"), "Ok(2)");
    // What is staged before a question is dropped with the callback.
    assert_eq!(member.ask("size-and-fail-once room"), "never seen");
    assert_eq!(member.read_line(), "2 in attempt 1");
    let mut third = Client::connect(server.address());
    third.send(b"join-and-fail room\n");
    assert_eq!(third.read_to_end(), b"", "both attempts have failed");
    assert_eq!(other.ask("size room"), "Ok(2)");
    assert_eq!(other.ask("tell room end"), "Ok(())");
    assert_eq!(member.read_line(), "end", "and nothing before it");
}

#[test]
fn a_reload_keeps_members_in_their_groups() {
    for mode in ["process", "base"] {
        let server = Launch::testbed("script", mode).and(&["workers=1"]).start();
        let mut members = clients(&server, 3);
        for member in &mut members {
            assert_eq!(member.ask("join room"), "Ok(())");
        }
        let old = server.workers();
        server.signal(Signal::SIGUSR1);
        server.new_workers(1, &old);
        eventually(SOON, "the old worker is reaped", || old[0].is_reaped());
        assert_eq!(members[0].ask("groups"), r#"["room"]"#, "{mode}");
        assert_eq!(members[0].ask("size room"), "Ok(3)");
        assert_eq!(members[0].ask("tell room here"), "Ok(())");
        for member in &mut members[1..] {
            assert_eq!(member.read_line(), "here", "{mode}");
        }
    }
}

#[test]
fn in_base_mode_a_group_is_of_one_worker() {
    let server = Launch::testbed("script", "base")
        .and(&["workers=2"])
        .start();
    let mut members = clients(&server, 8);
    let seats: Vec<String> = members
        .iter_mut()
        .map(|member| {
            assert_eq!(member.ask("join room"), "Ok(())");
            member.ask("seat")
        })
        .collect();
    let own = seats.iter().filter(|seat| **seat == seats[0]).count();
    assert_eq!(members[0].ask("size room"), format!("Ok({own})"));
    assert_eq!(members[0].ask("tell room here"), "Ok(())");
    for (seat, member) in seats.iter().zip(&mut members).skip(1) {
        match *seat == seats[0] {
            true => assert_eq!(member.read_line(), "here"),
            false => assert_eq!(member.ask("echo nothing"), "echo nothing"),
        }
    }
}

#[test]
fn a_slow_member_misses_what_it_may_miss_and_is_cut_for_the_rest() {
    let server = Launch::testbed("script", "process")
        .and(&[
            "reactors=2",
            "output-high-water=100000",
            "output-limit=2000000",
        ])
        .start();
    let mut slow = Client::connect_narrow(server.address());
    let mut quick = Client::connect(server.address());
    let mut publisher = Client::connect(server.address());
    for member in [&mut slow, &mut quick] {
        assert_eq!(member.ask("join room"), "Ok(())");
    }
    // More than the limit, and than the memory of its socket.
    for _ in 0..200 {
        assert_eq!(publisher.ask("publish-lossy room 50000"), "Ok(())");
        assert_eq!(quick.read_line().len(), 50_000);
    }
    server.logged(1, &["WARNING master", "members of a group miss"]);
    publisher.send(b"publish room end\n");
    assert_eq!(quick.read_line(), "end");
    // The slow one has some of them, whole, and is a member still.
    let mut lines = 0;
    loop {
        match slow.read_line() {
            line if line == "end" => break,
            line => assert_eq!(line.len(), 50_000),
        }
        lines += 1;
    }
    assert!((3..190).contains(&lines), "{lines}");
    assert_eq!(publisher.read_line(), "Ok(())");
    while server.log().with(&["SlowReader", "is reset"]).is_empty()
        && server.log().with(&["is reset", "output_limit"]).is_empty()
    {
        assert_eq!(publisher.ask("publish-big room 60000"), "Ok(())");
        assert_eq!(quick.read_line().len(), 60_000);
    }
    eventually(SOON, "only the quick one is left", || {
        publisher.ask("size room") == "Ok(1)"
    });
}

#[test]
fn a_flood_of_groups_is_refused_and_harms_nobody() {
    let server = Launch::testbed("script", "process")
        .and(&[
            "reactors=1",
            "memory-budget=20000000",
            "output-limit=2000000",
            "output-high-water=1000000",
        ])
        .start();
    let mut bystander = Client::connect(server.address());
    assert_eq!(bystander.ask("join room"), "Ok(())");
    let most = "Some(TooManyGroups { most: 128 })";
    let mut flood: Vec<Client> = Vec::new();
    let refused = loop {
        let mut client = Client::connect(server.address());
        let refused = client.ask(&format!("join-flood 200 {}-", flood.len()));
        flood.push(client);
        if refused != most {
            break refused;
        }
        assert!(flood.len() < 1000, "never full");
    };
    assert_eq!(refused, "Some(Full { most: 10000000 })");
    assert_eq!(
        bystander.ask("join-flood 1 another"),
        "Some(Full { most: 10000000 })"
    );
    bystander.send(b"publish room still\n");
    let lines = HashSet::from([bystander.read_line(), bystander.read_line()]);
    assert_eq!(lines, HashSet::from(["Ok(())".into(), "still".into()]));
    let long = "x".repeat(129);
    assert!(bystander.ask(&format!("join {long}")).contains("TooLong"));
    assert!(
        bystander
            .ask(&format!("publish {long} a"))
            .contains("TooLong")
    );
    assert!(bystander.ask("publish-big room 65536").contains("TooLong"));
    drop(flood);
    eventually(SOON, "there is room again", || {
        bystander.ask("join-flood 1 another") == "None"
    });
}

/// A room of the test below: what each member has got, in order.
struct Room {
    name: String,
    publishers: Vec<thread::JoinHandle<usize>>,
    members: Vec<thread::JoinHandle<Vec<String>>>,
    /// What a member has got each time that it was in the room.
    wanderer: thread::JoinHandle<Vec<Vec<String>>>,
}

const PUBLISHERS: usize = 2;

impl Room {
    fn open(server: &crate::common::server::Server, name: &str, end: Instant) -> Room {
        let address = server.address();
        let members: Vec<Client> = (0..6)
            .map(|_| {
                let mut member = Client::connect(address);
                assert_eq!(member.ask(&format!("join {name}")), "Ok(())");
                member
            })
            .collect();
        let members = members.into_iter().map(|mut member| {
            thread::spawn(move || {
                let (mut lines, mut ends) = (Vec::new(), 0);
                while ends < PUBLISHERS {
                    let line = member.read_line();
                    ends += usize::from(line.ends_with(" end"));
                    lines.push(line);
                }
                assert_eq!(member.ask("echo end"), "echo end", "nothing behind it");
                lines
            })
        });
        let members = members.collect();
        let has_ended = Arc::new(AtomicBool::new(false));
        let publishers = (0..PUBLISHERS).map(|publisher| {
            let (name, has_ended) = (name.to_owned(), Arc::clone(&has_ended));
            let mut client = Client::connect(address);
            thread::spawn(move || {
                let mut count = 0;
                while Instant::now() < end {
                    let line = format!("publish {name} {publisher} {count}");
                    assert_eq!(client.ask(&line), "Ok(())");
                    count += 1;
                }
                let line = format!("publish {name} {publisher} end");
                assert_eq!(client.ask(&line), "Ok(())");
                has_ended.store(true, Ordering::Relaxed);
                count
            })
        });
        Room {
            name: name.to_owned(),
            publishers: publishers.collect(),
            members,
            wanderer: {
                let (client, name) = (Client::connect(address), name.to_owned());
                thread::spawn(move || wander(client, &name, &has_ended))
            },
        }
    }

    fn check(self) -> (usize, usize) {
        let counts: Vec<usize> = self.publishers.into_iter().map(joined).collect();
        let mut members = self.members.into_iter().map(joined);
        let order = members.next().expect("a member");
        for (publisher, count) in counts.iter().enumerate() {
            let prefix = format!("{publisher} ");
            let own = order.iter().filter_map(|line| line.strip_prefix(&prefix));
            let all = (0..*count)
                .map(|it| it.to_string())
                .chain(["end".to_owned()]);
            assert!(own.eq(all), "{}: each once, in order", self.name);
        }
        for other in members {
            assert!(other == order, "{}: one order for all", self.name);
        }
        let visits = joined(self.wanderer);
        for visit in &visits {
            let is_part = order.windows(visit.len()).any(|part| part == *visit);
            assert!(is_part, "{}: a visit misses nothing: {visit:?}", self.name);
        }
        (order.len(), visits.len())
    }
}

/// Joins and leaves, until the publishers end. Returns what came each time.
fn wander(mut client: Client, name: &str, has_ended: &AtomicBool) -> Vec<Vec<String>> {
    let mut visits = Vec::new();
    while !has_ended.load(Ordering::Relaxed) {
        assert_eq!(client.ask(&format!("join {name}")), "Ok(())");
        client.send(b"groups\n");
        let mut visit = Vec::new();
        let groups = format!("[{name:?}]");
        loop {
            match client.read_line() {
                line if line == groups => break,
                line => visit.push(line),
            }
        }
        client.send(format!("leave {name}\n").as_bytes());
        loop {
            match client.read_line() {
                line if line == "Ok(())" => break,
                line => visit.push(line),
            }
        }
        assert_eq!(client.ask("groups"), "[]", "nothing comes after that");
        if !visit.is_empty() {
            visits.push(visit);
        }
    }
    visits
}

fn joined<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().expect("no panic")
}

#[test]
fn each_member_gets_everything_once_and_in_one_order_while_workers_are_killed() {
    let server = Launch::testbed("script", "process")
        .and(&["on-crash=redeliver=50", "workers=3", "reactors=2"])
        .start();
    let end = Instant::now() + Duration::from_secs(4);
    let names = ["red", "green", "blue", "a much longer name of a room"];
    let names = names.map(|name| name.replace(' ', "-"));
    let rooms: Vec<Room> = names
        .iter()
        .map(|name| Room::open(&server, name, end))
        .collect();
    let kills = server.kill_workers(Duration::from_millis(50), || Instant::now() < end);
    let checked: Vec<(usize, usize)> = rooms.into_iter().map(Room::check).collect();
    eprintln!("{kills} kills; messages and visits of each room: {checked:?}");
    let messages: usize = checked.iter().map(|(messages, _)| messages).sum();
    assert!(kills >= 10 && messages > 100, "{kills} kills, {messages}");
}
