//! A process and its descendants as `/proc/PID` shows them, proc(5): state, processor time, memory.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::time::ClockId;
use nix::unistd::Pid;
use procfs::process::{Process, Schedstat, all_processes};
use procfs::{FromRead, ProcError, ticks_per_second};
use serde::Serialize;

/// The state of a process: the letter that `ps` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activity {
    /// R: has a processor, or waits for one.
    Running,
    /// S: waits for an event; a signal wakes it.
    Sleeping,
    /// D: waits in the kernel, and no signal wakes it: for a disk or a network file system, for memory
    /// to come back from swap, or for a program that it spawns to begin.
    WaitingForDisk,
    /// T, t: stopped by a signal or a debugger.
    Stopped,
    /// Z, X: has ended and is not reaped yet.
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

/// Returns the state of a process's main thread.
///
/// # Errors
/// NotFound if the process does not exist, or has ended.
pub(crate) fn activity(pid: i32) -> io::Result<Activity> {
    let stat = look(pid, Process::stat)?;
    let problem = || {
        format!(
            "process {pid} is in state {}, which proc(5) does not list",
            stat.state
        )
    };
    Activity::of(stat.state).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, problem()))
}

/// Returns the nanoseconds that a process has run, including its ended threads and the children that it
/// has waited for. The process's own clock is exact: it sums the `schedstat` of each thread. The kernel
/// sums the time of waited-for children exactly too, but reports that sum in ticks.
///
/// # Errors
/// NotFound if the process does not exist, or has ended.
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

/// Returns the nanoseconds that this thread has run, and those that it has waited for a processor.
///
/// # Errors
/// Where the kernel does not keep these times.
pub(crate) fn own_time() -> io::Result<[u64; 2]> {
    let times = Schedstat::from_file("/proc/thread-self/schedstat").map_err(io::Error::other)?;
    Ok([times.sum_exec_runtime, times.run_delay])
}

/// Returns a process's memory in bytes: its private memory, and its share of the memory that it shares
/// with others (Pss). Summed over all processes of a server, that is the memory of the server.
///
/// # Errors
/// NotFound if the process does not exist, or has ended.
pub(crate) fn proportional_memory(pid: i32) -> io::Result<u64> {
    let rollup = look(pid, Process::smaps_rollup)?;
    let mut maps = rollup.memory_map_rollup.iter();
    let bytes = maps.find_map(|map| map.extension.map.get("Pss"));
    let problem = || format!("/proc/{pid}/smaps_rollup has no Pss line");
    let bytes = bytes.copied();
    bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, problem()))
}

/// Returns the descendants of a process.
///
/// # Errors
/// Where there is no /proc.
pub(crate) fn descendants(of: i32) -> io::Result<Vec<i32>> {
    // A process that ends meanwhile is left out.
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

/// The NotFound error for a process.
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
    fn the_run_time_includes_ended_threads() {
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
    fn the_run_time_includes_children_that_were_waited_for() {
        // Takes many ticks on any machine.
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
    fn this_process_runs_and_its_memory_is_counted() {
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
        let no_process = i32::MAX;
        assert_eq!(
            activity(no_process).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let memory = proportional_memory(no_process);
        assert_eq!(memory.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
