//! Descriptors that another program passes at the start, sd_listen_fds(3): systemd, `systemd-socket-activate`, or any
//! program that sets the same variables.
//!
//! Its one rule: the variables name the process that they are for, and are gone once it has taken its descriptors.

use std::os::fd::BorrowedFd;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first descriptor that is passed.
const FIRST: i32 = 3;

/// More are not passed by any program in earnest.
const MOST: i32 = 4096;

const VARIABLES: [&str; 4] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
];

/// A descriptor that was passed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Passed {
    pub(crate) number: i32,
    /// Its name: `FileDescriptorName=` of systemd.socket(5), and by default the name of the unit.
    pub(crate) name: String,
}

/// Returns the descriptors that were passed to this process.
///
/// # Errors
/// Why there are none, in words.
pub(crate) fn passed() -> Result<Vec<Passed>, String> {
    let [pid, count, names, _] = VARIABLES.map(|name| std::env::var(name).ok());
    parse(
        pid.as_deref(),
        count.as_deref(),
        names.as_deref(),
        std::process::id(),
    )
}

fn parse(
    pid: Option<&str>,
    count: Option<&str>,
    names: Option<&str>,
    own: u32,
) -> Result<Vec<Passed>, String> {
    let (Some(pid), Some(count)) = (pid, count) else {
        return Err(
            "no program has passed a socket: LISTEN_PID and LISTEN_FDS are not set, as a socket unit of systemd or \
             systemd-socket-activate sets them"
                .to_owned(),
        );
    };
    if pid.parse() != Ok(own) {
        return Err(format!(
            "the sockets were passed to another process: LISTEN_PID is {pid:?}, and this is process {own}; a program \
             that starts the server has to do so by exec"
        ));
    }
    let count = match count.parse() {
        Ok(count @ 1..=MOST) => count,
        Ok(0) => return Err("no socket was passed: LISTEN_FDS is 0".to_owned()),
        Ok(_) | Err(_) => {
            return Err(format!(
                "LISTEN_FDS is {count:?}, which is no number of sockets"
            ));
        }
    };
    let mut names = names.unwrap_or_default().split(':');
    let passed = (FIRST..FIRST + count).map(|number| Passed {
        number,
        name: names.next().unwrap_or_default().to_owned(),
    });
    Ok(passed.collect())
}

/// The descriptors are taken: no other program that this process executes gets them, or takes them to be its own.
pub(crate) fn taken(passed: &[Passed]) {
    for Passed { number, name } in passed {
        // SAFETY: the descriptor is borrowed for this call. If it is closed, the kernel says so.
        let descriptor = unsafe { BorrowedFd::borrow_raw(*number) };
        if let Err(error) = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            log::warn!(
                "descriptor {number} ({name}), which was passed, stays open in programs: {error}"
            );
        }
    }
    for variable in VARIABLES {
        // SAFETY: the process has one thread: the launch has counted them.
        unsafe { std::env::remove_var(variable) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_passed_by_number_and_name_to_one_process() {
        let numbered = |number, name: &str| Passed {
            number,
            name: name.to_owned(),
        };
        assert_eq!(
            parse(Some("7"), Some("3"), Some("web:admin"), 7),
            Ok(vec![
                numbered(3, "web"),
                numbered(4, "admin"),
                numbered(5, "")
            ])
        );
        for (pid, count, why) in [
            (None, Some("1"), "not set"),
            (Some("7"), None, "not set"),
            (Some("8"), Some("1"), "another process"),
            (Some("7"), Some("0"), "LISTEN_FDS is 0"),
            (Some("7"), Some("-1"), "no number"),
            (Some("7"), Some("99999"), "no number"),
            (Some("7"), Some("x"), "no number"),
        ] {
            let error = parse(pid, count, None, 7).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
