//! The state and the memory of a process, from `/proc/PID`, proc(5).

use std::fs;
use std::io;

use crate::sys::memory::page;

/// The state of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State {
    pub(crate) activity: Activity,
    /// The number of its waits for a page from a disk.
    pub(crate) major_faults: u64,
}

/// The state that `ps` shows as a letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Activity {
    /// R: it runs, or waits for a processor.
    Running,
    /// S: it sleeps, and a signal wakes it.
    Sleeping,
    /// D: it waits in the kernel, and no signal wakes it: for a disk or a network file system, for memory
    /// from swap, or for a program that it spawns to begin.
    WaitingForDisk,
    /// T, t: a signal or a debugger has stopped it.
    Stopped,
    /// Z, X: it has ended, and is not reaped yet.
    Zombie,
}

/// Returns the state of a process's main thread.
///
/// # Errors
/// NotFound if there is no such process (any more).
pub(crate) fn state(pid: i32) -> io::Result<State> {
    let stat = read(pid, "stat")?;
    parse_stat(&stat).ok_or_else(|| not_understood("stat", &stat))
}

/// Returns the private memory of a process in bytes: resident memory without files and shared memory,
/// which it may have in common with the manager and other workers. Pages that are still shared since the
/// fork count.
///
/// # Errors
/// NotFound if there is no such process (any more).
pub(crate) fn private_memory(pid: i32) -> io::Result<u64> {
    let statm = read(pid, "statm")?;
    let pages = parse_statm(&statm).ok_or_else(|| not_understood("statm", &statm))?;
    Ok(pages * page() as u64)
}

/// Returns the private memory of a process without the pages that it still shares with the process that
/// it was forked from. Costs more, since the kernel walks all pages.
///
/// # Errors
/// NotFound if there is no such process (any more).
pub(crate) fn unshared_memory(pid: i32) -> io::Result<u64> {
    let rollup = read(pid, "smaps_rollup")?;
    let kib = parse_rollup(&rollup).ok_or_else(|| not_understood("smaps_rollup", &rollup))?;
    Ok(kib << 10)
}

/// Returns the private memory in a summary of mappings, with its part in swap, in KiB. Unwritten pages of
/// a file do not count: the kernel can drop them.
fn parse_rollup(rollup: &str) -> Option<u64> {
    let of = |name: &str| -> Option<u64> {
        let value = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(of("Private_Dirty:")? + of("SwapPss:").unwrap_or(0))
}

fn read(pid: i32, file: &str) -> io::Result<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).map_err(|error| {
        // The process may end between opening and reading.
        let has_ended =
            error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH);
        if has_ended { ended(pid) } else { error }
    })?;
    // The program chooses the name in `stat`, which need not be UTF-8.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the error NotFound for a process.
pub(crate) fn ended(pid: i32) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("process {pid} has ended"))
}

fn not_understood(file: &str, text: &str) -> io::Error {
    let problem = format!("/proc/PID/{file} is not understood: {text:?}");
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn parse_stat(stat: &str) -> Option<State> {
    // The program chooses the name: it may have spaces, parentheses and newlines.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let activity = match fields.next()? {
        "R" => Activity::Running,
        "S" | "I" => Activity::Sleeping,
        "D" => Activity::WaitingForDisk,
        "T" | "t" => Activity::Stopped,
        "Z" | "X" | "x" => Activity::Zombie,
        _ => return None,
    };
    // Field 12; the state is field 3.
    let major_faults = fields.nth(8)?.parse().ok()?;
    Some(State {
        activity,
        major_faults,
    })
}

/// Private pages.
fn parse_statm(statm: &str) -> Option<u64> {
    let mut fields = statm.split_ascii_whitespace().skip(1);
    let resident: u64 = fields.next()?.parse().ok()?;
    let shared: u64 = fields.next()?.parse().ok()?;
    // The kernel does not read both at the same time.
    Some(resident.saturating_sub(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (sleep) S 4240 4242 4242 34816 4242 4194304 95 7 3 1 0 0 0 0 20 0 1 0 \
                        8012345 2600960 384 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0";

    #[test]
    fn a_state_is_read_from_its_letter() {
        for (letter, activity) in [
            ("R", Activity::Running),
            ("S", Activity::Sleeping),
            ("D", Activity::WaitingForDisk),
            ("T", Activity::Stopped),
            ("t", Activity::Stopped),
            ("Z", Activity::Zombie),
        ] {
            let stat = STAT.replace(" S ", &format!(" {letter} "));
            let expected = State {
                activity,
                major_faults: 3,
            };
            assert_eq!(parse_stat(&stat), Some(expected), "{letter}");
        }
    }

    #[test]
    fn a_name_can_not_pretend_to_be_a_state() {
        let stat = STAT.replace("(sleep)", "(x) Z 1 (y\n) D)");
        assert_eq!(parse_stat(&stat), parse_stat(STAT));
    }

    #[test]
    fn what_is_cut_off_is_no_state() {
        for stat in [
            "",
            "4242 (sleep)",
            "4242 (sleep) S 1 2 3",
            "4242 (sleep) ? 1",
        ] {
            assert_eq!(parse_stat(stat), None, "{stat}");
        }
    }

    #[test]
    fn private_memory_is_what_is_resident_and_not_shared() {
        assert_eq!(parse_statm("635 384 320 9 0 92 0\n"), Some(64));
        assert_eq!(parse_statm("635 320 384 9 0 92 0\n"), Some(0));
        assert_eq!(parse_statm("0 0 0 0 0 0 0\n"), Some(0));
        assert_eq!(parse_statm("635 384"), None);
    }

    #[test]
    fn this_process_runs_and_has_memory_of_its_own() {
        let pid = std::process::id() as i32;
        assert!(matches!(
            state(pid).unwrap().activity,
            Activity::Running | Activity::Sleeping
        ));
        let before = private_memory(pid).unwrap();
        let taken = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(private_memory(pid).unwrap() > before + (32 << 20));
        drop(taken);
    }

    #[test]
    fn a_process_that_does_not_exist_is_not_found() {
        // Larger than any pid, proc_sys_kernel(5).
        let nobody = i32::MAX;
        assert_eq!(state(nobody).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(
            private_memory(nobody).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn what_is_shared_is_no_part_of_a_process() {
        let rollup = "55d0-7ffe ---p 00000000 00:00 0   [rollup]\nRss:  9000 kB\nPss:  5000 kB\n\
                      Shared_Clean:  4000 kB\nShared_Dirty:  1000 kB\nPrivate_Clean:  1500 kB\n\
                      Private_Dirty:  2500 kB\nSwap:  20 kB\nSwapPss:  10 kB\nLocked:  0 kB\n";
        assert_eq!(parse_rollup(rollup), Some(2510));
        assert_eq!(parse_rollup("Rss:  9000 kB\n"), None);
        let own = unshared_memory(std::process::id() as i32).unwrap();
        assert!(own > 0);
    }
}
