//! Injected failures, as in SQLite's tests: the N-th call of a kind fails, and the server must cope.
//! Behind the feature `test-hooks`; without it these functions are empty.
//!
//! `TINE_FAIL=[ROLE.]CALL:N[:ERRNO]`, `TINE_FAIL=master.send:5:EAGAIN` for instance. The calls of all
//! processes in that role (without one: of all processes of the server) are counted together, from
//! 1, and one of them fails; the process that it fails in says so on standard error.
//!
//! Runs in any process. Its one rule: the check comes right before the call, so that an injected
//! failure happens where the kernel's would.

/// A call that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Accept4,
    /// write(2) to a doorbell.
    Bell,
    /// fcntl(2) with F_DUPFD_CLOEXEC, of a file that is sent.
    Dup,
    EpollCreate1,
    /// Only of the kinds that add and modify: removing takes no memory and has no limit, epoll_ctl(2).
    EpollCtl,
    Eventfd,
    Fork,
    MemfdCreate,
    Mmap,
    /// open(2) of a description again.
    Open,
    Pipe2,
    /// preadv2(2) of a file that is sent.
    Pread,
    Recv,
    Send,
    Socket,
    /// recvmsg(2) of a descriptor, of which the message comes all the same.
    Take,
    /// write(2) to a pipe.
    Write,
}

/// Fails if this call is to fail.
#[cfg(not(feature = "test-hooks"))]
#[inline(always)]
pub(crate) const fn check(_: Call) -> Result<(), nix::errno::Errno> {
    Ok(())
}

#[cfg(feature = "test-hooks")]
pub(crate) use plan::{check, enter};

/// As [`check`], for calls that return -1: `errno` is set as the kernel would have done.
#[inline(always)]
pub(crate) fn fails(call: Call) -> bool {
    match check(call) {
        Ok(()) => false,
        Err(errno) => {
            errno.set();
            true
        }
    }
}

#[cfg(feature = "test-hooks")]
mod plan {
    use std::num::NonZeroUsize;
    use std::str::FromStr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use nix::errno::Errno;
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

    use super::Call;

    /// The call that is to fail.
    struct Plan {
        role: Option<usize>,
        call: Call,
        number: u64,
        errno: Errno,
        /// How many calls were made, in memory that all processes of the server share.
        made: &'static AtomicU64,
    }

    /// The roles, by the names that processes give themselves.
    const ROLES: [&str; 5] = ["starting", "master", "manager", "standby", "worker"];

    /// Which of them this process has.
    static ROLE: AtomicUsize = AtomicUsize::new(0);

    /// The name of each in `TINE_FAIL`, and the usual errno: of a system that has run out of something,
    /// or of a peer that is gone.
    const CALLS: [(Call, &str, Errno); 17] = [
        (Call::Accept4, "accept4", Errno::EMFILE),
        (Call::Bell, "bell", Errno::EAGAIN),
        (Call::Dup, "dup", Errno::EMFILE),
        (Call::EpollCreate1, "epoll_create1", Errno::EMFILE),
        (Call::EpollCtl, "epoll_ctl", Errno::ENOSPC),
        (Call::Eventfd, "eventfd", Errno::EMFILE),
        (Call::Fork, "fork", Errno::EAGAIN),
        (Call::MemfdCreate, "memfd_create", Errno::EMFILE),
        (Call::Mmap, "mmap", Errno::ENOMEM),
        (Call::Open, "open", Errno::EMFILE),
        (Call::Pipe2, "pipe2", Errno::EMFILE),
        (Call::Pread, "pread", Errno::EIO),
        (Call::Recv, "recv", Errno::ECONNRESET),
        (Call::Send, "send", Errno::ECONNRESET),
        (Call::Socket, "socket", Errno::EMFILE),
        (Call::Take, "take", Errno::EMFILE),
        (Call::Write, "write", Errno::ENOMEM),
    ];

    const ERRNOS: [Errno; 12] = [
        Errno::EAGAIN,
        Errno::ECONNABORTED,
        Errno::ECONNRESET,
        Errno::EINTR,
        Errno::EIO,
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOBUFS,
        Errno::ENOMEM,
        Errno::ENOSPC,
        Errno::EPERM,
        Errno::EPIPE,
    ];

    /// Called when a process takes a name, `tine worker#3` for instance.
    pub(crate) fn enter(name: &str) {
        let role = name.trim_start_matches("tine ").split('#').next();
        let known = ROLES.iter().position(|known| Some(*known) == role);
        ROLE.store(known.unwrap_or(0), Ordering::Relaxed);
    }

    /// Fails if this call is to fail.
    pub(crate) fn check(call: Call) -> Result<(), Errno> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        match PLAN.get_or_init(Plan::from_environment) {
            Some(plan) if plan.strikes(call) => {
                plan.say();
                Err(plan.errno)
            }
            Some(_) | None => Ok(()),
        }
    }

    impl Plan {
        /// Read before the first fork, since the first call of a server is made before it.
        fn from_environment() -> Option<Plan> {
            let text = std::env::var("TINE_FAIL").ok()?;
            let plan = Plan::parse(&text);
            Some(plan.unwrap_or_else(|| panic!("TINE_FAIL={text}: not [ROLE.]CALL:N[:ERRNO]")))
        }

        fn parse(text: &str) -> Option<Plan> {
            let mut parts = text.split(':');
            let (role, call) = match parts.next()?.split_once('.') {
                Some((role, call)) => (Some(ROLES.iter().position(|it| *it == role)?), call),
                None => (None, text.split(':').next()?),
            };
            let (call, _, usual) = *CALLS.iter().find(|(_, name, _)| *name == call)?;
            let number = u64::from_str(parts.next()?).ok().filter(|it| *it > 0)?;
            let errno = match parts.next() {
                None => usual,
                Some(name) => *ERRNOS.iter().find(|it| format!("{it:?}") == name)?,
            };
            Some(Plan {
                role,
                call,
                number,
                errno,
                made: shared(),
            })
        }

        fn strikes(&self, call: Call) -> bool {
            let is_meant = self
                .role
                .is_none_or(|role| role == ROLE.load(Ordering::Relaxed));
            call == self.call
                && is_meant
                && self.made.fetch_add(1, Ordering::Relaxed) + 1 == self.number
        }

        /// Not by the logger: it may be unset, or in the middle of a line.
        fn say(&self) {
            let role = ROLES[ROLE.load(Ordering::Relaxed)];
            let (number, errno) = (self.number, self.errno);
            eprintln!(
                "injected: call {number} of {:?} fails with {errno:?}, in the {role}",
                self.call
            );
        }
    }

    /// A number that this process and those that it forks have in common.
    fn shared() -> &'static AtomicU64 {
        let size = NonZeroUsize::new(size_of::<AtomicU64>()).expect("a number has bytes");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses an address that is free, so no existing memory is touched.
        let start = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_SHARED) };
        let start = start.expect("a page of memory").cast::<AtomicU64>();
        // SAFETY: the page is all zero, which is a number, aligned, and never unmapped.
        unsafe { start.as_ref() }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_plan_names_role_call_number_and_errno() {
            let plan = Plan::parse("master.send:5:EAGAIN").expect("a plan");
            assert_eq!((plan.role, plan.call), (Some(1), Call::Send));
            assert_eq!((plan.number, plan.errno), (5, Errno::EAGAIN));
            let plan = Plan::parse("fork:1").expect("a plan");
            assert_eq!((plan.role, plan.errno), (None, Errno::EAGAIN));
        }

        #[test]
        fn what_is_no_plan_is_refused() {
            for text in [
                "",
                "fork",
                "fork:0",
                "fork:x",
                "spoon:1",
                "king.fork:1",
                "fork:1:EWHAT",
            ] {
                assert!(Plan::parse(text).is_none(), "{text}");
            }
        }

        #[test]
        fn one_call_fails_once() {
            let plan = Plan::parse("starting.mmap:3").expect("a plan");
            let strikes: Vec<bool> = (0..6).map(|_| plan.strikes(Call::Mmap)).collect();
            assert_eq!(strikes, [false, false, true, false, false, false]);
            let plan = Plan::parse("worker.mmap:1").expect("a plan");
            assert!(!plan.strikes(Call::Mmap), "in another role");
            let plan = Plan::parse("mmap:1").expect("a plan");
            assert!(!plan.strikes(Call::Fork) && plan.strikes(Call::Mmap));
        }
    }
}
