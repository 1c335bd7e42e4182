//! Groups: connections join and leave, and what is published to a group goes to the sockets of its members.
//!
//! Its one rule: a connection is in a group from the commit that joins it until the commit that leaves it, or until its
//! own end. Members get what is published in the order of the calls of [`Flow::deliver`].

use std::sync::Arc;

use super::Flow;
use crate::config::MOST_GROUPS;
use crate::conn_id::ConnId;
use crate::handler::Names;
use crate::ipc::memory::SharedBytes;
use crate::limited::{Topic, limited};
use crate::net::connection::Connection;
use crate::net::groups::{Publication, SharedCopy, member_bytes};

/// Fewer unsent bytes than these are copied for each member: to share them would take as much memory.
const LEAST_SHARED: usize = 1024;

/// How a member is doing with what is published.
#[derive(PartialEq, Eq)]
enum Got {
    /// It gets it, or is gone.
    All,
    /// It reads too slowly, and misses it.
    Nothing,
}

impl Flow {
    /// A connection joins a group.
    pub(super) fn join(&mut self, id: ConnId, name: SharedBytes<'_>) {
        let mut copy = Vec::with_capacity(name.len());
        name.append_to(&mut copy);
        let Some(conn) = self.table.get_mut(id) else {
            return;
        };
        let groups = conn.work.groups().map(Names::iter);
        let (count, is_member) = groups.map_or((0, false), |mut names| {
            (names.clone().count(), names.any(|name| name == copy))
        });
        if count >= MOST_GROUPS || id.is_mailbox() {
            // The worker knows how many there are, and that it is in no callback of a connection.
            self.liar = Some(id);
        } else if !is_member {
            conn.work.change_groups(|groups| groups.push(&copy));
            self.enter(id, &copy);
        }
    }

    /// Counts a new member of a group.
    pub(super) fn enter(&mut self, id: ConnId, name: &[u8]) {
        self.groups.join(name, id);
        self.kept += member_bytes(name);
        if let Some(census) = self.load.census() {
            census.joined(name, usize::from(self.table.owner()));
        }
    }

    fn exit(&mut self, id: ConnId, name: &[u8]) {
        self.groups.leave(name, id);
        self.kept -= member_bytes(name);
        if let Some(census) = self.load.census() {
            census.left(name, usize::from(self.table.owner()));
        }
    }

    /// Returns a connection for which a worker has made a record that no worker makes which keeps to the protocol.
    pub(crate) fn take_lie(&mut self) -> Option<ConnId> {
        self.liar.take()
    }

    /// A connection leaves a group.
    pub(super) fn leave(&mut self, id: ConnId, name: SharedBytes<'_>) {
        let mut copy = Vec::with_capacity(name.len());
        name.append_to(&mut copy);
        if let Some(conn) = self.table.get_mut(id)
            && conn.work.change_groups(|groups| groups.remove(&copy))
        {
            self.exit(id, &copy);
        }
    }

    /// A connection that is over leaves all groups.
    pub(super) fn leave_all(&mut self, conn: &Connection) {
        for name in conn.work.groups().into_iter().flat_map(Names::iter) {
            self.exit(conn.id, name);
        }
    }

    /// Calls `each` for every reactor that has members of a group, if there is more than this one.
    pub(crate) fn reactors_of_group(&self, name: &[u8], each: impl FnMut(usize)) {
        if let Some(census) = self.load.census() {
            census.reactors(name, each);
        }
    }

    /// Returns the number of members of a group, in all reactors of this process.
    pub(crate) fn group_size(&self, name: &[u8]) -> usize {
        let census = self.load.census();
        census.map_or_else(|| self.groups.size(name), |census| census.size(name))
    }

    /// Sends what was published to the members of its group among the connections of this owner. Returns what that
    /// counts as work of a turn.
    pub(crate) fn deliver(&mut self, publication: &Arc<Publication>) -> usize {
        let members = self.groups.lend(publication.name());
        let (mut copy, mut missed) = (None, 0);
        for id in &members {
            if Some(*id) != publication.except {
                missed += usize::from(self.deliver_to(*id, publication, &mut copy) == Got::Nothing);
            }
        }
        let count = members.len();
        self.groups.give_back(publication.name(), members);
        if missed > 0 {
            limited!(
                warn,
                Topic::Missed,
                "{missed} of {count} members of a group miss {} bytes: more than output_high_water is unsent to them, {} bytes",
                publication.bytes().len(),
                self.config.output_high_water
            );
        }
        publication.work(count)
    }

    fn deliver_to(
        &mut self,
        id: ConnId,
        publication: &Arc<Publication>,
        copy: &mut Option<SharedCopy>,
    ) -> Got {
        if publication.is_lossy && self.is_slow(id, publication.bytes().len()) {
            return Got::Nothing;
        }
        let bytes = SharedBytes::of(publication.bytes());
        let Some(sent) = self.send_now(id, bytes, false) else {
            return Got::All;
        };
        let rest = bytes.len() - sent;
        if rest >= LEAST_SHARED {
            let copy = copy.get_or_insert_with(|| SharedCopy::new(publication, &mut self.budget));
            if let Some(conn) = self.table.get_mut(id) {
                conn.writing.unsent.push_copy(copy.clone(), sent);
            }
            self.unsent_has_grown(id);
        } else if rest > 0 {
            self.keep_unsent(id, bytes.skip(sent));
        }
        Got::All
    }

    /// Whether a connection misses these many bytes: more than its high-water mark is unsent, or the bytes would take it
    /// over its output limit.
    fn is_slow(&self, id: ConnId, more: usize) -> bool {
        let (high_water, limit) = (self.config.output_high_water, self.config.output_limit);
        self.table.get(id).is_some_and(|conn| {
            let unsent = conn.writing.unsent.len();
            let has_much = conn.writing.unsent.total() > high_water as u64;
            has_much || unsent > 0 && unsent + more > limit
        })
    }
}
