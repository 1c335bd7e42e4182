use std::net::UdpSocket;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::sys::puppet::{Part, Puppet, eventually};

fn is(pid: i32, activity: Activity) -> bool {
    state(pid).is_ok_and(|state| state.activity == activity)
}

/// The machine that runs the tests may be busy with others.
const LONG: Duration = Duration::from_secs(10);

#[track_caller]
fn captured(pid: i32) -> Capture {
    capture_within(pid, LONG).unwrap()
}

/// A puppet that has begun to wait.
fn waiting(part: Part) -> Puppet {
    let puppet = Puppet::start(part);
    eventually(|| is(puppet.thread, Activity::Sleeping));
    puppet
}

fn has(frames: &[Frame], function: &str) -> bool {
    let is_it = |frame: &Frame| {
        frame
            .function
            .as_ref()
            .is_some_and(|it| it.contains(function))
    };
    frames.iter().any(is_it)
}

#[track_caller]
fn assert_has(frames: &[Frame], function: &str) {
    let shown: Vec<String> = frames.iter().map(Frame::to_string).collect();
    let shown = shown.join("\n");
    assert!(has(frames, function), "{function} is not in\n{shown}");
}

/// Killed and reaped when dropped.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Sleeper {
        let sleeper = Sleeper(Command::new("sleep").arg("60").spawn().unwrap());
        eventually(|| is(sleeper.pid(), Activity::Sleeping));
        sleeper
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn functions_have_names_and_places() {
    let puppet = waiting(Part::Reads);
    let frames = captured(puppet.thread).resolve();
    assert_has(&frames, "puppet::reads_here");
    assert_has(&frames, "puppet::plays_its_part");
    let found = frames.iter().find(|frame| {
        let function = frame.function.as_deref();
        function.is_some_and(|function| function.ends_with("puppet::reads_here"))
    });
    let shown = found.unwrap().to_string();
    assert!(
        shown.contains(" tine::sys::puppet::reads_here (src/sys/puppet.rs:"),
        "{shown}"
    );
    for (number, frame) in frames.iter().enumerate() {
        assert_eq!(frame.number, number);
    }
}

#[test]
fn another_program_is_inspected_as_well() {
    let sleeper = Sleeper::start();
    let frames = captured(sleeper.pid()).resolve();
    let is_known = |frame: &Frame| {
        let module = frame.module.as_deref().unwrap_or_default();
        let function = frame.function.as_deref().unwrap_or_default();
        function.contains("nanosleep") || module.starts_with("libc") || module.contains("musl")
    };
    assert!(frames.iter().any(is_known), "{frames:?}");
    eventually(|| is(sleeper.pid(), Activity::Sleeping));
}

#[test]
fn a_loop_is_found_from_within_the_kernels_library() {
    let puppet = Puppet::start(Part::Spins);
    let frames = || captured(puppet.thread).resolve();
    eventually(|| has(&frames(), "puppet::spins_here"));
    for _ in 0..5 {
        assert_has(&frames(), "puppet::spins_here");
    }
}

#[test]
fn who_was_looked_at_goes_on() {
    let mut puppet = waiting(Part::Reads);
    for _ in 0..10 {
        captured(puppet.thread);
    }
    puppet.tell();
    assert_eq!(puppet.hear(), "went on");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_call_with_a_timeout_is_not_interrupted() {
    let mut puppet = Puppet::start(Part::Receives);
    let port: u16 = puppet.hear().parse().unwrap();
    eventually(|| is(puppet.thread, Activity::Sleeping));
    for _ in 0..10 {
        captured(puppet.thread);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"x", ("127.0.0.1", port)).unwrap();
    assert_eq!(puppet.hear(), "went on");

    let mut puppet = waiting(Part::Polls);
    captured(puppet.thread);
    assert_eq!(puppet.hear(), "went on");
}

#[test]
fn no_signal_is_lost() {
    let mut puppet = Puppet::start(Part::Counts);
    assert_eq!(puppet.hear(), "listens");
    let (process, thread) = (puppet.process(), puppet.thread);
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = (0..1000)
                .filter(|_| Puppet::signal(process, thread))
                .count();
            done.store(true, Ordering::Relaxed);
            sent
        });
        while !done.load(Ordering::Relaxed) {
            captured(thread);
        }
        sender.join().unwrap()
    });
    puppet.tell();
    assert_eq!(puppet.hear(), sent.to_string());
}

#[test]
fn who_was_stopped_stays_stopped() {
    let mut puppet = waiting(Part::Reads);
    let process = Pid::from_raw(puppet.process() as i32);
    kill(process, Signal::SIGSTOP).unwrap();
    eventually(|| is(puppet.thread, Activity::Stopped));
    let frames = captured(puppet.thread).resolve();
    assert_has(&frames, "puppet::reads_here");
    puppet.tell();
    eventually(|| is(puppet.thread, Activity::Stopped));
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(5));
        assert!(is(puppet.thread, Activity::Stopped));
    }
    kill(process, Signal::SIGCONT).unwrap();
    assert_eq!(puppet.hear(), "went on");
}

#[test]
fn who_has_ended_is_not_found_and_left_to_be_reaped() {
    let mut ended = Command::new("true").spawn().unwrap();
    let pid = ended.id() as i32;
    eventually(|| is(pid, Activity::Zombie));
    for result in [
        capture(pid).map(drop),
        Stopped::stop(pid, PATIENCE).map(drop),
    ] {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
    assert!(ended.wait().unwrap().success());
    assert_eq!(capture(pid).err().unwrap().kind(), io::ErrorKind::NotFound);
}

#[test]
fn who_ends_meanwhile_is_left_to_be_reaped() {
    for _ in 0..30 {
        let mut ending = Command::new("true").spawn().unwrap();
        while capture_within(ending.id() as i32, LONG).is_ok() {}
        assert!(ending.wait().unwrap().success());
    }
}

#[test]
fn who_is_traced_by_another_is_refused_with_the_reason() {
    let sleeper = Sleeper::start();
    let held = Stopped::stop(sleeper.pid(), LONG).unwrap();
    let refused = capture(sleeper.pid()).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    assert!(refused.to_string().contains("traces it"), "{refused}");
    drop(held);
    captured(sleeper.pid());
}

#[test]
fn a_frame_reads_as_one_line() {
    let frame = |function: Option<&str>, module: Option<&str>, location: Option<&str>| {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let frame = Frame {
            number: 3,
            function: owned(function),
            module: owned(module),
            offset: 0x4e20,
            location: owned(location),
        };
        frame.to_string()
    };
    let (name, place) = ("tine::cli::echo::Echo::receive", "src/cli/echo.rs:37");
    assert_eq!(
        frame(Some(name), Some("tine"), Some(place)),
        "  #3 tine::cli::echo::Echo::receive (src/cli/echo.rs:37)"
    );
    assert_eq!(
        frame(Some("clock_nanosleep"), Some("libc.so.6"), None),
        "  #3 clock_nanosleep (libc.so.6+0x4e20)"
    );
    assert_eq!(
        frame(None, Some("libc.so.6"), None),
        "  #3 libc.so.6+0x4e20"
    );
    assert_eq!(frame(None, None, None), "  #3 0x4e20");
}
