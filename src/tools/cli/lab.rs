//! `tine lab`: its arguments, its output and its exit status.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nix::unistd::{AccessFlags, access};

use crate::lab::{
    EXPERIMENTS, Experiment, Lesson, Picture, Setting, Silence, Stop, Text, Voice, page, picture,
    run,
};

pub(super) const EXIT_STATUS: &[(u8, &str)] = &[
    (0, "every claim holds on this kernel"),
    (1, "one does not, or an experiment could not run"),
    (2, "the command line is wrong"),
    (INTERRUPTED, "interrupted"),
];

/// Show, on this machine, how TCP connections go wrong.
///
/// Each experiment sets up both ends of a connection over loopback, drives them, shows the kernel's own
/// socket table, and checks its lesson against that table. Without a name the experiments are listed;
/// `all` runs all of them, and `tine lab four-way` is the one to begin with. No privilege is needed; with
/// CAP_NET_RAW the segments in the pictures are captured, without it they are inferred.
#[derive(Args)]
#[command(after_help = super::exit_status(EXIT_STATUS))]
pub(crate) struct LabArguments {
    /// An experiment, or `all`.
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,

    /// Draw the pictures into a file, one below the other.
    #[arg(long, value_name = "FILE", requires = "name")]
    svg: Option<PathBuf>,

    /// Write text and pictures into one page that needs no other file.
    #[arg(long, value_name = "FILE", requires = "name")]
    html: Option<PathBuf>,

    /// Wait for Enter before each step.
    #[arg(long, conflicts_with = "json", requires = "name")]
    pause: bool,

    /// Where an experiment is about a timer of the kernel, wait for the real timer, for SECONDS at most
    /// (most timers take 60), instead of showing a short equivalent.
    #[arg(long, value_name = "SECONDS", value_parser = super::values::seconds, requires = "name")]
    slow: Option<Duration>,
}

impl LabArguments {
    pub(crate) fn run(self) -> ExitCode {
        match self.run_named() {
            Ok(status) => status,
            Err(Failure::Line(problem)) => {
                super::complain(problem);
                ExitCode::from(2)
            }
            // A reader that closed the pipe has seen enough.
            Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                ExitCode::SUCCESS
            }
            Err(Failure::Output(error)) => {
                super::complain(format_args!("cannot write the output: {error}"));
                ExitCode::FAILURE
            }
        }
    }

    fn run_named(&self) -> Result<ExitCode, Failure> {
        let Some(name) = &self.name else {
            list(self.json)?;
            return Ok(ExitCode::SUCCESS);
        };
        let is_it = |experiment: &&Experiment| experiment.name == name;
        let chosen: Vec<&Experiment> = match name.as_str() {
            "all" => EXPERIMENTS.iter().collect(),
            _ => EXPERIMENTS.iter().filter(is_it).collect(),
        };
        if chosen.is_empty() {
            let problem = format!("there is no experiment {name:?}; `tine lab` lists them");
            return Err(Failure::Line(problem));
        }
        let svg = self.svg.as_deref().map(Target::open).transpose()?;
        let html = self.html.as_deref().map(Target::open).transpose()?;
        let interrupted = interrupted().map_err(Failure::Output)?;
        let told = if name == "all" && !self.pause {
            self.run_all(&chosen, &interrupted)?
        } else {
            self.tell(&chosen, &interrupted)?
        };
        let (lessons, status) = told;
        if interrupted.load(Ordering::Relaxed) {
            // A partial result must not overwrite a complete file.
            return Ok(ExitCode::from(INTERRUPTED));
        }
        if self.json {
            let one = lessons.first().filter(|_| name != "all");
            let json = one.map_or_else(|| to_json(&lessons), to_json)?;
            print(&(json + "\n"))?;
        }
        if let Some(target) = svg {
            let pictures: Vec<Picture> = lessons
                .iter()
                .flat_map(|lesson| lesson.pictures.clone())
                .collect();
            target.write(&picture::stack(&pictures))?;
        }
        if let Some(target) = html {
            target.write(&page(&lessons, &setting()))?;
        }
        Ok(status)
    }

    /// Runs experiments, and prints each step.
    fn tell(
        &self,
        chosen: &[&Experiment],
        interrupted: &Arc<AtomicBool>,
    ) -> Result<(Vec<Lesson>, ExitCode), Failure> {
        let (mut lessons, mut status) = (Vec::new(), ExitCode::SUCCESS);
        for experiment in chosen {
            let mut text = Text::new(self.pause.then(|| Arc::clone(interrupted)));
            let voice: &mut dyn Voice = if self.json { &mut Silence } else { &mut text };
            let (lesson, outcome) = run(experiment, voice, self.slow, Arc::clone(interrupted));
            lessons.push(lesson);
            match (outcome, text.broken) {
                (Err(Stop::Output(error)), _) | (Ok(()), Some(error)) => {
                    return Err(Failure::Output(error));
                }
                (Ok(()), None) => {}
                (Err(stop), _) => {
                    complain(experiment, &stop);
                    status = status_of(&stop);
                    if matches!(stop, Stop::Interrupted) {
                        break;
                    }
                }
            }
        }
        Ok((lessons, status))
    }

    /// Runs experiments, and prints one line each, and each step of those with a check that failed.
    fn run_all(
        &self,
        chosen: &[&Experiment],
        interrupted: &Arc<AtomicBool>,
    ) -> Result<(Vec<Lesson>, ExitCode), Failure> {
        let bar = progress(chosen.len());
        let (mut lessons, mut status) = (Vec::new(), ExitCode::SUCCESS);
        for experiment in chosen {
            bar.set_message(experiment.name);
            let (lesson, outcome) =
                run(experiment, &mut Silence, self.slow, Arc::clone(interrupted));
            bar.inc(1);
            let told = bar.suspend(|| {
                if !self.json {
                    let mut text = Text::new(None);
                    text.summarize(&lesson);
                    if matches!(outcome, Err(Stop::Differs)) {
                        text.retell(&lesson);
                    }
                    if let Some(error) = text.broken {
                        return Err(Failure::Output(error));
                    }
                }
                if let Err(stop) = &outcome {
                    complain(experiment, stop);
                }
                Ok(())
            });
            told?;
            lessons.push(lesson);
            if let Err(stop) = outcome {
                status = status_of(&stop);
                if matches!(stop, Stop::Interrupted) {
                    break;
                }
            }
        }
        bar.finish_and_clear();
        Ok((lessons, status))
    }
}

/// The exit status after an interrupt, as shells have it for SIGINT.
const INTERRUPTED: u8 = 130;

enum Failure {
    /// The command line is wrong, or names a file that can't be written: no experiment ran.
    Line(String),
    /// The output could not be written.
    Output(io::Error),
}

fn complain(experiment: &Experiment, stop: &Stop) {
    super::complain(format_args!("{}: {stop}", experiment.name));
}

fn status_of(stop: &Stop) -> ExitCode {
    ExitCode::from(match stop {
        Stop::Differs | Stop::Cannot(_) | Stop::Output(_) => 1,
        Stop::Interrupted => INTERRUPTED,
    })
}

fn list(json: bool) -> Result<(), Failure> {
    if json {
        let entry = |it: &Experiment| serde_json::json!({ "name": it.name, "title": it.title, "question": it.question });
        let entries: Vec<_> = EXPERIMENTS.iter().map(entry).collect();
        return print(&(to_json(&entries)? + "\n"));
    }
    let mut text = Text::new(None);
    text.list(EXPERIMENTS);
    text.broken
        .map_or(Ok(()), |error| Err(Failure::Output(error)))
}

fn to_json(what: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(what).map_err(|error| Failure::Output(error.into()))
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    printed.map_err(Failure::Output)
}

/// Returns a flag that SIGINT, SIGTERM and SIGHUP set; a second signal ends the process at once, and its
/// servers die with it.
fn interrupted() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(
            signal,
            INTERRUPTED.into(),
            Arc::clone(&flag),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}

fn setting() -> Setting {
    // The page can do without the kernel's version.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    Setting {
        kernel: format!("Linux {}", release.trim()),
        date,
    }
}

fn progress(experiments: usize) -> ProgressBar {
    let bar = ProgressBar::new(experiments as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A file that appears when it is complete.
enum Target<'a> {
    File {
        path: &'a Path,
        folder: &'a Path,
    },
    /// A terminal, a pipe, `/dev/null`.
    Device(File),
}

impl<'a> Target<'a> {
    /// Checks before the experiments run that the file can be written after them.
    fn open(path: &'a Path) -> Result<Target<'a>, Failure> {
        let parent = path.parent();
        let folder = parent.filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let opened = match path.metadata() {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                let device = OpenOptions::new().write(true).open(path);
                device.map(Target::Device)
            }
            _ => access(folder, AccessFlags::W_OK | AccessFlags::X_OK)
                .map(|()| Target::File { path, folder })
                .map_err(io::Error::from),
        };
        let problem = |error| format!("cannot write {}: {error}", path.display());
        opened.map_err(|error| Failure::Line(problem(error)))
    }

    fn write(self, text: &str) -> Result<(), Failure> {
        let written = match self {
            Target::File { path, folder } => tempfile::Builder::new()
                .permissions(Permissions::from_mode(0o644))
                .tempfile_in(folder)
                .and_then(|mut file| {
                    file.write_all(text.as_bytes())?;
                    file.persist(path)?;
                    Ok(())
                }),
            Target::Device(mut device) => device.write_all(text.as_bytes()),
        };
        written.map_err(Failure::Output)
    }
}
