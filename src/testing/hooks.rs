//! For the tests of this crate only, behind the feature `test-hooks`: faulty workers, workers that die at
//! a certain step of the ring protocol, and entries for fuzzing.

use std::cell::RefCell;
use std::num::NonZeroU32;

use crate::conn_id::ConnId;
use crate::event::Event;
pub use crate::handler::Forgery;
use crate::ipc::arena::{BothSides, Sizes};
use crate::ipc::carried::Carried;
use crate::ipc::frame;
pub use crate::ipc::kill_point::KillPoint;
use crate::ipc::link::{Commit, ReactorLink};
use crate::ipc::position::ALIGN;
use crate::ipc::sync::Ordering;
use crate::peer::Peer;
use crate::protocol::{Protocol, Split};

/// Reads arbitrary bytes as a worker's outbox. The first 8 of them are the published mark.
pub fn outbox(data: &[u8]) {
    const RING: usize = 4096;
    const SIZES: Sizes = Sizes {
        reactors: 1,
        inbox: RING,
        outbox: RING,
    };
    thread_local! {
        static MEMORY: RefCell<BothSides> = RefCell::new(BothSides::new(SIZES).expect("a few pages"));
    }
    let Some((mark, bytes)) = data.split_first_chunk::<8>() else {
        return;
    };
    MEMORY.with_borrow(|both| {
        let memory = &both.worker.links[0];
        let mut link = ReactorLink::new(&both.master.links[0], RING * 2);
        link.open(1);
        for number in 1..4 {
            link.submit_copy(&question(number), Carried::default(), b"body");
        }
        memory.outbox.write(0, &bytes[..bytes.len().min(RING)]);
        let mark = u64::from_le_bytes(*mark);
        // In two steps: output of the first without its commit is held back.
        for published in [(mark / 2).next_multiple_of(ALIGN), mark] {
            let words = &memory.words;
            words.outbox_published.store(published, Ordering::Release);
            while let Ok(Some(commit)) = link.next_commit() {
                let mut copy = Vec::new();
                for index in 0..link.output_count() {
                    link.output(index).1.append_to(&mut copy);
                }
                assert!(copy.len() <= RING * 2);
                link.finish(commit);
                if commit == Commit::Failed {
                    link.fail();
                }
                link.release();
            }
        }
        link.cut();
    });
}

fn question(number: u32) -> frame::Input {
    let generation = NonZeroU32::new(number).expect("numbers begin at 1");
    frame::Input {
        kind: Event::Receive.into(),
        conn: ConnId::new(0, number, generation),
        peer: Peer::Ip(([127, 0, 0, 1], 1).into()),
        listener: 0,
        attempt: 0,
        detail: 0,
        deadline: 0,
        value: 0,
        follows: false,
        carries: false,
        is_gone: false,
        is_firm: false,
        submitted: 0,
        len: 4,
    }
}

/// Reads arbitrary bytes as the header of a proxy, at once and byte by byte.
#[cfg(feature = "proxy")]
pub fn proxy(data: &[u8]) {
    use crate::net::proxy::{Begin, begin};
    let whole = begin(data);
    match &whole {
        Begin::Header(_, len) => {
            assert!((1..=data.len()).contains(len));
            assert!((1..*len).all(|there| begin(&data[..there]) == Begin::More));
            assert!(begin(&data[..*len]) == whole);
        }
        // What is too short may become anything, and what is wrong stays wrong.
        Begin::More => {}
        Begin::Wrong(_) => {
            let first = (1..=data.len()).find(|there| begin(&data[..*there]) != Begin::More);
            assert!(first.is_some_and(|first| matches!(begin(&data[..first]), Begin::Wrong(_))));
        }
    }
}

/// Cuts arbitrary bytes into messages, at once and byte by byte. The first byte chooses the protocol.
pub fn split(data: &[u8]) {
    const MAX: usize = 300;
    let protocols = [
        "raw",
        "lines",
        "delimiter=\\r\\n",
        "varint",
        "length=1",
        "length=2,little,all",
        "length=4,big,body",
        "length=3,adjust=6",
        "length=8,offset=3,adjust=-9223372036854775808",
    ];
    let Some((choice, mut bytes)) = data.split_first() else {
        return;
    };
    let protocol: Protocol = protocols[usize::from(*choice) % protocols.len()]
        .parse()
        .expect("the protocols above are valid");
    while let Split::Message { len } = protocol.split(bytes, 0, MAX) {
        assert!(len >= 1 && len <= bytes.len().min(MAX));
        assert!(protocol.is_raw() || first_end(&protocol, &bytes[..len], MAX) == Some(len));
        bytes = &bytes[len..];
    }
    assert!(protocol.is_raw() || first_end(&protocol, bytes, MAX).is_none());
}

/// Returns the end of the first message, for bytes that come one by one.
fn first_end(protocol: &Protocol, bytes: &[u8], max: usize) -> Option<usize> {
    for there in 1..=bytes.len() {
        match protocol.split(&bytes[..there], there - 1, max) {
            Split::Message { len } => return Some(len),
            Split::Partial { .. } => assert!(there < max),
            Split::Refused(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fuzzing_starts_from_entries_that_hold(data in vec(any::<u8>(), 0..600)) {
            super::split(&data);
            super::outbox(&data);
        }
    }
}
