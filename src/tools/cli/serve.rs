//! `tine serve`: a server with a ready-made handler, and with faults on request.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nix::sys::signal::{SigSet, Signal};
use tine::{Dispatch, Error, ErrorKind, OnCrash, Protocol, Server, Started};

use super::config::{File, Given, Program};
use super::echo::{Echo, log_callback};
use super::effective::print_config;
use super::exec::ExecFlags;
use super::fault::Fault;
use super::logs::{self, Logs};
use super::opening::Opening;
use super::silence::Silence;
use super::sockets::{Sockets, listening};
use super::values::{number, seconds, size};
use crate::exec::Exec;

pub(super) const EXIT_STATUS: &[(u8, &str)] = &[
    (0, "stopped by a signal"),
    (1, "the server failed"),
    (2, "the command line is wrong"),
    (3, "crash loop, with --fail-on-crash-loop"),
];

/// Serve TCP clients with worker processes.
///
/// Prints a line for each address when every worker is ready. SIGTERM, SIGINT and SIGQUIT stop the server
/// gracefully, a second SIGINT by force if it comes half a second after the first or later. SIGUSR1 replaces
/// the workers one at a time, and no request fails. In base mode there is an exception: half of the shutdown deadline
/// later, connections are closed whose clients do not read their answers, or have sent more than 64 KiB of
/// a message and not the rest.
#[derive(Args)]
#[command(after_help = super::exit_status(EXIT_STATUS))]
pub(crate) struct Serve {
    /// Which process owns the connections: a master that owns every socket (process), or the worker
    /// that accepted them (base).
    #[arg(long, value_enum, default_value_t = ModeName::Process)]
    pub(super) mode: ModeName,

    /// An address to listen on, as 127.0.0.1:9501, [::1]:9501, [fe80::1%eth0]:9501 or localhost:9501; may
    /// be given more than once. A name stands for all its addresses, 0.0.0.0 for every IPv4 address of the
    /// machine, and [::] for every IPv6 address alone. Port 0 picks a free one. unix:PATH is a unix socket,
    /// and unix:@NAME one without a file; systemd stands for all sockets that systemd passes, systemd:NAME
    /// for those of a name, and fd:NUMBER for a socket that the caller has left open.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9501", value_parser = listening)]
    pub(super) listen: Vec<String>,

    /// Worker processes [default: the cores of the machine].
    #[arg(long, value_name = "N", value_parser = number::<u32>(1, 511))]
    pub(super) workers: Option<u32>,

    /// Reactor threads of the master, in process mode [default: half the cores, at least 1].
    #[arg(long, value_name = "N", value_parser = number::<u32>(1, 1023))]
    pub(super) reactors: Option<u32>,

    /// Length of each listener's accept queue. The kernel allows net.core.somaxconn at most.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = number::<u32>(0, 2_147_483_647))]
    pub(super) backlog: u32,

    /// The workers' handler: echo sends each message back from the memory in which it arrived; copy
    /// sends back a copy, as a handler does that builds its answers.
    #[arg(long, value_enum, default_value_t = HandlerName::Echo)]
    pub(super) handler: HandlerName,

    #[command(flatten)]
    exec: ExecFlags,

    /// How bytes become messages: raw (as read), lines, delimiter=TEXT (with \r \n \t \0 \\ \xHH),
    /// varint, or length=1..8[,big|little][,body|all][,offset=N][,adjust=N].
    #[arg(long, default_value = "raw")]
    pub(super) protocol: Protocol,

    /// Milliseconds for which the handler blocks in each message.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = number::<u64>(0, 86_400_000))]
    pub(super) work: u64,

    /// A fault in every worker; may be given more than once. EVENT is worker_start, connect, receive or
    /// close; ACTION is sleep=SECONDS, exit=STATUS, panic, abort or segv. It happens each time, or with
    /// a PROBABILITY over 0 and up to 1. Examples are close:sleep=1000 and receive:abort@0.01.
    #[arg(long = "fault", value_name = "EVENT:ACTION[@PROBABILITY]")]
    pub(super) faults: Vec<Fault>,

    /// Which worker gets a message, in process mode: the worker that had the fewest connections when
    /// this one was accepted, the worker with the fewest messages now, the next worker in turn at
    /// accept, or always the same seat for a client's IP address (its user, on a unix
    /// socket) or for a user id set by the handler.
    #[arg(long, value_name = "MODE", value_enum, default_value_t = DispatchName::LeastConnections)]
    pub(super) dispatch: DispatchName,

    /// The fate of the message that a worker dies in, and of its connection: close closes the
    /// connection; redeliver[=ATTEMPTS] gives the message to another worker, for ATTEMPTS runs in all
    /// (3 by default, 255 at most); reply=TEXT (with \r \n \t \0 \\ \xHH) sends TEXT and closes;
    /// keep drops the message and keeps the connection.
    #[arg(long, value_name = "POLICY", default_value = "close")]
    pub(super) on_crash: OnCrash,

    /// Spare workers, started and waiting: one takes the seat of a worker that dies at once.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = number::<u32>(0, 511))]
    pub(super) standby: u32,

    /// Seconds that a callback may run before the log names it, with the functions on its stack.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) callback_limit: Option<Duration>,

    /// Action beyond the log line: warn does nothing more, kill ends the worker.
    #[arg(long, value_name = "ACTION", value_enum, default_value_t = LimitName::Warn, requires = "callback_limit")]
    pub(super) on_limit: LimitName,

    /// Recycle a worker after N messages, plus up to 25 % so that workers are not all recycled at once.
    #[arg(long, value_name = "N", value_parser = number::<u64>(1, u64::MAX))]
    pub(super) max_requests: Option<u64>,

    /// Recycle a worker that has more private memory than this, and kill one that has twice as much. Sizes
    /// may be written 65536, 64K, 64M or 1G.
    #[arg(long, value_name = "BYTES", value_parser = size(1, 1 << 40))]
    pub(super) worker_memory: Option<usize>,

    /// Stop with exit status 3 when, for SECONDS, every worker has died before its first callback.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30", value_parser = seconds)]
    pub(super) fail_on_crash_loop: Option<Duration>,

    /// Seconds after the peer's close until the server closes the connection too, in process mode
    /// whatever the worker does; or never.
    #[arg(long, value_name = "SECONDS|never", default_value = "5", value_parser = deadline)]
    pub(super) close_deadline: Deadline,

    #[command(flatten)]
    pub(super) silence: Silence,

    #[command(flatten)]
    pub(super) opening: Opening,

    #[command(flatten)]
    pub(super) sockets: Sockets,

    /// Seconds that the server has to finish when it stops, and a worker when it is replaced.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(super) shutdown_deadline: Duration,

    /// Open connections at most; further ones wait to be accepted [default: 65536, or as many as the
    /// limit of open files allows].
    #[arg(long, value_name = "N", value_parser = number::<u32>(1, 4_194_304))]
    pub(super) max_connections: Option<u32>,

    /// Open connections of one client address at most, in base mode for each worker; further ones are
    /// reset. IPv6 clients count by their first 64 bits, clients of unix sockets by their user [default: no
    /// limit].
    #[arg(long, value_name = "N", value_parser = number::<u32>(1, 4_194_304))]
    pub(super) max_connections_per_address: Option<u32>,

    /// The longest message accepted, in bytes, framing included.
    #[arg(long, value_name = "BYTES", default_value = "8M", value_parser = size(1, 1 << 30))]
    pub(super) max_message: usize,

    /// High-water mark: reading a connection pauses while more than BYTES of its output are unsent.
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = size(1, 1 << 33))]
    pub(super) output_high_water: usize,

    /// Unsent output with which a connection is closed [default: the high-water mark plus the messages
    /// that may be on their way to a worker, at least 16 MiB].
    #[arg(long, value_name = "BYTES", value_parser = size(1, 1 << 34))]
    pub(super) output_limit: Option<usize>,

    /// Bytes that the process that owns the sockets may hold for all clients together [default: 256
    /// MiB, or twice the output limit for each reactor; at most a quarter of the memory that the server may
    /// use].
    #[arg(long, value_name = "BYTES", value_parser = size(1, 1 << 40))]
    pub(super) memory_budget: Option<usize>,

    /// A file for the pid of the process that takes the signals; removed at the end. A file that is there is
    /// replaced if it is a regular one and names no other process that runs.
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,

    /// Name of the server in the titles of its processes, as tine[NAME] worker#0, for ps and pkill -f
    /// [default: the first port, or the name of the first unix socket].
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,

    /// End by force when process PID ends.
    #[arg(long, value_name = "PID", value_parser = number::<u32>(1, u32::MAX))]
    pub(super) die_with: Option<u32>,

    /// The most bytes of a poisonous message, one that has used up its attempts, that the log shows; 0
    /// leaves it out.
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = size(0, 65_536))]
    pub(super) poison_shown: usize,

    /// Log each callback, and so the process that runs it: on_start, and worker_start, connect, receive and
    /// close of the handler.
    #[arg(long)]
    pub(super) log_callbacks: bool,

    #[command(flatten)]
    pub(super) logs: Logs,

    /// A file of settings, in TOML: those of the library by their names, each listener as a table [[listen]],
    /// and handler, work, faults, log_callbacks, log_level, log_file and log_format. Flags that are given
    /// override it. SIGHUP reads log_level again.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Check the flags and the file of --config, and start nothing: exit status 0 if they are right, or 2.
    #[arg(long)]
    pub(super) check: bool,

    /// Print the settings that the flags and the file of --config make, as TOML, and start nothing.
    #[arg(long, conflicts_with = "check")]
    pub(super) print_config: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum ModeName {
    Process,
    Base,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HandlerName {
    Echo,
    Copy,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum DispatchName {
    LeastConnections,
    LeastBusy,
    RoundRobin,
    ClientAddress,
    UserId,
}

impl From<DispatchName> for Dispatch {
    fn from(name: DispatchName) -> Dispatch {
        match name {
            DispatchName::LeastConnections => Dispatch::LeastConnections,
            DispatchName::LeastBusy => Dispatch::LeastBusy,
            DispatchName::RoundRobin => Dispatch::RoundRobin,
            DispatchName::ClientAddress => Dispatch::ClientAddress,
            DispatchName::UserId => Dispatch::UserId,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum LimitName {
    Warn,
    Kill,
}

/// A time, or never.
#[derive(Clone, Copy)]
pub(super) struct Deadline(pub(super) Option<Duration>);

impl Serve {
    pub(crate) fn run(self, given: Given) -> ExitCode {
        match self.effective(&given) {
            Err(problem) => {
                super::complain_at_once(problem);
                ExitCode::from(2)
            }
            Ok(_) if self.check => self.say_right(),
            Ok(effective) if self.print_config => print_config(&effective),
            Ok(effective) => self.start(given, effective),
        }
    }

    fn start(self, given: Given, effective: File) -> ExitCode {
        let program = &effective.program;
        let file = program.log_file.clone();
        if let Err(error) = logs::start(program.log_level, file, program.log_format) {
            super::complain_at_once(format_args!("cannot start the log: {error}"));
            return ExitCode::FAILURE;
        }
        let settings = &effective.settings;
        let plan = self.exec.plan(
            &self.protocol,
            settings.output_limit,
            settings.shutdown_deadline,
        );
        let exec = match plan {
            Ok(exec) => exec,
            Err(problem) => {
                super::complain_at_once(problem);
                return ExitCode::from(2);
            }
        };
        match self.serve(given, effective, exec) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                super::complain_at_once(&error);
                ExitCode::from(match error.kind() {
                    ErrorKind::Setting => 2,
                    ErrorKind::CrashLoop => 3,
                    _ => 1,
                })
            }
        }
    }

    fn serve(self, given: Given, effective: File, exec: Option<Exec>) -> Result<(), Error> {
        let Program {
            handler,
            work,
            faults,
            log_callbacks: logs,
            ..
        } = effective.program.clone();
        let work = Duration::from_millis(work);
        let copies = match handler {
            HandlerName::Echo => false,
            HandlerName::Copy => true,
        };
        // They come while the server runs. Afterwards an echo of the one that has stopped it, from npm or a
        // terminal, would end the program by a signal, and not with its exit status.
        let ending = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
        let ending: SigSet = ending.into_iter().collect();
        if let Err(error) = ending.thread_block() {
            log::warn!("cannot block signals: {error}");
        }
        let mut server = Server::from(effective.settings.clone()).on_start(move |started| {
            if logs {
                log_callback("on_start");
            }
            say_ready(started);
        });
        if self.config.is_some() {
            server = server.on_hangup(move || self.reread(&given, &effective));
        }
        if let Some(exec) = exec {
            return server.run(|_| exec.start());
        }
        server.run(|_| {
            let echo = Echo {
                work,
                faults: faults.clone(),
                logs,
                copy: copies.then(Vec::new),
            };
            echo.started()
        })
    }
}

/// Prints a line for each address: every worker is ready.
fn say_ready(started: &Started) {
    if let Err(error) = tine::logger::print(&format!("{started}\n")) {
        // The server serves all the same, also if standard output has no reader.
        log::warn!("cannot write to standard output: {error}; not written: {started}");
    }
}

pub(super) fn deadline(text: &str) -> Result<Deadline, String> {
    match text {
        "never" => Ok(Deadline(None)),
        _ => seconds(text)
            .map(|time| Deadline(Some(time)))
            .map_err(|problem| format!("{problem}, nor `never`")),
    }
}
