//! Records in one direction between two processes, with descriptors: a pair of unix(7) sockets. Like
//! [`pipe`](super::pipe), with end-of-file as the news that a process died.

use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};

use super::fault::{self, Call};

/// The most descriptors that one record carries; the kernel's limit is 253, unix(7).
pub(crate) const MOST_DESCRIPTORS: usize = 128;

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

/// Makes a pair of sockets.
pub(crate) fn pair() -> io::Result<(Sender, Receiver)> {
    fault::check(Call::Pipe2)?;
    let (sender, receiver) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )?;
    Ok((Sender(sender), Receiver(receiver)))
}

impl Sender {
    const PAUSE: Duration = Duration::from_millis(1);

    /// Sends a record with at most [`MOST_DESCRIPTORS`] descriptors, and waits while the socket is full,
    /// or while the kernel has no memory for it.
    pub(crate) fn send(&self, record: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() {
            &rights[..0]
        } else {
            &rights
        };
        loop {
            let sent = fault::check(Call::Write).and_then(|()| {
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                sendmsg::<()>(
                    self.0.as_raw_fd(),
                    &[IoSlice::new(record)],
                    control,
                    flags,
                    None,
                )
            });
            match sent {
                Ok(_) => return Ok(()),
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

impl Receiver {
    /// Returns the next record. It has fewer descriptors than were sent when this process may not open
    /// so many.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut control = [0_u64; control_words()];
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: all zero is an msghdr without name, data and control data.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
        let read = loop {
            // SAFETY: the header points to one buffer and to the control data, which outlive the call,
            // and has their lengths.
            let read = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, flags) };
            match Errno::result(read) {
                Ok(read) => break read as usize,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(error) => return Err(error.into()),
            }
        };
        let descriptors = descriptors(&message);
        match read {
            0 => Ok(Received::End),
            read => Ok(Received::Record(read, descriptors)),
        }
    }
}

/// The room for the control data of a record, in words, so that it is aligned.
const fn control_words() -> usize {
    // SAFETY: CMSG_SPACE is arithmetic.
    let bytes = unsafe { libc::CMSG_SPACE((MOST_DESCRIPTORS * size_of::<RawFd>()) as u32) };
    (bytes as usize).div_ceil(size_of::<u64>())
}

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
    fn a_dead_reader_is_an_error() {
        let (sender, receiver) = pair().unwrap();
        drop(receiver);
        let error = sender.send(b"news", &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
