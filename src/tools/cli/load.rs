//! `tine load`: its arguments and its exit status.

use std::fs::Permissions;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::NamedTempFile;

use crate::load::{self, Pace, Plan, Report, Target};

use super::values::{number, seconds, size};

pub(super) const EXIT_STATUS: &[(u8, &str)] = &[
    (0, "all replies arrived, every byte correct"),
    (3, "a reply or a connection was faulty"),
    (
        1,
        "the measurement could not be made, as when the server takes no connection",
    ),
    (2, "the command line is wrong"),
];

/// The time for one of several addresses to take a connection.
const LOOK: Duration = Duration::from_secs(3);

/// Put an echo server under load, and measure throughput, latency and cost.
///
/// Clients send messages, each of which must come back as it was sent: every byte is compared. All
/// clients are in one thread. In a closed loop, the default, each client sends its next message when a
/// reply has come. With --rate (an open loop) messages are due at fixed times, whether the server keeps up
/// or not, and latency counts from the time a message was due: a server that stalls for a second is
/// charged for every message that was due in that second.
///
/// Throughput counts the replies that arrive within the measured time; latency counts the messages that
/// are due within it. After that, outstanding replies are awaited as long as replies keep coming, for a
/// minute at most; a message without a reply by then is a fault, and its latency counts as over the time for
/// which it was awaited.
///
/// Ctrl-C ends the measurement, and what was measured is printed. A second one also ends the wait for
/// outstanding replies.
#[derive(Args)]
#[command(after_help = super::exit_status(EXIT_STATUS))]
pub(crate) struct Load {
    /// The server: an IP address or a host name, and a port, as 127.0.0.1:9501, [::1]:9501 or localhost:9501.
    /// Of the addresses of a name, the first that takes a connection is used. unix:PATH is a unix socket, and
    /// unix:@NAME one without a file.
    #[arg(value_parser = server, default_value = "127.0.0.1:9501")]
    server: String,

    /// Clients that send messages.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = number::<u32>(1, 1_000_000))]
    clients: u32,

    /// Further clients, connected and silent.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = number::<u32>(0, 1_000_000))]
    idle: u32,

    /// Size of a message, as 65536, 64K or 1M.
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = size(1, 1 << 30))]
    size: usize,

    /// Outstanding messages of each client at any time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number::<u32>(1, 65_536))]
    depth: u32,

    /// Open loop: messages per second that are due, over all clients.
    #[arg(long, value_name = "PER_SECOND", value_parser = number::<u64>(1, 100_000_000), conflicts_with = "depth")]
    rate: Option<u64>,

    /// A client closes after N messages, and a new one connects in its place.
    #[arg(long, value_name = "N", value_parser = number::<u64>(1, u64::MAX))]
    messages_each: Option<u64>,

    /// Measure also the cost of the server: processor time per message and memory, of this process and
    /// its descendants.
    #[arg(long, value_name = "PID", value_parser = number::<i32>(1, i32::MAX))]
    pid: Option<i32>,

    /// Time to measure for.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = some_seconds)]
    duration: Duration,

    /// Time under load before the measurement begins.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    warm_up: Duration,

    /// Show also a histogram of the latencies, and throughput and latency over time.
    #[arg(long, conflicts_with = "json")]
    charts: bool,

    /// Draw the histogram, and throughput and latency over time, into a file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Print everything as one JSON document. Times are in microseconds, except `seconds` and `until`; sizes and
    /// memory in bytes.
    #[arg(long)]
    json: bool,
}

impl Load {
    pub(crate) fn run(self) -> ExitCode {
        match self.measure() {
            Ok(code) => code,
            Err(problem) => {
                super::complain(problem);
                ExitCode::FAILURE
            }
        }
    }

    fn measure(&self) -> Result<ExitCode, String> {
        let interrupted =
            interrupted().map_err(|error| format!("cannot handle signals: {error}"))?;
        let picture = self.svg.as_deref().map(Picture::open).transpose()?;
        let plan = Plan {
            server: address(&self.server)?,
            clients: self.clients as usize,
            idle: self.idle as usize,
            size: self.size,
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
        let outcome = load::run(&plan, &interrupted, &mut |part| {
            bar.set_position((part * 1000.0) as u64);
        });
        bar.finish_and_clear();
        let report = outcome.map_err(|failure| failure.to_string())?;
        match self.print(&report) {
            // A reader that closed the pipe has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(format!("cannot write the report: {error}"));
            }
            Ok(()) | Err(_) => {}
        }
        if let Some(picture) = picture {
            picture.write(&report)?;
        }
        Ok(match report.faults.is_none() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(3),
        })
    }

    fn print(&self, report: &Report) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.json {
            true => serde_json::to_writer(&mut out, report)?,
            false => write!(out, "{report}")?,
        }
        writeln!(out)?;
        if self.charts {
            write!(out, "\n{}", load::text(report))?;
        }
        Ok(())
    }
}

/// A file for the picture, which appears whole or not at all. It is opened before the measurement, so that a
/// path that cannot be written does not cost one.
struct Picture<'a> {
    file: NamedTempFile,
    path: &'a Path,
}

impl<'a> Picture<'a> {
    fn open(path: &'a Path) -> Result<Picture<'a>, String> {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let file = tempfile::Builder::new()
            // As a new file has them: the umask takes some away.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Picture { file, path })
    }

    fn write(mut self, report: &Report) -> Result<(), String> {
        let failed = |error: String| format!("cannot write {}: {error}", self.path.display());
        let svg = load::svg(report).map_err(|error| failed(error.to_string()))?;
        let written = self.file.write_all(svg.as_bytes());
        written.map_err(|error| failed(error.to_string()))?;
        let persisted = self.file.persist(self.path);
        persisted.map_err(|error| failed(error.error.to_string()))?;
        Ok(())
    }
}

/// Returns a flag that a signal to end sets.
fn interrupted() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}

/// Looks a name up. If it has several addresses, returns the first that takes a connection.
fn address(place: &str) -> Result<Target, String> {
    if let Some(path) = place.strip_prefix("unix:") {
        return Ok(Target::Unix(path.into()));
    }
    let found = place.to_socket_addrs();
    let found = found.map_err(|error| format!("cannot look up {place}: {error}"))?;
    let found: Vec<SocketAddr> = found.collect();
    let takes = |address: &&SocketAddr| TcpStream::connect_timeout(address, LOOK).is_ok();
    let usable = match &found[..] {
        [_] => None,
        several => several.iter().find(takes),
    };
    let chosen = usable.or(found.first()).copied();
    let chosen = chosen.map(Target::Tcp);
    chosen.ok_or_else(|| format!("{place} has no address"))
}

/// An address of TCP, or of a unix socket.
fn server(text: &str) -> Result<String, String> {
    match text.strip_prefix("unix:") {
        Some("" | "@") => Err("a path or a name is expected behind unix:".to_owned()),
        Some(_) => Ok(text.to_owned()),
        None => super::values::place(text),
    }
}

/// Seconds, but not zero: counts are divided by them.
fn some_seconds(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    match time.is_zero() {
        true => Err("more than 0 seconds are needed".to_owned()),
        false => Ok(time),
    }
}

/// A progress bar, where standard error is a terminal.
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
