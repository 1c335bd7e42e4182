//! A message allocates nothing: no process of a warm server takes memory from the heap.

use crate::common::allocations::{Counted, line};

/// Enough messages to wrap around every ring.
const TIMES: usize = 200;

/// Many messages that come in one piece.
const BURST: usize = 50;

#[track_caller]
fn takes_nothing(mode: &str, protocol: &str) {
    let mut server = Counted::start(mode, protocol);
    for size in [64, 4 << 10, 64 << 10] {
        let message = line(size);
        let taken = server.taken_for(&message, TIMES);
        assert_eq!(taken, 0, "{size} B, {mode}, {protocol}\n{}", server.log());
    }
    let taken = server.taken_for(&line(64).repeat(BURST), TIMES);
    let log = server.log();
    assert_eq!(taken, 0, "{BURST} at once, {mode}, {protocol}\n{log}");
}

#[test]
fn a_message_takes_nothing_from_the_heap_in_process_mode() {
    takes_nothing("process", "raw");
}

#[test]
fn a_message_takes_nothing_from_the_heap_in_base_mode() {
    takes_nothing("base", "raw");
}

#[test]
fn a_line_takes_nothing_from_the_heap_in_process_mode() {
    takes_nothing("process", "delimiter=\\n");
}

#[test]
fn a_line_takes_nothing_from_the_heap_in_base_mode() {
    takes_nothing("base", "delimiter=\\n");
}
