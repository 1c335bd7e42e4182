//! `tine post`: bytes from any program to the workers of a server.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tine::status::{self, PostError};
use tine::{Context, To};

pub(super) const EXIT_STATUS: &[(u8, &str)] = &[
    (0, "the server has taken the post"),
    (
        3,
        "the server has refused it: it is full or ends, or no worker has the seat",
    ),
    (
        1,
        "no server was found, it has not answered, or the bytes could not be read",
    ),
    (2, "the command line is wrong"),
];

/// How long the server's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Post bytes to the workers of a tine server.
///
/// The handler's `post` callback gets them: to reread a table, to drop a user, to say something to every client. The
/// server must be of the same user, on the same machine, and built with the feature `status`, as `tine serve` is. In
/// process mode a post that was taken outlives its worker: the next one in the seat gets it. In base mode it is lost
/// if its worker dies before it has handled it.
#[derive(Args)]
#[command(after_help = super::exit_status(EXIT_STATUS))]
pub(crate) struct Post {
    /// The workers that get the post: `seat:N`, the N of worker#N; `all`, those of all seats; `least-busy`, any.
    #[arg(long, value_name = "WORKERS", default_value = "least-busy", value_parser = target)]
    to: To,

    /// The process to send signals to, of which the server says its pid as it starts; or the path of its pid file.
    #[arg(value_name = "PID")]
    server: String,

    /// The bytes, 64 KiB at most; `-` reads them from standard input.
    #[arg(value_name = "BYTES")]
    bytes: String,
}

impl Post {
    pub(crate) fn run(self) -> ExitCode {
        let posted = self.bytes().and_then(|bytes| {
            let pid = pid(&self.server)?;
            status::post(pid, self.to, &bytes, PATIENCE).map_err(Failure::Post)
        });
        match posted {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure::Post(PostError::Refused(refused))) => {
                super::complain(format_args!("the post was refused: {refused}"));
                ExitCode::from(3)
            }
            Err(Failure::Post(error)) => {
                super::complain(error);
                ExitCode::FAILURE
            }
            Err(Failure::Read(what)) => {
                super::complain(what);
                ExitCode::FAILURE
            }
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        if self.bytes != "-" {
            return Ok(self.bytes.clone().into_bytes());
        }
        let mut bytes = Vec::new();
        // One more than can be posted, so that more is noticed.
        let mut input = io::stdin().take(Context::MOST_POST as u64 + 1);
        match input.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(Failure::Read(format!(
                "cannot read standard input: {error}"
            ))),
        }
    }
}

enum Failure {
    Post(PostError),
    Read(String),
}

/// Returns the pid that is given, or that is in the pid file.
fn pid(server: &str) -> Result<i32, Failure> {
    if let Ok(pid) = server.parse() {
        return Ok(pid);
    }
    let text = fs::read_to_string(Path::new(server)).map_err(|error| {
        Failure::Read(format!(
            "{server} is no pid, and no pid file can be read there: {error}"
        ))
    })?;
    let no_pid = |_| Failure::Read(format!("{server} is no pid file: it has no number"));
    text.trim().parse().map_err(no_pid)
}

fn target(text: &str) -> Result<To, String> {
    match (text, text.strip_prefix("seat:")) {
        ("all", _) => Ok(To::All),
        ("least-busy", _) => Ok(To::LeastBusy),
        (_, Some(seat)) => {
            let seat = seat.parse();
            seat.map(To::Seat)
                .map_err(|_| format!("`{text}`: a seat is a number, from 0"))
        }
        (_, None) => Err("it is seat:N, all or least-busy".to_owned()),
    }
}
