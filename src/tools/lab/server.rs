//! A tine server for an experiment: this program, started once more as a child process.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::process::descendants;

/// A server. It is killed with all its processes when this is dropped, and when this process dies.
pub(crate) struct LabServer {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl LabServer {
    /// Starts `tine serve` with these arguments on a free port of 127.0.0.1, and waits until it is
    /// ready.
    ///
    /// # Errors
    /// The server's log, if it did not start.
    pub(crate) fn start(arguments: &[&str]) -> io::Result<LabServer> {
        let mut child = Command::new("/proc/self/exe")
            .args(["serve", "--listen", "127.0.0.1:0", "--die-with"])
            .arg(std::process::id().to_string())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C reaches only the lab, which then ends its servers.
            .process_group(0)
            .spawn()?;
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both are pipes");
        };
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                lock(&lines).push(line);
            }
        });
        let mut server = LabServer {
            child,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            log,
            reader: Some(reader),
        };
        let mut ready = String::new();
        BufReader::new(out).read_line(&mut ready)?;
        match address_in(&ready) {
            Some(address) => {
                server.address = address;
                Ok(server)
            }
            None => Err(server.failure()),
        }
    }

    fn failure(mut self) -> io::Error {
        self.end();
        let said = lock(&self.log).join("\n");
        io::Error::other(format!("the server did not start: {said}"))
    }

    /// The process to signal: the master, or the manager in base mode.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Returns all its processes.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let mut pids = vec![self.pid()];
        // A server that has just ended has no descendants.
        pids.extend(descendants(self.pid()).unwrap_or_default());
        pids
    }

    /// Returns its process in that role, such as `worker#0`.
    pub(crate) fn process(&self, role: &str) -> Option<i32> {
        let is_it = |pid: &i32| self.role(*pid).as_deref() == Some(role);
        self.pids().into_iter().find(is_it)
    }

    /// Returns the role of one of its processes.
    pub(crate) fn role(&self, pid: i32) -> Option<String> {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        name.trim_end().strip_prefix("tine ").map(str::to_owned)
    }

    /// Kills one of its processes.
    pub(crate) fn kill(&self, pid: i32) -> io::Result<()> {
        Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
    }

    /// Returns the first line of its log that contains all of these parts.
    pub(crate) fn logged(&self, parts: &[&str]) -> Option<String> {
        let log = lock(&self.log);
        let has_all = |line: &&String| parts.iter().all(|part| line.contains(part));
        log.iter().find(has_all).cloned()
    }

    fn end(&mut self) {
        // The first process leads its own group. If it is gone already, the rest of the server has died
        // with it.
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            // It ends when the last process of the server has closed the log.
            let _ = reader.join();
        }
    }
}

impl Drop for LabServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// A process with a listener of its own, with `SO_REUSEPORT`, that never accepts. It is killed when this
/// is dropped, and when this process dies.
pub(crate) struct Holder {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Holder {
    pub(crate) fn start(at: SocketAddr) -> io::Result<Holder> {
        let mut child = Command::new("/proc/self/exe")
            .args(["hold", &at.to_string(), "--die-with"])
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let out = child.stdout.take();
        let mut holder = Holder { child, address: at };
        let mut ready = String::new();
        if let Some(out) = out {
            BufReader::new(out).read_line(&mut ready)?;
        }
        // If it failed, it has reported the reason on standard error itself.
        holder.address = address_in(&ready).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(holder)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It fails only if the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(log: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the address in a line such as "tine: listening on 127.0.0.1:9501 (process mode, …)".
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}
