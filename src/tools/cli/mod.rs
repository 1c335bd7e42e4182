//! The command line: one file a subcommand.

mod doctor;
mod echo;
mod fault;
mod hold;
mod lab;
mod load;
mod man;
mod serve;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// A pre-fork reactor server for Linux: your code may block, leak or crash, and no client notices.
///
/// It runs code in worker processes, and keeps the clients' connections out of harm's way. In process
/// mode a master owns every socket, so that the death of a worker costs no connection; in base mode
/// each worker has its own. The other subcommands are for every TCP server: what is wrong with its
/// connections, and why such things happen.
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
    #[command(hide = true)]
    Hold(hold::Hold),
    #[command(hide = true)]
    Man(man::Man),
}

/// What the exit statuses of a subcommand mean, for its help.
fn exit_status(meanings: &[(u8, &str)]) -> String {
    let each = |(status, meaning): &(u8, &str)| format!("{status} {meaning}");
    let all: Vec<String> = meanings.iter().map(each).collect();
    format!("Exit status: {}.", all.join(", "))
}

/// Says on standard error what went wrong. Where that can't be written there is nobody to tell, and the
/// exit status says it; `eprintln!` would panic.
fn complain(problem: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "tine: {problem}");
}

/// Has the kernel kill this process when its parent dies (prctl(2), PR_SET_PDEATHSIG). A parent that
/// died before that is noticed by a look at the parent now.
fn die_with(parent: i32) {
    if set_pdeathsig(Signal::SIGKILL).is_err() || getppid().as_raw() != parent {
        std::process::exit(1);
    }
}

/// Parses, validates, runs. Exit status 2 says that the command line is wrong, 1 that the server
/// could not do its work.
pub(crate) fn main() -> ExitCode {
    match Command::parse().command {
        Subcommands::Serve(serve) => serve.run(),
        Subcommands::Doctor(doctor) => doctor.run(),
        Subcommands::Lab(lab) => lab.run(),
        Subcommands::Load(load) => load.run(),
        Subcommands::Hold(hold) => hold.run(),
        Subcommands::Man(man) => man.run(),
    }
}
