//! A question to the program and its answer, over two pipes.
//!
//! Its one rule: neither side can block the other. Both pipes are watched at once, so a program may answer before it has
//! read the whole question, and write more than a pipe holds.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What a program did that ends its worker.
#[derive(Debug)]
pub(super) enum Fault {
    /// It has ended, or closed its output.
    Left,
    /// It reads no more.
    ClosedInput,
    /// It has written what it must not.
    Rubbish(String),
    /// A system call has failed.
    Failed(std::io::Error),
}

/// What a format has found in the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A record is complete, which has this length, and more follow.
    Used(usize),
    /// A record is complete, which has this length, and ends the answer.
    Done(usize),
    /// No record is complete.
    Partial,
}

/// Reads a record from the bytes that have come. The number is of those that it has seen before, in which none is
/// complete.
pub(super) type Answer<'a> = dyn FnMut(&[u8], usize) -> Result<Step, String> + 'a;

/// The bytes for which there is room at first, and again after a long answer.
const ROOM: usize = 64 << 10;

/// The server's ends of the pipes. They do not block.
pub(super) struct Pipes {
    /// `None` once it is closed, for the program to leave.
    pub(super) input: Option<File>,
    pub(super) output: File,
    /// Readable once the program has ended.
    pub(super) exit: OwnedFd,
    /// The longest record.
    longest: usize,
    unread: Unread,
}

impl Pipes {
    pub(super) fn new(input: File, output: File, exit: OwnedFd, longest: usize) -> Pipes {
        Pipes {
            input: Some(input),
            output,
            exit,
            longest,
            unread: Unread::new(),
        }
    }

    /// Writes the question, in two parts, and reads the answer.
    ///
    /// # Errors
    /// What ends the worker.
    pub(super) fn exchange(
        &mut self,
        question: [&[u8]; 2],
        answer: &mut Answer<'_>,
    ) -> Result<(), Fault> {
        self.is_silent()?;
        let mut parts = question.map(IoSlice::new);
        let mut unsent = &mut parts[..];
        let mut is_answered = false;
        loop {
            self.write(&mut unsent)?;
            if is_answered && unsent.is_empty() {
                self.unread.shrink();
                return Ok(());
            }
            let ready = self.wait(!unsent.is_empty())?;
            let mut has_left = ready.ended;
            if ready.output {
                has_left |= !self.listen(ready.ended, &mut is_answered, answer)?;
            }
            if has_left && !(is_answered && unsent.is_empty()) {
                return Err(Fault::Left);
            }
        }
    }

    /// Reads what there is, all of it from a program that has ended. Returns whether the output is open.
    fn listen(
        &mut self,
        has_ended: bool,
        is_answered: &mut bool,
        answer: &mut Answer<'_>,
    ) -> Result<bool, Fault> {
        loop {
            let is_open = self.read()?;
            *is_answered = self.take(*is_answered, answer)?;
            if *is_answered || !(has_ended && is_open && self.unread.grew) {
                return Ok(is_open);
            }
        }
    }

    /// Checks that the program has written nothing between two questions.
    pub(super) fn is_silent(&mut self) -> Result<(), Fault> {
        self.unread.clear();
        match self.read()? {
            false => Err(Fault::Left),
            true => match self.unread.bytes() {
                [] => Ok(()),
                bytes => Err(Fault::Rubbish(unasked(bytes))),
            },
        }
    }

    fn write(&mut self, unsent: &mut &mut [IoSlice<'_>]) -> Result<(), Fault> {
        let Some(input) = &mut self.input else {
            return Err(Fault::ClosedInput);
        };
        while !unsent.is_empty() {
            match input.write_vectored(unsent) {
                Ok(written) => IoSlice::advance_slices(unsent, written),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => break,
                    ErrorKind::Interrupted => {}
                    ErrorKind::BrokenPipe => return Err(Fault::ClosedInput),
                    _ => return Err(Fault::Failed(error)),
                },
            }
        }
        Ok(())
    }

    /// Reads once. Returns whether the output is open.
    fn read(&mut self) -> Result<bool, Fault> {
        self.unread.grew = false;
        let room = self.unread.room();
        match self.output.read(room) {
            Ok(0) => Ok(false),
            Ok(read) => {
                self.unread.end += read;
                self.unread.grew = true;
                Ok(true)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(true),
                _ => Err(Fault::Failed(error)),
            },
        }
    }

    /// Takes the complete records. Returns whether the answer has ended.
    fn take(&mut self, mut is_answered: bool, answer: &mut Answer<'_>) -> Result<bool, Fault> {
        loop {
            let bytes = self.unread.bytes();
            if is_answered && !bytes.is_empty() {
                let bytes = shown(bytes);
                return Err(Fault::Rubbish(format!("more than an answer: {bytes}")));
            }
            if bytes.is_empty() {
                return Ok(is_answered);
            }
            match answer(bytes, self.unread.seen).map_err(Fault::Rubbish)? {
                Step::Used(len) => self.unread.use_up(len),
                Step::Done(len) => {
                    self.unread.use_up(len);
                    is_answered = true;
                }
                Step::Partial if bytes.len() > self.longest => {
                    let longest = self.longest;
                    return Err(Fault::Rubbish(format!(
                        "a line or frame of more than {longest} bytes: raise --output-limit, or answer in parts"
                    )));
                }
                Step::Partial => {
                    self.unread.seen = bytes.len();
                    return Ok(is_answered);
                }
            }
        }
    }

    fn wait(&self, has_unsent: bool) -> Result<Ready, Fault> {
        let mut fds = [
            PollFd::new(self.output.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.exit.as_fd(), PollFlags::POLLIN),
            PollFd::new(
                self.input.as_ref().unwrap_or(&self.output).as_fd(),
                PollFlags::POLLOUT,
            ),
        ];
        let watched = if has_unsent { 3 } else { 2 };
        match poll(&mut fds[..watched], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Fault::Failed(error.into())),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let ended = is_ready(&fds[1]);
        Ok(Ready {
            output: ended || is_ready(&fds[0]),
            ended,
        })
    }
}

struct Ready {
    output: bool,
    ended: bool,
}

/// Output that no format has used up.
struct Unread {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The bytes from `start` in which no record is complete.
    seen: usize,
    /// The last read has added something.
    grew: bool,
}

impl Unread {
    fn new() -> Unread {
        Unread {
            buffer: vec![0; ROOM],
            start: 0,
            end: 0,
            seen: 0,
            grew: false,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn use_up(&mut self, len: usize) {
        self.start += len;
        self.seen = 0;
    }

    fn clear(&mut self) {
        (self.start, self.end, self.seen) = (0, 0, 0);
    }

    /// Returns the memory for the next read: all that is free behind the bytes.
    fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.buffer.len() {
            match self.start {
                0 => self.buffer.resize(2 * self.end, 0),
                start => {
                    self.buffer.copy_within(start.., 0);
                    (self.start, self.end) = (0, self.end - start);
                }
            }
        }
        &mut self.buffer[self.end..]
    }

    /// Gives back the memory of a long answer.
    fn shrink(&mut self) {
        self.clear();
        if self.buffer.len() > 16 * ROOM {
            self.buffer = vec![0; ROOM];
        }
    }
}

/// Returns what is wrong with output between two questions.
pub(super) fn unasked(bytes: &[u8]) -> String {
    format!("without being asked: {}", shown(bytes))
}

/// Returns the beginning of what a program has written, escaped.
pub(super) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 64;
    let dots = if bytes.len() > MOST { "…" } else { "" };
    format!(
        "\"{}\"{dots}",
        bytes[..bytes.len().min(MOST)].escape_ascii()
    )
}
