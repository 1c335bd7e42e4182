//! Descriptors that outlive their connections.

use super::{Finding, Report, Weight};
use crate::doctor::report::Departed;
use crate::doctor::words::{age, counted};

/// One alone may be meant: a socket that is made ready for later.
const SEVERAL: usize = 2;

/// With this many descriptors there is no doubt, however short the time for which they were seen.
const MASS: usize = 1000;

pub(super) fn judge(report: &Report) -> Vec<Finding> {
    let departed = report.departed.iter();
    departed.map(|departed| of(report, departed)).collect()
}

fn of(report: &Report, departed: &Departed) -> Finding {
    let Departed {
        owner,
        sockets,
        longest,
    } = departed;
    let stays = *longest >= report.older;
    let is_wrong = (stays && *sockets >= SEVERAL) || *sockets >= MASS;
    let says = format!(
        "{} of TCP sockets that are in no table of the kernel, seen so for {}: the connections were reset, have \
         timed out or were never made, and the program has not called close().",
        counted(*sockets, "descriptor", "descriptors"),
        age(*longest)
    );
    let mut next = vec![
        format!(
            "an error of read() or write() (ECONNRESET, EPIPE, ETIMEDOUT) must lead to close(), as the end of file \
             does: `strace -f -p {} -e trace=read,recvfrom,write,sendto,close`",
            owner.pid
        ),
        "a program that reads nothing is not told of a reset: epoll reports EPOLLERR and EPOLLHUP"
            .to_owned(),
    ];
    if !stays {
        next.push(format!(
            "`tine doctor --pid {} --watch {}` shows whether they stay",
            owner.pid,
            report.older.as_secs() + 1
        ));
    }
    Finding {
        kind: "descriptors_without_connection",
        weight: if is_wrong {
            Weight::Wrong
        } else {
            Weight::Note
        },
        about: owner.to_string(),
        says,
        next,
    }
}
