//! `tine lab` in a user namespace: it has every right there, and none over the network that it started in.

use std::process::Command;

use crate::common::launch::Launch;
use crate::common::sockets::await_room_for_time_wait;

#[test]
fn a_network_that_cannot_be_left_again_is_not_entered() {
    let is_permitted = Command::new("unshare").args(["-r", "true"]).output();
    if !is_permitted.is_ok_and(|ended| ended.status.success()) {
        return eprintln!("SKIPPED: unshare -r is not permitted here");
    }
    for (name, words) in [
        ("late-segment", "There is no picture of a late segment here"),
        ("vanished", "to cut a link takes a network namespace"),
    ] {
        await_room_for_time_wait();
        let lab = Launch::tine(&["lab", name, "--json"]);
        let ended = lab.through(&["unshare", "-r"]).run();
        assert!(ended.status.success(), "{name}: {ended:#?}");
        assert!(ended.stdout.contains(words), "{name}: {ended:#?}");
    }
}
