use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe;

use super::*;

const LINE: &[u8] = b"one line of a log\n";

/// Writes lines until there is no room, and returns how many were written. A write that waits hangs here.
#[track_caller]
fn fill(stream: &mut Stream) -> usize {
    for lines in 0..1_000_000 {
        if let Err(cut) = stream.write(LINE) {
            assert_eq!(cut.error.kind(), io::ErrorKind::WouldBlock, "{cut:?}");
            return lines;
        }
    }
    panic!("it is never full");
}

fn flags(fd: impl AsFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL).unwrap())
}

#[test]
fn a_full_pipe_is_not_waited_for() {
    let (mut reader, writer) = pipe()
        .map(|(reader, writer)| (File::from(reader), writer))
        .unwrap();
    let mut stream = Stream::of(writer.as_raw_fd());
    let lines = fill(&mut stream);
    assert!(!flags(&writer).contains(OFlag::O_NONBLOCK), "it is shared");
    let mut taken = vec![0; lines * LINE.len()];
    reader.read_exact(&mut taken).unwrap();
    assert!(
        taken.chunks(LINE.len()).all(|line| line == LINE),
        "no line is torn"
    );
    stream.write(LINE).unwrap();
}

#[test]
fn a_full_pipe_that_does_not_block_is_no_other_case() {
    let (_reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    assert!(fill(&mut Stream::of(writer.as_raw_fd())) > 0);
}

#[test]
fn a_kernel_without_nowait_has_other_ways_for_a_pipe() {
    let (_reader, writer) = pipe().unwrap();
    let mut stream = Stream::of(writer.as_raw_fd());
    stream.write(LINE).unwrap();
    stream.way = stream.own().unwrap();
    assert!(fill(&mut stream) > 0);
    let (_reader, writer) = pipe().unwrap();
    let mut stream = Stream::of(writer.as_raw_fd());
    stream.write(LINE).unwrap();
    stream.way = Way::Polled;
    assert!(fill(&mut stream) > 0);
    assert!(!flags(&writer).contains(OFlag::O_NONBLOCK), "it is shared");
}

#[test]
fn a_long_text_is_cut_between_pieces_and_the_next_one_begins_a_line() {
    let (mut reader, writer) = pipe()
        .map(|(reader, writer)| (File::from(reader), writer))
        .unwrap();
    let mut stream = Stream::of(writer.as_raw_fd());
    let long = [&vec![b'x'; 100 * PIPE_BUF][..], b"\n"].concat();
    let cut = stream.write(&long).unwrap_err();
    assert!(
        cut.written > 0 && cut.written.is_multiple_of(PIPE_BUF),
        "{cut:?}"
    );
    let mut taken = vec![0; cut.written];
    reader.read_exact(&mut taken).unwrap();
    stream.write(LINE).unwrap();
    drop(writer);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [b"\n", LINE].concat());
}

#[test]
fn a_pipe_without_a_reader_is_an_error_and_kills_nothing() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let cut = Stream::of(writer.as_raw_fd()).write(LINE).unwrap_err();
    assert_eq!(cut.error.kind(), io::ErrorKind::BrokenPipe);
}

/// A terminal that was stopped, as by Ctrl-S, and a terminal that nobody reads.
#[test]
fn a_terminal_is_not_waited_for() {
    for stops in [true, false] {
        let pair = nix::pty::openpty(None, None).unwrap();
        let mut stream = Stream::of(pair.slave.as_raw_fd());
        if stops {
            stream.write(LINE).unwrap();
            nix::sys::termios::tcflow(&pair.slave, nix::sys::termios::FlowArg::TCOOFF).unwrap();
            assert_eq!(
                fill(&mut stream),
                0,
                "nothing is written while it is stopped"
            );
            nix::sys::termios::tcflow(&pair.slave, nix::sys::termios::FlowArg::TCOON).unwrap();
            stream.write(LINE).unwrap();
        } else {
            assert!(fill(&mut stream) > 0);
        }
        assert!(
            !flags(&pair.slave).contains(OFlag::O_NONBLOCK),
            "it is shared"
        );
    }
}

#[test]
fn full_sockets_are_not_waited_for() {
    let (near, _far) = UnixStream::pair().unwrap();
    assert!(fill(&mut Stream::of(near.as_raw_fd())) > 0);
    assert!(!flags(&near).contains(OFlag::O_NONBLOCK), "it is shared");
    let (near, _far) = UnixDatagram::pair().unwrap();
    assert!(fill(&mut Stream::of(near.as_raw_fd())) > 0);
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    let cut = Stream::of(near.as_raw_fd()).write(LINE).unwrap_err();
    assert_eq!(cut.error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_file_is_written_where_its_own_offset_is() {
    let file = tempfile::tempfile().unwrap();
    (&file).write_all(b"before\n").unwrap();
    Stream::of(file.as_raw_fd()).write(LINE).unwrap();
    (&file).write_all(b"after\n").unwrap();
    let mut text = String::new();
    std::io::Seek::rewind(&mut &file).unwrap();
    (&file).read_to_string(&mut text).unwrap();
    assert_eq!(text, "before\none line of a log\nafter\n");
}

#[test]
fn a_device_without_room_is_an_error() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let cut = Stream::of(full.as_raw_fd()).write(LINE).unwrap_err();
    assert_eq!(cut.error.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(
        Stream::of(1 << 20).write(LINE).unwrap_err().written,
        0,
        "closed"
    );
}

/// The descriptor becomes another file, and the stream's own one another's.
#[test]
fn a_number_that_stands_for_another_file_is_noticed() {
    let pair = nix::pty::openpty(None, None).unwrap();
    let target: OwnedFd = pair.slave.try_clone().unwrap();
    let mut stream = Stream::of(target.as_raw_fd());
    stream.write(LINE).unwrap();
    let Way::Own(own, _) = &stream.way else {
        panic!("a terminal is opened once more");
    };
    let mut database = tempfile::tempfile().unwrap();
    let number = own.as_raw_fd();
    // SAFETY: both are open; the stream's own one is replaced, as by a callback that closes all it finds.
    assert_eq!(unsafe { libc::dup2(database.as_raw_fd(), number) }, number);
    stream.write(LINE).unwrap();
    let mut log = tempfile::tempfile().unwrap();
    // SAFETY: both are open, and the test owns them.
    unsafe { libc::dup2(log.as_raw_fd(), target.as_raw_fd()) };
    stream.write(LINE).unwrap();
    let mut text = Vec::new();
    std::io::Seek::rewind(&mut log).unwrap();
    log.read_to_end(&mut text).unwrap();
    assert_eq!(text, LINE, "the file is the log now");
    std::io::Seek::rewind(&mut database).unwrap();
    assert_eq!(
        database.read_to_end(&mut Vec::new()).unwrap(),
        0,
        "nothing in the database"
    );
    // SAFETY: the number is the database's second descriptor, and nothing else closes it.
    assert_eq!(unsafe { libc::close(number) }, 0);
}
