//! The format `frames`: a line of words, and as many bytes as it ends with.
//!
//! ```text
//! receive conn=0:3:17 peer=127.0.0.1:51234 listener=127.0.0.1:9501 number=7 attempt=0 length=6
//! hello↵
//! ```
//! is answered by
//! ```text
//! send 4
//! hi!↵
//! close
//! done
//! ```

use std::io::Write as _;

use super::event::{Event, Origin};
use super::exchange::{Step, shown};
use super::format::Said;
use super::lines::line;

/// The longest header of an answer: `send`, and a number.
const LONGEST_HEADER: usize = 32;

pub(super) fn ask<'a>(event: &Event<'a>, head: &mut Vec<u8>) -> &'a [u8] {
    let message = event.message;
    // A vector takes what is written to it.
    let _ = write!(head, "{}", event.kind.name());
    if let Some(origin) = &event.origin {
        let Origin {
            conn,
            peer,
            listener,
            attempt,
            ..
        } = origin;
        let _ = write!(head, " conn={conn} peer={peer} listener=");
        value(head, listener);
        if let Some(number) = origin.number {
            let _ = write!(head, " number={number}");
        }
        let _ = write!(head, " attempt={attempt}");
        if let Some(reason) = origin.reason() {
            let _ = write!(head, " reason={reason}");
        }
    }
    let _ = writeln!(head, " length={}", message.len());
    message
}

/// Writes a value that may have spaces, each such byte as %XX.
fn value(head: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            0..=b' ' | b'%' | 0x7f => {
                let _ = write!(head, "%{byte:02X}");
            }
            _ => head.push(byte),
        }
    }
}

pub(super) fn answer(
    bytes: &[u8],
    said: &mut dyn FnMut(Said<'_>) -> Result<(), String>,
) -> Result<Step, String> {
    let window = &bytes[..bytes.len().min(LONGEST_HEADER)];
    let Some(begin) = line(window, 0) else {
        return match bytes.len() < LONGEST_HEADER {
            true => Ok(Step::Partial),
            false => Err(not_a_frame(bytes)),
        };
    };
    match &bytes[..begin - 1] {
        b"done" => return Ok(Step::Done(begin)),
        b"close" => said(Said::Close)?,
        header => {
            let len = header.strip_prefix(b"send ").and_then(number);
            let len = len.ok_or_else(|| not_a_frame(header))?;
            let Some(body) = bytes[begin..].get(..len) else {
                return Ok(Step::Partial);
            };
            said(Said::Send(body))?;
            return Ok(Step::Used(begin + len));
        }
    }
    Ok(Step::Used(begin))
}

/// Reads a number without a sign.
fn number(digits: &[u8]) -> Option<usize> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    is_number
        .then(|| str::from_utf8(digits).ok()?.parse().ok())
        .flatten()
}

fn not_a_frame(bytes: &[u8]) -> String {
    format!(
        "no frame, which is `send LENGTH`, `close` or `done`: {}",
        shown(bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::super::event::{Event, Kind};
    use super::*;

    /// Returns the step, and what was said.
    fn read(bytes: &[u8]) -> Result<(Step, String), String> {
        let mut all = String::new();
        let step = answer(bytes, &mut |said| {
            match said {
                Said::Send(bytes) => all += &bytes.escape_ascii().to_string(),
                Said::Close => all += "close",
            }
            Ok(())
        });
        step.map(|step| (step, all))
    }

    #[test]
    fn an_answer_is_read_frame_by_frame() {
        assert_eq!(
            read(b"send 3\n\0\nxdone\n"),
            Ok((Step::Used(10), r"\x00\nx".to_owned()))
        );
        assert_eq!(read(b"send 0\nx"), Ok((Step::Used(7), String::new())));
        assert_eq!(read(b"close\nx"), Ok((Step::Used(6), "close".to_owned())));
        assert_eq!(read(b"done\n"), Ok((Step::Done(5), String::new())));
        for part in [&b"d"[..], b"send", b"send 3\n", b"send 3\nab"] {
            assert_eq!(read(part), Ok((Step::Partial, String::new())), "{part:?}");
        }
    }

    #[test]
    fn anything_else_is_no_frame() {
        for text in [
            "\n",
            "Done\n",
            "done \n",
            "send\n",
            "send \n",
            "send -1\n",
            "send +1\n",
            "send 1 \n",
            "send 99999999999999999999999\n",
            "hello, what is this? no end of a line",
        ] {
            let refused = read(text.as_bytes()).unwrap_err();
            assert!(refused.contains("no frame"), "{text}: {refused}");
        }
    }

    #[test]
    fn a_start_is_of_no_connection() {
        let mut head = Vec::new();
        assert_eq!(ask(&Event::START, &mut head), b"");
        assert_eq!(head, b"start length=0\n");
        assert_eq!(Kind::Start.name(), "start");
    }

    #[test]
    fn a_value_has_no_spaces() {
        let mut head = Vec::new();
        value(&mut head, "a b%\n[::]:1");
        assert_eq!(head, b"a%20b%25%0A[::]:1");
    }
}
