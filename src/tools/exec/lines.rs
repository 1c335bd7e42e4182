//! The format `lines`: each message is a line, and each answer is one.

use super::event::Event;
use super::exchange::Step;
use super::format::Said;

/// Returns the message, which the protocol has cut at the end of its line.
pub(super) fn ask<'a>(event: &Event<'a>, head: &mut Vec<u8>) -> &'a [u8] {
    match event.message {
        message @ [.., b'\n'] => message,
        message => {
            head.extend_from_slice(message);
            head.push(b'\n');
            &[]
        }
    }
}

pub(super) fn answer(
    bytes: &[u8],
    seen: usize,
    said: &mut dyn FnMut(Said<'_>) -> Result<(), String>,
) -> Result<Step, String> {
    let Some(len) = line(bytes, seen) else {
        return Ok(Step::Partial);
    };
    said(Said::Send(&bytes[..len]))?;
    Ok(Step::Done(len))
}

/// Returns the length of the first line, with its end, which is not in the first `seen` bytes.
pub(super) fn line(bytes: &[u8], seen: usize) -> Option<usize> {
    let end = bytes[seen..].iter().position(|byte| *byte == b'\n')?;
    Some(seen + end + 1)
}
