//! `tine load`: its arguments, and what its exit status says.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, value_parser};
use indicatif::{ProgressBar, ProgressStyle};

use crate::load::{self, Pace, Plan, Report};

use super::serve::seconds;

pub(super) const EXIT_STATUS: &[(u8, &str)] = &[
    (0, "every reply was there, and every byte right"),
    (3, "something was wrong with replies or connections"),
    (1, "it could not be measured"),
    (2, "the command line is wrong"),
];

/// Put an echo server under load, and measure what it does.
///
/// Clients send messages, each of which must come back as it was sent: every byte is compared. They are
/// all in one thread. In a closed loop, which is the default, each client sends the next message when a
/// reply has come. With --rate messages are due at fixed times, whether the server keeps up or not, and
/// latency counts from when a message was due: a server that stands still for a second is charged with
/// all that should have been sent meanwhile.
///
/// Replies count that come within the measured time, and latencies of messages that are due within it.
/// Replies that are still owed then are waited for, while anything comes for a minute at most; what has no
/// reply by then is a fault.
#[derive(Args)]
#[command(after_help = super::exit_status(EXIT_STATUS))]
pub(crate) struct Load {
    /// The server: an IP address and a port, as 127.0.0.1:9501 or [::1]:9501.
    #[arg(value_parser = super::serve::address, default_value = "127.0.0.1:9501")]
    server: SocketAddr,

    /// How many clients talk.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=1_000_000))]
    clients: u32,

    /// How many clients are connected besides, and silent.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u32).range(0..=1_000_000))]
    idle: u32,

    /// Bytes of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = value_parser!(u32).range(1..=1 << 30))]
    size: u32,

    /// How many messages of each client are on their way at any time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=65_536))]
    depth: u32,

    /// Open loop: so many messages a second are due, of all clients together.
    #[arg(long, value_name = "PER_SECOND", value_parser = value_parser!(u64).range(1..=100_000_000), conflicts_with = "depth")]
    rate: Option<u64>,

    /// A client closes after so many messages, and another one connects in its place.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    messages_each: Option<u64>,

    /// Measure also what the server takes for it: processor time for each message, and memory, of this
    /// process and all that descend from it.
    #[arg(long, value_name = "PID", value_parser = value_parser!(i32).range(1..))]
    pid: Option<i32>,

    /// For so long it is measured.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = some_seconds)]
    duration: Duration,

    /// For so long before that, it is not.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    warm_up: Duration,

    /// Print one JSON document with everything. Times are in microseconds, but for `seconds`; sizes and
    /// memory in bytes.
    #[arg(long)]
    json: bool,
}

impl Load {
    pub(crate) fn run(self) -> ExitCode {
        let plan = Plan {
            server: self.server,
            clients: self.clients as usize,
            idle: self.idle as usize,
            size: self.size as usize,
            pace: match self.rate {
                Some(per_second) => Pace::Open { per_second },
                None => Pace::Closed {
                    depth: self.depth as usize,
                },
            },
            messages_each: self.messages_each,
            pid: self.pid,
            warm_up: self.warm_up,
            duration: self.duration,
        };
        let bar = progress_bar();
        let outcome = load::run(&plan, &mut |part| bar.set_position((part * 1000.0) as u64));
        bar.finish_and_clear();
        let report = match outcome {
            Ok(report) => report,
            Err(failure) => {
                super::complain(failure);
                return ExitCode::FAILURE;
            }
        };
        match self.print(&report) {
            // Whoever read has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                super::complain(format_args!("cannot write what was measured: {error}"));
                ExitCode::FAILURE
            }
            Ok(()) | Err(_) if report.faults.is_none() => ExitCode::SUCCESS,
            Ok(()) | Err(_) => ExitCode::from(3),
        }
    }

    fn print(&self, report: &Report) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.json {
            true => serde_json::to_writer(&mut out, report)?,
            false => write!(out, "{report}")?,
        }
        writeln!(out)
    }
}

/// What is divided by is not nothing.
fn some_seconds(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    match time.is_zero() {
        true => Err("nothing can be measured in no time".to_owned()),
        false => Ok(time),
    }
}

/// How far it is, where somebody looks.
fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(1000);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {elapsed}") {
        bar.set_style(style);
    }
    bar
}
