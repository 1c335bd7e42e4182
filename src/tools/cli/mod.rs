//! The command line: one file a subcommand.

mod config;
mod doctor;
mod echo;
mod effective;
mod exec;
mod fault;
mod hold;
mod lab;
mod load;
mod logs;
mod man;
mod opening;
mod post;
mod serve;
mod silence;
mod sockets;
mod values;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// A pre-fork reactor server for Linux, and tools for TCP servers.
///
/// The server runs code that may block, leak or crash in worker processes, and keeps the clients'
/// connections out of their reach. In process mode a master owns every socket: a worker that dies costs at
/// most the connection whose message it was in, and none with --on-crash redeliver. In base mode each
/// worker owns the connections that it accepted. `tine doctor` shows what
/// is wrong with the connections of any TCP server; `tine lab` shows why such things happen.
#[derive(Parser)]
#[command(name = "tine", version, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    Serve(Box<serve::Serve>),
    Doctor(doctor::Doctor),
    Lab(lab::LabArguments),
    Load(load::Load),
    Post(post::Post),
    #[command(hide = true)]
    Hold(hold::Hold),
    #[command(hide = true)]
    Man(man::Man),
}

/// Returns the line of a subcommand's help that explains its exit statuses.
fn exit_status(meanings: &[(u8, &str)]) -> String {
    let each = |(status, meaning): &(u8, &str)| format!("{status} {meaning}");
    let all: Vec<String> = meanings.iter().map(each).collect();
    format!("Exit status: {}.", all.join(", "))
}

/// Reports a problem on standard error. If that can't be written, the exit status still tells;
/// `eprintln!` would panic.
fn complain(problem: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "tine: {problem}");
}

/// As [`complain`], for a server: without waiting for standard error, which would keep its end from its
/// supervisor.
fn complain_at_once(problem: impl std::fmt::Display) {
    let _ = tine::logger::print_error(&format!("tine: {problem}\n"));
}

/// Has the kernel kill this process when its parent dies (prctl(2), PR_SET_PDEATHSIG). A parent that
/// died before the call is noticed because this process has another parent by now.
fn die_with(parent: i32) {
    if set_pdeathsig(Signal::SIGKILL).is_err() || getppid().as_raw() != parent {
        std::process::exit(1);
    }
}

/// Parses, validates, runs. Exit status 2 means that the command line is wrong, 1 that the subcommand
/// failed.
pub(crate) fn main() -> ExitCode {
    let matches = Command::command().get_matches();
    let command = Command::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match command.command {
        Subcommands::Serve(serve) => {
            let given = matches.subcommand_matches("serve").unwrap_or(&matches);
            serve.run(config::Given(given.clone()))
        }
        Subcommands::Doctor(doctor) => doctor.run(),
        Subcommands::Lab(lab) => lab.run(),
        Subcommands::Load(load) => load.run(),
        Subcommands::Post(post) => post.run(),
        Subcommands::Hold(hold) => hold.run(),
        Subcommands::Man(man) => man.run(),
    }
}
