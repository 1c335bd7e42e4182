//! The layer between the socket of a connection and its messages: the header of a proxy, and TLS.
//!
//! Its one rule: a connection whose listener has neither has no layer, and pays nothing for it.

use super::tls::Session;

/// What stands between the socket of a connection and its messages.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    pub(crate) stage: Stage,
    /// The header of a proxy, as far as it has come.
    pub(crate) header: Vec<u8>,
    /// Facts about the connection, in the form of an origin. They go to the connection when it is open.
    pub(crate) facts: Vec<u8>,
    pub(crate) session: Option<Session>,
    /// The peer was told that no more output comes.
    pub(crate) has_said_end: bool,
    /// Its client is not counted among those of its address: who that is, the header will say.
    pub(crate) is_uncounted: bool,
}

/// How far a connection is in the stage *open*.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Stage {
    /// It waits for the header of a proxy.
    Header,
    /// It waits for the end of the handshake.
    Handshake,
    #[default]
    Open,
}

impl Layer {
    /// Returns the bytes of records that are held until the rest has come.
    pub(crate) fn held(&self) -> usize {
        let session = self.session.as_ref();
        session.map_or(0, |session| session.incoming().len())
    }

    /// Drops them. Returns how many there were.
    pub(crate) fn drop_records(&mut self) -> usize {
        let held = self.held();
        if let Some(session) = &mut self.session {
            session.keep(&[]);
        }
        held
    }

    /// Whether the beginning of a record has come, whose rest has not.
    pub(crate) fn has_incomplete(&self) -> bool {
        self.held() > 0
    }
}
