//! A server under the load of checking clients, from its start to its orderly end.

use nix::sys::signal::Signal;

use super::crowd::{Crowd, Plan, Task};
use super::tally::Tally;
use crate::common::launch::Launch;
use crate::common::process::Process;
use crate::common::server::Server;
use crate::common::sockets::of_server;
use crate::common::{SOON, eventually};

/// The protocol. A raw server joins and cuts messages by its reads, the other one never does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    Raw,
    Length,
}

impl Framing {
    pub(crate) const BOTH: [Self; 2] = [Self::Raw, Self::Length];

    /// Its name in the table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Length => "length",
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Length => "length=4",
        }
    }
}

pub(crate) struct Trial {
    pub(crate) server: Server,
    pub(crate) manager: Process,
    crowds: Vec<Crowd>,
    framing: Framing,
    /// Workers are made to die.
    expects_deaths: bool,
    /// The outcome of the questions of finished clients, and other failed checks.
    pub(crate) tally: Tally,
}

/// A row's numbers.
pub(crate) struct Outcome {
    /// The treatment of the server.
    pub(crate) done: String,
    pub(crate) tally: Tally,
}

impl Trial {
    /// Starts `tine serve` with more attempts than are used up by chance, and without clients yet.
    pub(crate) fn start(framing: Framing, flags: &[&str]) -> Self {
        Self::launch(framing, Launch::serve(flags))
    }

    pub(crate) fn launch(framing: Framing, launch: Launch) -> Self {
        let launch = launch
            .and(&["--reactors", "2"])
            .and(&["--on-crash", "redeliver=255"]);
        Self::of(framing, launch)
    }

    /// The same in base mode, where nothing is run again.
    pub(crate) fn start_base(framing: Framing, flags: &[&str]) -> Self {
        Self::of(framing, Launch::serve(&["--mode", "base"]).and(flags))
    }

    fn of(framing: Framing, launch: Launch) -> Self {
        let server = launch
            .and(&["--workers", "2"])
            .and(&["--protocol", framing.protocol()])
            .start();
        let manager = server.manager();
        Self {
            server,
            manager,
            crowds: Vec::new(),
            framing,
            expects_deaths: false,
            tally: Tally::default(),
        }
    }

    /// Workers are made to die: that is no failure of the server.
    pub(crate) fn expect_deaths(&mut self) {
        self.expects_deaths = true;
    }

    /// Lets clients ask.
    pub(crate) fn join(&mut self, plans: &[Plan]) {
        for plan in plans {
            self.crowds.push(self.crowd(*plan));
        }
        self.crowds.iter().for_each(Crowd::is_under_way);
    }

    /// Adds clients that the caller manages.
    pub(crate) fn crowd(&self, plan: Plan) -> Crowd {
        Crowd::start(self.server.address(), self.framing == Framing::Length, plan)
    }

    /// Checks that the row shows anything; otherwise it fails.
    pub(crate) fn demand(&mut self, is_so: bool, what: &str) {
        if !is_so {
            let what = format!("not so, or not often enough: {what}");
            self.tally.complain(what);
        }
    }

    pub(crate) fn deaths(&self, how: &str) -> usize {
        let exit = format!("abnormal exit, {how}");
        self.server.log().with(&[&exit]).len()
    }

    /// Lets the clients finish, and returns the total.
    pub(crate) fn finish(&mut self) {
        self.crowds
            .iter()
            .for_each(|crowd| crowd.turn_to(Task::Finish));
        for crowd in self.crowds.drain(..) {
            self.tally.add(crowd.end());
        }
    }

    /// Lets the clients finish and the server end. It must hold no connection by then.
    pub(crate) fn end(mut self, done: String) -> Outcome {
        self.finish();
        self.no_connection_is_left();
        self.server.signal(Signal::SIGTERM);
        self.ended();
        Outcome {
            done,
            tally: self.tally,
        }
    }

    #[track_caller]
    pub(crate) fn no_connection_is_left(&self) {
        eventually(SOON, "no connection is left", || {
            of_server(self.server.address()).is_empty()
        });
    }

    /// Waits for the requested end, which must be in order and leave no process behind.
    #[track_caller]
    pub(crate) fn ended(&mut self) {
        let processes = self.server.processes();
        let status = self.server.ended(SOON);
        self.server.leaves_nothing(&processes);
        if !status.success() {
            let end = format!("the server has ended with {status}");
            self.tally.complain(end);
        }
        let bad: &[&str] = match self.expects_deaths {
            true => &["ERROR master["],
            false => &[
                "ERROR master[",
                "ERROR manager[",
                "abnormal exit",
                "did not leave",
            ],
        };
        let log = self.server.whole_log().lines();
        let is_bad = |line: &String| bad.iter().any(|words| line.contains(words));
        for line in log.into_iter().filter(is_bad) {
            self.tally.complain(line);
        }
        if !self.tally.keeps_the_promise() {
            self.keep_log();
        }
    }

    /// The cause of a failure, for the log.
    fn keep_log(&self) {
        let path = format!(
            "{}/stress-{}.log",
            env!("CARGO_TARGET_TMPDIR"),
            self.server.root.pid
        );
        match std::fs::write(&path, self.server.log().text()) {
            Ok(()) => eprintln!("  the server's log is in {path}"),
            Err(error) => eprintln!("  {path}: {error}"),
        }
    }
}
