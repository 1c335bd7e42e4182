//! Processes as `/proc` shows them: their parents, their states, their descriptors and memory.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::{FDTarget, Stat, all_processes};

/// One process, by its pid and its start time, so that another one with the same pid is not taken for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
}

/// Memory of one process in bytes, without memory that it shares with others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) private: u64,
    pub(crate) private_peak: u64,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)
    }
}

impl Process {
    /// Returns the process with this pid, if it has not ended.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let stat = procfs::process::Process::new(pid)
            .and_then(|process| process.stat())
            .ok()?;
        is_live(&stat).then_some(Self {
            pid,
            started: stat.starttime,
        })
    }

    /// Returns a child of the tests that is not reaped yet, so that its pid is not reused even when it has ended.
    #[track_caller]
    pub(crate) fn child(pid: i32) -> Self {
        let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
        let stat = stat.unwrap_or_else(|error| panic!("child {pid}: {error}"));
        Self {
            pid,
            started: stat.starttime,
        }
    }

    fn stat(self) -> Option<Stat> {
        let stat = procfs::process::Process::new(self.pid)
            .and_then(|process| process.stat())
            .ok()?;
        (stat.starttime == self.started).then_some(stat)
    }

    /// Whether it still runs. A process that has ended and waits to be reaped does not.
    pub(crate) fn is_running(self) -> bool {
        self.stat().is_some_and(|stat| is_live(&stat))
    }

    /// Whether it has ended and was reaped.
    pub(crate) fn is_reaped(self) -> bool {
        self.stat().is_none()
    }

    /// Returns its name in `ps`; empty when it has ended.
    pub(crate) fn name(self) -> String {
        self.stat().map(|stat| stat.comm).unwrap_or_default()
    }

    /// Returns its running children, in the order of their pids.
    pub(crate) fn children(self) -> Vec<Self> {
        let mut children: Vec<Self> = stats()
            .into_iter()
            .filter(|stat| stat.ppid == self.pid && is_live(stat))
            .map(|stat| Self {
                pid: stat.pid,
                started: stat.starttime,
            })
            .collect();
        children.sort_unstable();
        children
    }

    /// Whether a signal has stopped it.
    pub(crate) fn is_stopped(self) -> bool {
        self.stat().is_some_and(|stat| stat.state == 'T')
    }

    /// Whether it sleeps for a time, as a callback that blocks does, and an event loop does not.
    pub(crate) fn is_asleep_in_a_callback(self) -> bool {
        self.wait_channel().contains("nanosleep")
    }

    /// Whether it waits for events, as an idle worker does.
    pub(crate) fn waits_for_events(self) -> bool {
        self.wait_channel().contains("poll")
    }

    /// Returns the function of the kernel in which it sleeps; empty when it does not.
    fn wait_channel(self) -> String {
        let channel = procfs::process::Process::new(self.pid).and_then(|process| process.wchan());
        channel.unwrap_or_default()
    }

    /// Returns the number of its children that have ended and are not reaped.
    pub(crate) fn zombies(self) -> usize {
        stats()
            .iter()
            .filter(|stat| stat.ppid == self.pid && !is_live(stat))
            .count()
    }

    /// Returns its descendants.
    pub(crate) fn descendants(self) -> Vec<Self> {
        let mut found = self.children();
        let mut next = 0;
        while let Some(process) = found.get(next).copied() {
            found.extend(process.children());
            next += 1;
        }
        found
    }

    /// Returns the running processes of the group that it leads, whether it still runs itself or not.
    pub(crate) fn group(self) -> Vec<Self> {
        let stats = stats();
        if stats
            .iter()
            .any(|stat| stat.pid == self.pid && stat.starttime != self.started)
        {
            return Vec::new(); // Its pid was reused, so its group is empty.
        }
        stats
            .into_iter()
            .filter(|stat| stat.pgrp == self.pid && is_live(stat))
            .map(|stat| Self {
                pid: stat.pid,
                started: stat.starttime,
            })
            .collect()
    }

    /// Sends it a signal, unless it has ended.
    #[track_caller]
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_running() {
            let sent = kill(Pid::from_raw(self.pid), signal);
            assert!(
                matches!(sent, Ok(()) | Err(Errno::ESRCH)),
                "{signal} for {self:?}: {sent:?}"
            );
        }
    }

    /// Whether a signal was sent to it that it has not taken yet.
    pub(crate) fn has_pending(self, signal: Signal) -> bool {
        let status = procfs::process::Process::new(self.pid).and_then(|it| it.status());
        status.is_ok_and(|status| status.shdpnd & (1 << (signal as i32 - 1)) != 0)
    }

    /// Returns the inodes of its sockets.
    pub(crate) fn sockets(self) -> HashSet<u64> {
        let Ok(descriptors) =
            procfs::process::Process::new(self.pid).and_then(|process| process.fd())
        else {
            return HashSet::new();
        };
        descriptors
            .filter_map(|descriptor| match descriptor.ok()?.target {
                FDTarget::Socket(inode) => Some(inode),
                _ => None,
            })
            .collect()
    }

    /// Returns the number of its open descriptors.
    #[track_caller]
    pub(crate) fn descriptors(self) -> usize {
        let count = procfs::process::Process::new(self.pid).and_then(|process| process.fd_count());
        count.unwrap_or_else(|error| panic!("descriptors of {self:?}: {error}"))
    }

    /// Returns its memory now, and the most so far.
    #[track_caller]
    pub(crate) fn memory(self) -> Memory {
        let status = procfs::process::Process::new(self.pid).and_then(|process| process.status());
        let status = status.unwrap_or_else(|error| panic!("memory of {self:?}: {error}"));
        let shared = status.rssshmem.unwrap_or(0);
        let private = |kib: Option<u64>| kib.unwrap_or(0).saturating_sub(shared) * 1024;
        Memory {
            private: private(status.vmrss),
            private_peak: private(status.vmhwm),
        }
    }

    /// Returns its memory with its share of memory in common with others (Pss).
    #[track_caller]
    pub(crate) fn proportional_memory(self) -> u64 {
        let rollup =
            procfs::process::Process::new(self.pid).and_then(|process| process.smaps_rollup());
        let rollup = rollup.unwrap_or_else(|error| panic!("memory of {self:?}: {error}"));
        let maps = rollup.memory_map_rollup.into_iter();
        maps.filter_map(|map| map.extension.map.get("Pss").copied())
            .sum()
    }

    /// Returns the processor time of its present threads, in nanoseconds: ticks would miss short times.
    #[track_caller]
    pub(crate) fn run_time(self) -> Duration {
        let tasks = procfs::process::Process::new(self.pid).and_then(|process| process.tasks());
        let tasks = tasks.unwrap_or_else(|error| panic!("threads of {self:?}: {error}"));
        tasks
            .map(|task| {
                let schedstat = task.and_then(|task| task.schedstat());
                let schedstat =
                    schedstat.unwrap_or_else(|error| panic!("a thread of {self:?}: {error}"));
                Duration::from_nanos(schedstat.sum_exec_runtime)
            })
            .sum()
    }

    /// Returns the processor time of all its threads so far, in seconds.
    #[track_caller]
    pub(crate) fn cpu_seconds(self) -> f64 {
        let stat = self.stat().unwrap_or_else(|| panic!("{self:?} has ended"));
        #[expect(clippy::cast_precision_loss, reason = "ticks of a test's life are few")]
        let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        seconds
    }
}

/// Lets a running process have descriptors below `limit` only, as if the others were in use. Only its soft limit changes,
/// so that it can be raised again.
#[track_caller]
#[allow(unsafe_code)] // nix has no call that sets a limit of another process.
pub(crate) fn limit_descriptors(process: Process, limit: u64) {
    let mut limits = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the old limits live until the call returns, and no new ones are given.
    let got = unsafe {
        libc::prlimit(
            process.pid,
            libc::RLIMIT_NOFILE,
            std::ptr::null(),
            &raw mut limits,
        )
    };
    let error = std::io::Error::last_os_error();
    assert_eq!(got, 0, "prlimit for {process:?}: {error}");
    limits.rlim_cur = limit;
    // SAFETY: the new limits live until the call returns, and the old ones are not asked for.
    let set = unsafe {
        libc::prlimit(
            process.pid,
            libc::RLIMIT_NOFILE,
            &raw const limits,
            std::ptr::null_mut(),
        )
    };
    let error = std::io::Error::last_os_error();
    assert_eq!(set, 0, "prlimit for {process:?}: {error}");
}

fn is_live(stat: &Stat) -> bool {
    !matches!(stat.state, 'Z' | 'X')
}

fn stats() -> Vec<Stat> {
    let processes = all_processes().expect("/proc can be read");
    processes
        .filter_map(|process| process.and_then(|process| process.stat()).ok())
        .collect()
}
