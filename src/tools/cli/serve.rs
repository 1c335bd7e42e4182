//! `tine serve`: a server with a ready-made handler, and with faults on request.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use log::LevelFilter;
use nix::sys::signal::{SigSet, Signal};
use tine::{
    Dispatch, Error, ErrorKind, LimitAction, Listener, Mode, OnCrash, Protocol, Server, Started,
};

use super::echo::{Echo, log_callback};
use super::fault::Fault;
use super::silence::Silence;
use super::values::{number, place, seconds, size};

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
    mode: ModeName,

    /// An address to listen on, as 127.0.0.1:9501, [::1]:9501 or localhost:9501; may be given more than
    /// once. A name stands for all its addresses, 0.0.0.0 for every IPv4 address of the machine, and [::]
    /// for every IPv6 address alone. Port 0 picks a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9501", value_parser = place)]
    listen: Vec<String>,

    /// Worker processes [default: the cores of the machine].
    #[arg(long, value_name = "N", value_parser = number::<u32>(1, 511))]
    workers: Option<u32>,

    /// Reactor threads of the master, in process mode [default: half the cores, at least 1].
    #[arg(long, value_name = "N", value_parser = number::<u32>(1, 1023))]
    reactors: Option<u32>,

    /// Length of each listener's accept queue. The kernel allows net.core.somaxconn at most.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = number::<u32>(0, 2_147_483_647))]
    backlog: u32,

    /// The workers' handler: echo sends each message back from the memory in which it arrived; copy
    /// sends back a copy, as a handler does that builds its answers.
    #[arg(long, value_enum, default_value_t = HandlerName::Echo)]
    handler: HandlerName,

    /// How bytes become messages: raw (as read), lines, delimiter=TEXT (with \r \n \t \0 \\ \xHH),
    /// varint, or length=1..8[,big|little][,body|all][,offset=N][,adjust=N].
    #[arg(long, default_value = "raw")]
    protocol: Protocol,

    /// Milliseconds for which the handler blocks in each message.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = number::<u64>(0, 86_400_000))]
    work: u64,

    /// A fault in every worker; may be given more than once. EVENT is worker_start, connect, receive or
    /// close; ACTION is sleep=SECONDS, exit=STATUS, panic, abort or segv. It happens each time, or with
    /// a PROBABILITY over 0 and up to 1. Examples are close:sleep=1000 and receive:abort@0.01.
    #[arg(long = "fault", value_name = "EVENT:ACTION[@PROBABILITY]")]
    faults: Vec<Fault>,

    /// Which worker gets a message, in process mode: the worker that had the fewest connections when
    /// this one was accepted, the worker with the fewest messages now, the next worker in turn at
    /// accept, or always the same seat for a client's IP address or for a user id set by the handler.
    #[arg(long, value_name = "MODE", value_enum, default_value_t = DispatchName::LeastConnections)]
    dispatch: DispatchName,

    /// The fate of the message that a worker dies in, and of its connection: close closes the
    /// connection; redeliver[=ATTEMPTS] gives the message to another worker, for ATTEMPTS runs in all
    /// (3 by default, 255 at most); reply=TEXT (with \r \n \t \0 \\ \xHH) sends TEXT and closes;
    /// keep drops the message and keeps the connection.
    #[arg(long, value_name = "POLICY", default_value = "close")]
    on_crash: OnCrash,

    /// Spare workers, started and waiting: one takes the seat of a worker that dies at once.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = number::<u32>(0, 511))]
    standby: u32,

    /// Seconds that a callback may run before the log names it, with the functions on its stack.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    callback_limit: Option<Duration>,

    /// Action beyond the log line: warn does nothing more, kill ends the worker.
    #[arg(long, value_name = "ACTION", value_enum, default_value_t = LimitName::Warn, requires = "callback_limit")]
    on_limit: LimitName,

    /// Recycle a worker after N messages, plus up to 25 % so that workers are not all recycled at once.
    #[arg(long, value_name = "N", value_parser = number::<u64>(1, u64::MAX))]
    max_requests: Option<u64>,

    /// Recycle a worker that has more private memory than this, and kill one that has twice as much. Sizes
    /// may be written 65536, 64K, 64M or 1G.
    #[arg(long, value_name = "BYTES", value_parser = size(1, 1 << 40))]
    worker_memory: Option<usize>,

    /// Stop with exit status 3 when, for SECONDS, every worker has died before its first callback.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30", value_parser = seconds)]
    fail_on_crash_loop: Option<Duration>,

    /// Seconds after the peer's close until the server closes the connection too, in process mode
    /// whatever the worker does; or never.
    #[arg(long, value_name = "SECONDS|never", default_value = "5", value_parser = deadline)]
    close_deadline: Deadline,

    #[command(flatten)]
    silence: Silence,

    /// Seconds that the server has to finish when it stops, and a worker when it is replaced.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    shutdown_deadline: Duration,

    /// Open connections at most; further ones wait to be accepted [default: 65536, or as many as the
    /// limit of open files allows].
    #[arg(long, value_name = "N", value_parser = number::<u32>(1, 4_194_304))]
    max_connections: Option<u32>,

    /// Open connections of one client address at most, in base mode for each worker; further ones are
    /// reset. IPv6 clients count by their first 64 bits [default: no limit].
    #[arg(long, value_name = "N", value_parser = number::<u32>(1, 4_194_304))]
    max_connections_per_address: Option<u32>,

    /// The longest message accepted, in bytes, framing included.
    #[arg(long, value_name = "BYTES", default_value = "8M", value_parser = size(1, 1 << 30))]
    max_message: usize,

    /// High-water mark: reading a connection pauses while more than BYTES of its output are unsent.
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = size(1, 1 << 33))]
    output_high_water: usize,

    /// Unsent output with which a connection is closed [default: the high-water mark plus the messages
    /// that may be on their way to a worker, at least 16 MiB].
    #[arg(long, value_name = "BYTES", value_parser = size(1, 1 << 34))]
    output_limit: Option<usize>,

    /// Bytes that the process that owns the sockets may hold for all clients together [default: 256
    /// MiB, or twice the output limit for each reactor; at most a quarter of the memory that the server may
    /// use].
    #[arg(long, value_name = "BYTES", value_parser = size(1, 1 << 40))]
    memory_budget: Option<usize>,

    /// A file for the pid of the process that takes the signals; removed at the end. A file that is there is
    /// replaced if it is a regular one and names no other process that runs.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// Name of the server in the titles of its processes, as tine[NAME] worker#0, for ps and pkill -f
    /// [default: the first port].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// End by force when process PID ends.
    #[arg(long, value_name = "PID", value_parser = number::<u32>(1, u32::MAX))]
    die_with: Option<u32>,

    /// The most bytes of a poisonous message, one that has used up its attempts, that the log shows; 0
    /// leaves it out.
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = size(0, 65_536))]
    poison_shown: usize,

    /// Log each callback, and so the process that runs it: on_start, and worker_start, connect, receive and
    /// close of the handler.
    #[arg(long)]
    log_callbacks: bool,

    /// The lowest level that is logged: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value_t = LevelFilter::Info, value_parser = log_level)]
    log_level: LevelFilter,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeName {
    Process,
    Base,
}

#[derive(Clone, Copy, ValueEnum)]
enum HandlerName {
    Echo,
    Copy,
}

#[derive(Clone, Copy, ValueEnum)]
enum DispatchName {
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
enum LimitName {
    Warn,
    Kill,
}

/// A time, or never.
#[derive(Clone, Copy)]
pub(super) struct Deadline(pub(super) Option<Duration>);

impl Serve {
    pub(crate) fn run(self) -> ExitCode {
        if let Err(error) = tine::logger::start(self.log_level) {
            super::complain_at_once(format_args!("cannot start the log: {error}"));
            return ExitCode::FAILURE;
        }
        match self.serve() {
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

    fn serve(self) -> Result<(), Error> {
        let server = self.with_limits(self.with_workers(self.server()));
        let (work, faults) = (Duration::from_millis(self.work), self.faults);
        let logs = self.log_callbacks;
        let copies = match self.handler {
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

    /// Returns a server with its listeners and with the settings that have a default here.
    fn server(&self) -> Server {
        let logs = self.log_callbacks;
        let server = Server::new()
            .mode(match self.mode {
                ModeName::Process => Mode::Process,
                ModeName::Base => Mode::Base,
            })
            .dispatch(self.dispatch.into())
            .on_crash(self.on_crash.clone())
            .standby(self.standby as usize)
            .close_deadline(self.close_deadline.0)
            .shutdown_deadline(self.shutdown_deadline)
            .output_high_water(self.output_high_water)
            .poison_shown(self.poison_shown)
            .on_start(move |started| {
                if logs {
                    log_callback("on_start");
                }
                say_ready(started);
            });
        self.listen.iter().fold(server, |server, address| {
            let listener = Listener::tcp(address)
                .protocol(self.protocol.clone())
                .max_message(self.max_message)
                .backlog(self.backlog);
            server.listen(self.silence.apply(listener))
        })
    }

    /// Adds the settings of the processes for which the library has the default.
    fn with_workers(&self, mut server: Server) -> Server {
        if let Some(workers) = self.workers {
            server = server.workers(workers as usize);
        }
        if let Some(reactors) = self.reactors {
            server = server.reactors(reactors as usize);
        }
        if let Some(limit) = self.callback_limit {
            server = server.callback_limit(limit).on_limit(match self.on_limit {
                LimitName::Warn => LimitAction::Warn,
                LimitName::Kill => LimitAction::Kill,
            });
        }
        if let Some(messages) = self.max_requests {
            server = server.max_requests(messages);
        }
        if let Some(bytes) = self.worker_memory {
            server = server.worker_memory(bytes as u64);
        }
        if let Some(after) = self.fail_on_crash_loop {
            server = server.fail_on_crash_loop(after);
        }
        if let Some(name) = &self.name {
            server = server.name(name);
        }
        if let Some(pid) = self.die_with {
            server = server.die_with(pid);
        }
        if let Some(path) = &self.pid_file {
            server = server.pid_file(path);
        }
        server
    }

    /// Adds the limits of connections and memory for which the library has the default.
    fn with_limits(&self, mut server: Server) -> Server {
        if let Some(connections) = self.max_connections {
            server = server.max_connections(connections as usize);
        }
        if let Some(connections) = self.max_connections_per_address {
            server = server.max_connections_per_address(connections as usize);
        }
        if let Some(bytes) = self.output_limit {
            server = server.output_limit(bytes);
        }
        if let Some(bytes) = self.memory_budget {
            server = server.memory_budget(bytes);
        }
        server
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

fn log_level(text: &str) -> Result<LevelFilter, String> {
    let expected = "expected off, error, warn, info, debug or trace";
    text.parse().map_err(|_| expected.to_owned())
}
