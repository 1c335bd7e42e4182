//! Steps of the ring's protocol at which a test has workers killed, behind the feature `test-hooks`.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

/// A step at which a worker dies by SIGKILL, now and then, when the environment variable
/// `TINE_KILL_AT` names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KillPoint {
    /// Worker: a reactor has let it in, and nothing is begun.
    Attached,
    /// Worker: it has marked a frame as begun.
    Begun,
    /// Worker: it is about to write an output.
    BeforeStaging,
    /// Worker: half of an output's bytes are written.
    MidFrame,
    /// Worker: an output is written, and not published.
    Staged,
    /// Worker: the descriptor of a file is sent, and the commit that names it not published.
    FileSent,
    /// Worker: the commit is published, and its bell not rung.
    Published,
    /// Reactor: it has read a commit, and not retired its frame.
    BeforeRetire,
    /// Reactor: it has retired a frame.
    AfterRetire,
    /// Reactor: it is recalling the frames that the worker has not begun.
    Recall,
}

impl KillPoint {
    /// Every one.
    pub const ALL: [KillPoint; 10] = [
        KillPoint::Attached,
        KillPoint::Begun,
        KillPoint::BeforeStaging,
        KillPoint::MidFrame,
        KillPoint::Staged,
        KillPoint::FileSent,
        KillPoint::Published,
        KillPoint::BeforeRetire,
        KillPoint::AfterRetire,
        KillPoint::Recall,
    ];

    /// Its name in `TINE_KILL_AT`.
    pub fn name(self) -> &'static str {
        match self {
            KillPoint::Attached => "attached",
            KillPoint::Begun => "begun",
            KillPoint::BeforeStaging => "before-staging",
            KillPoint::MidFrame => "mid-frame",
            KillPoint::Staged => "staged",
            KillPoint::FileSent => "file-sent",
            KillPoint::Published => "published",
            KillPoint::BeforeRetire => "before-retire",
            KillPoint::AfterRetire => "after-retire",
            KillPoint::Recall => "recall",
        }
    }

    /// One pass in this many is deadly. The points that are only passed when a seat changes hands are
    /// rare. A worker that dies on being attached has not served anybody, and is replaced ever more
    /// slowly: that must not happen many times in a row.
    fn odds(self) -> u64 {
        match self {
            KillPoint::Attached => 16,
            KillPoint::Recall => 2,
            _ => 100,
        }
    }

    /// Whether this pass is deadly.
    fn strikes(self) -> bool {
        static CHOSEN: OnceLock<Option<KillPoint>> = OnceLock::new();
        static PASSES: AtomicU64 = AtomicU64::new(0);
        let by_name = |name: String| KillPoint::ALL.into_iter().find(|it| it.name() == name);
        let chosen = CHOSEN.get_or_init(|| std::env::var("TINE_KILL_AT").ok().and_then(by_name));
        if *chosen != Some(self) {
            return false;
        }
        let pass = (getpid().as_raw(), PASSES.fetch_add(1, Ordering::Relaxed));
        RandomState::new()
            .hash_one(pass)
            .is_multiple_of(self.odds())
    }

    /// A worker passes here.
    pub(crate) fn pass(self) {
        if self.strikes() {
            self.end(getpid().as_raw());
        }
    }

    /// A reactor passes here, on behalf of the worker that has told its pid.
    pub(crate) fn pass_of(self, worker: u32) {
        if worker != 0 && self.strikes() {
            self.end(worker as i32);
        }
    }

    fn end(self, process: i32) {
        match kill(Pid::from_raw(process), Signal::SIGKILL) {
            // It has died already, and its last commits are being read.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => log::error!("{}: cannot kill {process}: {error}", self.name()),
        }
    }
}
