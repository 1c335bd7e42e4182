//! What `/proc/PID` tells of a process and of those that descend from it, proc(5).

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::time::ClockId;
use nix::unistd::Pid;
use procfs::process::{Process, Schedstat, all_processes};
use procfs::{FromRead, ProcError, ticks_per_second};
use serde::Serialize;

/// What a process is doing: the letter that `ps` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activity {
    /// R: it has a processor, or waits for one.
    Running,
    /// S: it waits for something, and a signal wakes it.
    Sleeping,
    /// D: it waits in the kernel, and nothing wakes it: for a disk or a network file system, for
    /// memory to come back from swap, or for a program that it spawns to begin.
    WaitingForDisk,
    /// T, t: a signal or a debugger has stopped it.
    Stopped,
    /// Z, X: it has ended and was not reaped yet.
    Zombie,
}

impl Activity {
    fn of(letter: char) -> Option<Activity> {
        match letter {
            'R' => Some(Activity::Running),
            'S' | 'I' => Some(Activity::Sleeping),
            'D' => Some(Activity::WaitingForDisk),
            'T' | 't' => Some(Activity::Stopped),
            'Z' | 'X' | 'x' => Some(Activity::Zombie),
            _ => None,
        }
    }
}

/// What a process's main thread is doing.
///
/// # Errors
/// NotFound if there is no such process (any more).
pub(crate) fn activity(pid: i32) -> io::Result<Activity> {
    let stat = look(pid, Process::stat)?;
    let problem = || {
        format!(
            "process {pid} is in state {}, which proc(5) lacks",
            stat.state
        )
    };
    Activity::of(stat.state).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, problem()))
}

/// Nanoseconds that a process has run, with its threads that have ended, and with the processes that
/// it has forked and waited for. The process's clock is what `schedstat` adds up for each thread, and
/// no ticks; of the processes that were waited for the kernel tells ticks, of a sum that is exact.
///
/// # Errors
/// NotFound if there is no such process (any more).
pub(crate) fn run_time(pid: i32) -> io::Result<u64> {
    let has_ended = |errno: Errno| match errno {
        Errno::ESRCH | Errno::EINVAL => ended(pid),
        errno => errno.into(),
    };
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).map_err(has_ended)?;
    let own = Duration::from(clock.now().map_err(has_ended)?);
    let stat = look(pid, Process::stat)?;
    let ticks = (stat.cutime + stat.cstime).max(0) as u64;
    Ok(own.as_nanos() as u64 + ticks * (1_000_000_000 / ticks_per_second()))
}

/// Nanoseconds that this thread has run, and that it has waited for a processor.
///
/// # Errors
/// Where the kernel does not count it.
pub(crate) fn own_time() -> io::Result<[u64; 2]> {
    let times = Schedstat::from_file("/proc/thread-self/schedstat").map_err(io::Error::other)?;
    Ok([times.sum_exec_runtime, times.run_delay])
}

/// Bytes of memory that a process has: what is its own, and its part of what it shares with others
/// (Pss). Over all processes of a server that is what the server takes.
///
/// # Errors
/// NotFound if there is no such process (any more).
pub(crate) fn proportional_memory(pid: i32) -> io::Result<u64> {
    let rollup = look(pid, Process::smaps_rollup)?;
    let mut maps = rollup.memory_map_rollup.iter();
    let bytes = maps.find_map(|map| map.extension.map.get("Pss"));
    let problem = || format!("/proc/{pid}/smaps_rollup has no line Pss");
    let bytes = bytes.copied();
    bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, problem()))
}

/// All processes that descend from this one.
///
/// # Errors
/// Where there is no /proc.
pub(crate) fn descendants(of: i32) -> io::Result<Vec<i32>> {
    // One that ends meanwhile descends from nobody.
    let parents: Vec<(i32, i32)> = all_processes()
        .map_err(io::Error::other)?
        .filter_map(|process| process.and_then(|process| process.stat()).ok())
        .map(|stat| (stat.pid, stat.ppid))
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(&ancestor) = found.get(next) {
        let children = parents.iter().filter(|(_, parent)| *parent == ancestor);
        found.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

fn look<T>(pid: i32, read: fn(&Process) -> procfs::ProcResult<T>) -> io::Result<T> {
    let looked = Process::new(pid).and_then(|process| read(&process));
    looked.map_err(|error| match error {
        ProcError::NotFound(_) => ended(pid),
        ProcError::PermissionDenied(_) => Errno::EACCES.into(),
        error => io::Error::other(error),
    })
}

/// NotFound, for a process.
fn ended(pid: i32) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("process {pid} has ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_activity_is_read_from_its_letter() {
        for (letter, activity) in [
            ('R', Some(Activity::Running)),
            ('S', Some(Activity::Sleeping)),
            ('D', Some(Activity::WaitingForDisk)),
            ('T', Some(Activity::Stopped)),
            ('t', Some(Activity::Stopped)),
            ('Z', Some(Activity::Zombie)),
            ('?', None),
        ] {
            assert_eq!(Activity::of(letter), activity, "{letter}");
        }
    }

    #[test]
    fn a_thread_that_has_ended_has_run() {
        let pid = std::process::id() as i32;
        let before = run_time(pid).unwrap();
        spend_20_ms_in_a_thread();
        assert!(run_time(pid).unwrap() - before >= 20_000_000);
        assert!(run_time(i32::MAX).unwrap_err().kind() == io::ErrorKind::NotFound);
    }

    fn spend_20_ms_in_a_thread() {
        let spent = std::thread::spawn(|| {
            let begin = ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap();
            let spent = || Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap() - begin);
            while spent() < Duration::from_millis(20) {}
        });
        spent.join().unwrap();
    }

    #[test]
    fn a_child_that_was_waited_for_counts_with_its_parent() {
        // Many ticks of a processor, on any machine.
        let script = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done";
        let pid = std::process::id() as i32;
        let waited_for = || {
            let stat = look(pid, Process::stat).unwrap();
            stat.cutime + stat.cstime
        };
        let before = waited_for();
        let mut child = std::process::Command::new("sh");
        assert!(child.args(["-c", script]).status().unwrap().success());
        assert!(waited_for() > before);
    }

    #[test]
    fn this_process_runs_and_has_memory_of_its_own() {
        let pid = std::process::id() as i32;
        assert!(matches!(
            activity(pid).unwrap(),
            Activity::Running | Activity::Sleeping
        ));
        let before = proportional_memory(pid).unwrap();
        let taken = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(proportional_memory(pid).unwrap() > before + (32 << 20));
        drop(taken);
    }

    #[test]
    fn a_process_that_does_not_exist_is_not_found() {
        // Larger than any pid, proc_sys_kernel(5).
        let nobody = i32::MAX;
        assert_eq!(
            activity(nobody).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let memory = proportional_memory(nobody);
        assert_eq!(memory.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
