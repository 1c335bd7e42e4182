//! The pid file of the process that handles the signals: the master, in base mode the manager.
//!
//! Its one rule: it replaces and removes a regular file alone, and only where that is no other server's.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Problem};
use crate::sys::process::ProcessId;

/// A pid file, removed when dropped. Forked processes exit without dropping it, so it is removed once.
pub(super) struct PidFile {
    path: PathBuf,
    pid: u32,
    /// Its device and inode.
    file: (u64, u64),
}

impl PidFile {
    /// Writes it atomically: under another name first.
    ///
    /// # Errors
    /// [`ErrorKind::PidFile`](crate::ErrorKind::PidFile), with the kernel's error, or with the file that is
    /// there.
    pub(super) fn write(path: &Path) -> Result<PidFile, Error> {
        let pid = std::process::id();
        if let Some(problem) = refusal(path, pid) {
            let path = path.to_owned();
            return Err(Problem::PidFileTaken { path, problem }.into());
        }
        let written = write(path, pid).map_err(|source| Problem::PidFile {
            path: path.to_owned(),
            source,
        })?;
        Ok(PidFile {
            path: path.to_owned(),
            pid,
            file: id(&written),
        })
    }

    /// Whether the file is still the one that was written.
    fn is_own(&self) -> io::Result<bool> {
        // Not through a symbolic link that has taken its place.
        let there = fs::symlink_metadata(&self.path)?;
        let is_same = there.is_file() && id(&there) == self.file;
        Ok(is_same && pid_in(&self.path)? == Some(self.pid))
    }

    fn remove(&self) -> io::Result<()> {
        match self.is_own() {
            Ok(true) => fs::remove_file(&self.path),
            Ok(false) => Err(io::Error::other("another one has taken its place")),
            Err(error) => Err(error),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            log::warn!(
                "the pid file {} is not removed: {error}",
                self.path.display()
            );
        }
    }
}

fn id(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Returns why the file that is there must not be replaced.
fn refusal(path: &Path, own: u32) -> Option<String> {
    // If there is none, or it can't be seen, writing it tells.
    let there = fs::symlink_metadata(path).ok()?.file_type();
    let kind = if there.is_symlink() {
        "a symbolic link"
    } else if there.is_dir() {
        "a directory"
    } else if there.is_char_device() || there.is_block_device() {
        "a device"
    } else if there.is_fifo() {
        "a named pipe"
    } else if there.is_socket() {
        "a socket"
    } else {
        let other = pid_in(path).ok()?.filter(|pid| *pid != own)?;
        let process = i32::try_from(other).ok().and_then(ProcessId::find)?;
        let name = process.name();
        return Some(format!(
            "names process {other}{name}, which runs: stop that one first, or remove the file if it is no server"
        ));
    };
    Some(format!("is {kind}: name a file of its own"))
}

/// Returns the pid in a file, if there is nothing else in it.
fn pid_in(path: &Path) -> io::Result<Option<u32>> {
    let mut text = String::new();
    // Another process may put a link or a named pipe there at any time: the first is refused, and the second not waited
    // for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let read = file.take(32).read_to_string(&mut text);
    match read {
        Ok(_) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the file, and returns what it is.
fn write(path: &Path, pid: u32) -> io::Result<Metadata> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{pid}"));
    let draft = PathBuf::from(draft);
    // That of an earlier server with this pid, as in a container. A link is removed, and not its target.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Fails if anything is there, also a symbolic link.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&draft)?;
    let written = writeln!(file, "{pid}").and_then(|()| fs::rename(&draft, path));
    match written {
        Ok(()) => file.metadata(),
        Err(error) => {
            // If it can't be removed either, the first error is the one to know.
            let _ = fs::remove_file(&draft);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_regular_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("target"), "precious").unwrap();
        symlink(at("target"), at("link")).unwrap();
        symlink(at("nothing"), at("dangling")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["link", "dangling", "folder", "socket", "pipe"] {
            let error = PidFile::write(&at(name)).err().unwrap().to_string();
            assert!(error.contains(name) && error.contains(" is a "), "{error}");
        }
        assert_eq!(fs::read_to_string(at("target")).unwrap(), "precious");
        assert!(!at("nothing").exists());
    }

    /// On a copy of `/dev/null`, which only root can make.
    #[test]
    fn a_device_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("null");
        let (kind, mode) = (
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::S_IRWXU,
        );
        let number = nix::sys::stat::makedev(1, 3);
        if nix::sys::stat::mknod(&path, kind, mode, number).is_err() {
            return eprintln!("skipped: no device can be made here");
        }
        let error = PidFile::write(&path).err().unwrap().to_string();
        assert!(error.contains("is a device"), "{error}");
        assert!(fs::metadata(&path).unwrap().file_type().is_char_device());
    }

    #[test]
    fn a_file_that_names_a_living_process_is_refused_and_any_other_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        fs::write(&path, format!("{}\n", nix::unistd::getppid())).unwrap();
        let error = PidFile::write(&path).err().unwrap().to_string();
        assert!(error.contains("which runs"), "{error}");
        let own = std::process::id().to_string();
        for stale in ["", "4194305\n", "0", "-1", "no pid", &own] {
            fs::write(&path, stale).unwrap();
            let written = PidFile::write(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap().trim(), own, "{stale}");
            drop(written);
            assert!(!path.exists(), "{stale}");
        }
    }

    #[test]
    fn only_the_own_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let other = folder.path().join("other");
        let replaced: [&dyn Fn(); 3] = [
            &|| fs::write(&path, "1\n").unwrap(),
            &|| {
                fs::write(&other, format!("{}\n", std::process::id())).unwrap();
                fs::rename(&other, &path).unwrap();
            },
            &|| {
                fs::rename(&path, &other).unwrap();
                symlink(&other, &path).unwrap();
            },
        ];
        for replace in replaced {
            let written = PidFile::write(&path).unwrap();
            replace();
            drop(written);
            assert!(
                fs::symlink_metadata(&path).is_ok(),
                "it is another's by now"
            );
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_takes_the_place_of_the_file_is_neither_followed_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(pid_in(&at("pipe")).unwrap(), None);
        fs::write(at("target"), "7\n").unwrap();
        symlink(at("target"), at("link")).unwrap();
        assert!(pid_in(&at("link")).is_err());
        assert_eq!(pid_in(&at("target")).unwrap(), Some(7));
    }
}
