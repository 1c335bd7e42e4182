//! The arrival of connections that go from one base mode worker to another, through a channel.
//!
//! Runs in base mode workers and in their manager. Its one rule: what another worker has written may be anything.

use std::os::fd::OwnedFd;

use super::handover::{Handover, MOST_BYTES};
use crate::limited::{Topic, limited};
use crate::sys::parcel::{Channel, Received};

/// The outcome of a look at a channel.
pub(crate) enum Arrival {
    Connection(OwnedFd, Box<Handover>),
    /// A post of another program, of the manager alone.
    Post(Vec<u8>),
    /// A record without a connection that this process can take. It has a line in the log.
    Unusable,
    /// Nothing now.
    Nothing,
    /// Nothing more comes.
    End,
}

/// The first byte of the record of a post. That of a connection is another.
const POST: u8 = u8::MAX;

/// Returns the record of a post.
#[cfg(feature = "status")]
pub(crate) fn post(bytes: &[u8]) -> Vec<u8> {
    [&[POST][..], bytes].concat()
}

/// Returns the next connection or post in a channel.
pub(crate) fn receive(channel: &Channel, buffer: &mut Vec<u8>) -> Arrival {
    // One more than is allowed, so that a longer record is noticed.
    buffer.resize(MOST_BYTES + 1, 0);
    let (len, mut descriptors) = match channel.receive(buffer) {
        Ok(Received::Record(len, descriptors)) => (len, descriptors),
        Ok(Received::Nothing) => return Arrival::Nothing,
        Ok(Received::End) => return Arrival::End,
        Err(error) => {
            log::error!("cannot read the channel of moved connections: {error}");
            return Arrival::End;
        }
    };
    if let ([POST, post @ ..], []) = (&buffer[..len], &descriptors[..]) {
        return Arrival::Post(post.to_vec());
    }
    let socket = descriptors.pop().filter(|_| descriptors.is_empty());
    match (socket, Handover::decode(&buffer[..len])) {
        (Some(socket), Some(handover)) => Arrival::Connection(socket, Box::new(handover)),
        // The kernel leaves the descriptor out if this process may not have more, unix(7).
        (Some(_) | None, Some(_) | None) => {
            limited!(
                error,
                Topic::Move,
                "a connection of another worker is closed: this process can't take it (is the limit of open files reached?)"
            );
            Arrival::Unusable
        }
    }
}

#[cfg(all(test, not(miri)))] // Miri has no such sockets.
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::config::ListenerId;
    use crate::peer::Peer;

    #[test]
    fn only_a_record_with_one_descriptor_is_a_connection() {
        let (one, other) = crate::sys::parcel::channel().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let new = Handover::of_new(Peer::Ip(([10, 0, 0, 7], 7000).into()), ListenerId(3));
        let long = vec![0; MOST_BYTES + 1];
        for record in [&new.encode()[..], &new.encode()[1..], &long] {
            assert!(one.try_send(record, file.as_fd()).unwrap());
        }
        let buffer = &mut Vec::new();
        let arrival = receive(&other, buffer);
        assert!(matches!(arrival, Arrival::Connection(_, it) if *it == new));
        assert!(matches!(receive(&other, buffer), Arrival::Unusable));
        assert!(matches!(receive(&other, buffer), Arrival::Unusable));
        assert!(matches!(receive(&other, buffer), Arrival::Nothing));
        one.finish();
        assert!(matches!(receive(&other, buffer), Arrival::End));
    }
}
