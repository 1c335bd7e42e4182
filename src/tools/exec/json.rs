//! The format `json`: one object a line, for the event and for each part of the answer.
//!
//! ```text
//! {"event":"receive","conn":"0:3:17","peer":"127.0.0.1:51234","listener":"127.0.0.1:9501","number":7,"attempt":0,"data":"hello\n"}
//! ```
//! is answered by
//! ```text
//! {"send":"hi!\n","close":true,"done":true}
//! ```

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::event::Event;
use super::exchange::{Step, shown};
use super::format::Said;
use super::lines::line;

#[derive(Serialize)]
struct Question<'a> {
    event: &'static str,
    #[serde(flatten)]
    origin: Option<From<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    /// In the place of `data`, if that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[derive(Serialize)]
struct From<'a> {
    conn: String,
    peer: String,
    listener: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    attempt: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A part of an answer. It sends first, and then closes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer<'a> {
    #[serde(borrow)]
    send: Option<Cow<'a, str>>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
    #[serde(default)]
    close: bool,
    #[serde(default)]
    done: bool,
}

pub(super) fn ask<'a>(event: &Event<'a>, head: &mut Vec<u8>) -> &'a [u8] {
    let origin = event.origin.as_ref().map(|origin| From {
        conn: origin.conn.to_string(),
        peer: origin.peer.to_string(),
        listener: origin.listener,
        number: origin.number,
        attempt: origin.attempt,
        reason: origin.reason(),
    });
    // A message is never empty.
    let text = str::from_utf8(event.message);
    let question = Question {
        event: event.kind.name(),
        origin,
        data: text.ok().filter(|text| !text.is_empty()),
        base64: text.is_err().then(|| STANDARD.encode(event.message)),
    };
    let written = serde_json::to_writer(&mut *head, &question);
    debug_assert!(written.is_ok(), "{written:?}");
    head.push(b'\n');
    &[]
}

pub(super) fn answer(
    bytes: &[u8],
    seen: usize,
    said: &mut dyn FnMut(Said<'_>) -> Result<(), String>,
) -> Result<Step, String> {
    let Some(len) = line(bytes, seen) else {
        return Ok(Step::Partial);
    };
    let text = &bytes[..len];
    let bad = |why: &dyn std::fmt::Display| {
        let shown = shown(text);
        format!("no answer in JSON ({why}): {shown}")
    };
    let answer: Answer<'_> = serde_json::from_slice(text).map_err(|error| bad(&error))?;
    if let Some(text) = answer.send {
        said(Said::Send(text.as_bytes()))?;
    }
    if let Some(text) = answer.base64 {
        let bytes = STANDARD.decode(text.as_bytes());
        said(Said::Send(&bytes.map_err(|error| bad(&error))?))?;
    }
    if answer.close {
        said(Said::Close)?;
    }
    match answer.done {
        true => Ok(Step::Done(len)),
        false => Ok(Step::Used(len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Step, Vec<String>), String> {
        let mut all = Vec::new();
        let step = answer(text.as_bytes(), 0, &mut |said| {
            all.push(match said {
                Said::Send(bytes) => bytes.escape_ascii().to_string(),
                Said::Close => "close".to_owned(),
            });
            Ok(())
        });
        step.map(|step| (step, all))
    }

    #[track_caller]
    fn said(text: &str, expected: &[&str]) {
        let (_, all) = read(text).unwrap();
        assert_eq!(all, expected, "{text}");
    }

    #[test]
    fn an_answer_sends_then_closes_then_is_done() {
        said("{}\n", &[]);
        said("{\"done\":true}\n", &[]);
        said(
            "{\"close\":true,\"base64\":\"AP8=\",\"send\":\"\\u00e9\\n\"}\n",
            &["\\xc3\\xa9\\n", "\\x00\\xff", "close"],
        );
        assert_eq!(read("{\"done\":true}\n").unwrap().0, Step::Done(14));
        assert_eq!(read("{\"done\":false}\n{").unwrap().0, Step::Used(15));
        assert_eq!(read("{\"done\":true}").unwrap().0, Step::Partial);
    }

    #[test]
    fn what_is_no_answer_is_shown_with_the_reason() {
        for (text, reason) in [
            ("hello\n", "expected value"),
            ("{\"sned\":\"x\"}\n", "unknown field `sned`"),
            ("{\"send\":1}\n", "invalid type"),
            ("{\"base64\":\"?\"}\n", "nvalid"),
            ("[]\n", "\"[]"),
            ("\n", "EOF"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(
                refused.contains(reason) && refused.contains("no answer in JSON"),
                "{text}: {refused}"
            );
        }
    }

    #[test]
    fn a_message_is_text_or_base64() {
        for (message, expected) in [
            (&b"a\n"[..], "{\"event\":\"start\",\"data\":\"a\\n\"}\n"),
            (b"\xff\0", "{\"event\":\"start\",\"base64\":\"/wA=\"}\n"),
            (b"", "{\"event\":\"start\"}\n"),
        ] {
            let mut head = Vec::new();
            let event = Event {
                message,
                ..Event::START
            };
            assert_eq!(ask(&event, &mut head), b"");
            assert_eq!(str::from_utf8(&head), Ok(expected));
        }
    }
}
