//! Heap allocations per message, over all processes of a server, once it is warm: there should be none. The
//! server is a program that counts them, with the same library; `tests/it/allocations.rs` checks the same.

use crate::common::allocations::{CLIENTS, Counted, line};
use crate::peers::{BASE, PROCESS};
use crate::targets::Target;

pub(crate) const NAME: &str = "heap allocations";

/// Sizes of messages, and the number that each client sends.
const MESSAGES: [(usize, usize); 3] = [(64, 2_000), (4 << 10, 1_000), (64 << 10, 200)];

pub(crate) fn measure() -> Vec<Target> {
    let mut targets = Vec::new();
    for (name, mode) in [(BASE, "base"), (PROCESS, "process")] {
        for (kind, protocol) in [("bytes as they come", "raw"), ("lines", "delimiter=\\n")] {
            let mut server = Counted::start(mode, protocol);
            let mut taken = 0;
            for (size, times) in MESSAGES {
                taken += server.taken_for(&line(size), times);
            }
            let messages: usize = MESSAGES.iter().map(|(_, times)| times * CLIENTS).sum();
            targets.push(Target::at_most(
                format!("{name}, 64 B to 64 KiB, {kind}: {NAME} for a message"),
                taken as f64 / messages as f64,
                0.0,
            ));
        }
    }
    targets
}
