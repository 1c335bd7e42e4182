//! The program `tine`: servers with a ready-made handler, and tools for every TCP server.
//!
//! It stands on the public interface of the library alone.

mod cli;
mod columns;
mod doctor;
mod lab;
mod load;
mod process;
mod sockets;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
