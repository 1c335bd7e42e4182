//! The C ABI from C: what lasts longer than one callback.

use crate::common::c::{build, ends_well, launch, start};
use crate::common::client::Client;
use crate::common::server::Server;
use crate::common::{SOON, eventually};

fn lasting(mode: &str) -> Server {
    start(launch(&build("tests/c/lasting.c", &[]), &[mode]), mode)
}

#[test]
fn a_connection_has_a_state_a_user_and_numbered_messages() {
    for mode in ["process", "base"] {
        let server = lasting(mode);
        let mut client = Client::connect(server.address());
        let pushed = |state, number, user, is_set| {
            format!("state={state} number={number} user={user} set={is_set} too long=3")
        };
        assert_eq!(client.ask("push a"), pushed("a", 0, 0, 0), "{mode}");
        assert_eq!(client.ask("user 9"), "status=0");
        assert_eq!(client.ask("push b"), pushed("ab", 2, 9, 1), "{mode}");
        drop(client);
        ends_well(server);
    }
}

#[test]
fn timers_fire_output_drains_and_posts_arrive() {
    for mode in ["process", "base"] {
        let server = lasting(mode);
        let mut client = Client::connect(server.address());
        assert_eq!(client.ask("after 20"), "status=0 0 0", "{mode}");
        assert_eq!(client.read_line(), "fired 7");
        assert_eq!(client.ask("drain"), "status=0 0 0");
        assert_eq!(client.read_line(), "drained", "{mode}");
        client.send(b"later 20\nlater 2000\n");
        for expected in ["fired 9", "sorry"] {
            assert_eq!(client.read_line(), expected, "{mode}");
        }
        let mut client = Client::connect(server.address());
        let post = client.ask("post 2");
        if mode == "process" {
            assert_eq!(post, "status=3 2 3", "there are two seats");
            assert_eq!(client.ask("post 1"), "status=0 2 3");
            assert_eq!(client.read_line(), "posted in 1 flush=6 state=6");
        } else {
            assert_eq!(post, "status=7 2 3");
        }
        for to in ["me", "any"] {
            assert_eq!(client.ask(&format!("post to {to}")), "status=0", "{mode}");
            let line = client.read_line();
            assert!(line.starts_with("posted in "), "{mode}: {line}");
        }
        drop(client);
        ends_well(server);
    }
}

#[test]
fn connections_are_listed() {
    for mode in ["process", "base"] {
        let server = lasting(mode);
        let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(server.address())).collect();
        for client in &mut clients {
            assert_eq!(client.ask("user 9"), "status=0");
        }
        let answer = clients[0].ask("list");
        let (other, count) = match mode {
            "process" => (0, "count=3 few=3 "),
            // That id is of another worker, for all that this one knows.
            _ => (7, "count="),
        };
        let rest = format!("user=9 set=1 unsent=0 exists=1 {other} 0 null=2 2 size=3");
        assert!(answer.starts_with(&format!("status=0 {count}")), "{answer}");
        assert!(answer.ends_with(&rest), "{answer}");
        drop(clients);
        ends_well(server);
    }
}

#[test]
fn a_thread_posts_by_a_poster_that_its_worker_has_made_at_its_start() {
    for mode in ["process", "base"] {
        let server = lasting(mode);
        let mut client = Client::connect(server.address());
        let status = "status=0 0 5 null=2 none=3 long=2";
        match mode {
            "process" => {
                client.send(b"thread 1\n");
                let mut lines: Vec<String> = (0..3).map(|_| client.read_line()).collect();
                lines.sort();
                assert!(lines[0].starts_with("posted in "), "{lines:?}");
                assert!(lines[1].starts_with("posted in "), "{lines:?}");
                assert_eq!(lines[2], status);
                let refused = client.ask("thread 2");
                assert!(refused.starts_with("status=3 0 5"), "{refused}");
            }
            _ => {
                let answers = [client.ask("thread 0"), client.read_line()];
                assert!(answers[0].starts_with("status="), "{answers:?}");
                assert!(answers[1].starts_with("posted in "), "{answers:?}");
            }
        }
        drop(client);
        ends_well(server);
    }
}

#[test]
fn tasks_run_in_a_task_worker_and_a_failed_one_is_told_to_the_master() {
    for (mode, status) in [("process", 0), ("base", 16)] {
        let server = lasting(mode);
        let mut client = Client::connect(server.address());
        let expected = format!("status={status} {status} {status} null=2 finish=5");
        assert_eq!(client.ask("task 20"), expected, "{mode}");
        if mode == "process" {
            assert_eq!(client.read_line(), "task");
            assert_eq!(client.read_line(), "finished 9 finish=5");
            let told = "failed task: 0 bytes tag=0 key=0 seat<2=1 attempts=2 failed=1 flushed=0";
            eventually(SOON, "the hook is called", || {
                server.stdout().text().contains(told)
            });
        }
        drop(client);
        ends_well(server);
    }
}

#[test]
fn members_of_a_group_get_what_is_published() {
    for mode in ["process", "base"] {
        let server = lasting(mode);
        // In base mode a group is of one worker.
        let mut members: Vec<Client> = (0..8).map(|_| Client::connect(server.address())).collect();
        for member in &mut members {
            let joined = "status=0 3 group=room then=0 0";
            assert_eq!(member.ask("join room"), joined, "{mode}");
        }
        if mode == "process" {
            let size = "status=0 members=8 null=2";
            assert_eq!(members[0].ask("size room"), size);
        }
        assert_eq!(members[1].ask("leave room"), "status=0");
        members[0].send(b"publish room\n");
        let lines: Vec<String> = (0..2).map(|_| members[0].read_line()).collect();
        assert!(lines.contains(&"all".to_owned()), "{mode}: {lines:?}");
        assert!(lines.contains(&"status=0 0 2".to_owned()), "{lines:?}");
        if mode == "process" {
            for member in &mut members[2..] {
                assert_eq!(member.read_line(), "all");
                assert_eq!(member.read_line(), "others");
            }
        }
        assert_eq!(members[1].ask("leave room"), "status=0", "nothing came");
        drop(members);
        ends_well(server);
    }
}

#[test]
fn timers_of_the_server_fire_in_each_worker() {
    for (mode, each) in [("process", 0), ("base", 7)] {
        let server = lasting(mode);
        let mut client = Client::connect(server.address());
        assert_eq!(
            client.ask("tick 20"),
            format!("status=0 3 {each} 0"),
            "{mode}"
        );
        if mode == "process" {
            assert_eq!([client.read_line(), client.read_line()], ["tick", "tick"]);
        }
        drop(client);
        ends_well(server);
    }
}

#[test]
fn a_part_of_a_file_is_sent() {
    let folder = tempfile::tempdir().expect("a folder for the file");
    let path = folder.path().join("file");
    std::fs::write(&path, "0123456789").expect("the file can be written");
    for mode in ["process", "base"] {
        let server = lasting(mode);
        let mut client = Client::connect(server.address());
        let answer = client.ask(&format!("file {}", path.display()));
        let expected = "234 status=0 pipe=3 written=3 none=3 closed=3 beyond=3 overflow=3 empty=0";
        assert_eq!(answer, expected, "{mode}");
        drop(client);
        ends_well(server);
    }
}
