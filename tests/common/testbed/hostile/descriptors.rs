//! Attacks through the worker's descriptors. The standard streams are left out: they are those of whoever started the
//! server.

use std::fs::{OpenOptions, read_link};
use std::mem;
use std::time::{Duration, Instant};

use super::{Targets, Verdict};

/// `F_SETSIG` of Linux, which libc lacks.
const F_SETSIG: libc::c_int = 10;

/// How long an attack goes on that is to disturb the others.
const WHILE: Duration = Duration::from_millis(600);

/// The open descriptors, with what they are. Files with a name are not the server's.
fn open() -> Vec<(i32, String)> {
    let what = |fd: i32| {
        let link = read_link(format!("/proc/self/fd/{fd}")).ok()?;
        Some((fd, link.to_string_lossy().into_owned()))
    };
    let is_named = |what: &str| what.starts_with('/') && !what.contains("memfd");
    let all = (3..4096).filter_map(what);
    all.filter(|(_, what)| !is_named(what)).collect()
}

fn of_kind(kind: &str) -> Vec<i32> {
    let all = open().into_iter();
    all.filter(|(_, what)| what.contains(kind))
        .map(|(fd, _)| fd)
        .collect()
}

/// Every descriptor, opened again with more access.
pub(super) fn reopen(_: &Targets) -> Verdict {
    for (fd, what) in open() {
        if what.contains("memfd") {
            return Err(format!("descriptor {fd} is {what}"));
        }
        let again = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/self/fd/{fd}"));
        if again.is_ok() {
            return Err(format!(
                "descriptor {fd}, {what}, opens again with all access"
            ));
        }
    }
    Ok(())
}

/// Other sizes, holes and seals.
pub(super) fn resize(_: &Targets) -> Verdict {
    for (fd, what) in open() {
        // SAFETY: takes integers.
        let results = unsafe {
            [
                libc::ftruncate(fd, 0),
                libc::ftruncate(fd, 1 << 30),
                libc::fallocate(
                    fd,
                    libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                    0,
                    4096,
                ),
                libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE),
            ]
        };
        if results.iter().any(|result| *result != -1) {
            return Err(format!("{results:?} for descriptor {fd}, {what}"));
        }
    }
    Ok(())
}

/// Everything that can be read without waiting.
pub(super) fn read_all(targets: &Targets) -> Verdict {
    for (fd, what) in open() {
        let mut buffer = [0_u8; 4096];
        // SAFETY: takes integers, and the kernel writes into the buffer alone.
        let read = unsafe {
            libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
            libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len())
        };
        if let Ok(read @ 1..) = usize::try_from(read)
            && (targets.is_in(&buffer[..read]) || !what.contains("eventfd"))
        {
            return Err(format!("{read} bytes from descriptor {fd}, {what}"));
        }
    }
    Ok(())
}

/// A listener or a connection among the descriptors.
pub(super) fn sockets(_: &Targets) -> Verdict {
    for fd in of_kind("socket:") {
        let mut family: libc::c_int = 0;
        let mut len = size_of_val(&family) as libc::socklen_t;
        // SAFETY: the kernel writes an int, and its length.
        unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_DOMAIN,
                (&raw mut family).cast(),
                &raw mut len,
            )
        };
        if family != libc::AF_UNIX {
            return Err(format!("descriptor {fd} is a socket of family {family}"));
        }
    }
    Ok(())
}

/// shutdown(2), which acts on all copies of a socket.
pub(super) fn shut_down(_: &Targets) -> Verdict {
    for fd in of_kind("socket:") {
        // SAFETY: takes integers. What still works afterwards, the test sees.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
    }
    Ok(())
}

/// Does this with every doorbell, again and again.
fn each_bell(act: impl Fn(i32)) -> Verdict {
    let bells = of_kind("eventfd");
    if bells.is_empty() {
        return Err("no doorbells: the attack has no ground".into());
    }
    let begin = Instant::now();
    while begin.elapsed() < WHILE {
        bells.iter().for_each(|fd| act(*fd));
    }
    Ok(())
}

/// Swallows every ring.
pub(super) fn drain(_: &Targets) -> Verdict {
    each_bell(|fd| {
        let mut count = 0_u64;
        // SAFETY: takes integers, and the kernel writes 8 bytes.
        unsafe {
            libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
            libc::read(fd, (&raw mut count).cast(), size_of::<u64>());
        }
    })
}

/// Swallows all rings and events, until it is over.
pub(super) fn swallow(is_over: impl Fn() -> bool) {
    let (bells, epolls) = (of_kind("eventfd"), of_kind("eventpoll"));
    while !is_over() {
        let mut bytes = [0_u64; 64];
        let place: *mut u64 = bytes.as_mut_ptr();
        for bell in &bells {
            // SAFETY: the kernel writes 8 bytes. The doorbells do not block, unless another attack was here.
            unsafe { libc::read(*bell, place.cast(), size_of::<u64>()) };
        }
        for epoll in &epolls {
            // SAFETY: the kernel writes at most 16 events of 12 bytes.
            unsafe { libc::epoll_wait(*epoll, place.cast(), 16, 0) };
        }
    }
}

/// Says that it leaves as it was asked to, which it was not, and whatever else a worker may say.
pub(super) fn exit_with_every_note() -> ! {
    let bytes: Vec<u8> = (0..=255).collect();
    for fd in of_kind("pipe:") {
        // SAFETY: the kernel reads the bytes.
        unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    }
    // SAFETY: ends this process.
    unsafe { libc::_exit(0) }
}

pub(super) fn ring(_: &Targets) -> Verdict {
    each_bell(|fd| add(fd, 1))
}

/// Fills the counters to the top, and lets the next ring wait for room.
pub(super) fn fill(_: &Targets) -> Verdict {
    each_bell(|fd| {
        add(fd, u64::MAX - 1);
        add(fd, u64::MAX - 2);
        (0..3).for_each(|_| add(fd, 1));
        // SAFETY: takes integers.
        unsafe { libc::fcntl(fd, libc::F_SETFL, 0) };
    })
}

fn add(fd: i32, count: u64) {
    // SAFETY: takes integers, and the kernel reads 8 bytes. Not waiting: the attack goes on.
    unsafe {
        libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
        libc::write(fd, (&raw const count).cast(), size_of::<u64>());
    }
}

/// Flags, owners, signals, locks and sizes of the open file descriptions.
pub(super) fn control(targets: &Targets) -> Verdict {
    for (fd, _) in open() {
        // SAFETY: takes integers. What it has changed for the others, the test sees.
        unsafe {
            for pid in targets.others() {
                libc::fcntl(fd, libc::F_SETOWN, pid);
                libc::fcntl(fd, F_SETSIG, libc::SIGKILL);
                libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC);
            }
            libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK);
            libc::fcntl(fd, libc::F_SETPIPE_SZ, 4096);
            libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB);
            let mut lock: libc::flock = mem::zeroed();
            lock.l_type = libc::F_WRLCK as libc::c_short;
            libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock);
            libc::fcntl(fd, libc::F_SETFL, 0);
        }
    }
    Ok(())
}

/// The entries of its epolls, by every number, and its epolls in each other.
pub(super) fn epoll(_: &Targets) -> Verdict {
    for epoll in of_kind("eventpoll") {
        for fd in 0..1024 {
            let mut event = libc::epoll_event {
                events: (libc::EPOLLIN | libc::EPOLLOUT) as u32,
                u64: u64::MAX,
            };
            // SAFETY: takes integers and an event. What it has changed for the others, the test sees.
            unsafe {
                libc::epoll_ctl(epoll, libc::EPOLL_CTL_MOD, fd, &raw mut event);
                libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, &raw mut event);
                libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event);
            }
        }
    }
    Ok(())
}

/// Every byte into every pipe, again and again: notes that are not asked for.
pub(super) fn notes(_: &Targets) -> Verdict {
    let bytes: Vec<u8> = (0..=255).collect();
    let begin = Instant::now();
    while begin.elapsed() < WHILE {
        for fd in of_kind("pipe:") {
            // SAFETY: the kernel reads the bytes. Not waiting: the manager empties the pipe.
            unsafe {
                libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
                libc::write(fd, bytes.as_ptr().cast(), bytes.len());
            }
        }
    }
    Ok(())
}
