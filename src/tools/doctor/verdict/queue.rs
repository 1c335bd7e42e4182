//! Accept queues: full or never empty, and the processes that should accept from them.

use super::{Finding, Holder, Listener, Place, Report, Weight, doing};
use crate::doctor::holder::Sleep;
use crate::doctor::queues::ENOUGH_LOOKS;
use crate::doctor::report::Queue;
use crate::doctor::words::{count, counted, grouped, list, seconds};
use crate::process::Activity;
use crate::sockets::owners::Owner;

/// A backlog below this dates from small machines: `SOMAXCONN` was 128.
const SMALL: u32 = 128;

pub(super) fn judge(report: &Report, listener: &Listener) -> Vec<Finding> {
    let place = Place::of(listener);
    let queues = listener.queues.iter();
    queues
        .filter_map(|queue| of_queue(report, &place, queue))
        .collect()
}

fn of_queue(report: &Report, place: &Place, queue: &Queue) -> Option<Finding> {
    let (kind, mut says) = if queue.is_full() {
        ("queue_full", full(report, queue))
    } else if queue.was_full() {
        ("queue_was_full", was_full(report, queue))
    } else if queue.lowest > 0 && report.looks >= ENOUGH_LOOKS {
        ("queue_never_empty", never_empty(report, queue))
    } else if queue.most() > 1 && queue.peak > queue.most() / 2 {
        ("queue_half_full", half_full(queue))
    } else {
        return out_of_descriptors(report, place, queue);
    };
    let cause = Cause::of(report, queue);
    let mut next = cause.next(&cause.culprits(report, queue), place);
    if cause.is_eased_by_a_backlog() {
        next.extend(about_the_backlog(report, queue));
    }
    next.push(format!("`tine doctor{} --watch 10`", place.argument));
    says.push(' ');
    says.push_str(&cause.says(report, queue));
    let weight = match kind {
        "queue_half_full" => Weight::Note,
        _ => Weight::Wrong,
    };
    Some(place.finding(kind, weight, says, next))
}

/// The queue may be empty all the same: libuv keeps a descriptor in reserve, with which it accepts what it cannot
/// hold, and closes it (`uv__emfile_trick` in `src/unix/stream.c`).
fn out_of_descriptors(report: &Report, place: &Place, queue: &Queue) -> Option<Finding> {
    let cause = Cause::OutOfDescriptors;
    let holders = acceptors(report, queue);
    let mut holders = report.holders(&holders);
    if !holders.any(Holder::is_out_of_descriptors) {
        return None;
    }
    let says = format!(
        "{} A program that keeps one in reserve, as Node.js does, accepts further clients and closes them at once.",
        cause.says(report, queue)
    );
    let next = cause.next(&cause.culprits(report, queue), place);
    Some(place.finding("descriptors_used_up", Weight::Wrong, says, next))
}

fn full(report: &Report, queue: &Queue) -> String {
    format!(
        "The accept queue is full: {} where {} fit. The kernel drops the SYNs of new clients, which try again \
         after 1 s.{}",
        counted(queue.now as usize, "connection waits", "connections wait"),
        grouped(queue.most()),
        overflows(report, queue)
    )
}

fn was_full(report: &Report, queue: &Queue) -> String {
    format!(
        "The accept queue was full during the examination ({} of {}), and has {} now.{}",
        grouped(queue.peak),
        grouped(queue.most()),
        grouped(queue.now),
        overflows(report, queue)
    )
}

fn never_empty(report: &Report, queue: &Queue) -> String {
    let range = match (queue.lowest, queue.peak) {
        (lowest, peak) if lowest == peak => grouped(lowest),
        (lowest, peak) => format!("{} to {}", grouped(lowest), grouped(peak)),
    };
    format!(
        "The accept queue was never empty: {range} of {} places taken at each of {} in {}.",
        grouped(queue.most()),
        count(report.looks, "look"),
        seconds(std::time::Duration::from_secs(
            report.watched.as_secs().max(1)
        ))
    )
}

fn half_full(queue: &Queue) -> String {
    format!(
        "The accept queue was more than half full for a moment: {} of {}.",
        grouped(queue.peak),
        grouped(queue.most())
    )
}

/// Returns the overflows while this queue was full, and other queues that may have caused them: the
/// counter names no port.
fn overflows(report: &Report, queue: &Queue) -> String {
    if queue.overflows_while_full == 0 {
        return String::new();
    }
    let queues = report
        .listeners
        .iter()
        .flat_map(|listener| &listener.queues);
    let others = queues
        .filter(|other| other.overflows_while_full > 0)
        .count()
        - 1;
    let cause = match others {
        0 => "no other listener shown here was full, so this one is the likely cause".to_owned(),
        _ => format!(
            "{} full as well",
            counted(others, "other listener was", "other listeners were")
        ),
    };
    format!(
        " While it was full, the kernel turned {} away. The counter is of the whole network namespace: {cause}.",
        count(
            usize::try_from(queue.overflows_while_full).unwrap_or(usize::MAX),
            "attempt"
        )
    )
}

/// Returns the processes that could accept from the queue. The manager of a tine server in base mode
/// holds the listener for its workers, and accepts nothing.
fn acceptors(report: &Report, queue: &Queue) -> Vec<Owner> {
    let is_worker = |owner: &Owner| owner.role().is_some_and(|role| role.starts_with("worker"));
    let has_workers = queue.owners.iter().any(is_worker);
    let known = report
        .holders(&queue.owners)
        .map(|holder| holder.owner.clone());
    known
        .filter(|owner| !has_workers || is_worker(owner))
        .collect()
}

/// The waits in which a process does not accept.
const BLOCKED: [Sleep; 4] = [Sleep::Time, Sleep::Lock, Sleep::Bytes, Sleep::Other];

/// The likely cause why connections are not accepted, by `/proc`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    Unknown,
    Stopped,
    OutOfDescriptors,
    /// A tine server with as many connections as it may have.
    OutOfRoom,
    Disk,
    Blocked,
    Busy,
    NotWatching,
    Burst,
    Asleep,
}

impl Cause {
    /// Returns the first cause that explains it: a blocked process explains more than one that waits for
    /// events beside it.
    fn of(report: &Report, queue: &Queue) -> Cause {
        let acceptors = acceptors(report, queue);
        let holders: Vec<&Holder> = report.holders(&acceptors).collect();
        let any = |is: fn(&Holder) -> bool| holders.iter().any(|holder| is(holder));
        let sleeps = |kinds: &[Sleep]| {
            let is = |holder: &&Holder| holder.sleep().is_some_and(|sleep| kinds.contains(&sleep));
            holders.iter().any(is)
        };
        if holders.is_empty() {
            Cause::Unknown
        } else if holders.iter().all(|holder| holder.is_stopped()) {
            Cause::Stopped
        } else if any(Holder::is_out_of_descriptors) {
            Cause::OutOfDescriptors
        } else if any(Holder::is_out_of_room) {
            Cause::OutOfRoom
        } else if queue.lowest == 0 && !queue.is_full() {
            // The queue is emptied, but not fast enough at times.
            Cause::Burst
        } else if any(|holder| holder.activity == Some(Activity::WaitingForDisk)) {
            Cause::Disk
        } else if sleeps(&BLOCKED) {
            Cause::Blocked
        } else if any(|holder| holder.activity == Some(Activity::Running)) {
            Cause::Busy
        } else if sleeps(&[Sleep::Events]) {
            Cause::NotWatching
        } else if sleeps(&[Sleep::Accept]) {
            Cause::Burst
        } else if sleeps(&[Sleep::Child]) {
            Cause::Blocked
        } else {
            Cause::Asleep
        }
    }

    /// Returns the processes that could accept, those that the cause is about first: advice names the first one, such
    /// as a worker that is blocked, and not the master beside it, which waits for signals.
    fn culprits(self, report: &Report, queue: &Queue) -> Vec<Owner> {
        let is_about = |holder: &Holder| match self {
            Cause::Stopped => holder.is_stopped(),
            Cause::OutOfDescriptors => holder.is_out_of_descriptors(),
            Cause::OutOfRoom => holder.is_out_of_room(),
            Cause::Disk => holder.activity == Some(Activity::WaitingForDisk),
            Cause::Blocked => holder.sleep().is_some_and(|sleep| BLOCKED.contains(&sleep)),
            Cause::Busy => holder.activity == Some(Activity::Running),
            Cause::NotWatching => holder.sleep() == Some(Sleep::Events),
            Cause::Unknown | Cause::Burst | Cause::Asleep => true,
        };
        let acceptors = acceptors(report, queue);
        let mut holders: Vec<&Holder> = report.holders(&acceptors).collect();
        holders.sort_by_key(|holder| !is_about(holder));
        holders.iter().map(|it| it.owner.clone()).collect()
    }

    /// Whether the queue would be longer, and clients served all the same. A longer queue of a process that
    /// cannot accept only fills later.
    fn is_eased_by_a_backlog(self) -> bool {
        match self {
            Cause::Stopped | Cause::OutOfDescriptors | Cause::OutOfRoom | Cause::NotWatching => {
                false
            }
            Cause::Unknown
            | Cause::Disk
            | Cause::Blocked
            | Cause::Busy
            | Cause::Burst
            | Cause::Asleep => true,
        }
    }

    fn says(self, report: &Report, queue: &Queue) -> String {
        let acceptors = acceptors(report, queue);
        let doing = doing(report, &acceptors);
        match self {
            Cause::Unknown => "The processes that should accept cannot be seen.".to_owned(),
            Cause::Stopped => format!("Nothing is accepted: {doing}."),
            Cause::OutOfDescriptors => {
                let holders = report.holders(&acceptors);
                let full: Vec<String> = holders
                    .filter(|holder| holder.is_out_of_descriptors())
                    .map(|holder| holder.owner.to_string())
                    .collect();
                format!(
                    "{} has used up its descriptors, or nearly: without one, accept() fails with EMFILE.",
                    list(&full, 3)
                )
            }
            Cause::OutOfRoom => {
                let all: Vec<&Holder> = report.holders(&acceptors).collect();
                let full = all.iter().filter(|holder| holder.is_out_of_room());
                let each = |holder: &&Holder| {
                    let room = holder.room?;
                    Some(format!(
                        "{} has {} of {}",
                        holder.owner,
                        grouped(room.connections),
                        count(
                            usize::try_from(room.max_connections).unwrap_or(usize::MAX),
                            "connection"
                        )
                    ))
                };
                let full: Vec<String> = full.filter_map(each).collect();
                format!(
                    "The server says that `max_connections` is reached: {}.",
                    list(&full, 3)
                )
            }
            Cause::Disk => format!("The program waits in the kernel: {doing}."),
            Cause::Blocked => format!("The program seems blocked: {doing}."),
            Cause::Busy => format!("The program is busy: {doing}."),
            Cause::NotWatching => {
                format!("The program is idle and does not accept: {doing}.")
            }
            Cause::Burst => {
                format!("Connections come in bursts, faster than they are accepted: {doing}.")
            }
            Cause::Asleep => format!("Why it does not accept cannot be seen: {doing}."),
        }
    }

    fn next(self, acceptors: &[Owner], place: &Place) -> Vec<String> {
        let pids: Vec<String> = acceptors
            .iter()
            .map(|owner| owner.pid.to_string())
            .collect();
        let pid = pids.first().map_or("PID", String::as_str);
        let is_tine = acceptors.iter().any(|owner| owner.role().is_some());
        let one = |text: String| vec![text];
        match self {
            Cause::Unknown => one(format!("`sudo tine doctor{}` shows them", place.argument)),
            Cause::Stopped => one(format!("`kill -CONT {}`, or kill it", pids.join(" "))),
            Cause::OutOfDescriptors => one(format!(
                "raise its limit of open files (`ulimit -n`, LimitNOFILE=), or find the descriptors that it leaks: \
                 `ls -l /proc/{pid}/fd`"
            )),
            Cause::OutOfRoom => one(
                "`--max-connections N` (`max_connections`) allows more, up to the limit of open files; `--idle SECONDS` \
                 ends clients that say nothing"
                    .to_owned(),
            ),
            Cause::Disk => one(format!("`sudo cat /proc/{pid}/stack` shows the kernel function that it waits in")),
            Cause::Blocked if is_tine => one(
                "`tine serve --mode process`, where blocked workers leave the queue empty; else more \
                 --workers, or --callback-limit SECONDS --on-limit kill"
                    .to_owned(),
            ),
            Cause::Blocked | Cause::Asleep => one(format!(
                "`strace -f -p {pid}` shows the call that it is in; slow work belongs in another thread \
                 than accept()"
            )),
            Cause::Busy => one(format!(
                "more processes or threads that accept; `perf top -p {pid}` shows the functions that take the time"
            )),
            Cause::NotWatching => one(format!(
                "has it reached its own limit of connections (`maxconn` of HAProxy, `worker_connections` of nginx)? `strace -f -p {pid} -e \
                 trace=accept,accept4,epoll_ctl,epoll_wait,poll` shows whether it still asks for this listener"
            )),
            Cause::Burst => Vec::new(),
        }
    }
}

fn about_the_backlog(report: &Report, queue: &Queue) -> Option<String> {
    let somaxconn = report.settings.somaxconn;
    if queue.backlog >= somaxconn {
        let more = grouped(u64::from(somaxconn) * 4).replace(',', "");
        return Some(format!(
            "its backlog is all that net.core.somaxconn allows ({}): `sysctl -w net.core.somaxconn={more}`, \
             then a bigger backlog in listen(), which takes a restart",
            grouped(somaxconn)
        ));
    }
    (queue.backlog < SMALL).then(|| {
        format!(
            "its backlog is only {}: give listen() more, up to net.core.somaxconn ({}), which takes a restart",
            queue.backlog,
            grouped(somaxconn)
        )
    })
}

/// Judges overflows that happened while no queue was seen full.
pub(super) fn judge_counters(report: &Report) -> Option<Finding> {
    let number = usize::try_from(report.counters.unexplained).unwrap_or(usize::MAX);
    (number > 0).then(|| Finding {
        kind: "overflows_unexplained",
        weight: Weight::Note,
        about: "all listeners".to_owned(),
        says: format!(
            "The kernel turned {} away at a full queue, and no queue was seen full: one was full between two \
             looks, for less than 50 ms. The counter is of the whole network namespace.",
            count(number, "attempt")
        ),
        next: vec!["`tine doctor --watch 60` shows the queues whose peaks come near their limits".to_owned()],
    })
}
