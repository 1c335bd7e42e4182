//! A server for the tests: handlers that do what `tine serve` has no flag for.
//!
//! Usage: `tine-testbed HANDLER [MODE]`. It prints the ready line of `tine serve`, and logs which callback of master and manager
//! ran, with the role of the process that ran it.
#![allow(clippy::print_stdout)] // The ready line.

use std::process::ExitCode;
use std::time::Duration;

use tine::testing::{Forgery, KillPoint};
use tine::{
    Closed, Conn, ConnId, Handler, Mode, OnCrash, Outcome, Protocol, Role, Server, Started, Worker,
};

#[path = "../../src/cli/log.rs"]
mod logging;

fn main() -> ExitCode {
    logging::start(log::LevelFilter::Info);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "kill-points") {
        KillPoint::ALL
            .iter()
            .for_each(|point| println!("{}", point.name()));
        return ExitCode::SUCCESS;
    }
    let mode = if arguments.iter().any(|word| word == "base") {
        Mode::Base
    } else {
        Mode::Process
    };
    let server = Server::new()
        .mode(mode)
        .listen("127.0.0.1:0")
        .workers(2)
        .reactors(2)
        .close_deadline(Some(Duration::from_secs(2)))
        .on_start(say_ready)
        .on_shutdown(|| say("shutdown"))
        .on_manager_start(|| say("manager_start"))
        .on_manager_stop(|| say("manager_stop"))
        .on_worker_error(|exit| {
            say(&format!(
                "worker_error status={} signal={}",
                exit.status(),
                exit.signal()
            ))
        });
    let outcome = match arguments.first().map(String::as_str) {
        Some("liar") => server.run(|_| Liar),
        Some("script") => server
            .protocol("delimiter=\\n".parse().expect("a protocol"))
            .run(|_| Script::default()),
        Some("redeliver") => server
            .protocol("delimiter=\\n".parse::<Protocol>().expect("a protocol"))
            .on_crash(OnCrash::Redeliver { attempts: 3 })
            .run(|_| Script::default()),
        Some("leaky") => server
            .worker_memory(64 << 20)
            .on_crash(OnCrash::Keep)
            .protocol("delimiter=\\n".parse::<Protocol>().expect("a protocol"))
            .run(|_| Script::default()),
        Some("threads") => {
            let (stop, wait) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || wait.recv());
            let outcome = server.run(|_| Liar);
            drop(stop);
            let _ = thread.join();
            outcome
        }
        other => {
            eprintln!("no such handler: {other:?}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn say_ready(started: &Started) {
    say("start");
    let (address, pid) = (started.addresses[0], started.pid);
    match started.mode {
        Mode::Base => println!("tine: listening on {address} (base mode, 2 workers, pid {pid})"),
        _ => println!(
            "tine: listening on {address} (process mode, 2 workers, 2 reactors, pid {pid})"
        ),
    }
}

/// A log line that names the role that says it.
fn say(what: &str) {
    log::info!("{} runs {what}", Role::current());
}

/// Echoes, and lies to its reactor when a message asks for it.
struct Liar;

impl Handler for Liar {
    fn receive(&mut self, conn: &mut Conn<'_>, message: &[u8]) -> Outcome {
        match std::str::from_utf8(message) {
            Ok("lie:stranger") => {
                conn.forge(&Forgery::Bytes(header(0, 2, u64::MAX)));
                return Ok(conn.send(message)?);
            }
            Ok("lie:length") => {
                conn.forge(&Forgery::Bytes(header(u32::MAX, 1, conn.id().as_u64())))
            }
            Ok("lie:long") => conn.forge(&Forgery::Bytes(header(1 << 19, 1, conn.id().as_u64()))),
            Ok("lie:kind") => conn.forge(&Forgery::Bytes(header(0, 200, 0))),
            Ok("lie:position") => conn.forge(&Forgery::Bytes(header(0, 5, 12_345))),
            Ok("lie:name") => conn.forge(&Forgery::Bytes(header(0, 2, 0))),
            Ok("lie:mark") => conn.forge(&Forgery::Mark(1 << 40)),
            Ok("lie:back") => conn.forge(&Forgery::Mark(-64)),
            Ok("lie:odd") => conn.forge(&Forgery::Mark(3)),
            Ok("lie:garbage") => conn.forge(&Forgery::Bytes(vec![0xa5; 4096])),
            _ => return Ok(conn.send(message)?),
        }
        // The true mark, which the commit would store, must not cover the lie.
        std::thread::sleep(Duration::from_secs(
            u64::from(message != b"lie:stranger") * 3600,
        ));
        Ok(())
    }
}

/// A frame's header as the outbox has it, padded to where the next frame begins.
fn header(len: u32, kind: u32, word: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(len.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(word.to_ne_bytes());
    bytes.resize(64, 0);
    bytes
}

/// Does what a line of text says, one command a line.
#[derive(Default)]
struct Script {
    worker: Option<Worker>,
    connected: Vec<ConnId>,
}

impl Handler for Script {
    fn worker_start(&mut self, worker: Worker) -> Outcome {
        self.worker = Some(worker);
        Ok(())
    }

    fn connect(&mut self, conn: &mut Conn<'_>) -> Outcome {
        self.connected.push(conn.id());
        Ok(())
    }

    fn receive(&mut self, conn: &mut Conn<'_>, message: &[u8]) -> Outcome {
        let line = std::str::from_utf8(message)?.trim_end();
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "echo" => conn.send(message)?,
            "id" => conn.send(format!("{}\n", conn.id().as_u64()).as_bytes())?,
            "peer" => conn.send(format!("{}\n", conn.peer()).as_bytes())?,
            "attempt" => conn.send(format!("{}\n", conn.attempt()).as_bytes())?,
            "generation" => conn.send(
                format!("{:?}\n", self.worker.map(|worker| worker.generation())).as_bytes(),
            )?,
            "stats" => conn.send(
                format!("{} {}\n", conn.stats().connections, conn.stats().accepted).as_bytes(),
            )?,
            "to" => {
                let (id, text) = rest.split_once(' ').ok_or("to ID TEXT")?;
                let id = ConnId::from_u64(id.parse()?).ok_or("no id")?;
                let sent = conn.send_to(id, format!("{text}\n").as_bytes());
                conn.send(format!("{sent:?}\n").as_bytes())?;
            }
            "end" => {
                let id = ConnId::from_u64(rest.parse()?).ok_or("no id")?;
                conn.close_other(id);
                conn.send(b"ended\n")?;
            }
            "close" => {
                conn.send(b"bye\n")?;
                conn.close();
            }
            "reset" => conn.reset(),
            "big" => conn.send(&vec![b'x'; rest.parse()?])?,
            "too-much" => {
                let refused = conn.send(&vec![0; 32 << 20]);
                conn.send(format!("{refused:?}\n").as_bytes())?;
            }
            "fill" => {
                while conn.send(&[b'x'; 100]).is_ok() {}
                return Err("nothing more fits".into());
            }
            "die-once" => {
                if conn.attempt() == 0 {
                    conn.send(b"never seen\n")?;
                    std::process::abort();
                }
                conn.send(format!("survived {}\n", conn.attempt()).as_bytes())?;
            }
            "die" => {
                conn.send(b"never seen\n")?;
                std::process::abort();
            }
            "flush-and-die" => {
                conn.send(b"flushed\n")?;
                conn.flush();
                conn.send(b"never seen\n")?;
                std::process::abort();
            }
            "leak" => {
                let mib: usize = rest.parse()?;
                // Each page is written: memory that is only reserved is not there.
                std::mem::forget(vec![1_u8; mib << 20]);
                conn.send(b"leaked\n")?;
            }
            "fail" => return Err("asked to fail".into()),
            _ => conn.send(b"what?\n")?,
        }
        Ok(())
    }

    fn close(&mut self, conn: &mut Conn<'_>, closed: Closed) -> Outcome {
        log::info!(
            "close of {} reason={:?} late={}",
            conn.id(),
            closed.reason,
            closed.late
        );
        Ok(())
    }
}
