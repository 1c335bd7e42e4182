//! Files with which a test controls the handlers of `tine-testbed`: callbacks wait for an event, and not for time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

/// An open gate is a file in this folder. Removed when dropped.
pub(crate) struct Gates(TempDir);

impl Gates {
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder can be made"))
    }

    /// Returns the argument for the testbed.
    pub(crate) fn flag(&self) -> String {
        format!("gates={}", self.0.path().display())
    }

    /// Lets every user read and write here.
    #[track_caller]
    pub(crate) fn allow_all(&self) {
        self.write("heard", "");
        for path in [self.0.path(), &self.path("heard")] {
            let all = fs::Permissions::from_mode(0o777);
            fs::set_permissions(path, all).expect("the folder is this user's");
        }
    }

    /// Returns the path of a file here.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Lets the callbacks go on that were told to `wait NAME`.
    #[track_caller]
    pub(crate) fn open(&self, name: &str) {
        self.write(name, "");
    }

    /// Workers that are forked from here on do not get ready before [`let_start`](Self::let_start).
    #[track_caller]
    pub(crate) fn hold_starts(&self) {
        self.write("starts", "hold");
    }

    /// Workers that are forked from here on can't start.
    #[track_caller]
    pub(crate) fn fail_starts(&self) {
        self.write("starts", "fail");
    }

    /// Workers start again.
    #[track_caller]
    pub(crate) fn let_start(&self) {
        self.write("starts", "");
    }

    /// Returns what `connect` and `close` callbacks have written so far, also in processes that have died since.
    #[track_caller]
    pub(crate) fn heard(&self) -> String {
        fs::read_to_string(self.0.path().join("heard")).expect("a callback has written a line")
    }

    /// Writes an order for a thread of the master.
    pub(crate) fn order(&self, order: &str) {
        self.write("order", order);
    }

    /// Whether a callback has written anything.
    pub(crate) fn is_heard(&self) -> bool {
        self.0.path().join("heard").exists()
    }

    /// Writes a file atomically, for readers at the same time.
    #[track_caller]
    fn write(&self, name: &str, what: &str) {
        let draft = self.0.path().join("draft");
        fs::write(&draft, what).expect("a file can be written");
        fs::rename(draft, self.0.path().join(name)).expect("a file can be renamed");
    }
}
