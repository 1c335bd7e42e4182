//! The calls of a handler, and the process of each callback. Each line that a client sends is a command
//! for the testbed's `script`.

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::sockets::accept_queue;
use crate::common::{SOON, eventually};

const MODES: [&str; 2] = ["process", "base"];

fn script(mode: &str) -> Server {
    Launch::testbed("script", mode).start()
}

#[track_caller]
fn ask(client: &mut Client, command: &str) -> String {
    client.send(format!("{command}\n").as_bytes());
    client.read_line()
}

#[test]
fn a_callback_knows_its_connection() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        assert_eq!(ask(&mut client, "peer"), client.local.to_string(), "{mode}");
        let id = ask(&mut client, "id");
        assert_eq!(ask(&mut client, "id"), id, "{mode}: a name stays");
        let mut other = Client::connect(server.address());
        assert_ne!(
            ask(&mut other, "id"),
            id,
            "{mode}: a name is one connection's"
        );
        assert_eq!(ask(&mut client, "attempt"), "0", "{mode}");
    }
}

#[test]
fn an_id_is_not_reused() {
    for mode in MODES {
        let server = script(mode);
        let mut names = std::collections::HashSet::new();
        for _ in 0..50 {
            let mut client = Client::connect(server.address());
            assert!(names.insert(ask(&mut client, "id")), "{mode}");
        }
    }
}

#[test]
fn close_sends_all_output_and_then_fin() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        client.send(b"big 300000\nclose\necho never answered\n");
        let end = client.read_to_end();
        assert_eq!(end.len(), 300_000 + 4, "{mode}");
        assert!(end.ends_with(b"bye\n"), "{mode}");
        server.logged(1, &["reason=Handler"]);
    }
}

#[test]
fn resetting_sends_rst() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        client.send(b"reset\n");
        let error = client.try_read(&mut [0; 8]).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{mode}");
        server.logged(1, &["reason=Handler"]);
    }
}

#[test]
fn in_process_mode_a_callback_reaches_every_connection() {
    let server = script("process");
    // Over two reactors and two workers: every pair of them is among these.
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(server.address())).collect();
    let names: Vec<String> = clients.iter_mut().map(|client| ask(client, "id")).collect();
    for from in 0..clients.len() {
        for to in (0..clients.len()).filter(|to| *to != from) {
            let sent = ask(
                &mut clients[from],
                &format!("to {} hello from {from}", names[to]),
            );
            assert_eq!(sent, "Ok(())");
            assert_eq!(clients[to].read_line(), format!("hello from {from}"));
        }
    }
    assert_eq!(ask(&mut clients[0], &format!("end {}", names[5])), "Ok(())");
    assert_eq!(clients[5].read_to_end(), b"");
    assert_eq!(
        ask(&mut clients[0], &format!("to {} too late", names[5])),
        "Ok(())"
    );
    assert_eq!(ask(&mut clients[1], "echo still here"), "echo still here");
}

#[test]
fn parts_of_a_message_can_be_sent_to_any_connection() {
    let server = script("process");
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(server.address())).collect();
    let names: Vec<String> = clients.iter_mut().map(|client| ask(client, "id")).collect();
    for from in 0..clients.len() {
        for (to, name) in names.iter().enumerate() {
            let text = format!("from {from} to {to};").repeat(1 + 3000 * (to % 2));
            clients[from].send(format!("pass {name} {text}\n").as_bytes());
            if to == from {
                clients[to].expect(format!("<{text}>\npassed\n").as_bytes());
            } else {
                clients[to].expect(format!("<{text}>\n").as_bytes());
                clients[from].expect(b"passed\n");
            }
        }
    }
}

#[test]
fn parts_of_a_message_wait_for_a_slow_reader() {
    let server = script("process");
    let mut slow = Client::connect_narrow(server.address());
    let name = ask(&mut slow, "id");
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(server.address())).collect();
    let text = |round: usize| format!("{round:02} {}", "x".repeat(100_000 + round));
    for round in 0..30 {
        let client = &mut clients[round % 2];
        client.send(format!("pass {name} {}\n", text(round)).as_bytes());
        client.expect(b"passed\n");
    }
    // Its memory in the inboxes was reused many times since. Outputs to one connection are ordered,
    // those to two are not.
    let mut next = [0, 1];
    for _ in 0..30 {
        let mut head = Vec::new();
        while head.len() < 3 {
            let mut byte = [0];
            assert_eq!(slow.try_read(&mut byte).expect("a byte"), 1);
            head.extend(byte);
        }
        let text_of_head = String::from_utf8_lossy(&head[1..]);
        let round: usize = text_of_head.parse().expect("a round");
        assert_eq!(round, next[round % 2]);
        next[round % 2] += 2;
        slow.expect(&format!("<{}>\n", text(round)).as_bytes()[3..]);
    }
}

#[test]
fn a_handler_that_answers_with_a_copy_is_an_echo_too() {
    for mode in MODES {
        let server = Launch::serve(&["--mode", mode, "--handler", "copy"]).start();
        let mut client = Client::connect(server.address());
        for size in [1, 64, 5000, 300_000] {
            client.echo(&vec![b'c'; size]);
        }
    }
}

#[test]
fn a_raw_message_can_be_echoed_within_a_small_output_limit() {
    for (mode, handler) in [("process", "echo"), ("process", "copy"), ("base", "echo")] {
        let limits = ["--output-limit=100000", "--output-high-water=50000"];
        let args = ["--mode", mode, "--handler", handler, limits[0], limits[1]];
        let server = Launch::serve(&args).start();
        let mut client = Client::connect(server.address());
        for _ in 0..50 {
            client.echo(&vec![b'l'; 100_000]);
        }
    }
}

#[test]
fn a_callback_cannot_send_more_than_the_output_limit() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        let refused = ask(&mut client, "too-much");
        assert!(refused.starts_with("Err(OverLimit"), "{mode}: {refused}");
        assert_eq!(ask(&mut client, "echo on"), "echo on", "{mode}");
    }
}

#[test]
fn output_of_a_callback_whose_worker_dies_is_never_sent() {
    let server = script("process");
    let mut client = Client::connect(server.address());
    client.send(b"echo before\ndie\n");
    assert_eq!(client.read_to_end(), b"echo before\n");
    server.logged(1, &["reason=Crash"]);
}

#[test]
fn flushed_output_is_sent_and_its_message_is_not_run_again() {
    let server = Launch::testbed("redeliver", "process").start();
    let mut client = Client::connect(server.address());
    client.send(b"flush-and-die\n");
    assert_eq!(
        client.read_until_reset(),
        b"flushed\n",
        "a part does not look whole"
    );
    server.logged(1, &["abnormal exit, status=0, signal=6"]);
    assert_eq!(server.log().with(&["abnormal exit"]).len(), 1);
}

#[test]
fn a_message_is_redelivered_with_the_count_of_its_attempts() {
    let server = Launch::testbed("redeliver", "process").start();
    let mut client = Client::connect(server.address());
    assert_eq!(ask(&mut client, "die-once"), "survived 1");
    assert_eq!(ask(&mut client, "echo on"), "echo on");
}

#[test]
fn a_message_that_kills_every_worker_is_given_up_with_its_connection() {
    let server = Launch::testbed("redeliver", "process").start();
    let mut bystander = Client::connect(server.address());
    let mut client = Client::connect(server.address());
    client.send(b"die\n");
    assert_eq!(client.read_to_end(), b"");
    server.logged(3, &["abnormal exit, status=0, signal=6"]);
    assert_eq!(ask(&mut bystander, "echo on"), "echo on");
    assert_eq!(
        server.log().with(&["abnormal exit"]).len(),
        3,
        "three attempts"
    );
}

#[test]
fn callbacks_run_in_the_process_they_are_documented_for() {
    for (mode, master) in [("process", "master"), ("base", "manager")] {
        let mut server = script(mode);
        let mut client = Client::connect(server.address());
        client.send(b"die\n");
        server.logged(
            1,
            &[
                "manager",
                "manager runs worker_exit abnormal=true status=0 signal=6",
            ],
        );
        let processes = server.processes();
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success(), "{mode}");
        server.leaves_nothing(&processes);
        let log = server.log().text();
        for what in ["start", "shutdown"] {
            assert!(
                log.contains(&format!("{master} runs {what}")),
                "{mode}: {log}"
            );
        }
        for what in ["manager_start", "manager_stop"] {
            assert!(
                log.contains(&format!("manager runs {what}")),
                "{mode}: {log}"
            );
        }
    }
}

#[test]
fn stats_count_connections() {
    for mode in MODES {
        let server = script(mode);
        let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(server.address())).collect();
        for client in &mut clients {
            ask(client, "id");
        }
        let counted = |client: &mut Client| {
            let line = ask(client, "stats");
            let (open, accepted) = line.split_once(' ').expect("two figures");
            (
                open.parse::<usize>().unwrap(),
                accepted.parse::<usize>().unwrap(),
            )
        };
        let first = counted(&mut clients[0]);
        // In base mode a worker counts its own connections.
        assert!(
            if mode == "base" {
                (1..=5).contains(&first.0)
            } else {
                first == (5, 5)
            },
            "{first:?}"
        );
    }
}

#[test]
fn a_process_with_threads_is_refused() {
    for mode in MODES {
        let ended = Launch::testbed("threads", mode).run();
        assert_eq!(ended.status.code(), Some(1), "{mode}");
        assert!(
            ended.stderr.contains("2 threads") && ended.stderr.contains("before any thread"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn deadly_messages_of_a_client_that_is_gone_kill_one_worker() {
    let server = script("process");
    let mut bystanders: Vec<Client> = (0..4).map(|_| Client::connect(server.address())).collect();
    let mut client = Client::connect(server.address());
    client.send(b"echo on\n");
    client.expect(b"echo on\n");
    client.send("die\n".repeat(50).as_bytes());
    client.half_close();
    assert_eq!(client.read_to_end(), b"");
    for bystander in &mut bystanders {
        assert_eq!(ask(bystander, "echo on"), "echo on");
    }
    server.logged(1, &["reason="]);
    assert_eq!(server.log().with(&["abnormal exit"]).len(), 1);
}

#[test]
fn a_callback_may_send_its_whole_limit_and_close() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        client.send(b"fill\n");
        let got = client.read_to_end();
        assert!(
            got.len() > 100_000 && got.iter().all(|byte| *byte == b'x'),
            "{mode}"
        );
        assert!(server.log().with(&["abnormal exit"]).is_empty(), "{mode}");
    }
}

#[test]
fn a_worker_that_gets_term_is_replaced_and_no_client_waits() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        let workers = server.workers();
        for worker in &workers {
            worker.signal(Signal::SIGTERM);
        }
        assert_eq!(ask(&mut client, "echo on"), "echo on", "{mode}");
        drop(client);
        server.new_workers(2, &workers);
        let mut client = Client::connect(server.address());
        assert_eq!(ask(&mut client, "echo on"), "echo on", "{mode}");
        assert!(server.log().with(&["abnormal exit"]).is_empty(), "{mode}");
    }
}

#[test]
fn a_callback_ends_the_server_when_it_commits() {
    for mode in MODES {
        let mut server = script(mode);
        let mut client = Client::connect(server.address());
        client.send(b"stop-and-fail\n");
        assert_eq!(client.read_to_end(), b"", "{mode}");
        let mut client = Client::connect(server.address());
        assert_eq!(ask(&mut client, "echo still here"), "echo still here");
        let processes = server.processes();
        assert_eq!(ask(&mut client, "stop"), "stopping", "{mode}");
        assert!(server.ended(SOON).success(), "{mode}");
        server.leaves_nothing(&processes);
    }
}

#[test]
fn a_flushed_call_to_the_server_counts_although_the_worker_dies() {
    for mode in MODES {
        let mut server = script(mode);
        let mut client = Client::connect(server.address());
        client.send(b"stop-flush-and-die 0\n");
        assert_eq!(client.read_line(), "stopping", "{mode}");
        assert!(server.ended(SOON).success(), "{mode}");
    }
}

#[test]
fn records_that_can_not_be_refused_never_break_the_limit() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        assert_eq!(ask(&mut client, "users 1000000"), "users set", "{mode}");
        assert_eq!(ask(&mut client, "echo on"), "echo on", "{mode}");
        assert!(server.log().with(&["broke"]).is_empty(), "{mode}");
    }
}

#[test]
fn no_client_is_accepted_before_on_start_returns() {
    let gates = Gates::new();
    let server = Launch::testbed("script", "process")
        .and(&["on-start=go", &gates.flag()])
        .start();
    let mut client = Client::connect(server.address());
    client.send(b"echo early\n");
    eventually(SOON, "the client waits in the queue", || {
        accept_queue(server.address()) == Some(1)
    });
    gates.open("go");
    assert_eq!(client.read_line(), "echo early");
}

#[test]
fn the_last_call_of_a_worker_that_dies_counts_behind_many_others() {
    let mut server = script("base");
    let mut client = Client::connect(server.address());
    let manager = server.manager();
    // One turn of it does not read as many, and then finds the worker dead.
    manager.signal(Signal::SIGSTOP);
    client.send(b"stop-flush-and-die 300\n");
    assert_eq!(client.read_line(), "stopping");
    assert_eq!(client.read_to_end(), b"");
    manager.signal(Signal::SIGCONT);
    assert!(server.ended(SOON).success());
}

#[test]
fn a_callback_reloads_the_server() {
    for mode in MODES {
        let server = script(mode);
        let mut client = Client::connect(server.address());
        let workers = server.workers();
        assert_eq!(ask(&mut client, "reload"), "reloading", "{mode}");
        drop(client);
        server.new_workers(2, &workers);
        let mut client = Client::connect(server.address());
        assert_eq!(ask(&mut client, "echo on"), "echo on", "{mode}");
    }
}

#[test]
fn the_server_s_own_process_reloads_it_by_its_handle() {
    for mode in MODES {
        let mut server = Launch::testbed("script", mode)
            .and(&["handle=reload"])
            .start();
        server.logged(1, &["handle before the start: Err(NotStarted)"]);
        let role = if mode == "base" { "manager" } else { "master" };
        server.logged(
            1,
            &[role, "handle: Ok(()) at", &server.address().to_string()],
        );
        let mut client = Client::connect(server.address());
        assert_eq!(
            ask(&mut client, "handle"),
            "Err(WrongProcess)",
            "{mode}: of a worker"
        );
        drop(client);
        eventually(SOON, "the workers are other ones", || {
            let mut client = Client::connect(server.address());
            ask(&mut client, "generation").parse::<u32>().unwrap() > 2
        });
        server.signal(Signal::SIGTERM);
        assert!(server.ended(SOON).success(), "{mode}");
        server.logged(1, &["handle after the end: Err(Ended)"]);
    }
}

#[test]
fn the_server_s_own_process_ends_it_by_its_handle() {
    for mode in MODES {
        let ended = Launch::testbed("script", mode).and(&["handle=stop"]).run();
        assert!(ended.status.success(), "{ended:#?}");
        assert!(ended.stderr.contains("handle: Ok(()) at"), "{ended:#?}");
    }
}

#[test]
fn each_listener_has_its_own_protocol_limits_and_name() {
    for mode in MODES {
        let server = Launch::testbed("script", mode)
            .and(&["second=delimiter=\\t"])
            .start();
        let line = &server.logged(1, &["second listens on "])[0];
        let second = line.rsplit(' ').next().unwrap().parse().unwrap();
        let mut lines = Client::connect(server.address());
        assert_eq!(ask(&mut lines, "listener"), "0 127.0.0.1:0", "{mode}");
        let mut parts = Client::connect(second);
        parts.send(b"listener\t");
        assert_eq!(parts.read_line(), "1 second", "{mode}");
        // 100 bytes are the longest message at the other listener, and not at this one.
        let long = format!("echo {}", "x".repeat(200));
        assert_eq!(ask(&mut lines, &long), long, "{mode}");
        parts.send(format!("{long}\t").as_bytes());
        assert_eq!(parts.read_to_end(), b"", "{mode}");
        server.logged(1, &["reason=Refused"]);
    }
}
