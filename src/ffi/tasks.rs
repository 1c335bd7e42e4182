//! Tasks: work that callbacks queue for task workers.

use std::ffi::c_void;
use std::time::Duration;

use super::conn::{with_context, with_task};
use super::server::{change, required, set, tine_server};
use super::settings::set_plain;
use super::status::{StatusIn, tine_status};
use super::{Userdata, bytes};
use crate::config::MOST_TASK;
use crate::config::policy::FailedTask;
use crate::handler::NewTask;

/// The most bytes of a task, and of its result.
pub const TINE_MOST_TASK: usize = 65536;

const _: () = assert!(TINE_MOST_TASK == MOST_TASK);

/// How a task is handled. All zero is a task without any of it.
#[repr(C)]
pub struct tine_task_options {
    /// The time that has to pass between the commit and the run of the task, in milliseconds.
    pub delay: u64,
    /// It replaces a waiting task with the same `key`, which is then not run. A task that a worker was given already
    /// is not replaced.
    pub has_key: bool,
    /// Any number.
    pub key: u64,
    /// Its result is asked for: tine_server_on_finished()'s function is called with `tag`, in the worker that has this
    /// worker's seat by then.
    pub has_tag: bool,
    /// Any number.
    pub tag: u64,
}

/// Worker: a task worker is given a task of `length` bytes. They belong to the library and are valid until the callback
/// returns.
pub type tine_task_fn = Option<
    unsafe extern "C-unwind" fn(
        bytes: *const c_void,
        length: usize,
        state: *mut c_void,
    ) -> StatusIn,
>;

/// Worker: a task with this tag is done; its result has `length` bytes. They belong to the library and are valid until
/// the callback returns.
pub type tine_finished_fn = Option<
    unsafe extern "C-unwind" fn(
        tag: u64,
        result: *const c_void,
        length: usize,
        state: *mut c_void,
    ) -> StatusIn,
>;

/// A task that was given up. Valid until the callback returns.
#[repr(C)]
pub struct tine_failed_task {
    /// Its bytes.
    pub bytes: *const c_void,
    /// Their number.
    pub length: usize,
    /// Its sender waits for a result.
    pub has_tag: bool,
    /// The tag of the result, or 0.
    pub tag: u64,
    /// It has a key.
    pub has_key: bool,
    /// The key, or 0.
    pub key: u64,
    /// The seat of its sender.
    pub seat: usize,
    /// The number of its runs.
    pub attempts: u32,
    /// Its last run failed, and that worker lives.
    pub failed: bool,
    /// It had flushed part of its output: it can't be run again.
    pub flushed: bool,
}

/// Master, in its first reactor thread: a task was given up.
pub type tine_task_failed_fn =
    Option<unsafe extern "C-unwind" fn(failed: *const tine_failed_task, userdata: *mut c_void)>;

/// Queues a task of up to TINE_MOST_TASK bytes for the task workers (tine_server_set_task_workers()): the next one that is
/// free runs tine_server_on_task()'s function for it. `options` may be NULL: a task that runs as soon as it can, without
/// key and tag. As part of the callback's output, it is committed with the answer. It is the master's then, which runs it
/// again if a worker dies in it. The bytes may be reused when it returns.
///
/// In a callback of a worker, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for more bytes, TINE_ERROR_OUTSIDE, TINE_ERROR_NO_TASK_WORKERS, also in base
/// mode, TINE_ERROR_QUEUE_FULL, TINE_ERROR_OVER_LIMIT as for tine_post_to_seat().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_task(
    task: *const c_void,
    length: usize,
    options: *const tine_task_options,
) -> tine_status {
    with_context(|cx| {
        // SAFETY: tine.h asks it of the caller, for both.
        let (task, options) = unsafe { (bytes("task", task, length)?, options.as_ref()) };
        let mut task = NewTask::new(task);
        if let Some(options) = options {
            task = task.after(Duration::from_millis(options.delay));
            if options.has_key {
                task = task.key(options.key);
            }
            if options.has_tag {
                task = task.tag(options.tag);
            }
        }
        Ok(cx.task(task)?)
    })
}

/// Sets the result of the callback's task, up to TINE_MOST_TASK bytes: the last one counts, and an empty one if there is
/// none. As part of the callback's output, it is committed with the end of the task. Without a tag, nobody gets it.
///
/// In tine_server_on_task()'s function, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for more bytes, TINE_ERROR_OUTSIDE, TINE_ERROR_FULL, TINE_ERROR_OVER_LIMIT as
/// for tine_post_to_seat().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_task_finish(result: *const c_void, length: usize) -> tine_status {
    with_task(|task| {
        // SAFETY: tine.h asks it of the caller.
        let result = unsafe { bytes("result", result, length) }?;
        Ok(task.finish(result)?)
    })
}

/// Worker: a function for tasks, which callbacks have queued by tine_task(). It runs in task workers alone, and may block
/// for as long as a task takes. Its output, whatever connections that reaches, and the end of the task are committed
/// together; if its worker dies in it, or it fails, it runs again, as often as tine_server_set_task_attempts() allows.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_task(
    server: *mut tine_server,
    function: tine_task_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.task = Some(required(function)?);
        Ok(())
    })
}

/// Worker: a function for the results of tasks that were queued with a tag. It runs as tine_server_on_post()'s function
/// does. It is not called for a task that was given up.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_finished(
    server: *mut tine_server,
    function: tine_finished_fn,
) -> tine_status {
    change(server, |server| {
        server.callbacks.finished = Some(required(function)?);
        Ok(())
    })
}

/// Master: a function for each task that is given up: all attempts are used up, or it has flushed part of its output and
/// did not complete. The log names it as well. It is called by the first reactor thread: it must not block.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_on_task_failed(
    server: *mut tine_server,
    function: tine_task_failed_fn,
    userdata: *mut c_void,
) -> tine_status {
    let userdata = Userdata(userdata);
    set(
        server,
        || required(function),
        |server, function| {
            server.on_task_failed(move |failed| {
                // SAFETY: the user's function, called where tine.h says.
                unsafe { function(&failed.into(), userdata.get()) };
            })
        },
    )
}

impl From<&FailedTask<'_>> for tine_failed_task {
    fn from(failed: &FailedTask<'_>) -> tine_failed_task {
        tine_failed_task {
            bytes: failed.bytes.as_ptr().cast(),
            length: failed.bytes.len(),
            has_tag: failed.tag.is_some(),
            tag: failed.tag.unwrap_or(0),
            has_key: failed.key.is_some(),
            key: failed.key.unwrap_or(0),
            seat: failed.seat,
            attempts: failed.attempts.into(),
            failed: failed.failed,
            flushed: failed.flushed,
        }
    }
}

/// Sets the number of task workers, in process mode: they have the seats behind those of the workers, and run
/// tine_server_on_task()'s function, and nothing for clients. Together with the workers at most 511. Base mode refuses
/// any but 0. Default: 0.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_task_workers(
    server: *mut tine_server,
    workers: usize,
) -> tine_status {
    set_plain(server, |server| server.task_workers(workers))
}

/// Sets how many times the function for a task is called, if the worker dies in it or it fails, before the task is given
/// up: 1 to 255. Default: 3.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_task_attempts(
    server: *mut tine_server,
    attempts: u8,
) -> tine_status {
    set_plain(server, |server| server.task_attempts(attempts))
}

/// Sets the most tasks that wait or run, delayed ones included, 1 to 16,777,216. Beyond it, tine_task() fails. Default:
/// 65,536.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_task_queue(
    server: *mut tine_server,
    tasks: usize,
) -> tine_status {
    set_plain(server, |server| server.task_queue(tasks))
}

/// Sets the most bytes of the tasks that wait or run: each counts 256 bytes more than it has. At most half of the memory
/// budget. Default: a quarter of the memory budget.
///
/// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_set_task_queue_bytes(
    server: *mut tine_server,
    bytes: usize,
) -> tine_status {
    set_plain(server, |server| server.task_queue_bytes(bytes))
}
