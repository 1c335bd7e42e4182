//! What the threads of a worker have posted, published between two callbacks: in process mode as a commit that
//! belongs to no frame, in base mode at once.
//!
//! Runs in the worker's main loop. Its one rule: a link is used in this way only once its reactor can't rewind it
//! ([`WorkerLink::post_aside`]).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::callback::Caller;
use super::process::Desk;
use crate::flow::Flow;
use crate::handler::{Handler, Post, Posts, To};
use crate::ipc::link::WorkerLink;
use crate::ipc::memory::SharedBytes;
use crate::ipc::record::Output;
use crate::ipc::sync::Ordering;
use crate::net::mail::LETTER_BYTES;

/// The most that one commit of posts counts: a callback that follows waits for no more.
const BATCH: usize = 256 << 10;

/// The time between two tries while the server keeps as much for its users as it may.
pub(super) const RETRY: Duration = Duration::from_millis(10);

/// The posts of this worker's threads, and the link that they take.
pub(super) struct Asides {
    pub(super) posts: Arc<Posts>,
    /// `None` before the first poster. Of the reactor that has given the callback which made it, or of any that has
    /// given no frame yet.
    link: Option<usize>,
    /// They wait until the server keeps less.
    is_held: bool,
}

impl Asides {
    pub(super) fn new(posts: Arc<Posts>) -> Asides {
        Asides {
            posts,
            link: None,
            is_held: false,
        }
    }

    /// Called with the link of each frame, before the record of the frame.
    pub(super) fn choose(&mut self, number: usize, link: &WorkerLink) {
        if self.link.is_none() && self.posts.has_posters() {
            link.post_aside();
            self.link = Some(number);
        }
    }

    /// Returns the time until the next try, if there is to be one without a bell.
    pub(super) fn next_try(&self) -> Option<Duration> {
        let has_some = self.link.is_some() && self.posts.waiting_count() > 0;
        has_some.then_some(match self.is_held {
            true => RETRY,
            false => Duration::ZERO,
        })
    }

    /// Publishes posts that wait, a batch at most. Returns how many there were.
    pub(super) fn publish(
        &mut self,
        links: &mut [WorkerLink],
        desk: &mut Desk,
    ) -> io::Result<usize> {
        if self.posts.waiting_count() == 0 {
            return Ok(0);
        }
        if self.link.is_none() {
            // Not made in a callback: any link will do on which nothing has happened yet.
            let mut fresh = links.iter_mut();
            if let Some(number) = fresh.position(|link| link.is_fresh() && link.attach()) {
                self.choose(number, &links[number]);
            }
        }
        let Some(number) = self.link.filter(|number| links[*number].attach()) else {
            return Ok(0);
        };
        let kept = desk.reactors[number].kept.load(Ordering::Relaxed);
        let room = desk.most_kept.saturating_sub(kept as usize).min(BATCH);
        let seats = desk.seats;
        let batch = self.posts.take(room, |post| charge(post, seats));
        self.is_held = batch.is_empty();
        if self.is_held {
            return Ok(0);
        }
        let outbox = &mut links[number].outbox;
        for Post { to, bytes } in &batch {
            desk.make_room(outbox, bytes.len())?;
            outbox.stage(Output::Post(*to), bytes);
        }
        outbox.aside();
        outbox.ring();
        Ok(batch.len())
    }

    /// Publishes all that wait by now, as far as the server keeps more. Threads that go on posting do not keep the
    /// worker from leaving.
    pub(super) fn publish_all(
        &mut self,
        links: &mut [WorkerLink],
        desk: &mut Desk,
    ) -> io::Result<()> {
        let mut left = self.posts.waiting_count();
        while left > 0 {
            match self.publish(links, desk)? {
                0 => break,
                published => left = left.saturating_sub(published),
            }
        }
        Ok(())
    }
}

/// Takes no more posts.
pub(super) fn end(posts: &Posts) {
    let left = posts.end();
    if left > 0 {
        log::warn!("posts of this worker's threads are dropped, since it has left: {left}");
    }
}

/// Leaves, in base mode.
pub(super) fn leave<H: Handler>(caller: &mut Caller<H>, posts: &Posts) {
    caller.stop_handler();
    end(posts);
    caller.left();
}

/// In base mode, puts what waits into a mailbox of this worker, as far as it keeps more.
pub(super) fn apply(posts: &Posts, flow: &mut Flow, most_kept: usize) {
    if posts.waiting_count() == 0 {
        return;
    }
    let room = most_kept.saturating_sub(flow.kept());
    for Post { to, bytes } in posts.take(room, |post| charge(post, 1)) {
        let is_here = match to {
            To::Owner(conn) => flow.own_id(conn).is_some(),
            // Checked when it was posted.
            To::Seat(_) | To::LeastBusy | To::All => true,
        };
        if is_here {
            apply_post(flow, &bytes);
        }
    }
}

/// A post to this worker in base mode: there is one mailbox for all, so that they keep their order.
pub(super) const POST_HERE: Output = Output::Post(To::Seat(0));

/// In base mode, puts a post into the mailbox of this worker.
pub(super) fn apply_post(flow: &mut Flow, bytes: &[u8]) {
    flow.apply(POST_HERE, SharedBytes::of(bytes));
}

/// Returns what a post counts where the server keeps it.
fn charge(post: &Post, seats: usize) -> usize {
    let copies = match post.to {
        To::All => seats,
        To::Seat(_) | To::LeastBusy | To::Owner(_) => 1,
    };
    post.bytes.len() + copies * LETTER_BYTES
}
