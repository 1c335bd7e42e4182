//! For the tests of this crate alone, behind the feature `test-hooks`: a worker that lies, workers
//! that die at a certain step of the ring's protocol, and entries for fuzzing.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering as Order};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use crate::id::ConnId;
use crate::ipc::frame::{self, InputKind};
use crate::ipc::layout::Arena;
use crate::ipc::link::ReactorLink;
use crate::ipc::ring::ALIGN;
use crate::ipc::sync::Ordering;
use crate::protocol::{Protocol, Split};

/// What a worker that lies puts into its outbox.
#[derive(Clone, Debug)]
pub enum Forgery {
    /// These bytes, published as if they were frames.
    Bytes(Vec<u8>),
    /// A published mark so far from the true one.
    Mark(i64),
}

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
    /// Worker: the commit is published, and its bell not rung.
    Published,
    /// Reactor: it has read a commit, and not retired its frame.
    BeforeRetire,
    /// Reactor: it has retired a frame.
    AfterRetire,
    /// Reactor: it is taking back what the worker has not begun.
    Recall,
}

impl KillPoint {
    /// Every one.
    pub const ALL: [KillPoint; 9] = [
        KillPoint::Attached,
        KillPoint::Begun,
        KillPoint::BeforeStaging,
        KillPoint::MidFrame,
        KillPoint::Staged,
        KillPoint::Published,
        KillPoint::BeforeRetire,
        KillPoint::AfterRetire,
        KillPoint::Recall,
    ];

    /// What `TINE_KILL_AT` calls it.
    pub fn name(self) -> &'static str {
        match self {
            KillPoint::Attached => "attached",
            KillPoint::Begun => "begun",
            KillPoint::BeforeStaging => "before-staging",
            KillPoint::MidFrame => "mid-frame",
            KillPoint::Staged => "staged",
            KillPoint::Published => "published",
            KillPoint::BeforeRetire => "before-retire",
            KillPoint::AfterRetire => "after-retire",
            KillPoint::Recall => "recall",
        }
    }

    /// One pass of so many is deadly. Those that are only passed when a seat changes hands are
    /// rare. Who dies on being attached has not served anybody, and is replaced ever more slowly:
    /// that must not happen many times in a row.
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
        let pass = (getpid().as_raw(), PASSES.fetch_add(1, Order::Relaxed));
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
            // One that has died already, and whose last commits are read.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => log::error!("{}: cannot kill {process}: {error}", self.name()),
        }
    }
}

/// Walks arbitrary bytes as a worker's outbox. The first 8 of them are the published mark.
pub fn outbox(data: &[u8]) {
    const RING: usize = 4096;
    thread_local! {
        static ARENA: RefCell<Arena> = RefCell::new(Arena::new(1, 1, RING, RING).expect("an arena of a few pages"));
    }
    let Some((mark, bytes)) = data.split_first_chunk::<8>() else {
        return;
    };
    ARENA.with_borrow(|arena| {
        let memory = &arena.slots[0].links[0];
        let mut link = ReactorLink::new(memory, RING * 2);
        link.open(1);
        for number in 1..4 {
            link.submit_copy(&question(number), b"body");
        }
        memory.outbox.write(0, &bytes[..bytes.len().min(RING)]);
        let mark = u64::from_le_bytes(*mark);
        // In two steps: what the first has without its commit is held back.
        for published in [(mark / 2).next_multiple_of(ALIGN), mark] {
            let words = &memory.words;
            words.outbox_published.store(published, Ordering::Release);
            while let Ok(Some(commit)) = link.next_commit() {
                let mut copy = Vec::new();
                for index in 0..link.output_count() {
                    link.output(index).1.append_to(&mut copy);
                }
                assert!(copy.len() <= RING * 2);
                link.finish(commit);
                link.release();
            }
        }
        link.cut();
    });
}

fn question(number: u32) -> frame::Input {
    let generation = NonZeroU32::new(number).expect("numbers begin at 1");
    frame::Input {
        kind: InputKind::Receive,
        conn: ConnId::new(0, number, generation),
        peer: ([127, 0, 0, 1], 1).into(),
        listener: 0,
        attempt: 0,
        detail: 0,
        deadline: 0,
        len: 4,
    }
}

/// Cuts arbitrary bytes into messages by every kind of protocol. The first byte chooses one.
pub fn split(data: &[u8]) {
    const MAX: usize = 300;
    let protocols = [
        "raw",
        "delimiter=\\n",
        "delimiter=\\r\\n",
        "length=1",
        "length=2,little,all",
        "length=4,big,body",
    ];
    let Some((choice, mut bytes)) = data.split_first() else {
        return;
    };
    let protocol: Protocol = protocols[usize::from(*choice) % protocols.len()]
        .parse()
        .expect("the protocols above are good");
    while let Split::Message { len } = protocol.split(bytes, 0, MAX) {
        assert!(len >= 1 && len <= bytes.len().min(MAX));
        bytes = &bytes[len..];
    }
}
