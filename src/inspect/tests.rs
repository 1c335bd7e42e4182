//! Processes in states that a test has to bring about.

use std::io;
use std::time::Duration;

use super::process::{Activity, state};
use super::stack::capture;
use crate::sys::process::{ProcessId, reap};
use crate::sys::puppet::{Part, Puppet, eventually};
use crate::sys::trace::Stopped;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Opens the pipe that keeps a puppet in state D.
struct Pipe(std::path::PathBuf);

impl Pipe {
    fn open(&self) -> bool {
        // Fails while the pipe has no reader.
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
        open(&self.0, flags, Mode::empty()).is_ok()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.open();
    }
}

#[test]
fn who_does_not_stop_in_time_goes_on_when_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = Pipe(folder.path().join("pipe"));
    nix::unistd::mkfifo(&pipe.0, Mode::S_IRWXU).unwrap();
    let mut puppet = Puppet::start_with(Part::Spawns, pipe.0.to_str().unwrap());
    let thread = puppet.thread;
    let is = |wanted| state(thread).is_ok_and(|state| state.activity == wanted);
    eventually(|| is(Activity::WaitingForDisk));
    // Without the feature, no stack is read.
    if cfg!(feature = "stack")
        && let Err(error) = capture(thread)
    {
        assert!(error.to_string().contains("state D"), "{error}");
    }

    let patience = Duration::from_millis(20);
    let late = Stopped::stop(thread, patience).err().unwrap();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    let child = ProcessId::of(thread);
    assert_eq!(reap(child).unwrap(), None);
    eventually(|| pipe.open());
    eventually(|| is(Activity::Stopped));
    assert_eq!(reap(child).unwrap(), None);
    assert_eq!(puppet.hear(), "went on");
}
