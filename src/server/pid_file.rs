//! The pid file of the process that handles the signals: the master, in base mode the manager.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Problem};

/// A pid file, removed when dropped. Forked processes exit without dropping it, so it is removed once.
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Writes it atomically: under another name first.
    ///
    /// # Errors
    /// [`ErrorKind::PidFile`](crate::ErrorKind::PidFile), with the kernel's error.
    pub(super) fn write(path: &Path) -> Result<PidFile, Error> {
        let pid = std::process::id();
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{pid}"));
        let written = fs::File::create(&draft)
            .and_then(|mut file| writeln!(file, "{pid}"))
            .and_then(|()| fs::rename(&draft, path))
            .inspect_err(|_| drop(fs::remove_file(&draft)));
        match written {
            Ok(()) => Ok(PidFile(path.to_owned())),
            Err(source) => Err(Problem::PidFile {
                path: path.to_owned(),
                source,
            }
            .into()),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            log::warn!("cannot remove the pid file {}: {error}", self.0.display());
        }
    }
}
