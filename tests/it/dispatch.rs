//! Dispatch modes: which worker gets a message, and that a connection's callbacks run in order, one at a time.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::sockets::is_all_read;
use crate::common::{SOON, eventually};

/// The testbed's script with this mode and these options.
fn script(dispatch: &str, options: &[&str]) -> Server {
    Launch::testbed("script", "process")
        .and(&[&format!("dispatch={dispatch}")])
        .and(options)
        .start()
}

#[track_caller]
fn connect(server: &Server, count: usize) -> Vec<Client> {
    (0..count)
        .map(|_| Client::connect(server.address()))
        .collect()
}

/// Blocks a worker until the gate opens, and waits until it is blocked.
#[track_caller]
fn block(server: &Server, client: &mut Client) {
    client.send(b"wait gate\n");
    eventually(SOON, "a worker is in its callback", || {
        server
            .workers()
            .iter()
            .any(|worker| worker.is_asleep_in_a_callback())
    });
}

#[track_caller]
fn all_are_answered(clients: &mut [Client], what: &str) {
    for client in clients.iter_mut() {
        client.send(format!("echo {what}\n").as_bytes());
    }
    for client in clients {
        assert_eq!(client.read_line(), format!("echo {what}"));
    }
}

#[test]
fn least_busy_lets_only_the_blocked_connection_wait() {
    let gates = Gates::new();
    let server = script("least-busy", &["workers=4", &gates.flag()]);
    let mut clients = connect(&server, 50);
    all_are_answered(&mut clients, "before");
    let (blocker, others) = clients.split_first_mut().expect("fifty");
    block(&server, blocker);
    blocker.send(b"echo 1\necho 2\n");
    blocker.wait_until_read();
    for round in 0..20 {
        all_are_answered(others, &format!("round {round}"));
    }
    assert!(!blocker.has_news(), "its callback has not returned");
    gates.open("gate");
    assert!(blocker.read_line().starts_with("waited"));
    assert_eq!(blocker.read_line(), "echo 1");
    assert_eq!(blocker.read_line(), "echo 2");
}

#[test]
fn least_busy_takes_messages_away_from_behind_a_callback_that_blocks() {
    let gates = Gates::new();
    let server = script("least-busy", &["workers=2", &gates.flag()]);
    let mut clients = connect(&server, 50);
    all_are_answered(&mut clients, "before");
    let (blocker, others) = clients.split_first_mut().expect("fifty");
    // While the workers are stopped, one inbox gets the blocking message and about half of the others.
    let workers = server.workers();
    workers
        .iter()
        .for_each(|worker| worker.signal(Signal::SIGSTOP));
    blocker.send(b"wait gate\n");
    blocker.wait_until_read();
    for client in others.iter_mut() {
        client.send(b"pid\n");
    }
    eventually(SOON, "all of it is read", || is_all_read(server.address()));
    workers
        .iter()
        .for_each(|worker| worker.signal(Signal::SIGCONT));
    for client in others.iter_mut() {
        client.read_line();
    }
    assert!(!blocker.has_news(), "its callback has not returned");
    gates.open("gate");
    assert!(blocker.read_line().starts_with("waited"));
}

#[test]
fn least_busy_keeps_each_connections_messages_in_order_and_apart() {
    let server = script("least-busy", &["workers=4"]);
    let mut clients = connect(&server, 20);
    let mut last_end = [0; 20];
    let mut workers: Vec<HashSet<i128>> = vec![HashSet::new(); 20];
    for burst in (0..50).step_by(5) {
        for (number, client) in clients.iter_mut().enumerate() {
            // Mostly quick ones, and some that are slow enough for messages to be taken away from behind them.
            let micros = |message: usize| match (number * 7 + message * 13) % 41 {
                0 => 25_000,
                dice => dice * 20,
            };
            let message = |message| format!("span {message} {}\n", micros(message));
            let messages: String = (burst..burst + 5).map(message).collect();
            client.send(messages.as_bytes());
        }
        for (number, client) in clients.iter_mut().enumerate() {
            for message in burst..burst + 5 {
                let [which, begin, end, pid] = span(&client.read_line());
                assert_eq!(which, message as i128, "in order");
                assert!(last_end[number] <= begin, "one at a time");
                last_end[number] = end;
                workers[number].insert(pid);
            }
        }
    }
    let moved = workers.iter().filter(|workers| workers.len() > 1).count();
    assert!(moved > 10, "most move, or this shows nothing: {moved}");
}

/// Returns the number of a message, the begin and end of its callback, and the process that ran it.
#[track_caller]
fn span(line: &str) -> [i128; 4] {
    let words = line.split(' ').map(|word| word.parse().ok());
    let words: Option<Vec<i128>> = words.collect();
    let words = words.and_then(|words| words.try_into().ok());
    words.unwrap_or_else(|| panic!("four numbers: {line}"))
}

#[test]
fn round_robin_ignores_the_connections_of_a_seat() {
    let server = script("round-robin", &["workers=3"]);
    let mut clients: Vec<Client> = Vec::new();
    let mut seats = Vec::new();
    for count in 0..9 {
        let mut client = Client::connect(server.address());
        seats.push(client.ask_number("seat"));
        // The seat in the middle always has fewer connections than the others.
        if count % 3 != 1 {
            clients.push(client);
        }
    }
    let first = seats[0];
    let in_turn: Vec<i32> = (0..9).map(|count| (first + count) % 3).collect();
    assert_eq!(seats, in_turn);
    // And there they stay.
    let again: Vec<i32> = clients
        .iter_mut()
        .map(|client| client.ask_number("seat"))
        .collect();
    let stayed: Vec<i32> = (0..9)
        .filter(|count| count % 3 != 1)
        .map(|count| in_turn[count])
        .collect();
    assert_eq!(again, stayed);
}

#[test]
fn an_address_has_one_seat_for_all_its_connections() {
    let server = script("client-address", &["workers=3"]);
    let mut seats: HashMap<usize, i32> = HashMap::new();
    let mut clients = Vec::new();
    for nth in (0..20).chain(0..20).chain(0..20) {
        let mut client = Client::try_connect_nth(server.address(), nth).expect("it is let in");
        let seat = client.ask_number("seat");
        assert_eq!(*seats.entry(nth).or_insert(seat), seat, "address {nth}");
        clients.push(client);
    }
    let taken: HashSet<i32> = seats.into_values().collect();
    assert!(taken.len() > 1, "addresses are spread over seats");
}

#[test]
fn connections_of_one_user_id_share_a_seat_from_the_next_message_on() {
    let server = script("user-id", &["workers=4"]);
    let mut clients = connect(&server, 16);
    let before: Vec<i32> = clients
        .iter_mut()
        .map(|client| client.ask_number("seat"))
        .collect();
    let mut moved = 0;
    for user in [7, u64::MAX] {
        // Every third connection has no user id; the rest have the ids in turn.
        let mut seats = HashSet::new();
        for (number, client) in clients.iter_mut().enumerate() {
            if number % 3 != 0 {
                assert_eq!(client.ask(&format!("user {user}")), "user set");
                let seat = client.ask_number("seat");
                moved += usize::from(seat != before[number]);
                seats.insert(seat);
            }
        }
        assert_eq!(seats.len(), 1, "user {user}");
    }
    assert!(moved > 0, "some had to move, or this shows nothing");
    for (number, client) in clients.iter_mut().enumerate() {
        if number % 3 == 0 {
            assert_eq!(client.ask_number("seat"), before[number], "not bound");
        }
    }
}

#[test]
fn messages_right_after_set_user_stay_in_order() {
    let server = script("user-id", &["workers=4"]);
    let mut moved = 0;
    for _ in 0..20 {
        // Each connection begins at another seat, and ends at the same one.
        let mut client = Client::connect(server.address());
        let span = |message, micros| format!("span {message} {micros}\n");
        let slow: String = (0..10).map(|message| span(message, 1000)).collect();
        client.send(format!("seat\nuser 12\n{slow}").as_bytes());
        let before = client.read_line();
        assert_eq!(client.read_line(), "user set");
        // It now belongs to another seat, and the messages before are still with the last one.
        let quick: String = (10..20).map(|message| span(message, 0)).collect();
        client.send(format!("{quick}seat\n").as_bytes());
        let mut last_end = 0;
        for message in 0..20 {
            let [which, begin, end, _] = self::span(&client.read_line());
            assert!(which == message && last_end <= begin, "{message}: {which}");
            last_end = end;
        }
        moved += usize::from(client.read_line() != before);
    }
    assert!(moved > 0, "some had to move, or this shows nothing");
}

#[test]
fn a_function_routes_each_message_and_they_stay_in_order() {
    let server = script("route", &["workers=3"]);
    for mut client in connect(&server, 4) {
        let home = client.ask("seat");
        let seats: Vec<usize> = (0..60).map(|message| message * message % 5).collect();
        let messages = seats
            .iter()
            .enumerate()
            .map(|(number, seat)| format!("{seat}seat\n{seat}echo {number}\n"));
        client.send(messages.collect::<String>().as_bytes());
        for (number, seat) in seats.iter().enumerate() {
            assert_eq!(client.read_line(), (seat % 3).to_string(), "{number}");
            assert_eq!(client.read_line(), format!("{seat}echo {number}"));
        }
        // A message that the function does not send elsewhere stays at the seat of the last one.
        let last = (seats[59] % 3).to_string();
        assert_eq!(client.ask("seat"), last, "it began on {home}");
    }
}

#[test]
fn a_dispatch_function_that_panics_leaves_the_connection_at_its_seat() {
    let server = script("route", &["workers=3"]);
    for mut client in connect(&server, 3) {
        let home = client.ask("seat");
        assert_eq!(client.ask("!seat"), home);
        assert_eq!(client.ask("2seat"), "2");
        assert_eq!(client.ask("!seat"), "2");
    }
    let said = server.logged(6, &["the dispatch function panicked"]);
    assert!(said.iter().all(|line| line.contains("stays")), "{said:?}");
    assert!(server.log().with(&["abnormal exit"]).is_empty());
}

/// Asks again and again, until `stop` says so. Returns the number of answers.
fn ask_on(mut client: Client, micros: u32, answers: &AtomicUsize, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        client.ask(&format!("span 1 {micros}"));
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Of clients that ask all the time, none is served much more often than another, whichever reactor it is with.
#[test]
fn turns_are_fair_across_reactors() {
    for dispatch in ["least-busy", "round-robin", "least-connections"] {
        for (workers, reactors, micros) in [(1, 2, 1_000), (2, 4, 1_000), (2, 3, 20_000)] {
            let case = format!("{dispatch}, {workers} workers, {reactors} reactors, {micros} µs");
            let options = [
                format!("workers={workers}"),
                format!("reactors={reactors}"),
                format!("dispatch={dispatch}"),
            ];
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let server = Launch::testbed("script", "process").and(&options).start();
            let answers: [AtomicUsize; 24] = Default::default();
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                for answers in &answers {
                    let client = Client::connect(server.address());
                    let stop = &stop;
                    scope.spawn(move || ask_on(client, micros, answers, stop));
                }
                let least = || answers.iter().map(|it| it.load(Ordering::Relaxed)).min();
                eventually(SOON, format_args!("each has 20 answers: {case}"), || {
                    least() >= Some(20)
                });
                stop.store(true, Ordering::Relaxed);
            });
            let answers = answers.map(AtomicUsize::into_inner);
            assert!(
                answers.iter().all(|it| *it <= 20 * 4),
                "{answers:?}: {case}"
            );
        }
    }
}
