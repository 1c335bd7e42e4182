//! A callback's staged output in base mode.
//!
//! Its one rule: no output reaches a socket before the callback returns `Ok` or flushes.

use std::sync::Arc;

use crate::config::charge;
use crate::conn_id::ConnId;
use crate::handler::{SendError, ServerCall};
use crate::ipc::record::{Output, Part, Span};
use crate::net::files::SentFile;

/// The most bytes of memory that are kept for the next callback.
const MOST_KEPT: usize = 1 << 20;

/// The most outputs that memory is kept for until the next callback.
const MOST_OUTPUTS_KEPT: usize = 1024;

/// The outputs of a callback so far, in order.
#[derive(Default)]
pub(super) struct Staged {
    outputs: Vec<(Output, Source)>,
    /// Copies of the sent bytes that are not part of the message.
    bytes: Vec<u8>,
    files: Vec<Arc<SentFile>>,
    /// The bytes charged against `output_limit`.
    sent: usize,
}

/// What an output has beside its record.
pub(super) enum Body<'a> {
    Bytes(&'a [u8]),
    File(&'a Arc<SentFile>),
}

/// The place of an output's bytes.
#[derive(Clone, Copy)]
enum Source {
    /// The output has no bytes.
    Nowhere,
    /// In the message.
    Message(Part),
    /// Among the copies: start and length.
    Copied(usize, usize),
    /// In this file.
    File(usize),
}

impl Staged {
    /// Stages bytes for a connection; `message` is the message under way.
    pub(super) fn send(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        message: &[u8],
        limit: usize,
    ) -> Result<(), SendError> {
        self.charge(bytes.len(), limit)?;
        let source = match Part::of(message, bytes) {
            Some(part) => Source::Message(part),
            None => {
                self.copy(Output::Send(conn), bytes);
                return Ok(());
            }
        };
        self.outputs.push((Output::Send(conn), source));
        Ok(())
    }

    /// Counts an output of `len` bytes against the limit of a callback.
    pub(super) fn charge(&mut self, len: usize, limit: usize) -> Result<(), SendError> {
        let charged = self.sent + charge(len);
        if charged > limit {
            return Err(SendError::OverLimit { limit });
        }
        self.sent = charged;
        Ok(())
    }

    /// Stages an output with a copy of its bytes.
    pub(super) fn copy(&mut self, output: Output, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.outputs
            .push((output, Source::Copied(start, bytes.len())));
    }

    /// Stages a part of a file for a connection.
    pub(super) fn send_file(&mut self, conn: ConnId, file: Arc<SentFile>, span: Span) {
        let source = Source::File(self.files.len());
        self.files.push(file);
        self.outputs.push((Output::File(conn, span), source));
    }

    /// Returns how many files are staged.
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    /// Stages an output without bytes.
    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push((output, Source::Nowhere));
    }

    /// Passes every output to `apply`, in order, and every server call to `call`. Nothing is staged
    /// afterwards.
    pub(super) fn commit(
        &mut self,
        message: &[u8],
        mut apply: impl FnMut(Output, Body<'_>),
        mut call: impl FnMut(ServerCall),
    ) {
        for (output, source) in &self.outputs {
            if let Output::CallServer(asked) = output {
                call(*asked);
                continue;
            }
            let body = match *source {
                Source::Nowhere => Body::Bytes(&[]),
                Source::Message(part) => {
                    Body::Bytes(&message[part.offset as usize..][..part.len as usize])
                }
                Source::Copied(start, len) => Body::Bytes(&self.bytes[start..start + len]),
                Source::File(index) => Body::File(&self.files[index]),
            };
            apply(*output, body);
        }
        self.drop_all();
    }

    /// Drops all staged output.
    pub(super) fn drop_all(&mut self) {
        self.sent = 0;
        self.outputs.clear();
        self.bytes.clear();
        self.files.clear();
        self.outputs.shrink_to(MOST_OUTPUTS_KEPT);
        self.bytes.shrink_to(MOST_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn conn(number: u32) -> ConnId {
        ConnId::new(0, number, NonZeroU32::MIN)
    }

    #[test]
    fn outputs_are_committed_in_order_and_once() {
        let message = b"a message".to_vec();
        let mut staged = Staged::default();
        staged.send(conn(1), b"copy ", &message, 1000).unwrap();
        staged.send(conn(1), &message[2..], &message, 1000).unwrap();
        staged.push(Output::Close(conn(1)));
        staged.push(Output::CallServer(ServerCall::Reload));
        let (mut applied, mut called) = (Vec::new(), Vec::new());
        let mut apply = |output, body: Body<'_>| match body {
            Body::Bytes(bytes) => applied.push((output, bytes.to_vec())),
            Body::File(_) => panic!("none was staged"),
        };
        staged.commit(&message, &mut apply, |call| called.push(call));
        staged.commit(&message, &mut apply, |_| panic!("it was called already"));
        let expected = [
            (Output::Send(conn(1)), b"copy ".to_vec()),
            (Output::Send(conn(1)), b"message".to_vec()),
            (Output::Close(conn(1)), Vec::new()),
        ];
        assert_eq!(applied, expected);
        assert_eq!(called, [ServerCall::Reload]);
    }

    #[test]
    fn the_limit_counts_until_the_next_commit() {
        let mut staged = Staged::default();
        let limit = 10 + charge(0);
        staged.send(conn(1), &[0; 10], &[], limit).unwrap();
        let refused = Err(SendError::OverLimit { limit });
        assert_eq!(staged.send(conn(1), &[], &[], limit), refused);
        staged.drop_all();
        staged.send(conn(1), &[0; 10], &[], limit).unwrap();
    }

    #[test]
    fn little_memory_is_kept_of_much_output() {
        let mut staged = Staged::default();
        let much = vec![0; 4 * MOST_KEPT];
        staged.send(conn(1), &much, &[], usize::MAX).unwrap();
        for _ in 0..4 * MOST_OUTPUTS_KEPT {
            staged.push(Output::Close(conn(1)));
        }
        staged.drop_all();
        assert!(staged.bytes.capacity() <= MOST_KEPT);
        assert!(staged.outputs.capacity() <= MOST_OUTPUTS_KEPT);
    }
}
