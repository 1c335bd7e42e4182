//! `tine doctor`: its arguments and its exit status.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::doctor::examination::{Examination, Limits};
use crate::doctor::scope::Subject;
use crate::doctor::watch::{self, Form};
use crate::doctor::{Failure, reap};

use super::values::{number, seconds};

pub(super) const EXIT_STATUS: &[(u8, &str)] = &[
    (0, "nothing is wrong"),
    (3, "something is wrong"),
    (1, "the examination (or the reaping) failed"),
    (2, "the command line is wrong"),
];

/// See what is wrong with the connections of any TCP server on this machine.
///
/// Shows all listeners, or one PORT, or one process: accept queues, connections that were not closed,
/// bytes that no process reads, ports that run out; what each means, and what to try next. It measures
/// for a second, and changes nothing without --reap. Only root sees the processes of other users.
///
/// Counters of dropped connections are for the whole network namespace: the kernel does not count them by
/// port.
#[derive(Args)]
#[command(after_help = super::exit_status(EXIT_STATUS))]
pub(crate) struct Doctor {
    /// The port of a listener [default: all listeners and all outgoing connections].
    #[arg(value_parser = port, conflicts_with = "pid")]
    port: Option<u16>,

    /// A process with its descendants: their listeners, and also the connections that they have made.
    #[arg(long, value_name = "PID", value_parser = number::<i32>(1, i32::MAX))]
    pid: Option<i32>,

    /// Go on for SECONDS; 0 means until Ctrl-C. In a view on the terminal (q ends it), in lines when piped.
    /// The findings are printed at the end.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    watch: Option<Duration>,

    /// The age from which a connection in CLOSE_WAIT, or an unread byte, counts as too old.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    older: Duration,

    /// The time without a byte from which an established connection without keepalive counts as silent: its
    /// peer may have vanished.
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    silent: Duration,

    /// Print everything as one JSON document; with --watch, one line each second.
    #[arg(long)]
    json: bool,

    /// Destroy the connections that have been in CLOSE_WAIT for longer than SECONDS, as in --reap=60
    /// [default: --older]. Lists them, asks, checks each once more, and prints its outcome. Needs CAP_NET_ADMIN. Exit status 1
    /// if any failed, or if an outcome could not be printed.
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = seconds,
        num_args = 0..=1,
        require_equals = true,
        conflicts_with_all = ["watch", "json"]
    )]
    #[allow(clippy::option_option)] // Not given, given without a value, given with one.
    reap: Option<Option<Duration>>,

    /// Do not ask before --reap.
    #[arg(long, requires = "reap")]
    yes: bool,
}

impl Doctor {
    pub(crate) fn run(self) -> ExitCode {
        match self.examine() {
            Ok(code) => ExitCode::from(code),
            Err(Failure::Problem(problem)) => {
                super::complain(problem);
                ExitCode::FAILURE
            }
            Err(Failure::Output(error)) => {
                super::complain(format_args!("cannot write the findings: {error}"));
                ExitCode::FAILURE
            }
            Err(Failure::Unsaid(done, error)) => {
                super::complain(format_args!(
                    "{done}, but the list of them cannot be written: {error}"
                ));
                ExitCode::FAILURE
            }
        }
    }

    fn examine(self) -> Result<u8, Failure> {
        if let Some(reap) = self.reap {
            return self.reap(reap.unwrap_or(self.older));
        }
        let examination = Examination::begin(self.subject(), self.limits(self.older))?;
        let form = self.form();
        let wrong = match self.watch {
            None => watch::once(examination, form)?,
            Some(time) => {
                watch::watch(examination, Some(time).filter(|time| !time.is_zero()), form)?
            }
        };
        Ok(if wrong { 3 } else { 0 })
    }

    fn reap(&self, older: Duration) -> Result<u8, Failure> {
        reap::is_allowed(self.yes)?;
        let examination = Examination::begin(self.subject(), self.limits(older))?;
        let mut out = anstream::stdout();
        let all_done = reap::reap(examination, older, self.yes, &mut out)?;
        Ok(if all_done { 0 } else { 1 })
    }

    fn limits(&self, older: Duration) -> Limits {
        Limits {
            older,
            silent: self.silent,
        }
    }

    fn subject(&self) -> Subject {
        match (self.port, self.pid) {
            (Some(port), _) => Subject::Port(port),
            (None, Some(pid)) => Subject::Process(pid),
            (None, None) => Subject::All,
        }
    }

    fn form(&self) -> Form {
        let has_screen = io::stdout().is_terminal()
            && io::stdin().is_terminal()
            && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        match (self.json, has_screen) {
            (true, _) => Form::Json,
            (false, true) => Form::Screen,
            (false, false) => Form::Lines,
        }
    }
}

fn port(text: &str) -> Result<u16, String> {
    let expected = "a port is a number from 1 to 65535";
    let port = text.parse().map_err(|_| expected.to_owned())?;
    if port == 0 {
        Err(expected.to_owned())
    } else {
        Ok(port)
    }
}
