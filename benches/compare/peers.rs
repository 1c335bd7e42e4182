//! The servers to compare, and how each is started. A server that this machine does not have is left out,
//! with a line that says so.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::launch::{Launch, PROGRAM};
use crate::common::root;
use crate::lasting;

/// An echo server.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    program: PathBuf,
    arguments: Vec<String>,
    /// The only loads it has; empty for all.
    only: &'static [&'static str],
}

/// The kinds of servers among which a row selects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The bare loop, with which all others are compared.
    Bare,
    Base,
    Process,
    /// A server of another project.
    Peer,
}

impl Server {
    /// Prepares a start with further arguments, which only tine's servers understand.
    pub(crate) fn launch(&self, more: &[&str]) -> Launch {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        Launch::program(&self.program, &arguments).and(more)
    }

    /// Whether it is measured with the load of this name.
    pub(crate) fn has(&self, load: &str) -> bool {
        self.only.is_empty() || self.only.contains(&load)
    }

    /// `tine serve`, which understands its flags.
    pub(crate) fn is_tine_program(&self) -> bool {
        self.program == Path::new(PROGRAM)
    }
}

pub(crate) const BARE: &str = "bare epoll loop";
pub(crate) const BASE: &str = "tine base";
pub(crate) const PROCESS: &str = "tine process";
pub(crate) const PROCESS_C: &str = "tine process, C";

/// Answers with a copy of the message, as a handler does that builds its answers.
const COPY: &str = "tine process, copy";
/// The loads of that server: those in which the copy makes a difference.
const COPIES: &[&str] = &["64 B x 100", "4 KiB x 50", "64 KiB x 20", "1 MiB x 8"];
/// Echoes on connections with 1 KiB of state, which travels with each message.
pub(crate) const WITH_STATE: &str = "tine process, 1 KiB of state";
/// The load of that server, and its target.
pub(crate) const STATE_LOAD: &str = "64 B x 100";
/// The loads of a server that has a process for each connection.
const FEW: &[&str] = &["64 B x 1", "64 B x 100"];

/// Returns all servers that this machine has.
pub(crate) fn all() -> Vec<Server> {
    let built = |name: &str| target().join("c-examples").join(name);
    let tine = |name, kind, mode, handler| {
        let words = [
            "serve",
            "--mode",
            mode,
            "--handler",
            handler,
            "--listen",
            "127.0.0.1:0",
            "--log-level",
            "error",
        ];
        server(name, kind, PROGRAM.into(), &words)
    };
    let mut servers = vec![
        server(BARE, Kind::Bare, built("epoll_echo"), &["0"]),
        tine(BASE, Kind::Base, "base", "echo"),
        tine(PROCESS, Kind::Process, "process", "echo"),
        Server {
            only: COPIES,
            ..tine(COPY, Kind::Process, "process", "copy")
        },
        server(PROCESS_C, Kind::Process, target().join("bench/c-echo"), &[]),
        Server {
            only: &[STATE_LOAD],
            ..server(WITH_STATE, Kind::Process, this_program(), &[lasting::STATE])
        },
    ];
    for server in &servers {
        assert!(
            server.program.exists(),
            "{} is not built: run `make bench`",
            server.program.display()
        );
    }
    for peer in others() {
        match peer {
            Ok(server) => servers.push(server),
            Err(missing) => println!("{missing}"),
        }
    }
    servers
}

fn this_program() -> PathBuf {
    env::current_exe().expect("this program has a path")
}

fn server(name: &'static str, kind: Kind, program: PathBuf, arguments: &[&str]) -> Server {
    Server {
        name,
        kind,
        program,
        arguments: arguments.iter().map(ToString::to_string).collect(),
        only: &[],
    }
}

/// Returns the servers of other projects, or for each a line about its missing program.
fn others() -> Vec<Result<Server, String>> {
    let peers = root().join("benches/peers");
    let source = |name: &str| peers.join(name).display().to_string();
    let script = |name, program: &str, check: &[&str], words: &[&str]| {
        let file = source(words[0]);
        match runs(program, check) {
            true => Ok(server(
                name,
                Kind::Peer,
                program.into(),
                &[&[file.as_str()], &words[1..]].concat(),
            )),
            false => Err(format!(
                "{name}: SKIPPED, no {program} with its requirements is installed"
            )),
        }
    };
    let swoole = |name, mode| script(name, "php", &["--ri", "swoole"], &["swoole.php", mode]);
    vec![
        go(&source("echo.go")),
        tokio(&peers.join("tokio")),
        script("Node.js", "node", &["--version"], &["echo.js"]),
        script(
            "Python asyncio",
            "python3",
            &["-c", "import asyncio"],
            &["echo.py"],
        ),
        swoole("Swoole base", "base"),
        swoole("Swoole process", "process"),
        script(
            "Workerman",
            "php",
            &[
                "-r",
                "require 'vendor/autoload.php'; new Workerman\\Worker;",
            ],
            &["workerman.php"],
        ),
        script("socat", "bash", &["-c", "socat -V"], &["socat.sh"]).map(|server| Server {
            only: FEW,
            ..server
        }),
    ]
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

fn go(source: &str) -> Result<Server, String> {
    let program = target().join("bench/go-echo");
    match runs(
        "go",
        &["build", "-o", &program.display().to_string(), source],
    ) {
        true => Ok(server("Go net", Kind::Peer, program, &[])),
        false => Err("Go net: SKIPPED, go is missing or can't build it".to_owned()),
    }
}

fn tokio(package: &Path) -> Result<Server, String> {
    let (manifest, folder) = (package.join("Cargo.toml"), target().join("bench/tokio"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "build",
        "--release",
        "--quiet",
        "--locked",
        "--manifest-path",
    ]);
    cargo.arg(manifest).arg("--target-dir").arg(&folder);
    match cargo.status().is_ok_and(|status| status.success()) {
        true => Ok(server(
            "Tokio",
            Kind::Peer,
            folder.join("release/tokio-echo"),
            &[],
        )),
        false => Err("Tokio: SKIPPED, cargo can't build it".to_owned()),
    }
}

fn target() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    target.expect("the target folder").to_owned()
}
