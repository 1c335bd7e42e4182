//! The command line: one file a subcommand.

#[cfg(feature = "doctor")]
mod doctor;
mod echo;
mod fault;
#[cfg(feature = "lab")]
mod hold;
#[cfg(feature = "lab")]
mod lab;
#[cfg(feature = "load")]
mod load;
mod man;
mod serve;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    #[cfg(feature = "doctor")]
    Doctor(doctor::Doctor),
    #[cfg(feature = "lab")]
    Lab(lab::LabArguments),
    #[cfg(feature = "load")]
    Load(load::Load),
    #[cfg(feature = "lab")]
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

/// Parses, validates, runs. Exit status 2 says that the command line is wrong, 1 that the server
/// could not do its work.
pub fn main() -> ExitCode {
    match Command::parse().command {
        Subcommands::Serve(serve) => serve.run(),
        #[cfg(feature = "doctor")]
        Subcommands::Doctor(doctor) => doctor.run(),
        #[cfg(feature = "lab")]
        Subcommands::Lab(lab) => lab.run(),
        #[cfg(feature = "load")]
        Subcommands::Load(load) => load.run(),
        #[cfg(feature = "lab")]
        Subcommands::Hold(hold) => hold.run(),
        Subcommands::Man(man) => man.run(),
    }
}
