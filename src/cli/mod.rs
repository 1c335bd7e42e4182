//! The command line: one file a subcommand.

#[cfg(feature = "doctor")]
mod doctor;
mod echo;
mod fault;
#[cfg(feature = "lab")]
mod hold;
#[cfg(feature = "lab")]
mod lab;
mod serve;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A pre-fork reactor server for Linux: your code may block, leak or crash, and no client notices.
#[derive(Parser)]
#[command(name = "tine", version, about, max_term_width = 100)]
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
    #[cfg(feature = "lab")]
    #[command(hide = true)]
    Hold(hold::Hold),
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
        #[cfg(feature = "lab")]
        Subcommands::Hold(hold) => hold.run(),
    }
}
