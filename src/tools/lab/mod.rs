//! Experiments with the ways in which TCP connections go wrong: each sets up both ends, drives them, reads
//! the kernel's own socket table, explains it, and checks each claim against it.
//!
//! Runs in a process of its own, with the servers that it needs as its children. Its one rule: every
//! process that an experiment has started ends with it, however it ends.

mod acting;
mod end;
mod experiments;
mod lesson;
mod page;
mod palette;
pub(crate) mod picture;
mod record;
mod saying;
mod seeing;
mod server;
mod stop;
mod text;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub(crate) use self::end::{Listening, Sharing};
pub(crate) use self::experiments::{EXPERIMENTS, Experiment};
pub(crate) use self::lesson::Lesson;
use self::lesson::{Finding, Step};
pub(crate) use self::page::{Setting, page};
pub(crate) use self::picture::Picture;
use self::record::Recorder;
pub(crate) use self::stop::Stop;
use self::stop::Trying;
pub(crate) use self::text::Text;
use crate::sockets::SocketTable;
use crate::sockets::counters::TimeWaits;

/// Time to wait for an expected state. The kernel reaches most within 50 ms, and those that need a
/// retransmission within a second or two; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// More sockets in TIME_WAIT than an experiment makes.
const TIME_WAITS: u64 = 100;

/// Any free port of the loopback address.
pub(crate) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Presents an experiment while it runs.
pub(crate) trait Voice {
    fn begins(&mut self, lesson: &Lesson);
    /// Begins the step with this number, from 1. May wait for the reader.
    ///
    /// # Errors
    /// When the output can't be written.
    fn step(&mut self, number: usize, step: &Step) -> io::Result<()>;
    fn finds(&mut self, finding: &Finding);
    fn ends(&mut self, lesson: &Lesson);
}

/// Prints nothing.
pub(crate) struct Silence;

impl Voice for Silence {
    fn begins(&mut self, _: &Lesson) {}
    fn step(&mut self, _: usize, _: &Step) -> io::Result<()> {
        Ok(())
    }
    fn finds(&mut self, _: &Finding) {}
    fn ends(&mut self, _: &Lesson) {}
}

/// The tools and the record of one experiment.
pub(crate) struct Lab<'a> {
    voice: &'a mut dyn Voice,
    interrupted: Arc<AtomicBool>,
    /// Maximum time to wait for real timers, with `--slow`.
    pub(crate) slow: Option<Duration>,
    lesson: Lesson,
    table: SocketTable,
    /// The ports of the servers: sockets with one of them are shown.
    ports: Vec<u16>,
    recorder: Option<Recorder>,
    /// A picture's states did not follow from its segments.
    contradicted: bool,
}

/// Runs one experiment. Returns its lesson also when it stops early.
pub(crate) fn run(
    experiment: &Experiment,
    voice: &mut dyn Voice,
    slow: Option<Duration>,
    interrupted: Arc<AtomicBool>,
) -> (Lesson, Result<(), Stop>) {
    let begin = Instant::now();
    let lesson = Lesson {
        name: experiment.name,
        title: experiment.title,
        question: experiment.question,
        steps: Vec::new(),
        advice: Vec::new(),
        pictures: Vec::new(),
        held: false,
        took: Duration::ZERO,
    };
    let table = match prepare() {
        Ok(table) => table,
        Err(stop) => return (lesson, Err(stop)),
    };
    voice.begins(&lesson);
    let mut lab = Lab {
        voice,
        interrupted,
        slow,
        lesson,
        table,
        ports: Vec::new(),
        recorder: None,
        contradicted: false,
    };
    let mut outcome = (experiment.run)(&mut lab);
    if lab.contradicted && outcome.is_ok() {
        outcome = Err(Stop::Differs);
    }
    let Lab {
        mut lesson, voice, ..
    } = lab;
    lesson.held = outcome.is_ok();
    lesson.took = begin.elapsed();
    voice.ends(&lesson);
    (lesson, outcome)
}

/// Checks and opens the facilities that every experiment needs.
fn prepare() -> Result<SocketTable, Stop> {
    match TimeWaits::now().trying("read the number of sockets in TIME_WAIT")? {
        TimeWaits { most: 0, .. } => {
            let problem = "net.ipv4.tcp_max_tw_buckets is 0: this kernel keeps no TIME_WAIT";
            return Err(Stop::Cannot(problem.to_owned()));
        }
        TimeWaits { now, most } if now + TIME_WAITS > most => {
            return Err(Stop::Cannot(format!(
                "{now} sockets are in TIME_WAIT, and the kernel keeps {most} at most \
                 (net.ipv4.tcp_max_tw_buckets), so that those of an experiment may be missing: try again in \
                 a minute"
            )));
        }
        TimeWaits { .. } => {}
    }
    SocketTable::open().trying("ask the kernel about its sockets (sock_diag)")
}

#[cfg(test)]
mod tests {
    use super::record::Trouble;
    use super::*;
    use crate::sockets::State::{CloseWait, Established};

    /// Runs an experiment.
    fn outcome(run: fn(&mut Lab<'_>) -> Result<(), Stop>) -> (Lesson, Result<(), Stop>) {
        let experiment = Experiment {
            name: "made-up",
            title: "",
            question: "",
            run,
        };
        super::run(&experiment, &mut Silence, None, Arc::default())
    }

    #[test]
    fn a_claim_that_the_kernel_does_not_confirm_stops_the_experiment() {
        let (lesson, outcome) = outcome(|lab| {
            lab.step("A client connects, and does not close.")?;
            let (client, _server, _listening) = lab.connection()?;
            let server_is = client.ends.server_is(CloseWait);
            lab.see_within(
                Duration::from_millis(10),
                "the server is in CLOSE_WAIT",
                &[server_is],
            )
        });
        assert!(matches!(outcome, Err(Stop::Differs)), "{outcome:?}");
        assert!(!lesson.held);
        let Some(Finding::Check(last)) = lesson.steps[0].findings.last() else {
            panic!("{lesson:#?}");
        };
        assert_eq!(
            (last.held, last.seen.as_deref()),
            (false, Some("server ESTABLISHED"))
        );
    }

    #[test]
    fn a_socket_that_another_process_holds_is_not_as_expected() {
        let (_, outcome) = outcome(|lab| {
            lab.step("A client connects.")?;
            let (client, _server, _listening) = lab.connection()?;
            let held = client.ends.server_is(Established).held_by("master");
            lab.see_within(Duration::from_millis(10), "a master holds it", &[held])
        });
        assert!(matches!(outcome, Err(Stop::Differs)), "{outcome:?}");
    }

    #[test]
    fn a_picture_that_contradicts_itself_fails_the_experiment_when_it_ends() {
        let (lesson, outcome) = outcome(|lab| {
            lab.step("A picture is drawn.")?;
            let contradiction = Trouble::Contradiction("the kernel showed …".to_owned());
            lab.draw_ladder("A picture", Err(contradiction));
            lab.step("The experiment goes on.")
        });
        assert!(matches!(outcome, Err(Stop::Differs)), "{outcome:?}");
        assert!(!lesson.held && lesson.pictures.is_empty());
        assert_eq!(lesson.steps.len(), 2);
        let [Finding::Check(check)] = lesson.steps[0].findings.as_slice() else {
            panic!("{lesson:#?}");
        };
        assert!(!check.held);
    }

    #[test]
    fn a_picture_that_is_not_possible_has_its_reason_in_its_place() {
        let (lesson, outcome) = outcome(|lab| {
            lab.step("A picture is drawn.")?;
            lab.draw_ladder("A picture", Err(Trouble::Unclear("no reason".to_owned())));
            Ok(())
        });
        assert!(outcome.is_ok() && lesson.held && lesson.pictures.is_empty());
        let [Finding::Meaning(why)] = lesson.steps[0].findings.as_slice() else {
            panic!("{lesson:#?}");
        };
        assert_eq!(why, "There is no picture \"A picture\": no reason.");
    }

    #[test]
    fn an_interrupted_experiment_stops() {
        let experiment = Experiment {
            name: "made-up",
            title: "",
            question: "",
            run: |lab| lab.wait(Duration::from_secs(60)),
        };
        let interrupted = Arc::new(AtomicBool::new(true));
        let (lesson, outcome) = super::run(&experiment, &mut Silence, None, interrupted);
        assert!(matches!(outcome, Err(Stop::Interrupted)), "{outcome:?}");
        assert!(!lesson.held);
    }
}
