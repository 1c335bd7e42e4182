//! What stands for TLS in a library that is built without the feature `tls`: no connection has a session.

use std::io;
use std::sync::Arc;

use crate::config::{Config, ListenerId};

/// There is none.
#[derive(Debug)]
pub(crate) enum Session {}

/// There are none.
#[derive(Debug, Default)]
pub(crate) struct Contexts;

impl Contexts {
    pub(crate) fn of(_: &Config) -> Result<Arc<Contexts>, (String, String)> {
        Ok(Arc::default())
    }

    pub(crate) fn read_anew(self: &Arc<Self>) {}

    pub(crate) fn read_all(&self) {}

    pub(crate) fn begin(&self, _: ListenerId) -> Option<Result<Session, String>> {
        None
    }
}

impl Session {
    pub(crate) fn is_open(&self) -> bool {
        match *self {}
    }

    pub(crate) fn has_ended(&self) -> bool {
        match *self {}
    }

    pub(crate) fn incoming(&self) -> &[u8] {
        match *self {}
    }

    pub(crate) fn keep(&mut self, _: &[u8]) {
        match *self {}
    }

    pub(crate) fn take(
        &mut self,
        _: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<usize, String> {
        match *self {}
    }

    pub(crate) fn seal(&mut self, _: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn end(&mut self, _: &mut Vec<u8>) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn tell(&self, _: &mut Vec<u8>) -> bool {
        match *self {}
    }
}
