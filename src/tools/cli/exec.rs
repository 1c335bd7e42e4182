//! The flags of `tine serve` for a program that answers the messages.

use std::process;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use tine::Protocol;

use crate::exec::{Command, Exec, Format, Kind};

/// The longest line or frame of a program, unless `--output-limit` says another length.
const LONGEST: usize = 16 << 20;

/// The program, and how it is asked. Without `--exec` there is none.
#[derive(Args)]
pub(super) struct ExecFlags {
    /// Have a program answer: each worker starts COMMAND once, and hands it message after message on its standard
    /// input; what it writes to its standard output is the answer, and what it writes to standard error is logged. A program that
    /// ends, hangs longer than --callback-limit with --on-limit kill, or writes anything else than an answer is a dead
    /// worker. COMMAND is split at spaces, with quotes as in a shell, and no shell runs it: for a
    /// pipeline write "sh -c '...'".
    #[arg(long, value_name = "COMMAND", value_parser = Command::parse, conflicts_with_all = ["handler", "work", "faults", "log_callbacks"])]
    exec: Option<Command>,

    /// How a program is asked and answers: by lines, one for each message and one for its answer, which needs --protocol lines;
    /// by frames, a line of words with a length and that many bytes; or by a JSON object a line. Frames and JSON name event,
    /// connection, peer, message number and attempt [default: lines with --protocol lines, or else frames].
    #[arg(long, value_name = "FORMAT", value_enum, requires = "exec")]
    exec_format: Option<FormatName>,

    /// The events beside messages of which a program is told, in frames or JSON: start, to which it answers when it is
    /// ready, so that a reload keeps the old workers if it does not start; connect; close. Several are
    /// separated by commas.
    #[arg(
        long,
        value_name = "EVENTS",
        value_enum,
        value_delimiter = ',',
        requires = "exec"
    )]
    exec_events: Vec<EventName>,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatName {
    Lines,
    Frames,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum EventName {
    Start,
    Connect,
    Close,
}

impl ExecFlags {
    /// Returns what the flags say; `None` without `--exec`.
    ///
    /// # Errors
    /// Flags that do not go together.
    pub(super) fn plan(
        &self,
        protocol: &Protocol,
        output_limit: Option<usize>,
        shutdown_deadline: Duration,
    ) -> Result<Option<Exec>, String> {
        let Some(command) = &self.exec else {
            return Ok(None);
        };
        let has_lines = *protocol == Protocol::lines();
        let format = match self.exec_format {
            None if has_lines => Format::Lines,
            None | Some(FormatName::Frames) => Format::Frames,
            Some(FormatName::Json) => Format::Json,
            Some(FormatName::Lines) if has_lines => Format::Lines,
            Some(FormatName::Lines) => {
                return Err(format!(
                    "--exec-format lines needs --protocol lines: a message of `{protocol}` may have no line or \
                     several; use frames or json"
                ));
            }
        };
        let events = self.exec_events.iter().map(|event| match event {
            EventName::Start => Kind::Start,
            EventName::Connect => Kind::Connect,
            EventName::Close => Kind::Close,
        });
        let events: Vec<Kind> = events.collect();
        if format == Format::Lines && !events.is_empty() {
            return Err("--exec-events needs --exec-format frames or json: a line cannot say which event it is".to_owned());
        }
        Ok(Some(Exec {
            command: command.clone(),
            format,
            events,
            longest: output_limit.unwrap_or(LONGEST),
            // What is left of the deadline is for the worker.
            patience: (shutdown_deadline / 4).min(Duration::from_secs(2)),
            run: name_of_run(),
        }))
    }
}

/// Returns a name that no other run of a server has: no two processes have the same pid at the same time.
fn name_of_run() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos();
    format!("{:x}-{now:x}", process::id())
}
