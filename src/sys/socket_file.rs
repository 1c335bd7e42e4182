//! The file of a unix socket: made with its permissions, and removed if it is this server's.
//!
//! Its one rule: a file is removed only if it is a socket, and either this server's own or one on which nobody answers.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, fchownat};
use socket2::{Domain, SockAddr, Socket, Type};

use super::listener::Access;

/// The times that the lock of a folder is tried for, and the pause between two of them.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// The file of a listening socket of this server.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Its device and inode.
    file: (u64, u64),
    /// The process that has made it: others only have copies of this value.
    process: u32,
    is_removed: AtomicBool,
}

impl SocketFile {
    /// Removes the file, once, unless another one has taken its place: whoever connects then finds no server.
    pub(crate) fn remove(&self) {
        let is_own = self.process == std::process::id();
        if !is_own || self.is_removed.swap(true, Ordering::Relaxed) {
            return;
        }
        let removed = match fs::symlink_metadata(&self.path) {
            Ok(there) if there.file_type().is_socket() && id(&there) == self.file => {
                fs::remove_file(&self.path)
            }
            Ok(_) => Err(io::Error::other("another one has taken its place")),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            let path = self.path.display();
            log::warn!("the unix socket {path} is not removed: {error}");
        }
    }
}

fn id(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Binds a socket to a path, with these permissions. Nobody can connect before it listens.
///
/// # Errors
/// Also a file that is there, unless it is a socket on which nobody answers.
pub(super) fn bind(socket: &Socket, path: &Path, access: Access) -> io::Result<SocketFile> {
    // For its end: a callback of the user's may change to another folder.
    let absolute = std::path::absolute(path)?;
    // Two servers that start at the same moment, and find the same stale file, take turns. It is only a lock among
    // servers of this kind: where it can't be had, the second one may win.
    let _turn = lock_folder(&absolute);
    let address = SockAddr::unix(path)?;
    match bind_with_mode(socket, &address, access) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            bind_with_mode(socket, &address, access)?;
        }
        other => other?,
    }
    let file = SocketFile {
        file: id(&fs::symlink_metadata(path)?),
        path: absolute,
        process: std::process::id(),
        is_removed: AtomicBool::new(false),
    };
    match change_owner(path, access) {
        Ok(()) => Ok(file),
        Err(error) => {
            file.remove();
            Err(error)
        }
    }
}

/// The file has its mode from the first moment. This process has one thread yet, so that nothing else gets the mask.
fn bind_with_mode(socket: &Socket, address: &SockAddr, access: Access) -> io::Result<()> {
    let Some(mode) = access.mode else {
        return socket.bind(address);
    };
    let all = Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO;
    let before = umask(all - Mode::from_bits_truncate(mode));
    let bound = socket.bind(address);
    umask(before);
    bound
}

fn change_owner(path: &Path, access: Access) -> io::Result<()> {
    if access.user.is_none() && access.group.is_none() {
        return Ok(());
    }
    // Not through a symbolic link that has taken its place.
    fchownat(
        AT_FDCWD,
        path,
        access.user.map(Uid::from_raw),
        access.group.map(Gid::from_raw),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .map_err(|error| {
        let error = io::Error::from(error);
        let text = format!("its owner cannot be changed: {error}; that needs root or CAP_CHOWN");
        io::Error::other(text)
    })
}

/// Removes a socket that a server has left behind.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        // It has just gone.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !there.file_type().is_socket() {
        let kind = kind_of(&there);
        return Err(refusal(&format!(
            "{kind} is there: name another path, or remove it yourself if nobody needs it"
        )));
    }
    let client = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match client.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        // A full queue is that of a server, too.
        Ok(()) => return Err(answered()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(answered()),
        Err(error) => {
            return Err(refusal(&format!(
                "a socket is there, and whether a server listens on it is unknown ({error}): name another path, or remove it \
                 yourself"
            )));
        }
    }
    // Another process may have replaced it since.
    let now = fs::symlink_metadata(path)?;
    let is_same = |a: &Metadata, b: &Metadata| {
        id(a) == id(b) && (a.ctime(), a.ctime_nsec()) == (b.ctime(), b.ctime_nsec())
    };
    match is_same(&there, &now) {
        true => fs::remove_file(path),
        false => Err(answered()),
    }
}

fn answered() -> io::Error {
    refusal("another process listens there: stop it first, or name another path")
}

fn refusal(problem: &str) -> io::Error {
    io::Error::other(problem)
}

fn kind_of(file: &Metadata) -> &'static str {
    let kind = file.file_type();
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "a file that is no socket"
    }
}

/// Locks the folder of a file, for as long as the result lives; `None` where that is not possible.
fn lock_folder(path: &Path) -> Option<Flock<File>> {
    let mut folder = File::open(path.parent()?).ok()?;
    for _ in 0..TRIES {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Some(locked),
            Err((file, nix::Error::EWOULDBLOCK)) => folder = file,
            Err(_) => return None,
        }
        std::thread::sleep(PAUSE);
    }
    None
}

#[cfg(all(test, not(miri)))] // Miri has no unix sockets.
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;
    use crate::sys::address::{Address, UnixName};
    use crate::sys::listener::{Listener, Options};

    fn listen(path: &Path) -> io::Result<Listener> {
        let address = Address::Unix(UnixName::of(path));
        Listener::bind(0, &address, &Options::PLAIN)
    }

    #[test]
    fn a_stale_socket_is_replaced_and_anything_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "it is left behind");
        let first = listen(&path).unwrap();
        let text = listen(&path).map(drop).unwrap_err().to_string();
        assert!(text.contains("another process listens"), "{text}");
        let file = first.socket_file().unwrap();
        file.remove();
        assert!(!path.exists());
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        let text = listen(&path).map(drop).unwrap_err().to_string();
        assert!(text.contains("unknown"), "{text}");
        fs::remove_file(&path).unwrap();
        for (kind, make) in [
            ("no socket", (|path| fs::write(path, "x")) as fn(&Path) -> _),
            ("directory", |path| fs::create_dir(path)),
            ("symbolic", |path| {
                std::os::unix::fs::symlink("/nonexistent", path)
            }),
        ] {
            let path = folder.path().join(kind);
            make(&path).unwrap();
            let text = listen(&path).map(drop).unwrap_err().to_string();
            assert!(text.contains(kind) && text.contains("remove"), "{text}");
            assert!(fs::symlink_metadata(&path).is_ok(), "{kind} stays");
        }
    }

    #[test]
    fn a_file_that_has_taken_its_place_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it");
        let first = listen(&path).unwrap();
        // Both exist at the same time, so that they are two inodes.
        let other = UnixListener::bind(folder.path().join("other")).unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        first.socket_file().unwrap().remove();
        assert!(path.exists());
        drop(other);
    }
}
