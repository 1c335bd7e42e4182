//! A program on a terminal: its output there, and the state in which it leaves the terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use super::{SOON, eventually, eventually_some};

/// A program on a terminal of its own. It is killed when dropped.
pub(crate) struct OnTerminal {
    child: Child,
    keys: File,
    terminal: OwnedFd,
    drawn: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    /// Starts it on a terminal of 120 columns and 36 lines.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let size = Winsize {
            ws_row: 36,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(Some(&size), None).expect("a pseudo terminal");
        let side = || {
            pair.slave
                .try_clone()
                .expect("a descriptor can be duplicated")
        };
        command
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(side())
            .stdout(side())
            .stderr(side());
        let child = command.spawn().expect("the program can be started");
        let keys = File::from(pair.master);
        let drawn: Arc<Mutex<Vec<u8>>> = Arc::default();
        let mut screen = keys.try_clone().expect("a descriptor can be duplicated");
        let kept = Arc::clone(&drawn);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut bytes) {
                kept.lock().unwrap().extend(&bytes[..n]);
            }
        });
        Self {
            child,
            keys,
            terminal: pair.slave,
            drawn,
        }
    }

    /// Returns everything that was written to the terminal, with its escape sequences.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().unwrap()).into_owned()
    }

    #[track_caller]
    pub(crate) fn shows(&self, words: &str) {
        eventually(SOON, format_args!("{words:?} is drawn"), || {
            self.text().contains(words)
        });
    }

    #[track_caller]
    pub(crate) fn press(&mut self, keys: &str) {
        self.keys
            .write_all(keys.as_bytes())
            .expect("keys can be pressed");
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid is an i32");
        kill(Pid::from_raw(pid), signal).expect("it can be signalled");
    }

    /// Whether the terminal echoes input and delivers it by the line, as for a shell.
    pub(crate) fn is_as_it_was(&self) -> bool {
        let flags = tcgetattr(&self.terminal).expect("a terminal").local_flags;
        flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        eventually_some(SOON, "the program ends", || {
            self.child.try_wait().expect("a child can be waited for")
        })
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the terminal\n{}\n---", self.text());
        }
    }
}
