//! Posters: posts from the threads of a worker.

use std::ffi::c_void;

use super::conn::tine_conn;
use super::post::to_seat;
use super::status::{Failure, boundary, tine_status};
use super::{bytes, put};
use crate::handler::{PostError, Poster, Posts, To};

/// A way for any thread of a worker to post, so that work in the background, such as a pool of threads or the loop of
/// an asynchronous client, leads to a callback: tine_server_on_post()'s function. All of one worker are the same.
pub struct tine_poster(Poster);

impl From<PostError> for Failure {
    fn from(error: PostError) -> Failure {
        let status = match error {
            PostError::TooLong { .. } | PostError::NoSeat { .. } => tine_status::TINE_ERROR_INVALID,
            PostError::Full { .. } => tine_status::TINE_ERROR_FULL,
            PostError::OtherWorker => tine_status::TINE_ERROR_OTHER_WORKER,
            PostError::Ended => tine_status::TINE_ERROR_NOT_RUNNING,
            PostError::WrongProcess => tine_status::TINE_ERROR_WRONG_PROCESS,
        };
        Failure::new(status, error.to_string())
    }
}

/// Makes a poster of this worker, and writes it to `poster`. Free it with tine_poster_free(), or keep it until the
/// process ends.
///
/// In any callback of a worker, `worker_start` included, by the thread that runs it.
///
/// Errors: TINE_ERROR_NULL; TINE_ERROR_OUTSIDE; TINE_ERROR_SYSTEM when no descriptor is left for the first one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_poster_new(poster: *mut *mut tine_poster) -> tine_status {
    boundary(|| {
        if poster.is_null() {
            return Err(Failure::null("poster"));
        }
        let outside = "no callback of a worker runs in this thread";
        let made = Posts::poster_of_this_thread();
        let made = made.ok_or(Failure::new(tine_status::TINE_ERROR_OUTSIDE, outside))?;
        let made = made.map_err(crate::error::Error::system("make a poster"))?;
        // SAFETY: tine.h asks it of the caller.
        unsafe { put("poster", poster, Box::into_raw(Box::new(tine_poster(made)))) }
    })
}

/// Returns another poster that does the same, to be freed by itself: a thread that is given one of its own need not
/// know when others free theirs. NULL for NULL. Any thread of the worker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_poster_clone(poster: *const tine_poster) -> *mut tine_poster {
    // SAFETY: tine.h asks it of the caller.
    let poster = unsafe { poster.as_ref() };
    let copy = poster.map(|it| Box::into_raw(Box::new(tine_poster(it.0.clone()))));
    copy.unwrap_or(std::ptr::null_mut())
}

/// Frees a poster; NULL is fine. No thread may use it then. What it has posted stays posted. Any thread of the worker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_poster_free(poster: *mut tine_poster) {
    if !poster.is_null() {
        // SAFETY: tine.h asks it of the caller.
        drop(unsafe { Box::from_raw(poster) });
    }
}

/// Posts up to TINE_MOST_POST bytes to the worker that has this seat, or with TINE_SEAT_ALL to every worker that has
/// a seat, or with TINE_SEAT_ANY to any worker. The bytes are copied. It does not wait. The worker takes posts
/// between two callbacks: while it is in one, they wait. They are committed by themselves, and are the master's then,
/// as tine_post_to_seat() says. Posts of one thread to one seat arrive in order.
///
/// A worker that dies takes the posts that still wait with it. One that leaves takes all that were made before its
/// `worker_stop` has returned; in base mode, those before it was called.
///
/// In base mode, to this worker alone: its own seat, or TINE_SEAT_ANY.
///
/// Any thread of the worker; several may use one poster at a time.
///
/// Errors: TINE_ERROR_NULL; TINE_ERROR_INVALID for more bytes and for a seat that no worker has; TINE_ERROR_FULL when
/// 4096 posts or 1 MiB of them wait in this worker, and a later try may succeed; TINE_ERROR_NOT_RUNNING when the
/// worker has left; TINE_ERROR_WRONG_PROCESS in a process that was forked from the worker; TINE_ERROR_OTHER_WORKER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_poster_post(
    poster: *const tine_poster,
    seat: i64,
    message: *const c_void,
    length: usize,
) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    boundary(|| unsafe { post(poster, to_seat(seat), message, length) })
}

/// Posts to the worker of a connection, by the time that the worker takes the post; as tine_poster_post() in all
/// else. For a connection that is gone, it is dropped; in base mode also for one of another worker.
///
/// Any thread of the worker.
///
/// Errors: as tine_poster_post(), and TINE_ERROR_INVALID for a connection that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_poster_post_to_owner(
    poster: *const tine_poster,
    conn: tine_conn,
    message: *const c_void,
    length: usize,
) -> tine_status {
    // SAFETY: tine.h asks it of the caller.
    boundary(|| unsafe { post(poster, To::Owner(conn.name()?), message, length) })
}

/// # Safety
/// `poster` is NULL or one that is not freed; for the rest as for [`bytes`].
unsafe fn post(
    poster: *const tine_poster,
    to: To,
    message: *const c_void,
    length: usize,
) -> Result<(), Failure> {
    // SAFETY: the caller's duty.
    let poster = unsafe { poster.as_ref() }.ok_or_else(|| Failure::null("poster"))?;
    // SAFETY: as above.
    let message = unsafe { bytes("message", message, length) }?;
    Ok(poster.0.post(to, message)?)
}
