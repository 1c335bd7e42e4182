//! A running server: its output, its processes, and its end.

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::process::Process;
use super::sockets::{is_listening, of_server};
use super::{SOON, eventually, eventually_some};

/// The lines that a program writes, as they come.
#[derive(Clone)]
pub(crate) struct Output(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    closed: bool,
}

/// A started program. When dropped, it is killed with its whole group, and a failing test shows its log.
pub(crate) struct Running {
    child: Child,
    process: Process,
    name: String,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
}

/// A ready line of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) address: SocketAddr,
    pub(crate) mode: String,
    pub(crate) workers: String,
    /// `None` in base mode, which has no reactors.
    pub(crate) reactors: Option<String>,
    pub(crate) pid: i32,
}

/// A server that has printed its ready lines.
pub(crate) struct Server {
    running: Running,
    pub(crate) ready: Vec<Ready>,
    /// The first process: the master in process mode, the manager in base mode.
    pub(crate) root: Process,
}

impl Output {
    fn of(source: impl Read + Send + 'static) -> Self {
        let output = Self(Arc::default());
        let written = Arc::clone(&output.0);
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                written
                    .lock()
                    .unwrap()
                    .lines
                    .push(String::from_utf8_lossy(&line).into_owned());
            }
            written.lock().unwrap().closed = true;
        });
        output
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().unwrap().closed
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().lines.clone()
    }

    pub(crate) fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Returns the lines that have all of these words.
    pub(crate) fn with(&self, words: &[&str]) -> Vec<String> {
        self.lines()
            .into_iter()
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .collect()
    }
}

impl Running {
    #[track_caller]
    pub(crate) fn new(mut child: Child, name: String) -> Self {
        // Other files than pipes are the test's to read.
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let stdout = stdout.map_or_else(|| Output::of(io::empty()), Output::of);
        let stderr = stderr.map_or_else(|| Output::of(io::empty()), Output::of);
        let pid = i32::try_from(child.id()).expect("a pid is an i32");
        Self {
            child,
            process: Process::child(pid),
            name,
            stdout,
            stderr,
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Returns the running processes of its group.
    pub(crate) fn group(&self) -> Vec<Process> {
        self.process.group()
    }

    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    fn kill_all(&mut self) {
        let mut all = self.process.descendants();
        all.extend(self.group());
        for process in all {
            process.signal(Signal::SIGKILL);
        }
        // Fails if it has ended already, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn show(&self) {
        let begin = Instant::now();
        while !(self.stdout.is_closed() && self.stderr.is_closed())
            && begin.elapsed() < Duration::from_secs(5)
        {
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!(
            "--- tine {} (pid {})\n{}",
            self.name,
            self.pid(),
            self.stdout.text()
        );
        eprintln!("--- its log\n{}\n---", self.stderr.text());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_all();
        if thread::panicking() {
            self.show();
        }
    }
}

impl Ready {
    /// Parses a ready line, also one with task workers; `None` if it does not have exactly that form.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (address, rest) = line.strip_prefix("tine: listening on ")?.split_once(" (")?;
        let parts: Vec<&str> = rest.strip_suffix(')')?.split(", ").collect();
        let (mode, workers, reactors, pid) = match parts[..] {
            [mode, workers, pid] => (mode, workers, None, pid),
            [mode, workers, reactors, pid] | [mode, workers, _, reactors, pid] => {
                (mode, workers, Some(reactors.to_owned()), pid)
            }
            _ => return None,
        };
        Some(Self {
            address: address.parse().ok()?,
            mode: mode.strip_suffix(" mode")?.to_owned(),
            workers: workers.to_owned(),
            reactors,
            pid: pid.strip_prefix("pid ")?.parse().ok()?,
        })
    }
}

impl Server {
    /// Waits for a ready line from each listener.
    #[track_caller]
    pub(crate) fn await_ready(mut running: Running, listeners: usize) -> Self {
        let lines = eventually_some(SOON, "the server says that it is ready", || {
            let lines = running.stdout.lines();
            let ended = running.try_wait();
            assert!(
                ended.is_none(),
                "the server ended before it was ready: {ended:?}"
            );
            (lines.len() >= listeners).then_some(lines)
        });
        let parse = |line: &String| {
            Ready::parse(line).unwrap_or_else(|| panic!("not a ready line: {line}"))
        };
        // A server of a test has one of TCP, too.
        let is_unix = |line: &&String| line.starts_with("tine: listening on unix:");
        let ready = lines.iter().filter(|line| !is_unix(line)).map(parse);
        Self::is_ready(running, ready.collect())
    }

    /// A server that was started in another way, with these ready lines.
    #[track_caller]
    pub(crate) fn is_ready(running: Running, ready: Vec<Ready>) -> Self {
        let root = root(&running, ready[0].pid);
        Self {
            running,
            ready,
            root,
        }
    }

    /// Returns the program of a server that has ended by itself.
    pub(crate) fn into_running(self) -> Running {
        self.running
    }

    /// Returns the first address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.ready[0].address
    }

    pub(crate) fn is_base(&self) -> bool {
        self.ready[0].mode == "base"
    }

    pub(crate) fn log(&self) -> &Output {
        &self.running.stderr
    }

    /// Returns the log of a server that has ended, when all of it was read: it shows also that a line is missing.
    #[track_caller]
    pub(crate) fn whole_log(&self) -> &Output {
        eventually(SOON, "all of the log is read", || self.log().is_closed());
        self.log()
    }

    pub(crate) fn stdout(&self) -> &Output {
        &self.running.stdout
    }

    /// Returns the master of process mode.
    #[track_caller]
    pub(crate) fn master(&self) -> Process {
        assert!(!self.is_base(), "base mode has no master");
        self.root
    }

    #[track_caller]
    pub(crate) fn manager(&self) -> Process {
        if self.is_base() {
            return self.root;
        }
        let children = self.root.children();
        assert_eq!(
            children.len(),
            1,
            "the master has one child, the manager: {children:?}"
        );
        children[0]
    }

    /// Kills a worker every `pause`, each in turn, as long as `go_on` says. Returns the number of kills.
    pub(crate) fn kill_workers(&self, pause: Duration, go_on: impl Fn() -> bool) -> usize {
        let (mut turns, mut kills) = (0_usize, 0);
        while go_on() {
            thread::sleep(pause);
            let workers = self.workers();
            turns += 1;
            // There is none while all wait to be started again.
            if let Some(worker) = workers.get(turns % workers.len().max(1)) {
                worker.signal(Signal::SIGKILL);
                kills += 1;
            }
        }
        kills
    }

    /// Kills a worker every 50 ms while clients ask, as long as `go_on` says. Each client returns its number of rounds, of
    /// which `least` are expected in all.
    ///
    /// # Panics
    /// If a client has panicked, or too little has happened to show anything.
    #[track_caller]
    pub(crate) fn kill_workers_under(
        &self,
        clients: Vec<JoinHandle<usize>>,
        least: usize,
        go_on: impl Fn() -> bool,
    ) {
        let kills = self.kill_workers(Duration::from_millis(50), go_on);
        let rounds = clients.into_iter().map(|it| it.join().expect("no panic"));
        let rounds: usize = rounds.sum();
        eprintln!("{kills} kills, {rounds} rounds");
        assert!(
            kills >= 10 && rounds > least,
            "{kills} kills, {rounds} rounds"
        );
    }

    /// Returns the workers that run now, in the order of their pids.
    #[track_caller]
    pub(crate) fn workers(&self) -> Vec<Process> {
        self.manager().children()
    }

    /// Returns the manager's children with this name in `ps`.
    #[track_caller]
    pub(crate) fn named(&self, name: &str) -> Vec<Process> {
        let mut all = self.workers();
        all.retain(|process| process.name() == name);
        all
    }

    /// Waits until `count` workers run, none of which is one of `old`.
    #[track_caller]
    pub(crate) fn new_workers(&self, count: usize, old: &[Process]) -> Vec<Process> {
        eventually_some(
            SOON,
            format_args!("{count} workers that are not {old:?}"),
            || {
                let workers = self.workers();
                (workers.len() == count && !workers.iter().any(|worker| old.contains(worker)))
                    .then_some(workers)
            },
        )
    }

    /// Returns every process of the server.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mut all = vec![self.root];
        all.extend(self.root.descendants());
        all
    }

    /// Sends a signal to the first process, as a user would.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        self.root.signal(signal);
    }

    /// Sends a signal to every process of the group, as a terminal does.
    #[track_caller]
    pub(crate) fn signal_group(&self, signal: Signal) {
        killpg(Pid::from_raw(self.running.pid()), signal).expect("the group can be signalled");
    }

    /// Waits until the log has `count` lines or more with all of `words`, and returns them.
    #[track_caller]
    pub(crate) fn logged(&self, count: usize, words: &[&str]) -> Vec<String> {
        eventually_some(
            SOON,
            format_args!("{count} log lines with {words:?}"),
            || {
                let lines = self.log().with(words);
                (lines.len() >= count).then_some(lines)
            },
        )
    }

    /// Waits until the first process has ended, at most `deadline`.
    #[track_caller]
    pub(crate) fn ended(&mut self, deadline: Duration) -> ExitStatus {
        eventually_some(deadline, "the server ends", || self.running.try_wait())
    }

    /// Whether the first process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.running.try_wait().is_some()
    }

    /// Checks that none of `processes` and no other process of the group runs, and that no socket listens any more.
    #[track_caller]
    pub(crate) fn leaves_nothing(&mut self, processes: &[Process]) {
        eventually(
            SOON,
            format_args!("all of {processes:?} have ended"),
            || {
                self.running.try_wait();
                processes.iter().all(|process| !process.is_running())
                    && self.running.group().is_empty()
            },
        );
        for ready in &self.ready {
            eventually(SOON, "no socket listens", || !is_listening(ready.address));
            eventually(SOON, "no socket is left", || {
                of_server(ready.address)
                    .iter()
                    .all(|socket| socket.inode == 0)
            });
        }
    }
}

/// Returns the process that a ready line names. Started through another program, it is a descendant, and may have another
/// pid in a namespace of its own: then it is the first process that runs the program.
#[track_caller]
fn root(running: &Running, pid: i32) -> Process {
    if pid == running.pid() {
        return running.process;
    }
    let is_wrapped = |process: &Process| process.pid == pid || pid == 1;
    let root = running.process.children().into_iter().find(is_wrapped);
    root.unwrap_or_else(|| {
        panic!(
            "the ready line names pid {pid}, started was {}",
            running.pid()
        )
    })
}
