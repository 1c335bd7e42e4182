//! Questions of a callback about the connections of the server.

use std::time::Duration;

use super::{Context, SendError};
use crate::config::ListenerId;
use crate::conn_id::ConnId;
use crate::peer::Peer;

/// A connection at the moment at which [`Context::connections`] has listed it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ConnInfo {
    /// The connection.
    pub id: ConnId,
    /// The client.
    pub peer: Peer,
    /// The listener that has accepted it.
    pub listener: ListenerId,
    /// The user id that callbacks have set.
    pub user: Option<u64>,
    /// The time since it was accepted; in base mode, since this worker has it.
    pub age: Duration,
    /// The bytes of output that its socket has not taken yet.
    pub unsent: usize,
}

impl Context<'_> {
    /// Returns all connections of the server, in no order, also those whose client has closed, until their
    /// [`close`](super::Handler::close) has run. A connection that exists during the whole call is listed once. One
    /// that comes or ends meanwhile is listed or not. In base mode, the connections of this worker are listed.
    ///
    /// It asks the master, 128 connections at a time, so that other clients are served in between: some milliseconds
    /// for 10,000 connections. The callback waits for each answer for two seconds at most.
    ///
    /// # Errors
    /// [`SendError::NoAnswer`].
    pub fn connections(&self) -> Result<Vec<ConnInfo>, SendError> {
        self.output.borrow_mut().connections()
    }

    /// Whether a connection exists: it has come, and its [`close`](super::Handler::close) has not run. What this
    /// callback has closed still exists, as that is not committed. It may end right after the answer.
    ///
    /// It asks the master as [`group_size`](Self::group_size) does.
    ///
    /// # Errors
    /// [`SendError::NoAnswer`]; [`SendError::OtherWorker`] in base mode for a connection that this worker does not
    /// know.
    pub fn exists(&self, id: ConnId) -> Result<bool, SendError> {
        self.output.borrow_mut().exists(id)
    }
}
