//! `tine hold`: a process that listens and never accepts, for the lab.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use super::values::number;
use nix::sys::prctl::set_name;

use crate::lab::{Listening, Sharing};

/// Listen with SO_REUSEPORT, and never accept.
#[derive(Args)]
pub(crate) struct Hold {
    #[arg(value_name = "ADDR:PORT")]
    address: SocketAddr,

    #[arg(long, value_name = "PID", value_parser = number::<i32>(1, i32::MAX))]
    die_with: i32,
}

impl Hold {
    pub(crate) fn run(self) -> ExitCode {
        super::die_with(self.die_with);
        // The name that `ps` shows: nothing depends on it.
        let _ = set_name(c"tine listener");
        let sharing = Sharing {
            reuse_port: true,
            ..Sharing::default()
        };
        let listening = match Listening::bind(self.address, 4096, sharing) {
            Ok(listening) => listening,
            Err(error) => {
                super::complain(format_args!("cannot listen on {}: {error}", self.address));
                return ExitCode::FAILURE;
            }
        };
        let said = writeln!(std::io::stdout(), "listening on {}", listening.address);
        if said.is_err() {
            // The lab, which reads this line, is gone.
            return ExitCode::FAILURE;
        }
        loop {
            std::thread::park();
        }
    }
}
