//! A hostile worker without rights: it reaches no memory, descriptor, doorbell or process that is not its own, and the
//! master and its neighbours serve on while it tries. The attacks are in `tests/common/testbed/hostile/`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::common::client::Client;
use crate::common::gates::Gates;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::{SOON, eventually, eventually_some};

/// A part of the messages of other workers, never of those of the hostile one.
const SECRET: &str = "swordfish-7301";

/// The workers; the one in seat 0 is hostile.
const WORKERS: usize = 3;

/// The clients of each worker.
const EACH: usize = 4;

/// Clients of the workers that are not hostile, which ask all the time and check every answer.
struct Bystanders {
    ends: Arc<AtomicBool>,
    answers: Vec<Arc<AtomicUsize>>,
    threads: Vec<JoinHandle<()>>,
}

impl Bystanders {
    fn start(clients: Vec<Client>) -> Bystanders {
        let ends = Arc::new(AtomicBool::new(false));
        let answers: Vec<Arc<AtomicUsize>> = clients.iter().map(|_| Arc::default()).collect();
        let threads = clients
            .into_iter()
            .zip(answers.clone())
            .map(|(mut client, answers)| {
                let ends = Arc::clone(&ends);
                thread::spawn(move || {
                    while !ends.load(Ordering::Relaxed) {
                        client.echo(format!("echo {SECRET} again\n").as_bytes());
                        answers.fetch_add(1, Ordering::Relaxed);
                        // A client that asks without pause would take the processor from the attack.
                        thread::sleep(std::time::Duration::from_millis(1));
                    }
                })
            });
        let threads = threads.collect();
        Bystanders {
            ends,
            answers,
            threads,
        }
    }

    fn counts(&self) -> Vec<usize> {
        let counts = self.answers.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Checks that each of them gets more answers.
    #[track_caller]
    fn are_served(&self, during: &str) {
        let before = self.counts();
        eventually(
            SOON,
            format_args!("{during}: neighbours are served"),
            || {
                let now = self.counts();
                now.iter()
                    .zip(&before)
                    .all(|(now, before)| *now > before + 2)
            },
        );
    }

    /// Ends them; a wrong answer, or none, fails the test.
    fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a bystander has the right answers");
        }
    }
}

/// A server with a hostile worker.
struct Field {
    server: Server,
    gates: Gates,
    /// Clients of the hostile worker.
    hostile: Vec<Client>,
    bystanders: Bystanders,
    /// A client whose message, with the secret, another worker has begun.
    holder: Client,
}

impl Field {
    /// `None` where the tests are not root, who alone can become another user.
    fn new(uid: &str) -> Option<Field> {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: only root can start workers of another user");
            return None;
        }
        let gates = Gates::new();
        gates.allow_all();
        let workers = format!("workers={WORKERS}");
        let server = Launch::testbed("script", "process")
            .and(&[&workers, &gates.flag(), &format!("uid={uid}")])
            .start();
        let mut clients: Vec<Vec<Client>> = (0..WORKERS).map(|_| Vec::new()).collect();
        for _ in 0..WORKERS * EACH {
            let mut client = Client::connect(server.address());
            clients[client.ask_number("seat") as usize].push(client);
        }
        assert!(
            clients.iter().all(|of_one| of_one.len() >= EACH),
            "each worker has clients"
        );
        let mut holder = clients[1].remove(0);
        holder.send(format!("wait {SECRET}\n").as_bytes());
        holder.wait_until_read();
        // The other clients of that worker wait for it.
        let bystanders = Bystanders::start(clients.remove(2));
        Some(Field {
            server,
            gates,
            hostile: clients.remove(0),
            bystanders,
            holder,
        })
    }

    #[track_caller]
    fn hostile_worker(&self) -> Process {
        let found = || self.server.named("tine worker#0").first().copied();
        eventually_some(SOON, "the hostile worker runs", found)
    }

    fn order(&self, attack: &str) -> String {
        let hostile = self.hostile_worker();
        let workers = self.server.workers().into_iter();
        let neighbours = workers
            .filter(|it| *it != hostile)
            .map(|it| it.pid.to_string());
        let first = [self.server.master(), self.server.manager()].map(|it| it.pid.to_string());
        let pids: Vec<String> = first.into_iter().chain(neighbours).collect();
        let backwards: String = SECRET.chars().rev().collect();
        format!("attack {attack} {} {backwards}\n", pids.join(","))
    }

    /// The hostile worker dies, and another one takes its place.
    #[track_caller]
    fn replace(&mut self) {
        let last = self.hostile_worker();
        last.signal(Signal::SIGKILL);
        eventually(SOON, "another worker has the seat", || {
            let now = self.server.named("tine worker#0");
            now.first().is_some_and(|now| *now != last)
        });
        for client in &mut self.hostile {
            client.echo(b"echo still here\n");
        }
    }

    /// Ends the server, which has served all the while.
    #[track_caller]
    fn end(mut self, master: Process) {
        assert!(!self.server.has_ended() && self.server.master() == master);
        self.bystanders.are_served("at the end");
        self.bystanders.end();
        self.gates.open(SECRET);
        let answer = self.holder.read_line();
        assert!(answer.starts_with("waited"), "{answer}");
        let lied = self.server.log().with(&["broke the ring protocol"]);
        assert!(lied.is_empty(), "{lied:?}");
        self.server.signal(Signal::SIGTERM);
        assert!(self.server.ended(SOON).success());
    }
}

fn attacks() -> Vec<String> {
    let listed = Launch::testbed("attacks", "process").run();
    let names: Vec<String> = listed.stdout.lines().map(str::to_owned).collect();
    assert!(names.len() >= 15, "{names:?}");
    names
}

/// Carries out every attack that comes back, each in a worker of its own.
fn all_attacks_fail(uid: &str) {
    let Some(mut field) = Field::new(uid) else {
        return;
    };
    let master = field.server.master();
    let mut reached = Vec::new();
    for attack in attacks() {
        if attack.starts_with("leave-a-") {
            continue;
        }
        let order = field.order(&attack);
        let answers = field.bystanders.counts();
        field.hostile[0].send(order.as_bytes());
        field.bystanders.are_served(&attack);
        let answer = field.hostile[0].read_line();
        if answer != format!("{attack} refused") {
            reached.push(answer);
        }
        assert!(field.bystanders.counts() != answers);
        field.replace();
        field.bystanders.are_served(&format!("after {attack}"));
    }
    assert_eq!(reached, Vec::<String>::new());
    field.end(master);
}

#[test]
fn a_worker_without_rights_reaches_nothing_of_its_neighbours_with_the_same_uid() {
    all_attacks_fail("65534");
}

#[test]
fn a_worker_with_a_uid_of_its_own_can_not_even_signal_its_neighbours() {
    all_attacks_fail("by-seat");
}

#[test]
fn a_process_that_a_dead_worker_has_left_behind_sees_nothing_of_later_clients() {
    for attack in attacks().iter().filter(|it| it.starts_with("leave-a-")) {
        let Some(mut field) = Field::new("65534") else {
            return;
        };
        let master = field.server.master();
        let order = field.order(attack);
        field.hostile[0].send(order.as_bytes());
        let looks = || {
            let looks = fs::read_to_string(field.gates.path("found.looks")).ok()?;
            looks.parse::<u64>().ok()
        };
        eventually_some(SOON, format_args!("{attack}: it looks"), looks);
        let last = field.hostile_worker();
        last.signal(Signal::SIGKILL);
        // Until the master knows of the death, messages still go to the dead worker, and then to the next one.
        for client in &mut field.hostile[1..] {
            assert_ne!(client.ask_number("pid"), last.pid);
        }
        // The worker that follows has the same seat, and often the same slot. Each message is in its memory.
        for round in 0..20 {
            for client in &mut field.hostile[1..] {
                client.echo(format!("echo {SECRET} {round}\n").as_bytes());
            }
        }
        let before = looks().expect("it has looked");
        eventually(SOON, format_args!("{attack}: it has looked again"), || {
            looks().is_some_and(|now| now > before + 2)
        });
        let found = fs::read_to_string(field.gates.path("found"));
        assert!(found.is_err(), "{attack}: {found:?}");
        field.bystanders.are_served(attack);
        field.end(master);
    }
}

#[test]
fn rings_that_a_child_of_a_worker_swallows_are_repeated() {
    let Some(mut field) = Field::new("65534") else {
        return;
    };
    let master = field.server.master();
    let order = field.order("swallow-by-a-child");
    field.hostile[0].send(order.as_bytes());
    assert_eq!(field.hostile[0].read_line(), "swallow-by-a-child refused");
    // Its own clients are answered too, though not as fast. Only a worker that sleeps is rung for.
    let worker = field.hostile_worker();
    for round in 0..5 {
        for client in &mut field.hostile {
            eventually(SOON, "the worker sleeps", || worker.waits_for_events());
            client.echo(format!("echo {round}\n").as_bytes());
        }
    }
    field.end(master);
}

#[test]
fn the_exit_of_a_worker_that_claims_to_have_been_asked_is_a_crash() {
    let Some(mut field) = Field::new("65534") else {
        return;
    };
    let master = field.server.master();
    for round in 1..=EACH {
        let last = field.hostile_worker();
        let order = field.order("exit-with-a-note");
        field.hostile[round - 1].send(order.as_bytes());
        // The crash policy closes the connection of the message that has killed it.
        assert_eq!(field.hostile[round - 1].read_to_end(), b"");
        let name = format!("worker#0[pid={}] abnormal exit, status=0", last.pid);
        field.server.logged(1, &["WARN", &name]);
    }
    field.end(master);
}
