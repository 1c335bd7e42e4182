//! Tasks that callbacks queue for task workers.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::server::Server;
use crate::common::{SOON, eventually, keeps};

fn script(options: &[&str]) -> Server {
    Launch::testbed("script", "process").and(options).start()
}

#[test]
fn a_task_answers_its_client_and_its_result_comes_back_to_the_seat_of_its_sender() {
    for options in [&["reactors=1"][..], &["reactors=2", "dispatch=least-busy"]] {
        let server = script(&[&["task-workers=2"], options].concat());
        for _ in 0..4 {
            let mut client = Client::connect(server.address());
            assert_eq!(client.ask("task a"), "Ok(())");
            assert_eq!(client.read_line(), "ran a attempt 0", "{options:?}");
            assert_eq!(client.ask("task-tag 5 b"), "Ok(())");
            assert_eq!(client.read_line(), "ran b attempt 0");
            let line = client.read_line();
            match options.len() {
                1 => {
                    let seat = client.ask("seat");
                    assert_eq!(line, format!("finished 5 b in {seat} attempt 0"));
                }
                _ => assert!(line.starts_with("finished 5 b in "), "{line}"),
            }
            assert_eq!(client.ask("task hop 3"), "Ok(())");
            for hop in (0..=3).rev() {
                assert_eq!(client.read_line(), format!("ran hop {hop} attempt 0"));
            }
            assert!(client.ask("task-long 65537").contains("TooLong"));
        }
        // Posts for any worker, and for all, reach no task worker.
        let mut client = Client::connect(server.address());
        assert_eq!(client.ask("post-seat 2 a"), "Err(NoSeat { seats: 2 })");
        assert_eq!(client.ask("post-all b"), "Ok(())");
        let mut all = [client.read_line(), client.read_line()];
        all.sort();
        assert_eq!(
            all,
            [0, 1].map(|seat| format!("posted b in {seat} attempt 0"))
        );
    }
}

#[test]
fn a_server_without_task_workers_refuses_tasks() {
    for mode in ["process", "base"] {
        let server = Launch::testbed("script", mode).start();
        let mut client = Client::connect(server.address());
        assert_eq!(client.ask("task a"), "Err(NoTaskWorkers)", "{mode}");
    }
    let refused = Launch::testbed("script", "base").and(&["task-workers=1"]);
    let ended = refused.run();
    assert!(
        !ended.status.success() && ended.stderr.contains("task_workers"),
        "{ended:?}"
    );
}

#[test]
fn a_task_is_committed_with_its_callback_delayed_and_replaced_by_its_key() {
    let server = script(&["task-workers=1", "on-crash=redeliver=2"]);
    let mut client = Client::connect(server.address());
    client.send(b"task-and-fail a\n");
    assert_eq!(client.read_to_end(), b"", "and nothing ran");
    let mut client = Client::connect(server.address());
    for time in [1, 100] {
        let begin = Instant::now();
        assert_eq!(client.ask(&format!("task-after {time} b")), "Ok(())");
        assert_eq!(client.read_line(), "ran b attempt 0");
        assert!(begin.elapsed() >= Duration::from_millis(time), "{time}");
    }
    for text in ["c", "d", "e"] {
        assert_eq!(client.ask(&format!("task-key 3600000 {text}")), "Ok(())");
    }
    assert_eq!(client.ask("task-key 50 f"), "Ok(())");
    assert_eq!(client.read_line(), "ran f attempt 0");
    assert_eq!(client.ask("task-key 0 g"), "Ok(())");
    assert_eq!(client.read_line(), "ran g attempt 0");
    keeps(Duration::from_millis(100), "nothing else runs", || {
        !client.has_news()
    });
}

#[test]
fn a_task_runs_again_after_a_death_and_fails_with_its_last_attempt() {
    let server = script(&["task-workers=1"]);
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("task-tag 1 die"), "Ok(())");
    assert_eq!(client.read_line(), "ran die attempt 1");
    assert!(client.read_line().starts_with("finished 1 die in "));
    assert_eq!(client.ask("task fail"), "Ok(())");
    assert_eq!(client.read_line(), "ran fail attempt 1");
    // The result, too, runs again.
    assert_eq!(client.ask("task-tag 3 late-die"), "Ok(())");
    assert_eq!(client.read_line(), "ran late-die attempt 0");
    let line = client.read_line();
    assert!(
        line.starts_with("finished 3 late-die in ") && line.ends_with("attempt 1"),
        "{line}"
    );
    let seat = client.ask("seat");
    assert_eq!(client.ask("task-tag 2 poison"), "Ok(())");
    assert_eq!(client.ask("task after"), "Ok(())");
    assert_eq!(client.read_line(), "ran after attempt 0");
    server.logged(1, &["poison: task killed 3 workers"]);
    let failed = format!("poison tag=Some(2) seat={seat} attempts=3 failed=false flushed=false");
    server.logged(1, &["master runs task_failed", &failed]);
    assert_eq!(client.ask("poisoned"), "1");
}

#[test]
fn a_full_queue_refuses_tasks_and_harms_nobody_else() {
    let gates = Gates::new();
    let server = script(&["task-workers=1", "task-queue=100", &gates.flag()]);
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("task wait gate"), "Ok(())");
    assert_eq!(client.ask("task-after 3600000 late"), "Ok(())");
    let refused = client.ask("task-flood 1000");
    assert!(
        refused.starts_with("Err(QueueFull { tasks: 100,"),
        "{refused}"
    );
    let mut others: Vec<Client> = (0..4).map(|_| Client::connect(server.address())).collect();
    for other in &mut others {
        eventually(SOON, "its reactor has read the commit", || {
            other.ask("task a").starts_with("Err(QueueFull")
        });
        assert_eq!(other.ask("echo here"), "echo here");
    }
    // All workers at once, as fast as they can: none is taken for one that does not look at the limit.
    for other in &mut others {
        other.send("task-flood 1000\n".repeat(100).as_bytes());
    }
    for other in &mut others {
        (0..100).for_each(|_| assert!(other.read_line().starts_with("Err(QueueFull")));
    }
    assert_eq!(server.log().with(&["broke the ring protocol"]), [""; 0]);
    gates.open("gate");
    assert_eq!(client.read_line(), "ran wait gate attempt 0");
    eventually(SOON, "there is room again", || {
        client.ask("task-flood 50") == "Ok(())"
    });
    drop(server);

    // By bytes: each task counts 356.
    let server = script(&["task-workers=1", "task-queue-bytes=3560", &gates.flag()]);
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("task-flood 10"), "Ok(())");
    eventually(SOON, "they have run", || {
        client.ask("task-flood 10") == "Ok(())"
    });
    assert!(client.ask("task-flood 11").contains("bytes: 3560"));
    assert_eq!(server.log().with(&["broke the ring protocol"]), [""; 0]);
}

#[test]
fn a_task_in_a_slow_worker_holds_up_no_other_and_a_reload_replaces_task_workers() {
    let gates = Gates::new();
    let server = script(&["task-workers=2", "workers=1", &gates.flag()]);
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("task wait gate"), "Ok(())");
    for _ in 0..20 {
        assert_eq!(client.ask("task a"), "Ok(())");
        assert_eq!(client.read_line(), "ran a attempt 0");
    }
    let old = server.workers();
    assert_eq!(old.len(), 3);
    server.signal(Signal::SIGUSR1);
    gates.open("gate");
    assert_eq!(
        client.read_line(),
        "ran wait gate attempt 0",
        "its worker finishes it"
    );
    server.new_workers(3, &old);
    assert_eq!(client.ask("task b"), "Ok(())");
    assert_eq!(client.read_line(), "ran b attempt 0");
}

#[test]
fn each_task_takes_effect_once_while_workers_are_killed_and_reloaded() {
    let server = script(&[
        "on-crash=redeliver=50",
        "post-attempts=50",
        "task-attempts=50",
        "workers=2",
        "task-workers=2",
        "reactors=2",
    ]);
    let address = server.address();
    let end = Instant::now() + Duration::from_secs(5);
    let clients: Vec<_> = (0..6)
        .map(|_| {
            thread::spawn(move || {
                let (mut client, mut rounds) = (Client::connect(address), 0);
                while Instant::now() < end {
                    client.send(format!("task-tag {rounds} a{rounds}\ntask hop 2\n").as_bytes());
                    let mut lines: Vec<String> = (0..7).map(|_| client.read_line()).collect();
                    lines.sort();
                    let expected = [
                        "Ok(())".into(),
                        "Ok(())".into(),
                        format!("finished {rounds} a{rounds} in "),
                        format!("ran a{rounds} attempt "),
                        "ran hop 0 attempt ".into(),
                        "ran hop 1 attempt ".into(),
                        "ran hop 2 attempt ".into(),
                    ];
                    let is_it = |(line, expected): (&String, &String)| line.starts_with(expected);
                    assert!(lines.iter().zip(&expected).all(is_it), "{lines:?}");
                    rounds += 1;
                }
                assert_eq!(client.ask("echo end"), "echo end", "nothing twice");
                rounds
            })
        })
        .collect();
    let reload = || {
        server.signal(Signal::SIGUSR1);
        Instant::now() < end
    };
    server.kill_workers_under(clients, 20, reload);
}

#[test]
fn a_worker_that_lies_about_tasks_is_ended() {
    let lies = [
        (
            "lie:task",
            &[][..],
            "a task where there are no task workers",
        ),
        (
            "lie:tasks",
            &["task-workers=1", "task-queue=10"],
            "tasks wait",
        ),
        (
            "lie:finish",
            &["task-workers=1"],
            "the result of a task where none is under way",
        ),
    ];
    for (lie, options, expected) in lies {
        let mut server = Launch::testbed("liar", "process").and(options).start();
        let master = server.master();
        let mut other = Client::connect(server.address());
        other.echo(b"honest");
        let mut client = Client::connect(server.address());
        client.send(lie.as_bytes());
        server.logged(1, &["broke the ring protocol", expected]);
        server.logged(1, &["abnormal exit, status=0, signal=9"]);
        other.echo(b"served");
        assert!(!server.has_ended() && server.master() == master, "{lie}");
    }
}
