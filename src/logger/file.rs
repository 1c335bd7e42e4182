//! A log file, which each process opens again when it is told to.
//!
//! Its one rule: a file that can't be opened again stays as it was. A worker may lack the rights that the process had
//! which opened it first.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::sys::standard;
use crate::sys::stream::{self, Cut, Stream};

pub(super) struct LogFile {
    path: PathBuf,
    fd: OwnedFd,
    stream: Stream,
    id: stream::FileId,
    /// The notice at the last opening.
    seen: u32,
}

impl LogFile {
    /// Opens a file to append to, and makes it if there is none: its mode is 0640 less the umask.
    pub(super) fn open(path: &Path) -> io::Result<LogFile> {
        // A pipe without a reader is an error, and nothing to wait for.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let fd = standard::above(file.into())?;
        let (stream, id) = (Stream::of(fd.as_raw_fd()), stream::file_id(&fd)?);
        Ok(LogFile {
            path: path.to_owned(),
            fd,
            stream,
            id,
            seen: 0,
        })
    }

    /// Opens the path again if the notice has changed.
    ///
    /// # Errors
    /// It can't be opened; the old file stays.
    pub(super) fn follow(&mut self, notice: u32) -> io::Result<()> {
        if self.seen == notice {
            return Ok(());
        }
        self.seen = notice;
        let mut again = LogFile::open(&self.path)?;
        again.seen = notice;
        self.replace(again);
        Ok(())
    }

    fn replace(&mut self, again: LogFile) {
        let is_own = self.is_own();
        let before = std::mem::replace(self, again);
        if !is_own {
            // Not this log's to close any more.
            let _number = before.fd.into_raw_fd();
        }
    }

    /// Whether the descriptor still names the file: a callback may have closed it, and its number may stand for a
    /// database by now.
    fn is_own(&self) -> bool {
        stream::file_id(&self.fd).is_ok_and(|id| id == self.id)
    }

    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Cut> {
        if !self.is_own() {
            let again = LogFile::open(&self.path).map_err(|error| Cut { written: 0, error })?;
            let seen = self.seen;
            self.replace(again);
            self.seen = seen;
        }
        self.stream.write(lines)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_appended_to_and_opened_again_on_notice_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        fs::write(&path, "before\n").unwrap();
        let mut log = LogFile::open(&path).unwrap();
        log.write(b"one\n").unwrap();
        fs::rename(&path, &old).unwrap();
        log.follow(0).unwrap();
        log.write(b"two\n").unwrap();
        log.follow(1).unwrap();
        log.write(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "before\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o640, 0);
    }

    #[test]
    fn the_old_file_stays_when_the_path_cannot_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let sub = folder.path().join("sub");
        fs::create_dir(&sub).unwrap();
        let path = sub.join("log");
        let mut log = LogFile::open(&path).unwrap();
        let moved = folder.path().join("moved");
        fs::rename(&sub, &moved).unwrap();
        assert!(log.follow(1).is_err());
        log.write(b"line\n").unwrap();
        assert_eq!(fs::read_to_string(moved.join("log")).unwrap(), "line\n");
    }
}
