//! Places processes on cores: each server has one core to itself, and the generator another.
//!
//! Otherwise the scheduler distributes the three busy threads of process mode over two cores in one of two
//! ways, for as long as the load lasts: the worker is on the reactor's core, or on the generator's, which
//! it then interrupts thousands of times a second. Which one is chance, and makes a sixth of the
//! throughput.

use std::sync::OnceLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The core of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Servers,
    Generators,
    /// Any core: the scheduler decides.
    Anywhere,
}

/// The cores of servers and generators, and all cores that this process may use.
struct Cores {
    pair: Option<(usize, usize)>,
    all: CpuSet,
}

fn cores() -> &'static Cores {
    static CORES: OnceLock<Cores> = OnceLock::new();
    CORES.get_or_init(|| {
        let all = sched_getaffinity(Pid::from_raw(0)).expect("a process may ask where it runs");
        let mut mine = (0..CpuSet::count()).filter(|core| all.is_set(*core).unwrap_or(false));
        let pair = mine.next().zip(mine.next());
        if pair.is_none() {
            println!("this machine has one core: generator and servers share it");
        }
        Cores { pair, all }
    })
}

/// Calls `start`; the processes that it starts stay on the cores of this place.
pub(crate) fn at<T>(place: Place, start: impl FnOnce() -> T) -> T {
    let Cores { pair, all } = cores();
    let core = match (place, pair) {
        (Place::Servers, Some((first, _))) => *first,
        (Place::Generators, Some((_, second))) => *second,
        (Place::Anywhere, _) | (_, None) => return start(),
    };
    let mut only = CpuSet::new();
    only.set(core).expect("it is in the set of all");
    // Set for this thread: its child processes inherit it.
    let stay = |set| sched_setaffinity(Pid::from_raw(0), set).expect("its own cores");
    stay(&only);
    let started = start();
    stay(all);
    started
}
