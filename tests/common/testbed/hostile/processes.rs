//! Attacks on the other processes of the server, by their pids.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::mem;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::ptr::null_mut;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, recv, socket};

use super::{Targets, Verdict, refused};

/// The files of a process that are its own.
pub(super) fn open_proc(targets: &Targets) -> Verdict {
    for pid in targets.others() {
        for file in [
            "mem", "maps", "smaps", "environ", "auxv", "pagemap", "syscall", "stack",
        ] {
            let path = format!("/proc/{pid}/{file}");
            let Ok(mut opened) = OpenOptions::new().read(true).open(&path) else {
                continue;
            };
            if opened.read(&mut [0; 16]).is_ok_and(|read| read > 0) {
                return Err(format!("{path} is readable"));
            }
        }
        for folder in ["fd", "map_files", "task/../fd"] {
            let path = format!("/proc/{pid}/{folder}");
            if std::fs::read_dir(&path).is_ok() {
                return Err(format!("{path} is readable"));
            }
        }
        for fd in 0..64 {
            let path = format!("/proc/{pid}/fd/{fd}");
            if OpenOptions::new().read(true).open(&path).is_ok() {
                return Err(format!("{path} is open"));
            }
        }
        for file in ["mem", "clear_refs", "coredump_filter", "comm"] {
            let path = format!("/proc/{pid}/{file}");
            let opened = OpenOptions::new().write(true).open(&path);
            if opened.is_ok_and(|mut it| it.write_all(b"1").is_ok()) {
                return Err(format!("{path} is writable"));
            }
        }
    }
    for pid in targets.of_other_users() {
        let path = format!("/proc/{pid}/oom_score_adj");
        let opened = OpenOptions::new().write(true).open(&path);
        if opened.is_ok_and(|mut it| it.write_all(b"1000").is_ok()) {
            return Err(format!("{path} is writable"));
        }
    }
    Ok(())
}

/// pidfd_getfd(2).
pub(super) fn take_descriptors(targets: &Targets) -> Verdict {
    for pid in targets.others() {
        // SAFETY: takes integers.
        let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if process == -1 {
            return Err(format!("process {pid} is gone"));
        }
        for fd in 0..128 {
            // SAFETY: takes integers.
            let taken = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, fd, 0) };
            refused(&format!("descriptor {fd} of process {pid}"), taken)?;
        }
    }
    Ok(())
}

/// Where this process, a copy of the manager, has something. Another copy has something there too.
fn places() -> Result<Vec<usize>, String> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let start = |line: &str| usize::from_str_radix(line.split('-').next()?, 16).ok();
    Ok(maps.lines().filter_map(start).collect())
}

/// process_vm_readv(2).
pub(super) fn read_memory(targets: &Targets) -> Verdict {
    for (pid, place) in targets
        .others()
        .flat_map(|pid| places().into_iter().flatten().map(move |it| (pid, it)))
    {
        let mut bytes = [0_u8; 64];
        let (local, remote) = parts(&mut bytes, place);
        // SAFETY: the kernel writes into the buffer alone, and checks the other address.
        let read = unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) };
        refused(&format!("memory of process {pid}"), read as libc::c_long)?;
    }
    Ok(())
}

/// process_vm_writev(2).
pub(super) fn write_memory(targets: &Targets) -> Verdict {
    for (pid, place) in targets
        .others()
        .flat_map(|pid| places().into_iter().flatten().map(move |it| (pid, it)))
    {
        let mut bytes = [0_u8; 64];
        let (local, remote) = parts(&mut bytes, place);
        // SAFETY: the kernel reads the buffer alone, and checks the other address.
        let written = unsafe { libc::process_vm_writev(pid, &local, 1, &remote, 1, 0) };
        refused(&format!("memory of process {pid}"), written as libc::c_long)?;
    }
    Ok(())
}

fn parts(bytes: &mut [u8], place: usize) -> (libc::iovec, libc::iovec) {
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: place as *mut _,
        iov_len: bytes.len(),
    };
    (local, remote)
}

/// ptrace(2).
pub(super) fn trace(targets: &Targets) -> Verdict {
    for pid in targets.others() {
        for request in [libc::PTRACE_ATTACH, libc::PTRACE_SEIZE] {
            // SAFETY: no address is given.
            let traced = unsafe {
                libc::ptrace(
                    request,
                    pid,
                    null_mut::<libc::c_void>(),
                    null_mut::<libc::c_void>(),
                )
            };
            refused(&format!("trace of process {pid}"), traced)?;
        }
    }
    Ok(())
}

/// process_madvise(2), move_pages(2), kcmp(2).
pub(super) fn advise(targets: &Targets) -> Verdict {
    for pid in targets.others() {
        let mut bytes = [0_u8; 64];
        let (_, remote) = parts(&mut bytes, places()?.first().copied().unwrap_or_default());
        // SAFETY: takes integers and one range, which the kernel checks.
        unsafe {
            let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            let advice = libc::MADV_PAGEOUT;
            let advised = libc::syscall(
                libc::SYS_process_madvise,
                process,
                &raw const remote,
                1,
                advice,
                0,
            );
            refused(&format!("advice for process {pid}"), advised)?;
            let compared = libc::syscall(libc::SYS_kcmp, libc::getpid(), pid, 1, 0, 0);
            refused(&format!("kcmp with process {pid}"), compared)?;
            let (old, new) = (0_u64, 1_u64);
            let moved = libc::syscall(
                libc::SYS_migrate_pages,
                pid,
                1,
                &raw const old,
                &raw const new,
            );
            refused(&format!("pages of process {pid}"), moved)?;
        }
    }
    Ok(())
}

/// kill(2), tgkill(2), rt_sigqueueinfo(2), pidfd_send_signal(2).
pub(super) fn signal(targets: &Targets) -> Verdict {
    for pid in targets.of_other_users() {
        for signal in [libc::SIGSTOP, libc::SIGTERM, libc::SIGKILL, 0] {
            // SAFETY: takes integers, and no information about a signal.
            unsafe {
                let what = format!("signal {signal} to process {pid}");
                refused(&what, libc::c_long::from(libc::kill(pid, signal)))?;
                refused(&what, libc::syscall(libc::SYS_tgkill, pid, pid, signal))?;
                let mut info: libc::siginfo_t = mem::zeroed();
                info.si_code = libc::SI_QUEUE;
                let queued = libc::syscall(libc::SYS_rt_sigqueueinfo, pid, signal, &raw mut info);
                refused(&what, queued)?;
                let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
                let sent = libc::syscall(libc::SYS_pidfd_send_signal, process, signal, 0, 0);
                refused(&what, sent)?;
            }
        }
    }
    Ok(())
}

/// prlimit(2).
pub(super) fn limit(targets: &Targets) -> Verdict {
    for pid in targets.of_other_users() {
        for resource in [libc::RLIMIT_NOFILE, libc::RLIMIT_AS, libc::RLIMIT_CPU] {
            let none = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: the kernel reads one limit.
            let limited = unsafe { libc::prlimit(pid, resource, &raw const none, null_mut()) };
            refused(
                &format!("limit {resource} of process {pid}"),
                limited.into(),
            )?;
        }
    }
    Ok(())
}

/// Priorities, processors, and the order of input and output.
pub(super) fn schedule(targets: &Targets) -> Verdict {
    for pid in targets.of_other_users() {
        // SAFETY: takes integers, a set of processors, and parameters.
        unsafe {
            let what = format!("scheduling of process {pid}");
            let nice = libc::setpriority(libc::PRIO_PROCESS, pid as libc::id_t, 19);
            refused(&what, nice.into())?;
            let mut first: libc::cpu_set_t = mem::zeroed();
            libc::CPU_SET(0, &mut first);
            let set = libc::sched_setaffinity(pid, size_of_val(&first), &raw const first);
            refused(&what, set.into())?;
            let parameters = libc::sched_param { sched_priority: 0 };
            let idle = libc::sched_setscheduler(pid, libc::SCHED_IDLE, &raw const parameters);
            refused(&what, idle.into())?;
            refused(&what, libc::syscall(libc::SYS_ioprio_set, 1, pid, 3 << 13))?;
        }
    }
    Ok(())
}

/// perf_event_open(2): counters of another process.
pub(super) fn watch(targets: &Targets) -> Verdict {
    for pid in targets.others() {
        // The version of 64 bytes: a software event, the clock.
        let mut attributes = [0_u64; 8];
        attributes[0] = 1 | 64 << 32;
        // SAFETY: the kernel reads the attributes.
        let counter = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                attributes.as_ptr(),
                pid,
                -1,
                -1,
                0,
            )
        };
        refused(&format!("counter of process {pid}"), counter)?;
    }
    Ok(())
}

/// timer_create(2): a signal to a thread of another process.
pub(super) fn timers(targets: &Targets) -> Verdict {
    for pid in targets.others() {
        let mut timer = 0_i32;
        // SAFETY: all zero is a sigevent; the kernel reads it, and writes the number of the timer.
        let made = unsafe {
            let mut event: libc::sigevent = mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGKILL;
            event.sigev_notify_thread_id = pid;
            libc::syscall(
                libc::SYS_timer_create,
                libc::CLOCK_MONOTONIC,
                &raw mut event,
                &raw mut timer,
            )
        };
        refused(&format!("timer for process {pid}"), made)?;
    }
    Ok(())
}

/// The status of the server, and a packet to its socket.
pub(super) fn status(targets: &Targets) -> Verdict {
    let name = format!("tine/{}", targets.master);
    let ask = || -> nix::Result<usize> {
        let fd = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::empty(),
            None,
        )?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&fd);
        connect(fd, &UnixAddr::new_abstract(name.as_bytes())?)?;
        recv(fd, &mut [0; 4096], nix::sys::socket::MsgFlags::empty())
    };
    if let Ok(told @ 1..) = ask() {
        return Err(format!("{told} bytes of status"));
    }
    let to_it = || -> std::io::Result<usize> {
        let address = SocketAddr::from_abstract_name(name.as_bytes())?;
        UnixDatagram::unbound()?.send_to_addr(b"x", &address)
    };
    match to_it() {
        Ok(_) => Err("a packet was taken".into()),
        Err(_) => Ok(()),
    }
}
