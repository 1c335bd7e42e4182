//! Looks up the activity of a process that holds sockets in `/proc`: a hint at why it does not accept,
//! read or close.

use std::fs;
use std::io;

use serde::Serialize;

use super::words::age;
use crate::process::{self, Activity};
use crate::sockets::owners::Owner;
use tine::status::{CallbackStatus, Room};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Holder {
    #[serde(flatten)]
    pub(crate) owner: Owner,
    /// The activity of its main thread; `None` if the process has ended.
    pub(crate) activity: Option<Activity>,
    /// The kernel function in which its main thread sleeps, if that may be read.
    pub(crate) sleeps_in: Option<String>,
    pub(crate) threads: usize,
    /// The number of its open descriptors, and its limit.
    pub(crate) descriptors: Option<(usize, u64)>,
    /// The callback that it is in, if it is a worker of a tine server.
    pub(crate) callback: Option<CallbackStatus>,
    /// The room for connections that a tine server says it has.
    pub(crate) room: Option<Room>,
    /// For a tine server in process mode: the number of its workers that are in a callback, and of all.
    pub(crate) busy_workers: Option<(usize, usize)>,
}

/// The reason why a process sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sleep {
    /// In accept(2).
    Accept,
    /// In epoll_wait(2), poll(2) or select(2).
    Events,
    /// In nanosleep(2).
    Time,
    /// For a lock, futex(2).
    Lock,
    /// For bytes of a socket or a pipe.
    Bytes,
    /// For a child to end or a signal to come, as the master of a server does whose workers accept.
    Child,
    Other,
}

impl Holder {
    /// Looks at a process. If it has ended, only its name is known.
    pub(crate) fn look(owner: &Owner) -> Holder {
        let pid = owner.pid;
        Holder {
            owner: owner.clone(),
            activity: process::activity(pid).ok(),
            sleeps_in: sleeps_in(pid),
            threads: entries(&format!("/proc/{pid}/task")).unwrap_or(1),
            descriptors: descriptors(pid),
            callback: None,
            room: None,
            busy_workers: None,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.activity == Some(Activity::Stopped)
    }

    /// Returns whether accept(2) fails with EMFILE, or is about to.
    pub(crate) fn is_out_of_descriptors(&self) -> bool {
        matches!(self.descriptors, Some((open, most)) if open as u64 + 2 >= most)
    }

    /// Returns whether it is a tine server's process with as many connections as it may have.
    pub(crate) fn is_out_of_room(&self) -> bool {
        self.room.is_some_and(Room::is_used_up)
    }

    pub(crate) fn sleep(&self) -> Option<Sleep> {
        if self.activity != Some(Activity::Sleeping) {
            return None;
        }
        let function = self.sleeps_in.as_deref()?;
        let has = |words: &[&str]| words.iter().any(|word| function.contains(word));
        Some(match () {
            () if has(&["accept", "csk_wait"]) => Sleep::Accept,
            () if has(&["poll", "select"]) => Sleep::Events,
            () if has(&["nanosleep"]) => Sleep::Time,
            () if has(&["futex"]) => Sleep::Lock,
            () if has(&[
                "recv",
                "wait_data",
                "wait_woken",
                "pipe_read",
                "stream_read",
            ]) =>
            {
                Sleep::Bytes
            }
            () if has(&["do_wait", "sigsuspend", "sigtimedwait"]) => Sleep::Child,
            () => Sleep::Other,
        })
    }

    /// Returns `python3[7] sleeps for a time (hrtimer_nanosleep)`.
    pub(crate) fn says(&self) -> String {
        let name = if self.threads > 1 {
            format!(
                "the main thread of {} ({} threads)",
                self.owner, self.threads
            )
        } else {
            self.owner.to_string()
        };
        let doing = match (self.activity, self.sleep()) {
            (None, _) => return format!("{name} has ended"),
            (Some(Activity::Running), _) => "is running".to_owned(),
            (Some(Activity::WaitingForDisk), _) => "waits in the kernel (state D)".to_owned(),
            (Some(Activity::Stopped), _) => "is stopped (state T)".to_owned(),
            (Some(Activity::Zombie), _) => "is a zombie".to_owned(),
            (Some(Activity::Sleeping), None) => "sleeps".to_owned(),
            (Some(Activity::Sleeping), Some(Sleep::Accept)) => "waits in accept()".to_owned(),
            (Some(Activity::Sleeping), Some(Sleep::Events)) => "waits for events".to_owned(),
            (Some(Activity::Sleeping), Some(Sleep::Time)) => "sleeps for a time".to_owned(),
            (Some(Activity::Sleeping), Some(Sleep::Lock)) => {
                "waits for a lock or another thread".to_owned()
            }
            (Some(Activity::Sleeping), Some(Sleep::Bytes)) => {
                "waits for bytes from a socket or pipe".to_owned()
            }
            (Some(Activity::Sleeping), Some(Sleep::Child)) => {
                "waits for a child or a signal".to_owned()
            }
            (Some(Activity::Sleeping), Some(Sleep::Other)) => "sleeps".to_owned(),
        };
        let callback = self.callback.as_ref().map_or_else(String::new, |callback| {
            // In base mode the first answer about a callback says 0.
            let time = match callback.at_least {
                time if time.as_millis() < 100 => String::new(),
                time => format!(" for at least {}", age(time)),
            };
            format!(", in `{}` of {}{time}", callback.kind, callback.peer)
        });
        match self.sleep().and(self.sleeps_in.as_deref()) {
            Some(function) => format!("{name} {doing} ({function}){callback}"),
            None => format!("{name} {doing}{callback}"),
        }
    }
}

/// `/proc/PID/wchan` is `0` for a running process, and for a reader without permission.
fn sleeps_in(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/wchan")).ok()?;
    let text = text.trim();
    (!text.is_empty() && text != "0").then(|| text.to_owned())
}

fn descriptors(pid: i32) -> Option<(usize, u64)> {
    let open = entries(&format!("/proc/{pid}/fd")).ok()?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    Some((open, most_descriptors(&limits)?))
}

/// Returns the soft limit, which is the one that accept(2) meets.
fn most_descriptors(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn entries(folder: &str) -> io::Result<usize> {
    Ok(fs::read_dir(folder)?.count())
}

#[cfg(test)]
impl Holder {
    /// A process that does not exist.
    pub(crate) fn made_up(pid: i32, name: &str, activity: Activity, sleeps_in: &str) -> Holder {
        Holder {
            owner: Owner {
                pid,
                name: name.to_owned(),
            },
            activity: Some(activity),
            sleeps_in: (!sleeps_in.is_empty()).then(|| sleeps_in.to_owned()),
            threads: 1,
            descriptors: Some((10, 1024)),
            callback: None,
            room: None,
            busy_workers: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_function_tells_why_a_process_sleeps() {
        for (function, sleep) in [
            ("inet_csk_accept", Sleep::Accept),
            ("ep_poll", Sleep::Events),
            ("do_epoll_wait", Sleep::Events),
            ("poll_schedule_timeout.constprop.0", Sleep::Events),
            ("do_select", Sleep::Events),
            ("hrtimer_nanosleep", Sleep::Time),
            ("futex_do_wait", Sleep::Lock),
            ("sk_wait_data", Sleep::Bytes),
            ("do_wait", Sleep::Child),
            ("sigsuspend", Sleep::Child),
            ("unix_wait_for_peer", Sleep::Other),
        ] {
            let holder = Holder::made_up(7, "app", Activity::Sleeping, function);
            assert_eq!(holder.sleep(), Some(sleep), "{function}");
        }
        let holder = Holder::made_up(7, "app", Activity::Sleeping, "hrtimer_nanosleep");
        assert_eq!(
            holder.says(),
            "app[7] sleeps for a time (hrtimer_nanosleep)"
        );
        let holder = Holder::made_up(7, "tine worker#1", Activity::Stopped, "do_signal_stop");
        assert_eq!(holder.says(), "worker#1[7] is stopped (state T)");
    }

    #[test]
    fn a_process_without_a_free_descriptor_cannot_accept() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 524288               files \n";
        assert_eq!(most_descriptors(limits), Some(1024));
        assert_eq!(
            most_descriptors("Max open files unlimited unlimited"),
            Some(u64::MAX)
        );
        let mut holder = Holder::made_up(7, "app", Activity::Sleeping, "ep_poll");
        assert!(!holder.is_out_of_descriptors());
        holder.descriptors = Some((1024, 1024));
        assert!(holder.is_out_of_descriptors());
    }

    #[test]
    fn this_process_is_seen_and_one_that_does_not_exist_has_ended() {
        let pid = std::process::id() as i32;
        let name = "test".to_owned();
        let holder = Holder::look(&Owner { pid, name });
        assert!(
            holder.activity.is_some() && holder.threads >= 1,
            "{holder:?}"
        );
        assert!(
            holder
                .descriptors
                .is_some_and(|(open, most)| open > 2 && most > 2)
        );
        let gone = Owner {
            pid: i32::MAX,
            name: "gone".to_owned(),
        };
        assert!(Holder::look(&gone).says().ends_with("has ended"));
    }
}
