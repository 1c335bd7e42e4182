//! Posts from the threads of a worker, so that work in the background leads to callbacks.
//!
//! Its one rule: a post waits here, in the memory of this worker, until the worker's main loop takes it. So it is
//! bounded, and no thread but the one that runs the callbacks touches anything that processes share.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{Context, To, Worker};
use crate::config::{Config, MOST_POST, Mode, charge};
use crate::error::Result;
use crate::sys::doorbell::Doorbell;
use crate::sys::epoll::{Interest, Poller};
use crate::sys::forks;

/// The most posts of a worker's threads that wait, and the most bytes of them.
const MOST_WAITING: usize = 4096;
const MOST_WAITING_BYTES: usize = 1 << 20;

/// What a post that waits counts beside its bytes.
const POST_BYTES: usize = 64;

/// No seat yet.
const NONE: usize = usize::MAX;

/// Posts from any thread of a worker: [`Worker::poster`], [`Context::poster`].
///
/// Work that a callback gives to a thread, such as a thread pool or the loop of an asynchronous client, can lead to a
/// callback in this way: [`Handler::post`](super::Handler::post) is called with the bytes, and answers the connection
/// whose id is in them. It can be cloned and shared.
///
/// ```
/// use std::thread;
/// use tine::{Conn, ConnId, Context, Handler, To, Worker};
///
/// struct Slow;
///
/// impl Handler for Slow {
///     fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
///         let (poster, id, line) = (cx.poster()?, conn.id(), line.to_vec());
///         thread::spawn(move || {
///             let answer = line.to_ascii_uppercase(); // This takes long.
///             let post = [&id.as_u64().to_ne_bytes(), &answer[..]].concat();
///             poster.post(To::Owner(id), &post)
///         });
///         Ok(())
///     }
///
///     fn post(&mut self, cx: &mut Context<'_>, post: &[u8]) -> tine::Result {
///         let (id, answer) = post.split_first_chunk().ok_or("no id")?;
///         let id = ConnId::from_u64(u64::from_ne_bytes(*id)).ok_or("no id")?;
///         Ok(cx.conn(id).send(answer)?)
///     }
/// }
///
/// let mut server = tine::testing::TestServer::new(Slow);
/// let client = server.connect();
/// server.send(client, b"hello\n");
/// let (to, post) = server.next_posted();
/// assert_eq!(to, To::Owner(client));
/// server.post(&post);
/// assert_eq!(server.conn(client).sent(), b"HELLO\n");
/// ```
///
/// # When a post leaves
/// The worker takes posts between two callbacks: while it is in one, they wait. They are committed by themselves, and
/// belong to no callback. From then on they are the master's, as [`Context::post`] says of its own. Posts of one
/// thread to one seat arrive in order.
///
/// A worker that dies takes its threads with it, and the posts that still wait: what must not be lost is asked for
/// again when the connection has had no answer ([`Conn::answer_within`](super::Conn::answer_within)). A worker that
/// leaves takes all posts that were made before [`Handler::stop`](super::Handler::stop) has returned; those behind
/// are refused with [`PostError::Ended`]. In base mode nothing is left to handle those that are made in `stop`: they
/// are dropped, with a line in the log.
#[derive(Clone)]
pub struct Poster(Arc<Posts>);

/// Why a post of a [`Poster`] was refused. Nothing was posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PostError {
    /// It is longer than a post can be.
    #[non_exhaustive]
    TooLong {
        /// The most bytes: [`Context::MOST_POST`], or less with a small
        /// [`Server::output_limit`](crate::Server::output_limit).
        most: usize,
    },
    /// No worker has this seat.
    #[non_exhaustive]
    NoSeat {
        /// The number of seats, which are counted from 0.
        seats: usize,
    },
    /// As many posts wait in this worker as may: it is in a long callback, or the server keeps as much for its users
    /// as it may. A later try may succeed.
    #[non_exhaustive]
    Full {
        /// The most posts that wait.
        posts: usize,
        /// The most bytes of them, with 64 for each.
        bytes: usize,
    },
    /// In base mode the post is for another worker.
    OtherWorker,
    /// The worker has left, and takes no more posts.
    Ended,
    /// This process was forked from the worker.
    WrongProcess,
}

impl Poster {
    /// Posts up to [`Context::MOST_POST`] bytes to workers, this one included. It does not wait, and may be called
    /// from any thread of the worker, also by the callbacks themselves; there [`Context::post`] is better, which is
    /// committed with the answer. In a process that the worker has forked it is refused.
    ///
    /// In base mode, to this worker alone: [`To::LeastBusy`], its own [`To::Seat`], and [`To::Owner`] for its own
    /// connections. A post to the owner of another connection is dropped there.
    ///
    /// # Errors
    /// [`PostError`]; nothing is posted then.
    pub fn post(&self, to: To, bytes: &[u8]) -> Result<(), PostError> {
        self.0.post(to, bytes)
    }
}

impl fmt::Debug for Poster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poster").finish_non_exhaustive()
    }
}

impl Context<'_> {
    /// Returns a [`Poster`], by which any thread of this worker can post. All of one worker are the same.
    ///
    /// # Errors
    /// When no descriptor is left for the first one.
    pub fn poster(&self) -> Result<Poster> {
        self.worker.poster()
    }
}

impl Worker {
    /// Returns a [`Poster`] as [`Context::poster`] does: for the closure given to
    /// [`Server::run`](crate::Server::run), which may start threads that post.
    ///
    /// # Errors
    /// When no descriptor is left for the first one; outside of the thread that runs the callbacks of a worker.
    pub fn poster(&self) -> Result<Poster> {
        let made = Posts::poster_of_this_thread();
        let made = made.ok_or("a poster is made in a callback, by the thread that runs it")?;
        Ok(made?)
    }
}

thread_local! {
    /// The posts of the worker whose callbacks this thread runs.
    static OWN: RefCell<Option<Arc<Posts>>> = const { RefCell::new(None) };
}

/// The posts of a worker's threads that wait.
pub(crate) struct Posts {
    waiting: Mutex<Waiting>,
    /// For tests of handlers, which wait.
    has_come: Condvar,
    /// Their number; changed under the lock, and read without it.
    count: AtomicUsize,
    has_posters: AtomicBool,
    /// Wakes the worker. Made with the first poster.
    bell: OnceLock<Doorbell>,
    /// The worker's epoll, and the token of the bell; `None` in tests of handlers.
    poller: Option<(Arc<Poller>, u64)>,
    /// This worker's seat.
    seat: AtomicUsize,
    seats: usize,
    /// The most bytes of one.
    most: usize,
    mode: Mode,
}

#[derive(Default)]
struct Waiting {
    posts: VecDeque<Post>,
    /// What they count.
    bytes: usize,
    has_ended: bool,
}

/// A post that waits.
pub(crate) struct Post {
    pub(crate) to: To,
    pub(crate) bytes: Box<[u8]>,
}

impl Post {
    fn charge(&self) -> usize {
        self.bytes.len() + POST_BYTES
    }
}

impl Posts {
    pub(crate) fn new(config: &Config, poller: Option<(Arc<Poller>, u64)>) -> Arc<Posts> {
        Arc::new(Posts {
            waiting: Mutex::default(),
            has_come: Condvar::new(),
            count: AtomicUsize::new(0),
            has_posters: AtomicBool::new(false),
            bell: OnceLock::new(),
            poller,
            seat: AtomicUsize::new(NONE),
            seats: config.workers,
            most: MOST_POST.min(config.output_limit.saturating_sub(charge(0))),
            mode: config.mode,
        })
    }

    /// This thread runs the callbacks of a worker, which has this seat: the posters that it makes are of these posts.
    pub(crate) fn enter(self: Arc<Posts>, seat: Option<usize>) -> Arc<Posts> {
        self.seat.store(seat.unwrap_or(NONE), Ordering::Relaxed);
        OWN.set(Some(Arc::clone(&self)));
        self
    }

    /// While `run` runs, the posters that this thread makes are of these posts.
    pub(crate) fn during<T>(self: &Arc<Posts>, run: impl FnOnce() -> T) -> T {
        let before = OWN.replace(Some(Arc::clone(self)));
        let outcome = run();
        OWN.set(before);
        outcome
    }

    /// The worker has this seat.
    pub(crate) fn set_seat(&self, seat: usize) {
        self.seat.store(seat, Ordering::Relaxed);
    }

    /// Makes a poster of the worker whose callbacks this thread runs, if it runs any.
    pub(crate) fn poster_of_this_thread() -> Option<io::Result<Poster>> {
        // A child has the worker's epoll, too.
        let own = OWN
            .with_borrow(Clone::clone)
            .filter(|_| !forks::is_child())?;
        Some(own.watch().map(|()| Poster(own)))
    }

    /// Watches the bell, from the first poster on.
    fn watch(&self) -> io::Result<()> {
        if let (None, Some((poller, token))) = (self.bell.get(), &self.poller) {
            let bell = Doorbell::new()?;
            poller.add(&bell, *token, Interest::BELL)?;
            // Only the thread of the callbacks comes here.
            let _ = self.bell.set(bell);
        }
        self.has_posters.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a poster was made.
    pub(crate) fn has_posters(&self) -> bool {
        self.has_posters.load(Ordering::Relaxed)
    }

    /// Returns the number of posts that wait. A later one rings the bell.
    pub(crate) fn waiting_count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn post(&self, to: To, bytes: &[u8]) -> Result<(), PostError> {
        // Before the lock, which another thread of the worker may have held during the fork.
        if forks::is_child() {
            return Err(PostError::WrongProcess);
        }
        self.check(to, bytes.len())?;
        let post = Post {
            to,
            bytes: bytes.into(),
        };
        let mut waiting = self.waiting();
        if waiting.has_ended {
            return Err(PostError::Ended);
        }
        let charged = waiting.bytes + post.charge();
        if waiting.posts.len() >= MOST_WAITING || charged > MOST_WAITING_BYTES {
            return Err(PostError::Full {
                posts: MOST_WAITING,
                bytes: MOST_WAITING_BYTES,
            });
        }
        waiting.bytes = charged;
        waiting.posts.push_back(post);
        let is_first = waiting.posts.len() == 1;
        self.count.store(waiting.posts.len(), Ordering::Relaxed);
        drop(waiting);
        if self.poller.is_none() {
            self.has_come.notify_all();
        }
        // One ring is enough until all were taken: epoll keeps it while the worker is awake.
        if let Some(bell) = self.bell.get().filter(|_| is_first) {
            bell.ring();
        }
        Ok(())
    }

    fn check(&self, to: To, len: usize) -> Result<(), PostError> {
        let (seats, most) = (self.seats, self.most);
        match to {
            To::Seat(seat) if seat >= seats => return Err(PostError::NoSeat { seats }),
            To::Seat(seat)
                if self.mode == Mode::Base && seat != self.seat.load(Ordering::Relaxed) =>
            {
                return Err(PostError::OtherWorker);
            }
            To::All if self.mode == Mode::Base => return Err(PostError::OtherWorker),
            To::Seat(_) | To::All | To::LeastBusy | To::Owner(_) => {}
        }
        match len > most {
            true => Err(PostError::TooLong { most }),
            false => Ok(()),
        }
    }

    /// Removes and returns the oldest posts that count no more than `most` together, by `charge`.
    pub(crate) fn take(&self, most: usize, charge: impl Fn(&Post) -> usize) -> Vec<Post> {
        let (mut waiting, mut taken, mut charged) = (self.waiting(), Vec::new(), 0);
        while let Some(post) = waiting.posts.front() {
            charged += charge(post);
            if charged > most {
                break;
            }
            waiting.bytes -= post.charge();
            taken.extend(waiting.posts.pop_front());
        }
        self.count.store(waiting.posts.len(), Ordering::Relaxed);
        taken
    }

    /// Waits for a post, and removes and returns it.
    pub(crate) fn wait(&self) -> Post {
        let waiting = self
            .has_come
            .wait_while(self.waiting(), |it| it.posts.is_empty());
        drop(waiting);
        let mut taken = self.take(1, |_| 1);
        taken.pop().expect("nobody else takes them")
    }

    /// Takes no more posts. Returns the number of those that were left.
    pub(crate) fn end(&self) -> usize {
        let mut waiting = self.waiting();
        waiting.has_ended = true;
        waiting.posts.len()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // No panic is possible within.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Posts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Posts")
    }
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PostError::TooLong { most } => write!(
                f,
                "a post has at most {most} bytes: keep more in a database, and its key here"
            ),
            PostError::NoSeat { seats } => {
                write!(f, "no worker has this seat: there are {seats}, from 0")
            }
            PostError::Full { posts, bytes } => write!(
                f,
                "{posts} posts or {bytes} bytes of them wait in this worker already: post again when it has handled some"
            ),
            PostError::OtherWorker => write!(
                f,
                "the post is for another worker, which cannot be reached in base mode: use process mode"
            ),
            PostError::Ended => write!(f, "the worker has left, and takes no more posts"),
            PostError::WrongProcess => {
                write!(
                    f,
                    "this process was forked from the worker, and cannot post"
                )
            }
        }
    }
}

impl std::error::Error for PostError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::config::policy::Deciders;

    fn posts() -> Arc<Posts> {
        let config = Settings::default().validate(Deciders::default());
        Posts::new(&config.unwrap(), None)
    }

    #[test]
    fn posts_are_taken_in_order_and_within_a_bound() {
        let posts = posts();
        for bytes in [&b"one"[..], b"two", b"three"] {
            posts.post(To::LeastBusy, bytes).unwrap();
        }
        let len = |post: &Post| post.bytes.len();
        let first: Vec<_> = posts.take(6, len).into_iter().map(|it| it.bytes).collect();
        assert_eq!(first, [(*b"one").into(), (*b"two").into()]);
        assert_eq!(posts.waiting_count(), 1);
        assert!(posts.take(4, len).is_empty(), "it counts five");
        assert_eq!(posts.take(usize::MAX, len).len(), 1);
        assert_eq!(posts.waiting_count(), 0);
    }

    #[test]
    fn a_flood_is_refused_and_what_waits_is_whole() {
        let posts = posts();
        let long = vec![0; MOST_POST];
        let mut taken = 0;
        while posts.post(To::All, &long).is_ok() {
            taken += 1;
            assert!(taken <= MOST_WAITING_BYTES / MOST_POST);
        }
        assert_eq!(posts.take(usize::MAX, |_| 1).len(), taken);
        for _ in 0..MOST_WAITING {
            posts.post(To::All, b"").unwrap();
        }
        let full = posts.post(To::All, b"").unwrap_err();
        assert!(matches!(full, PostError::Full { .. }), "{full}");
        assert_eq!(posts.end(), MOST_WAITING);
        assert_eq!(posts.post(To::All, b""), Err(PostError::Ended));
    }

    #[test]
    fn a_post_that_no_worker_can_get_is_refused() {
        let posts = posts();
        let seats = posts.seats;
        let seat = posts.post(To::Seat(seats), b"");
        assert_eq!(seat, Err(PostError::NoSeat { seats }));
        let long = posts.post(To::All, &[0; MOST_POST + 1]);
        assert_eq!(long, Err(PostError::TooLong { most: MOST_POST }));
        assert_eq!(posts.waiting_count(), 0);
    }

    #[test]
    fn a_poster_is_of_the_thread_that_runs_the_callbacks() {
        let worker = Worker::new(Some(0), 1, 1);
        assert!(worker.poster().is_err());
        let posts = posts();
        let poster = posts.during(|| worker.poster().unwrap());
        std::thread::spawn(move || poster.post(To::LeastBusy, b"x").unwrap());
        while posts.waiting_count() == 0 {
            std::thread::yield_now();
        }
        assert!(worker.poster().is_err());
    }
}
