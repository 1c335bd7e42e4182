//! For tests: a process that does one thing, on one thread whose id is known.
//!
//! It is the test's own program, started again with only [`plays_its_part`] to run; libtest runs
//! that on a thread beside the main one. It talks on stderr, since libtest writes to stdout.

use std::ffi::CString;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Write};
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// The work of a puppet, until it is told to stop, or for a minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// Reads its stdin, in a function `reads_here`.
    Reads,
    /// Reads the clock again and again, in a function `spins_here`.
    Spins,
    /// Receives from a socket with a timeout; its next line is the port.
    Receives,
    /// Waits for no event, for a second.
    Polls,
    /// Counts the real-time signals that it gets, and writes how many when its stdin has a line.
    Counts,
    /// Spawns a program that opens the pipe of this name first, and so stays in state D.
    Spawns,
}

impl Part {
    const ALL: [Part; 6] = [
        Part::Reads,
        Part::Spins,
        Part::Receives,
        Part::Polls,
        Part::Counts,
        Part::Spawns,
    ];
}

const PART: &str = "TINE_PUPPET";
const PIPE: &str = "TINE_PUPPET_PIPE";

/// A puppet, killed and reaped when dropped.
pub(crate) struct Puppet {
    process: Child,
    says: BufReader<ChildStderr>,
    /// The thread that plays, which is not the main one.
    pub(crate) thread: i32,
}

impl Puppet {
    pub(crate) fn start(part: Part) -> Puppet {
        Puppet::start_with(part, "")
    }

    /// With the path of the pipe.
    pub(crate) fn start_with(part: Part, pipe: &str) -> Puppet {
        let program = std::env::current_exe().expect("a test knows its program");
        let mut process = Command::new(program)
            .args(["--exact", "sys::puppet::plays_its_part", "--nocapture"])
            .env(PART, format!("{part:?}"))
            .env(PIPE, pipe)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a test can start its program");
        let says = BufReader::new(process.stderr.take().expect("stderr is a pipe"));
        let mut puppet = Puppet {
            process,
            says,
            thread: 0,
        };
        puppet.thread = puppet.hear().parse().expect("it says its thread first");
        puppet
    }

    /// Returns the next line that it writes; an empty one when it has ended.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("it says text");
        line.trim_end().to_owned()
    }

    /// Gives it a line to read.
    pub(crate) fn tell(&mut self) {
        let stdin = self.process.stdin.as_mut().expect("stdin is a pipe");
        stdin.write_all(b"\n").expect("it has not ended");
    }

    /// Sends its thread a signal that it counts, if there is room for one more.
    pub(crate) fn signal(process: u32, thread: i32) -> bool {
        // SAFETY: tgkill touches no memory of this process.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGRTMIN()) == 0 }
    }

    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        // A thread that this one still traces, because a test has failed, is reaped first.
        let thread = Pid::from_raw(self.thread);
        while waitpid(thread, Some(WaitPidFlag::__WALL)).is_ok() {}
        let _ = self.process.wait();
    }
}

/// Waits for what takes time, for 10 seconds at most.
#[track_caller]
pub(crate) fn eventually(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn plays_its_part() {
    let Ok(name) = std::env::var(PART) else {
        // Among the other tests it is none.
        return;
    };
    // Nobody waits for longer.
    nix::unistd::alarm::set(60);
    let is_it = |part: &Part| format!("{part:?}") == name;
    let part = Part::ALL
        .into_iter()
        .find(is_it)
        .expect("a part has a name");
    say(nix::unistd::gettid());
    match part {
        Part::Reads => reads_here(),
        Part::Spins => spins_here(),
        Part::Receives => receives(),
        Part::Polls => polls(),
        Part::Counts => counts(),
        Part::Spawns => spawns(&std::env::var(PIPE).expect("it has a pipe")),
    }
}

fn say(what: impl std::fmt::Display) {
    writeln!(io::stderr(), "{what}").expect("the test listens");
}

#[inline(never)]
fn reads_here() {
    let mut line = String::new();
    io::stdin().read_line(&mut line).expect("stdin is text");
    say("went on");
}

#[inline(never)]
fn spins_here() {
    loop {
        black_box(Instant::now());
    }
}

fn receives() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("there is a port");
    let timeout = Some(Duration::from_secs(30));
    socket.set_read_timeout(timeout).expect("it can wait");
    say(socket.local_addr().expect("it is bound").port());
    match socket.recv(&mut [0; 8]) {
        Ok(_) => say("went on"),
        Err(error) => say(error),
    }
}

fn polls() {
    let poller = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("there is epoll");
    match poller.wait(&mut [EpollEvent::empty()], 1000_u16) {
        Ok(_) => say("went on"),
        Err(error) => say(error),
    }
}

fn counts() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let action = move || {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    // SAFETY: the action only adds to an atomic.
    unsafe { signal_hook::low_level::register(libc::SIGRTMIN(), action) }.expect("it can listen");
    say("listens");
    io::stdin()
        .read_line(&mut String::new())
        .expect("stdin is text");
    say(count.load(Ordering::Relaxed));
}

fn spawns(pipe: &str) {
    let (program, pipe) = (c"/bin/true", CString::new(pipe).expect("a path has no 0"));
    let mut actions = MaybeUninit::uninit();
    let mut child = 0;
    let arguments = [program.as_ptr().cast_mut(), ptr::null_mut()];
    let environment = [ptr::null_mut()];
    // SAFETY: the actions are made before they are used, the texts end with 0, and the lists of
    // them with a null pointer.
    let spawned = unsafe {
        libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
        let actions = actions.as_mut_ptr();
        libc::posix_spawn_file_actions_addopen(actions, 0, pipe.as_ptr(), libc::O_RDONLY, 0);
        let (arguments, environment) = (arguments.as_ptr(), environment.as_ptr());
        let none = ptr::null();
        libc::posix_spawn(
            &raw mut child,
            program.as_ptr(),
            actions,
            none,
            arguments,
            environment,
        )
    };
    assert_eq!(spawned, 0);
    waitpid(Pid::from_raw(child), None).expect("it is a child");
    say("went on");
}
