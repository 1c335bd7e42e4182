//! The launch of a server: its flags, and its limits and capabilities.
//!
//! Each is the leader of its own process group and is killed by the kernel when the thread that started it ends.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Pid, getpid, getppid};

use super::server::{Running, Server};
use super::{SOON, eventually, eventually_some};

/// The program under test.
pub(crate) const PROGRAM: &str = built!("tine");

/// A program on the same library, with the handlers that the tests need.
const TESTBED: &str = built!("tine-testbed");

/// `CAP_DAC_OVERRIDE`: write in spite of the permission bits.
pub(crate) const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
/// `CAP_NET_BIND_SERVICE`: bind a port below 1024.
pub(crate) const CAP_NET_BIND_SERVICE: libc::c_ulong = 10;
/// `CAP_SYS_RESOURCE`: raise a hard limit.
pub(crate) const CAP_SYS_RESOURCE: libc::c_ulong = 24;

/// A server before its start.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    program: String,
    wrapper: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    limits: Vec<Limit>,
    without: Vec<libc::c_ulong>,
    listeners: usize,
    /// Other files in the place of the pipes to the test.
    stdout: Option<Arc<OwnedFd>>,
    stderr: Option<Arc<OwnedFd>>,
    /// Sockets that it gets as descriptors from 3 on.
    passed: Vec<Arc<OwnedFd>>,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    resource: Resource,
    soft: u64,
    /// `None` leaves the hard limit as it is.
    hard: Option<u64>,
}

/// A program that has ended by itself, and its output.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Launch {
    /// `tine` with these arguments and no others.
    pub(crate) fn tine(arguments: &[&str]) -> Self {
        Self::program(Path::new(PROGRAM), arguments)
    }

    /// Another program with these arguments.
    pub(crate) fn program(program: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self {
            program: program.to_str().expect("a path in UTF-8").to_owned(),
            wrapper: Vec::new(),
            arguments,
            environment: Vec::new(),
            limits: Vec::new(),
            without: Vec::new(),
            listeners: 0,
            stdout: None,
            stderr: None,
            passed: Vec::new(),
        }
    }

    /// Another program that prints a ready line as `tine serve` does.
    pub(crate) fn listening(program: &Path, arguments: &[&str]) -> Self {
        let mut launch = Self::program(program, arguments);
        launch.listeners = 1;
        launch
    }

    /// The testbed: one of its handlers, and the mode. [`and`](Self::and) adds its options.
    pub(crate) fn testbed(handler: &str, mode: &str) -> Self {
        Self::listening(Path::new(TESTBED), &[handler, mode])
    }

    /// `tine serve` with these flags. It listens on a free port of 127.0.0.1 unless they have an address.
    pub(crate) fn serve(flags: &[&str]) -> Self {
        let mut launch = Self::tine(&["serve"]).and(flags);
        launch.listeners = flags.iter().filter(|flag| **flag == "--listen").count();
        if launch.listeners == 0 {
            launch = launch.and(&["--listen", "127.0.0.1:0"]);
            launch.listeners = 1;
        }
        launch
    }

    /// With this number of listeners, each of which has a ready line.
    pub(crate) fn listeners(mut self, count: usize) -> Self {
        self.listeners = count;
        self
    }

    /// `tine serve` with one listener, of a file of settings.
    pub(crate) fn configured(path: &str) -> Self {
        Self::listening(Path::new(PROGRAM), &["serve", "--config", path])
    }

    /// With more flags.
    pub(crate) fn and(mut self, flags: &[&str]) -> Self {
        self.arguments.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// With a variable in its environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Started through another program, which gets it as its last arguments.
    pub(crate) fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// With this file as standard output.
    pub(crate) fn stdout(mut self, file: impl Into<OwnedFd>) -> Self {
        self.stdout = Some(Arc::new(file.into()));
        self
    }

    /// With this file as standard error.
    pub(crate) fn stderr(mut self, file: impl Into<OwnedFd>) -> Self {
        self.stderr = Some(Arc::new(file.into()));
        self
    }

    /// With a listening socket, and a name for it, as systemd passes them, sd_listen_fds(3).
    pub(crate) fn passing(mut self, name: &str, socket: impl Into<OwnedFd>) -> Self {
        self.passed.push(Arc::new(socket.into()));
        let mut names = match self
            .environment
            .pop_if(|(name, _)| name == "LISTEN_FDNAMES")
        {
            Some((_, names)) => format!("{names}:"),
            None => String::new(),
        };
        names.push_str(name);
        self.environment.retain(|(name, _)| name != "LISTEN_FDS");
        let count = self.passed.len().to_string();
        // Only the process itself knows its pid.
        self.through(&["/bin/sh", "-c", r#"LISTEN_PID=$$ exec "$0" "$@""#])
            .env("LISTEN_FDS", &count)
            .env("LISTEN_FDNAMES", &names)
    }

    /// With a limit of the kernel, soft and hard.
    pub(crate) fn limit(mut self, resource: Resource, value: u64) -> Self {
        self.limits.push(Limit {
            resource,
            soft: value,
            hard: Some(value),
        });
        self
    }

    /// With a soft limit of the kernel, which the program may raise.
    pub(crate) fn soft_limit(mut self, resource: Resource, value: u64) -> Self {
        self.limits.push(Limit {
            resource,
            soft: value,
            hard: None,
        });
        self
    }

    /// Without one of root's capabilities, also where the tests run as root.
    pub(crate) fn without(mut self, capability: libc::c_ulong) -> Self {
        self.without.push(capability);
        self
    }

    /// Starts it and waits for its ready line.
    ///
    /// # Panics
    /// If it ends instead, or does not get ready.
    #[track_caller]
    pub(crate) fn start(self) -> Server {
        let listeners = self.listeners;
        Server::await_ready(self.spawn(), listeners)
    }

    /// Starts it, waits until it has ended by itself, and checks that no process is left running.
    #[track_caller]
    pub(crate) fn run(self) -> Ended {
        let mut running = self.spawn();
        let status = eventually_some(SOON, "the program ends by itself", || running.try_wait());
        eventually(SOON, "nothing is left running", || {
            running.group().is_empty()
        });
        eventually(SOON, "all its output is read", || {
            running.stdout.is_closed() && running.stderr.is_closed()
        });
        Ended {
            status,
            stdout: running.stdout.text(),
            stderr: running.stderr.text(),
        }
    }

    /// Starts it without waiting.
    #[track_caller]
    pub(crate) fn spawn(self) -> Running {
        let mut command = self.command();
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Running::new(child, self.arguments.join(" "))
    }

    #[allow(unsafe_code)] // Limits, and a death tied to the test's, can only be set between fork and exec.
    fn command(&self) -> Command {
        let mut words = self
            .wrapper
            .iter()
            .map(String::as_str)
            .chain([self.program.as_str()]);
        let mut command = Command::new(words.next().unwrap_or(&self.program));
        command
            .args(words)
            .args(&self.arguments)
            .env_remove("RUST_LOG")
            .env_remove("TINE_LOG")
            .envs(self.environment.iter().cloned());
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(stream(self.stdout.as_deref()))
            .stderr(stream(self.stderr.as_deref()));
        let (limits, without, parent) = (self.limits.clone(), self.without.clone(), getpid());
        let passed = self.passed.clone();
        let setup = move || {
            confine(&limits, &without, parent)?;
            pass(&passed)
        };
        // SAFETY: the closure runs in a fork of a process with threads, and only makes system calls.
        unsafe { command.pre_exec(setup) };
        command
    }
}

fn stream(file: Option<&OwnedFd>) -> Stdio {
    file.map_or_else(Stdio::piped, |file| {
        file.try_clone()
            .expect("a descriptor can be duplicated")
            .into()
    })
}

/// Runs between fork and exec, as the next function.
#[allow(unsafe_code)] // The numbers are what matters.
fn pass(sockets: &[Arc<OwnedFd>]) -> io::Result<()> {
    // The pipe by which the parent hears of a failed exec keeps its number.
    const FREE: i32 = 100;
    for (index, socket) in (0..).zip(sockets) {
        // SAFETY: takes integers.
        let copied = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_DUPFD, FREE + index) };
        // SAFETY: as above.
        if copied < 0 || unsafe { libc::dup2(copied, 3 + index) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was made above, and nothing else has it.
        unsafe { libc::close(copied) };
    }
    Ok(())
}

/// Runs between fork and exec: as in a signal handler, only system calls are allowed.
#[allow(unsafe_code)] // nix has no call that drops a capability, and its `signal` is unsafe.
fn confine(limits: &[Limit], without: &[libc::c_ulong], parent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    for ignored in [Signal::SIGINT, Signal::SIGQUIT] {
        // A shell lets its jobs in the background ignore them, and the tests may be one.
        // SAFETY: no handler is set.
        unsafe { signal(ignored, SigHandler::SigDfl) }?;
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    for &Limit {
        resource,
        soft,
        hard,
    } in limits
    {
        let hard = hard.map_or_else(|| getrlimit(resource).map(|limits| limits.1), Ok)?;
        setrlimit(resource, soft, hard)?;
    }
    for &capability in without {
        // SAFETY: takes two integers. It fails without root, and then the capability is not there either.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    Ok(())
}
