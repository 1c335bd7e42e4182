//! Groups: connections join them, and callbacks publish to all members at once.

use std::fmt;

use super::names;
use super::{Conn, Context, Group, SendError, SharedOutput};
use crate::config::{MOST_GROUPS, MOST_NAME, MOST_PUBLISH};
use crate::conn_id::ConnId;

impl Conn<'_> {
    /// Joins a group, which has any name of at most [`MOST_NAME`](Context::MOST_NAME) bytes and exists while it has
    /// members. This connection gets what is [published](Context::publish) to the group from the commit of this callback
    /// on. A member that joins again stays one.
    ///
    /// It is part of the callback's output: it is committed with the answer, or not at all. The membership belongs to the
    /// connection and not to this worker, until the connection leaves or has ended and its `close` has run. Every frame
    /// brings the names of the groups of its connection to its worker, unless it follows another one there.
    ///
    /// # Errors
    /// [`SendError::TooLong`], [`SendError::TooManyGroups`], [`SendError::Full`]; [`SendError::OverLimit`] as
    /// [`after`](Self::after).
    pub fn join(&mut self, group: impl AsRef<[u8]>) -> Result<(), SendError> {
        let name = checked(group.as_ref())?;
        if self.session.groups.contains(name) {
            return Ok(());
        }
        if self.session.groups.iter().count() >= MOST_GROUPS {
            return Err(SendError::TooManyGroups { most: MOST_GROUPS });
        }
        self.output.borrow_mut().join(self.id, name)?;
        self.session.groups.push(name);
        Ok(())
    }

    /// Leaves a group. Without effect if this connection is no member.
    ///
    /// # Errors
    /// [`SendError::OverLimit`] as [`after`](Self::after).
    pub fn leave(&mut self, group: impl AsRef<[u8]>) -> Result<(), SendError> {
        let name = group.as_ref();
        if self.session.groups.contains(name) {
            self.output.borrow_mut().leave(self.id, name)?;
            self.session.groups.remove(name);
        }
        Ok(())
    }

    /// Returns the names of the groups that this connection is in, in the order in which it has joined them. In its
    /// `close` it is still in them.
    pub fn groups(&self) -> Groups<'_> {
        Groups(self.session.groups.iter())
    }

    /// Publishes to all other members of a group, as [`Context::publish`] does. This connection may or may not be one of
    /// them.
    ///
    /// # Errors
    /// Those of [`Context::publish`].
    pub fn publish(&mut self, group: impl AsRef<[u8]>, bytes: &[u8]) -> Result<(), SendError> {
        publish(self.output, group.as_ref(), bytes, Some(self.id), false)
    }

    /// The most groups of a connection: 128.
    pub const MOST_GROUPS: usize = MOST_GROUPS;
}

impl Context<'_> {
    /// Publishes up to [`MOST_PUBLISH`](Self::MOST_PUBLISH) bytes to a group: every member is sent them, but for one that
    /// is left out. As part of the callback's output, they are committed with the answer. That is one record, and one copy
    /// of the bytes, however many members there are.
    ///
    /// All members of a group get everything that is published to it in the same order, whichever callbacks publish.
    /// There is no order between that and bytes that are sent to a single connection.
    ///
    /// The bytes are sent like any other: what the socket of a member does not take is kept for it. It is not read while
    /// more than [`Server::output_high_water`](crate::Server::output_high_water) is, and reset over
    /// [`Server::output_limit`](crate::Server::output_limit). For bytes that a slow member may rather miss there is
    /// [`publish_lossy`](Self::publish_lossy).
    ///
    /// In base mode, the members that are connections of this worker get them.
    ///
    /// # Errors
    /// [`SendError::TooLong`]; [`SendError::OverLimit`] when what one callback publishes counts more than
    /// [`Server::output_limit`](crate::Server::output_limit): names and bytes, and 64 for each call.
    pub fn publish(
        &mut self,
        group: impl AsRef<[u8]>,
        bytes: &[u8],
        except: Option<ConnId>,
    ) -> Result<(), SendError> {
        publish(self.output, group.as_ref(), bytes, except, false)
    }

    /// Publishes to a group as [`publish`](Self::publish) does, but for slow members: one to which more than
    /// [`Server::output_high_water`](crate::Server::output_high_water) is unsent misses these bytes as a whole, and
    /// is not reset for them. The log says how many have missed something.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish).
    pub fn publish_lossy(
        &mut self,
        group: impl AsRef<[u8]>,
        bytes: &[u8],
        except: Option<ConnId>,
    ) -> Result<(), SendError> {
        publish(self.output, group.as_ref(), bytes, except, true)
    }

    /// Returns how many members a group has now. What this callback joins and leaves is not counted, as it is not
    /// committed. In base mode, the members are counted that are connections of this worker.
    ///
    /// It asks the master, and waits for the answer: mostly for some microseconds, and for two seconds at most.
    ///
    /// # Errors
    /// [`SendError::TooLong`], [`SendError::NoAnswer`].
    pub fn group_size(&self, group: impl AsRef<[u8]>) -> Result<usize, SendError> {
        let name = checked(group.as_ref())?;
        self.output.borrow_mut().group_size(name)
    }

    /// The most bytes that can be published at once: 64 KiB.
    pub const MOST_PUBLISH: usize = MOST_PUBLISH;

    /// The most bytes of a group's name: 128.
    pub const MOST_NAME: usize = MOST_NAME;
}

fn publish(
    output: SharedOutput<'_>,
    group: &[u8],
    bytes: &[u8],
    except: Option<ConnId>,
    is_lossy: bool,
) -> Result<(), SendError> {
    let to = Group {
        name: checked(group)?,
        except,
        is_lossy,
    };
    output.borrow_mut().publish(to, short(bytes)?)
}

fn checked(name: &[u8]) -> Result<&[u8], SendError> {
    match name.len() {
        0..=MOST_NAME => Ok(name),
        _ => Err(SendError::TooLong { most: MOST_NAME }),
    }
}

fn short(bytes: &[u8]) -> Result<&[u8], SendError> {
    match bytes.len() {
        0..=MOST_PUBLISH => Ok(bytes),
        _ => Err(SendError::TooLong { most: MOST_PUBLISH }),
    }
}

/// The names of a connection's groups: [`Conn::groups`].
#[derive(Clone)]
pub struct Groups<'a>(names::Iter<'a>);

impl<'a> Iterator for Groups<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.0.next()
    }
}

impl fmt::Debug for Groups<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.clone();
        f.debug_list()
            .entries(names.map(String::from_utf8_lossy))
            .finish()
    }
}
