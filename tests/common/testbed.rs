//! A server for the tests, with handlers for what `tine serve` has no flag.
//!
//! Usage: `tine-testbed HANDLER [MODE] [KEY=VALUE...]`. It prints the ready line of `tine serve`, and logs which callback of
//! master and manager ran, with the role of the process that ran it.
#![allow(clippy::print_stdout)] // The ready line.

#[path = "testbed/files.rs"]
mod files;
#[path = "testbed/groups.rs"]
mod groups;
#[path = "testbed/hostile/mod.rs"]
mod hostile;
#[path = "testbed/lasting.rs"]
mod lasting;
#[path = "testbed/liar.rs"]
mod liar;
#[path = "testbed/options.rs"]
mod options;
#[path = "testbed/origin.rs"]
mod origin;
#[path = "testbed/poster.rs"]
mod poster;
#[path = "testbed/posts.rs"]
mod posts;
#[path = "testbed/relay.rs"]
mod relay;
#[path = "testbed/script.rs"]
mod script;
#[path = "testbed/session.rs"]
mod session;
#[path = "testbed/tasks.rs"]
mod tasks;
#[path = "testbed/ticks.rs"]
mod ticks;

use std::process::ExitCode;
use std::time::Duration;

use tine::logger::LevelFilter;
use tine::testing::KillPoint;
use tine::{OnCrash, Protocol, Role, Server, Started};

use files::Files;
use lasting::Lasting;
use liar::Liar;
use options::Options;
use relay::Relay;
use script::Script;

fn main() -> ExitCode {
    tine::logger::start(LevelFilter::Info).expect("there is no other logger");
    let mut arguments = std::env::args().skip(1);
    let handler = arguments.next();
    if let Some(names) = handler.as_deref().and_then(names) {
        names.iter().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let mut options = Options::new(arguments);
    let server = Server::new();
    options.handle = server.handle();
    let (handle, orders) = (server.handle(), options.clone());
    if options.get("handle").is_some() {
        log::info!("handle before the start: {:?}", handle.stop());
    }
    let server = with_hooks(server)
        .mode(options.mode())
        .workers(2)
        .close_deadline(Some(Duration::from_secs(2)))
        .on_start(move |started| has_started(started, orders));
    let lines = || "delimiter=\\n".parse().expect("a protocol");
    let script = |worker| Script::start(options.clone(), worker);
    let outcome = match handler.as_deref() {
        Some("liar") => options.apply(server, Protocol::raw()).run(|_| Liar),
        Some("script") => options.apply(server, lines()).run(script),
        Some("lasting") => options.apply(server, lines()).run(|_| Lasting),
        Some("files") => options.apply(server, lines()).run(|_| Files),
        Some("relay") => options.apply(server, lines()).run(|_| Relay),
        Some("redeliver") => {
            let server = server.on_crash(OnCrash::Redeliver { attempts: 3 });
            options.apply(server, lines()).run(script)
        }
        Some("threads") => beside_a_thread(|| options.apply(server, Protocol::raw()).run(|_| Liar)),
        other => {
            eprintln!("no such handler: {other:?}");
            return ExitCode::from(2);
        }
    };
    if options.get("handle").is_some() {
        log::info!("handle after the end: {:?}", handle.reload());
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a server in a process that has another thread.
fn beside_a_thread<T>(run: impl FnOnce() -> T) -> T {
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    let outcome = run();
    drop(stop);
    let _ = thread.join();
    outcome
}

/// Returns a list of names that a test asks for in place of a server.
fn names(list: &str) -> Option<Vec<&'static str>> {
    match list {
        "kill-points" => Some(KillPoint::ALL.iter().map(|point| point.name()).collect()),
        "attacks" => Some(hostile::ATTACKS.iter().map(|(name, _)| *name).collect()),
        _ => None,
    }
}

/// Logs each call of a hook, with its process.
fn with_hooks(server: Server) -> Server {
    server
        .on_shutdown(|| say("shutdown"))
        .on_manager_start(|| say("manager_start"))
        .on_manager_stop(|| say("manager_stop"))
        .on_task_failed(|failed| {
            let text = String::from_utf8_lossy(failed.bytes);
            say(&format!(
                "task_failed {text} tag={:?} seat={} attempts={} failed={} flushed={}",
                failed.tag, failed.seat, failed.attempts, failed.failed, failed.flushed
            ))
        })
        .on_worker_exit(|exit| {
            say(&format!(
                "worker_exit abnormal={} status={} signal={}",
                exit.is_abnormal(),
                exit.status(),
                exit.signal()
            ))
        })
}

/// Does in the master what the test asks for.
fn has_started(started: &Started, orders: Options) {
    say_ready(started);
    if let Some(gate) = orders.get("on-start") {
        orders.wait_for(gate);
    }
    use_handle(started, orders.get("handle"));
    if orders.get("posts").is_some() {
        posts::obey(started.handle(), orders);
    }
}

fn say_ready(started: &Started) {
    say("start");
    println!("{started}");
}

fn use_handle(started: &Started, order: Option<&str>) {
    if let Some(second) = started.addresses.iter().find(|it| it.name() == "second") {
        log::info!("second listens on {second}");
    }
    let handle = started.handle();
    let done = match order {
        Some("reload") => handle.reload(),
        Some("stop") => handle.stop(),
        _ => return,
    };
    let addresses = handle.addresses();
    log::info!("handle: {done:?} at {}", addresses[0]);
}

/// A log line with the role of the process.
fn say(what: &str) {
    log::info!("{} runs {what}", Role::current());
}
