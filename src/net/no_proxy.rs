//! What stands for the PROXY protocol in a library that is built without the feature `proxy`: no listener expects
//! it.

use std::net::SocketAddr;

pub(crate) const LONGEST: usize = 0;

/// As with the feature.
pub(crate) struct Header {
    pub(crate) client: Option<SocketAddr>,
    pub(crate) facts: Vec<u8>,
}

/// As with the feature.
#[allow(dead_code)] // Nothing but `Wrong` is made here.
pub(crate) enum Begin {
    More,
    Header(Header, usize),
    Wrong(String),
}

pub(crate) fn begin(_bytes: &[u8]) -> Begin {
    Begin::Wrong("this library has no feature `proxy`".to_owned())
}
