//! Records between two processes, with descriptors: a pair of unix(7) sockets. In one direction like
//! [`pipe`](super::pipe), with end-of-file as the news that a process died; or in both, where neither side waits.

use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, sendmsg, shutdown,
    socketpair,
};

use super::fault::{self, Call};
use super::{forks, standard};

/// The most descriptors that one record carries; the kernel's limit is 253, unix(7).
pub(crate) const MOST_DESCRIPTORS: usize = 128;

/// The kernel's limit, unix(7).
const SCM_MAX_FD: usize = 253;

/// The writing end.
#[derive(Debug)]
pub(crate) struct Sender(OwnedFd);

/// The reading end. It does not block.
#[derive(Debug)]
pub(crate) struct Receiver(OwnedFd);

/// The outcome of a read.
#[derive(Debug)]
pub(crate) enum Received {
    /// A record of this many bytes, with its descriptors.
    Record(usize, Vec<OwnedFd>),
    /// Nothing now.
    Nothing,
    /// The other end is closed everywhere: its process is gone.
    End,
}

/// A record from a process that is not trusted.
#[derive(Debug)]
pub(crate) struct Suspect {
    pub(crate) len: usize,
    /// All of them: none is left to the kernel to close, which may take long, close(2) of a socket with SO_LINGER.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// This process could not take all of them.
    pub(crate) is_cut: bool,
}

/// Makes a pair of sockets.
pub(crate) fn pair() -> io::Result<(Sender, Receiver)> {
    let (sender, receiver) = sockets()?;
    Ok((Sender(sender), Receiver(receiver)))
}

/// One end of a channel for records in both directions. It does not block.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// Makes a channel.
pub(crate) fn channel() -> io::Result<(Channel, Channel)> {
    let (one, other) = sockets()?;
    Ok((Channel(one), Channel(other)))
}

fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    fault::check(Call::Pipe2)?;
    let pair = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )?;
    Ok(pair)
}

impl Sender {
    /// No process that user code forks gets this end.
    pub(crate) fn keep_from_children(&self) {
        forks::keeps(self.0.as_raw_fd());
    }

    const PAUSE: Duration = Duration::from_millis(1);

    /// Sends a record with at most [`MOST_DESCRIPTORS`] descriptors, and waits while the socket is full,
    /// or while the kernel has no memory for it.
    pub(crate) fn send(&self, record: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        loop {
            match send(&self.0, record, &descriptors) {
                Ok(()) => return Ok(()),
                Err(Errno::EINTR) => {}
                // ETOOMANYREFS: the reader has as many descriptors under way as it may have open.
                Err(Errno::ENOMEM | Errno::ENOBUFS | Errno::ETOOMANYREFS) => {
                    thread::sleep(Self::PAUSE);
                }
                Err(Errno::EAGAIN) => {
                    let room = PollFd::new(self.0.as_fd(), PollFlags::POLLOUT);
                    match poll(&mut [room], PollTimeout::NONE) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Channel {
    /// Sends a record with a descriptor. Returns false if it is not sent: the channel is full, or the kernel has no
    /// memory for it now.
    pub(crate) fn try_send(&self, record: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<bool> {
        self.try_send_all(record, &[descriptor.as_raw_fd()])
    }

    /// Sends a record without a descriptor, in the same way.
    #[cfg(feature = "status")]
    pub(crate) fn try_send_bytes(&self, record: &[u8]) -> io::Result<bool> {
        self.try_send_all(record, &[])
    }

    fn try_send_all(&self, record: &[u8], descriptors: &[RawFd]) -> io::Result<bool> {
        loop {
            match send(&self.0, record, descriptors) {
                Ok(()) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOMEM | Errno::ENOBUFS | Errno::ETOOMANYREFS) => {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the next record, with its descriptors as far as this process may open so many.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let received = receive(&self.0, buffer)?;
        let Received::Record(len, descriptors) = received else {
            return Ok(received);
        };
        let above = descriptors.into_iter().map(standard::above);
        Ok(Received::Record(len, above.collect::<io::Result<_>>()?))
    }

    /// Sends no more: the other end gets [`Received::End`] behind what was sent, whatever copies of this end there are.
    pub(crate) fn finish(&self) {
        if let Err(error) = shutdown(self.0.as_raw_fd(), Shutdown::Write) {
            log::debug!("the other end of a channel is closed already: {error}");
        }
    }

    /// No process that user code forks gets this end.
    pub(crate) fn keep_from_children(&self) {
        forks::keeps(self.0.as_raw_fd());
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a record with its descriptors, without waiting.
fn send(socket: &OwnedFd, record: &[u8], descriptors: &[RawFd]) -> Result<(), Errno> {
    fault::check(Call::Write)?;
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() {
        &rights[..0]
    } else {
        &rights
    };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let parts = [IoSlice::new(record)];
    sendmsg::<()>(socket.as_raw_fd(), &parts, control, flags, None).map(drop)
}

impl Receiver {
    /// Returns the next record. It has fewer descriptors than were sent when this process may not open
    /// so many.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        receive(&self.0, buffer)
    }
}

/// Of a sender that is not trusted.
impl Receiver {
    /// The reading end that another process has sent.
    pub(crate) fn received(socket: OwnedFd) -> Receiver {
        Receiver(socket)
    }

    pub(crate) fn try_clone(&self) -> io::Result<Receiver> {
        Ok(Receiver(self.0.try_clone()?))
    }

    /// Returns the next record; `None` if there is none, also for ever.
    pub(crate) fn receive_suspect(&self, buffer: &mut [u8]) -> io::Result<Option<Suspect>> {
        let mut control = [0_u64; control_words(SCM_MAX_FD)];
        let received = receive_into(&self.0, buffer, &mut control)?;
        let Some((len, is_cut, mut descriptors)) = received else {
            return Ok(None);
        };
        if len == 0 && descriptors.is_empty() {
            return Ok(None);
        }
        // An empty record with descriptors is the caller's, too: to close them may take time.
        let is_taken = fault::check(Call::Take).is_ok();
        descriptors.retain(|_| is_taken);
        Ok(Some(Suspect {
            len,
            descriptors,
            is_cut: is_cut || !is_taken,
        }))
    }

    /// Whether a record is unread, also an empty one, which looks like the end of the sender: it has credentials,
    /// unix(7).
    pub(crate) fn has_unread(&self) -> io::Result<bool> {
        let is_on: libc::c_int = 1;
        let (len, on) = (size_of_val(&is_on) as u32, (&raw const is_on).cast());
        // SAFETY: the kernel reads one int.
        let set = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PASSCRED,
                on,
                len,
            )
        };
        Errno::result(set)?;
        // Room for the credentials, which come first, and not for descriptors: copies of those would have to be closed
        // here, and that may take time.
        let mut control = [0_u64; CREDENTIALS];
        let mut message = header(&mut [], &mut control);
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: as in `receive_into`.
        let read = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, flags) };
        Ok(read >= 0 && message.msg_controllen > 0)
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = [0_u64; control_words(MOST_DESCRIPTORS)];
    Ok(match receive_into(socket, buffer, &mut control)? {
        None => Received::Nothing,
        Some((0, ..)) => Received::End,
        Some((read, _, descriptors)) => Received::Record(read, descriptors),
    })
}

/// Returns a header for a record and its control data.
fn header(part: &mut [libc::iovec], control: &mut [u64]) -> libc::msghdr {
    // SAFETY: all zero is an msghdr without name, data and control data.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = part.as_mut_ptr();
    message.msg_iovlen = part.len() as _;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(control) as _;
    message
}

/// Returns the length of a record, whether control data of it did not fit, and its descriptors; `None` if there is no
/// record now.
fn receive_into(
    socket: &OwnedFd,
    buffer: &mut [u8],
    control: &mut [u64],
) -> io::Result<Option<(usize, bool, Vec<OwnedFd>)>> {
    let mut part = [libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    }];
    let mut message = header(&mut part, control);
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    let read = loop {
        // SAFETY: the header points to one buffer and to the control data, which outlive the call,
        // and has their lengths.
        let read = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        match Errno::result(read) {
            Ok(read) => break read as usize,
            // ECONNRESET, once: the other end was closed with records unread. What it sent comes next.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    };
    let is_cut = message.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Some((read, is_cut, descriptors(&message))))
}

/// The room for the control data of a record with so many descriptors, in words, so that it is aligned.
const fn control_words(descriptors: usize) -> usize {
    // SAFETY: CMSG_SPACE is arithmetic.
    let bytes = unsafe { libc::CMSG_SPACE((descriptors * size_of::<RawFd>()) as u32) };
    (bytes as usize).div_ceil(size_of::<u64>())
}

/// The room for the credentials of a record's sender, in words.
const CREDENTIALS: usize = {
    // SAFETY: CMSG_SPACE is arithmetic.
    let bytes = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) };
    (bytes as usize).div_ceil(size_of::<u64>())
};

/// Takes the descriptors out of a message that was just received.
fn descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut found = Vec::new();
    // SAFETY: the kernel has filled the control data and set its length, and these walk it as cmsg(3)
    // says. Each descriptor in SCM_RIGHTS is new, and nobody else knows of it.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(control) = header.as_ref() {
            if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let start = libc::CMSG_DATA(header).cast::<RawFd>();
                let bytes = control.cmsg_len - libc::CMSG_LEN(0) as usize;
                for index in 0..bytes / size_of::<RawFd>() {
                    let fd = start.add(index).read_unaligned();
                    found.push(OwnedFd::from_raw_fd(fd));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    found
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(all(test, not(miri)))] // Miri has no such sockets.
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn records_come_whole_with_their_descriptors_and_then_the_end() {
        let (sender, mut receiver) = pair().unwrap();
        let mut buffer = [0; 16];
        assert!(matches!(
            receiver.receive(&mut buffer),
            Ok(Received::Nothing)
        ));
        let (mut reader, writer) = std::io::pipe().unwrap();
        sender
            .send(b"one", &[writer.as_fd(); MOST_DESCRIPTORS])
            .unwrap();
        sender.send(b"four", &[]).unwrap();
        drop((sender, writer));
        let Ok(Received::Record(3, descriptors)) = receiver.receive(&mut buffer) else {
            panic!("no record");
        };
        assert_eq!(descriptors.len(), MOST_DESCRIPTORS);
        for fd in descriptors {
            File::from(fd).write_all(b"x").unwrap();
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), MOST_DESCRIPTORS);
        let Ok(Received::Record(4, descriptors)) = receiver.receive(&mut buffer) else {
            panic!("no second record");
        };
        assert!(descriptors.is_empty());
        assert!(matches!(receiver.receive(&mut buffer), Ok(Received::End)));
    }

    #[test]
    fn a_channel_is_never_waited_for_and_its_end_comes_last() {
        let (one, other) = channel().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut count = 0;
        while one.try_send(b"record", writer.as_fd()).unwrap() {
            count += 1;
            assert!(count < 100_000);
        }
        one.finish();
        // The other direction is open.
        assert!(other.try_send(b"back", writer.as_fd()).unwrap());
        let mut buffer = [0; 16];
        for _ in 0..count {
            let received = other.receive(&mut buffer).unwrap();
            assert!(matches!(received, Received::Record(6, fds) if fds.len() == 1));
        }
        assert!(matches!(other.receive(&mut buffer), Ok(Received::End)));
        // What an end has sent outlives it, also if it had records unread.
        assert!(one.receive(&mut buffer).is_ok());
        assert!(one.try_send(b"unread", writer.as_fd()).is_err());
        let (one, other) = channel().unwrap();
        assert!(one.try_send(b"last", writer.as_fd()).unwrap());
        assert!(other.try_send(b"unread", writer.as_fd()).unwrap());
        drop(one);
        let received = other.receive(&mut buffer).unwrap();
        assert!(matches!(received, Received::Record(4, _)));
        assert!(matches!(other.receive(&mut buffer), Ok(Received::End)));
        // No descriptor is left in a channel.
        drop((other, received, writer));
        let mut text = String::new();
        assert_eq!(reader.read_to_string(&mut text).unwrap(), 0);
    }

    #[test]
    fn all_descriptors_of_a_suspect_record_are_taken() {
        let (sender, receiver) = pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let counts = [1, 2, SCM_MAX_FD, 0];
        for count in counts {
            let descriptors = vec![writer.as_raw_fd(); count];
            send(&sender.0, b"some", &descriptors).unwrap();
        }
        let mut buffer = [0; 5];
        let mut next = || receiver.receive_suspect(&mut buffer).unwrap();
        for count in counts {
            let suspect = next().expect("a record");
            assert_eq!((suspect.len, suspect.descriptors.len()), (4, count));
            assert!(!suspect.is_cut);
        }
        assert!(next().is_none());
        // An empty record looks like the end without them.
        send(&sender.0, b"", &[writer.as_raw_fd()]).unwrap();
        let empty = next().expect("a record");
        assert_eq!((empty.len, empty.descriptors.len()), (0, 1));
        drop(empty);
        // None is left open anywhere.
        drop(writer);
        assert_eq!(reader.read_to_string(&mut String::new()).unwrap(), 0);
    }

    #[test]
    fn unread_records_show_also_empty_ones_and_after_the_end() {
        let (sender, receiver) = pair().unwrap();
        assert!(!receiver.has_unread().unwrap());
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&sender.0, b"", &[writer.as_raw_fd()]).unwrap();
        assert!(receiver.has_unread().unwrap());
        drop((sender, writer));
        assert!(receiver.has_unread().unwrap());
        let empty = receiver.receive_suspect(&mut [0; 4]).unwrap();
        assert_eq!(empty.map(|it| it.descriptors.len()), Some(1));
        assert!(!receiver.has_unread().unwrap(), "it was the end");
        assert_eq!(reader.read_to_string(&mut String::new()).unwrap(), 0);
    }

    #[test]
    fn a_dead_reader_is_an_error() {
        let (sender, receiver) = pair().unwrap();
        drop(receiver);
        let error = sender.send(b"news", &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
