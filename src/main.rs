//! The program `tine`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tine::cli::main()
}
