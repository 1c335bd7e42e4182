//! A hostile worker: ways by which a process without rights may try to reach memory, descriptors, doorbells and
//! processes that are not its own.
//!
//! Runs in a worker of the testbed, in a callback, for the command `attack NAME PIDS SECRET`. Its one rule: it fails the
//! test by what it reaches, and never by what the kernel answers. The secret is in the messages of other workers alone; it
//! is given backwards, so that the bytes that an attack finds are those of a neighbour.
#![allow(unsafe_code)] // The attacks are system calls that no safe wrapper has.

mod descriptors;
mod left;
mod memory;
mod processes;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// The processes of the server beside this one, and the secret.
pub(crate) struct Targets {
    pub(crate) master: i32,
    pub(crate) manager: i32,
    pub(crate) neighbours: Vec<i32>,
    /// The neighbours have another uid.
    pub(crate) apart: bool,
    backwards: Vec<u8>,
    /// A file for what a process finds that outlives the worker.
    pub(crate) found: std::path::PathBuf,
}

/// The attack that does not come back.
pub(crate) const LAST: &str = "leave-a-sibling-of-the-memory";

/// The result of an attack: `Err` says what was reached.
pub(crate) type Verdict = Result<(), String>;

type Attack = fn(&Targets) -> Verdict;

/// Every attack, by name.
pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("read-own-memory", memory::scan),
    ("grow-mappings", memory::grow),
    ("duplicate-mappings", memory::duplicate),
    ("remap-file-pages", memory::remap),
    ("unprotect-mappings", memory::unprotect),
    ("write-by-proc-mem", memory::write_by_proc),
    ("punch-holes", memory::punch),
    ("map-files", memory::map_files),
    ("reopen-descriptors", descriptors::reopen),
    ("resize-and-unseal", descriptors::resize),
    ("read-descriptors", descriptors::read_all),
    ("find-sockets", descriptors::sockets),
    ("shut-sockets-down", descriptors::shut_down),
    ("drain-bells", descriptors::drain),
    ("ring-bells", descriptors::ring),
    ("fill-bells", descriptors::fill),
    ("change-descriptions", descriptors::control),
    ("forget-epoll-entries", descriptors::epoll),
    ("flood-notes", descriptors::notes),
    ("open-proc-of-others", processes::open_proc),
    ("take-descriptors", processes::take_descriptors),
    ("read-memory-of-others", processes::read_memory),
    ("write-memory-of-others", processes::write_memory),
    ("trace-others", processes::trace),
    ("advise-others", processes::advise),
    ("signal-others", processes::signal),
    ("limit-others", processes::limit),
    ("schedule-others", processes::schedule),
    ("watch-others", processes::watch),
    ("timers-for-others", processes::timers),
    ("ask-the-status", processes::status),
    ("swallow-by-a-child", left::swallow),
    ("leave-a-child", left::fork),
    (LAST, left::share),
];

/// Gives up root: all workers get the same uid, or each its own.
pub(crate) fn drop_rights(uid: &str, seat: Option<usize>) -> nix::Result<()> {
    let number = match uid {
        "by-seat" => 65_534 - seat.unwrap_or_default() as u32,
        uid => uid.parse().expect("a uid"),
    };
    let (uid, gid) = (Uid::from_raw(number), Gid::from_raw(number));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// Carries out `NAME MASTER,MANAGER,NEIGHBOUR,... SECRET`, and returns the answer.
pub(crate) fn attack(order: &str, found: std::path::PathBuf, apart: bool) -> String {
    let words: Vec<&str> = order.split(' ').collect();
    let [name, pids, secret] = words[..] else {
        return format!("no attack: {order}\n");
    };
    let pids: Vec<i32> = pids.split(',').filter_map(|pid| pid.parse().ok()).collect();
    let [master, manager, neighbours @ ..] = &pids[..] else {
        return format!("no targets: {order}\n");
    };
    let targets = Targets {
        master: *master,
        manager: *manager,
        neighbours: neighbours.to_vec(),
        apart,
        backwards: secret.as_bytes().to_vec(),
        found,
    };
    // SAFETY: takes integers. More power for the attacks on this process itself.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    if name == "exit-with-a-note" {
        descriptors::exit_with_every_note();
    }
    match ATTACKS.iter().find(|(known, _)| *known == name) {
        Some((_, attack)) => match attack(&targets) {
            Ok(()) => format!("{name} refused\n"),
            Err(reached) => format!("{name} SUCCEEDED: {reached}\n"),
        },
        None => format!("no attack: {name}\n"),
    }
}

impl Targets {
    fn others(&self) -> impl Iterator<Item = i32> {
        let first = [self.master, self.manager];
        first.into_iter().chain(self.neighbours.iter().copied())
    }

    /// Those that the kernel protects by uid alone.
    fn of_other_users(&self) -> impl Iterator<Item = i32> {
        let neighbours = self.neighbours.iter().copied().filter(|_| self.apart);
        [self.master, self.manager].into_iter().chain(neighbours)
    }

    /// Whether the secret is in these bytes.
    fn is_in(&self, bytes: &[u8]) -> bool {
        let len = self.backwards.len();
        let Some(first) = self.backwards.last() else {
            return false;
        };
        let is_here = |at: usize| {
            let window = bytes.get(at..at + len);
            window.is_some_and(|it| it.iter().eq(self.backwards.iter().rev()))
        };
        let starts = bytes.iter().enumerate().filter(|(_, byte)| *byte == first);
        starts.map(|(at, _)| at).any(is_here)
    }
}

/// For a system call that must fail.
fn refused(what: &str, result: libc::c_long) -> Verdict {
    match result {
        -1 => Ok(()),
        result => Err(format!("{what} = {result}")),
    }
}
