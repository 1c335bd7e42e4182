//! How an experiment reports: steps, findings, claims, advice, pictures.

use super::Lab;
use super::end::{End, Ends};
use super::lesson::{Check, Finding, Row, Step};
use super::picture::{Chart, Ladder, Picture, Side};
use super::record::Trouble;
use super::stop::{Stop, Trying};

impl Lab<'_> {
    /// Begins a step.
    pub(crate) fn step(&mut self, did: &str) -> Result<(), Stop> {
        self.go_on()?;
        let step = Step {
            did: did.to_owned(),
            findings: Vec::new(),
        };
        let number = self.lesson.steps.len() + 1;
        let told = self.voice.step(number, &step);
        self.lesson.steps.push(step);
        self.go_on()?;
        told.map_err(Stop::Output)
    }

    pub(super) fn find(&mut self, finding: Finding) {
        self.voice.finds(&finding);
        if let Some(step) = self.lesson.steps.last_mut() {
            step.findings.push(finding);
        }
    }

    /// Explains the findings before.
    pub(crate) fn means(&mut self, meaning: &str) {
        self.find(Finding::Meaning(meaning.to_owned()));
    }

    /// Shows a command that was run, in a form that the reader can run too.
    pub(crate) fn ran(&mut self, command: &str) {
        self.find(Finding::Command(command.to_owned()));
    }

    /// Shows a line that a program has printed.
    pub(crate) fn printed(&mut self, line: &str) {
        self.find(Finding::Printed(line.to_owned()));
    }

    /// Adds a remedy, for the end of the lesson.
    pub(crate) fn advise(&mut self, advice: &str) {
        self.lesson.advice.push(advice.to_owned());
    }

    /// Reports whether a claim holds, with a figure or the state that was found instead.
    ///
    /// # Errors
    /// `Differs` if it does not hold.
    pub(crate) fn check(&mut self, claim: &str, held: bool, seen: &str) -> Result<(), Stop> {
        self.find(Finding::Check(Check {
            claim: claim.to_owned(),
            held,
            seen: (!seen.is_empty()).then(|| seen.to_owned()),
        }));
        if held { Ok(()) } else { Err(Stop::Differs) }
    }

    /// Checks the error that the kernel has for the program of an end, an errno.
    pub(crate) fn check_error(&mut self, of: &End, claim: &str, errno: i32) -> Result<(), Stop> {
        let error = of.error().trying("ask a socket for its error")?;
        let seen = error
            .as_ref()
            .map_or("none".to_owned(), ToString::to_string);
        let is_so = error.and_then(|error| error.raw_os_error()) == Some(errno);
        self.check(claim, is_so, &seen)
    }

    pub(crate) fn draw(&mut self, chart: Chart) {
        self.lesson.pictures.push(Picture::Chart(chart));
    }

    /// Draws the life of a connection that was followed, or says why there is no picture of it. If the
    /// kernel contradicts its own segments, the experiment fails when it ends.
    pub(crate) fn draw_life(&mut self, title: &str, ends: Ends) {
        let names = Side::BOTH.map(|side| self.name_of(ends, side));
        if let Some(recorder) = &self.recorder {
            let ladder = recorder.ladder(title, ends, names);
            self.draw_ladder(title, ladder);
        }
    }

    pub(super) fn draw_ladder(&mut self, title: &str, ladder: Result<Ladder, Trouble>) {
        match ladder {
            Ok(ladder) => self.lesson.pictures.push(Picture::Ladder(ladder)),
            Err(Trouble::Unclear(why)) => {
                self.means(&format!("There is no picture \"{title}\": {why}."));
            }
            Err(Trouble::Contradiction(what)) => {
                let claim = "each state is the one that the segments imply";
                // Kept for the end: the other steps do not depend on a picture.
                self.contradicted |= self.check(claim, false, &what).is_err();
            }
        }
    }

    /// Returns the first process that held that end in a table of this lesson, or the name of the side.
    fn name_of(&self, ends: Ends, side: Side) -> String {
        let (local, remote) = ends.of(side);
        let findings = self.lesson.steps.iter().flat_map(|step| &step.findings);
        let rows = findings.filter_map(|finding| match finding {
            Finding::Sockets(rows) => Some(rows),
            _ => None,
        });
        let is_it = |row: &&Row| (row.local, row.remote) == (local, remote);
        let owner = rows
            .flatten()
            .filter(is_it)
            .find_map(|row| row.owners.first());
        owner.cloned().unwrap_or_else(|| match side {
            Side::Client => "client".to_owned(),
            Side::Server => "server".to_owned(),
        })
    }
}
