//! Panics as log lines.
//!
//! Runs in every process of the server. Its one rule: a panic is one line, and writing it waits for nothing:
//! std's own hook waits for standard error.

use std::cell::Cell;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::Arc;

use log::LevelFilter;

use crate::limited::{Topic, limited};
use crate::printable::printable;
use crate::role::Role;
use crate::sys::stream;

thread_local! {
    /// This thread is one of the server's, and not one that the program has started.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Logs the panics of this process, which was forked and runs nothing but the server.
pub(crate) fn log_all() {
    set_hook(Box::new(say));
}

/// Marks the calling thread as one of the server's.
pub(crate) fn log_this_thread() {
    OURS.set(true);
}

type Hook = Arc<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// While it exists, panics of the server's threads are logged; those of other threads go to the program's own
/// hook.
pub(crate) struct Logged(Hook);

/// Logs the panics of the calling thread and of the threads that are marked.
pub(crate) fn log_ours() -> Logged {
    let before: Hook = Arc::from(take_hook());
    let others = Arc::clone(&before);
    set_hook(Box::new(move |info| match OURS.get() {
        true => say(info),
        false => others(info),
    }));
    log_this_thread();
    Logged(before)
}

impl Drop for Logged {
    fn drop(&mut self) {
        OURS.set(false);
        if !std::thread::panicking() {
            let before = Arc::clone(&self.0);
            set_hook(Box::new(move |info| before(info)));
        }
    }
}

fn say(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("no message");
    let place = info.location().map(|place| format!(" at {place}"));
    let place = place.unwrap_or_default();
    // The message may have text of a client.
    let line = format!("panicked{place}: {}", printable(message));
    if log::max_level() == LevelFilter::Off {
        let (role, pid) = (Role::current(), std::process::id());
        // Without a log there is nothing else to be done when standard error is full.
        let _ = stream::stderr().write(format!("{role}[{pid}] {line}\n").as_bytes());
    } else {
        limited!(error, Topic::Panic, "{line}");
    }
}
