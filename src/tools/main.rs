//! The program `tine`: servers with a ready-made handler, and tools for any TCP server.
//!
//! Its one rule: it uses only the public interface of the library.

mod cli;
mod columns;
mod dark;
mod doctor;
mod exec;
mod lab;
mod load;
mod process;
mod sockets;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
