//! `tine man`: the manual pages, made from the help and from the sections that the help lacks.
//!
//! `make install` runs it. Its one rule: this file repeats nothing from the help, so that the two
//! can't contradict each other.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValue;
use clap::{Arg, Args, Command, CommandFactory};
use clap_mangen::roff::{Inline, Roff, bold, roman};

/// Write the manual pages: one file for the program, and one for each visible subcommand.
#[derive(Args)]
pub(crate) struct Man {
    /// An existing folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    pub(crate) fn run(self) -> ExitCode {
        for page in pages() {
            let path = self.folder.join(format!("{}.1", page.name));
            let written = page.render().and_then(|text| fs::write(&path, text));
            if let Err(error) = written {
                super::complain(format_args!("cannot write {}: {error}", path.display()));
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }
}

/// The sections of a page that the help lacks.
#[derive(Clone, Copy)]
struct Extra {
    exit_status: &'static [(u8, &'static str)],
    signals: &'static [(&'static str, &'static str)],
    /// A command line and its effect.
    examples: &'static [(&'static str, &'static str)],
    see_also: &'static [&'static str],
}

const TINE: Extra = Extra {
    exit_status: &[],
    signals: &[],
    examples: &[],
    see_also: &["epoll(7)", "tcp(7)", "ss(8)"],
};

const SERVE: Extra = Extra {
    exit_status: super::serve::EXIT_STATUS,
    signals: &[
        (
            "SIGTERM, SIGINT",
            "stop: accept nothing more, finish the messages that were received, close, end; by force \
             after --shutdown-deadline",
        ),
        ("a second SIGINT", "stop by force"),
        (
            "SIGUSR1",
            "reload: replace the workers one at a time; the new worker starts before the old one leaves",
        ),
        (
            "SIGHUP",
            "read certificates anew, open the log file again, and read log_level of --config again; the log names what else \
             has changed there and needs a restart",
        ),
        ("SIGPIPE", "ignored"),
    ],
    examples: &[
        (
            "tine serve --listen 127.0.0.1:9501 --workers 4 --on-crash redeliver",
            "An echo server whose clients do not notice when a worker dies.",
        ),
        (
            "tine serve --callback-limit 1 --fault receive:sleep=5@0.01",
            "One message in a hundred blocks its worker. The log says where the worker is stuck.",
        ),
        (
            "tine serve --fault close:exit=255 --on-crash keep --close-deadline never",
            "Every client that closes leaves a connection in CLOSE_WAIT. The defaults of --on-crash \
             and --close-deadline leave none.",
        ),
    ],
    see_also: &["tine(1)", "signal(7)", "epoll(7)", "tcp(7)"],
};

const DOCTOR: Extra = Extra {
    exit_status: super::doctor::EXIT_STATUS,
    signals: &[],
    examples: &[
        ("tine doctor", "All listeners on this machine."),
        (
            "tine doctor 9501 --watch 0",
            "The server on port 9501, until q or an interrupt.",
        ),
        (
            "tine doctor --pid 4711 --json",
            "A process and its descendants, with the connections that they have made, as JSON.",
        ),
        (
            "tine doctor 9501 --reap=60",
            "Destroy the connections that have been in CLOSE_WAIT for longer than a minute.",
        ),
    ],
    see_also: &["tine(1)", "ss(8)", "sock_diag(7)", "tcp(7)"],
};

const LAB: Extra = Extra {
    exit_status: super::lab::EXIT_STATUS,
    signals: &[],
    examples: &[
        ("tine lab", "List the experiments."),
        (
            "tine lab close-wait-crashed --svg close.svg",
            "Run one, and draw its segments and states.",
        ),
        (
            "tine lab all --html lab.html",
            "Run all, and write one page.",
        ),
    ],
    see_also: &["tine(1)", "tcp(7)", "ss(8)"],
};

const LOAD: Extra = Extra {
    exit_status: super::load::EXIT_STATUS,
    signals: &[],
    examples: &[
        (
            "tine load 127.0.0.1:9501 --clients 100 --depth 32",
            "A closed loop: the throughput that the server can reach.",
        ),
        (
            "tine load --rate 10000 --duration 30",
            "An open loop: the latency that clients see at a given rate.",
        ),
        (
            "tine load --messages-each 1",
            "Clients that connect, send one message, and close.",
        ),
    ],
    see_also: &["tine(1)", "tine-serve(1)"],
};

const POST: Extra = Extra {
    exit_status: super::post::EXIT_STATUS,
    signals: &[],
    examples: &[
        (
            "tine post --to all /run/server.pid reread",
            "Tell every worker of the server with this pid file.",
        ),
        (
            "printf '%s' \"$JOB\" | tine post 4711 -",
            "Give one worker what standard input has.",
        ),
    ],
    see_also: &["tine(1)", "tine-serve(1)", "unix(7)"],
};

/// One manual page, of section 1.
struct Page {
    /// Such as `tine-serve`.
    name: String,
    command: Command,
    extra: Extra,
}

/// Returns the page of the program, and one for each subcommand that the help shows.
fn pages() -> Vec<Page> {
    let mut program = super::Command::command()
        .disable_help_subcommand(true)
        .mut_subcommands(|sub| sub.mut_args(for_paper));
    program.build();
    let visible = program.get_subcommands().filter(|sub| !sub.is_hide_set());
    let commands: Vec<Command> = visible.cloned().collect();
    [program]
        .into_iter()
        .chain(commands)
        .map(Page::of)
        .collect()
}

/// Rewords an argument's help for a page.
fn for_paper(argument: Arg) -> Arg {
    let text = argument.get_long_help().or(argument.get_help());
    let mut text = text.map(ToString::to_string).unwrap_or_default();
    let values = argument.get_possible_values();
    let values: Vec<&str> = values.iter().map(PossibleValue::get_name).collect();
    // clap gives a flag without a value two possible values, true and false.
    let is_choice = argument.get_action().takes_values() && !values.is_empty();
    if is_choice {
        // clap_mangen gives each value a line, and an empty line.
        text = format!("{text} [possible values: {}]", values.join(", "));
    }
    // clap strips the final full stop, and most texts have several sentences.
    let mut argument = argument.long_help(text + ".");
    if is_choice {
        argument = argument.hide_possible_values(true);
    }
    if argument.is_positional() {
        argument.help_heading("Arguments")
    } else {
        argument
    }
}

impl Page {
    fn of(command: Command) -> Page {
        let extra = match command.get_name() {
            "serve" => SERVE,
            "doctor" => DOCTOR,
            "lab" => LAB,
            "load" => LOAD,
            "post" => POST,
            _ => TINE,
        };
        let name = command.get_display_name().unwrap_or("tine").to_owned();
        Page {
            name,
            command,
            extra,
        }
    }

    fn render(&self) -> io::Result<Vec<u8>> {
        // The usage line of the help: clap_mangen's own names every option, without its value.
        let mut command = self.command.clone();
        let usage = command.render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").to_owned();
        let help = clap_mangen::Man::new(command.override_usage(usage));

        let (title, version) = (self.name.to_uppercase(), env!("CARGO_PKG_VERSION"));
        // Without a date, so that builds are reproducible. clap_mangen's title lacks the quotes.
        let title = format!(".TH {title} 1 \"\" \"tine {version}\" \"User Commands\"\n");
        let mut page = title.into_bytes();
        help.render_name_section(&mut page)?;
        help.render_synopsis_section(&mut page)?;
        help.render_description_section(&mut page)?;
        if self.command.get_subcommands().any(|sub| !sub.is_hide_set()) {
            help.render_subcommands_section(&mut page)?;
        }
        help.render_options_section(&mut page)?;
        self.rest().to_writer(&mut page)?;
        Ok(page)
    }

    fn rest(&self) -> Roff {
        let Extra {
            exit_status,
            signals,
            examples,
            see_also,
        } = self.extra;
        let mut roff = Roff::new();
        let mut section = |title: &str, entries: Vec<(String, &str)>| {
            if entries.is_empty() {
                return;
            }
            roff.control("SH", [title]);
            for (term, meaning) in entries {
                roff.control("TP", []);
                roff.text([bold(term)]);
                roff.text([roman(meaning)]);
            }
        };
        let named = |(name, meaning): &(&str, &'static str)| ((*name).to_owned(), *meaning);
        section("SIGNALS", signals.iter().map(named).collect());
        let numbered = |(status, meaning): &(u8, &'static str)| (status.to_string(), *meaning);
        section("EXIT STATUS", exit_status.iter().map(numbered).collect());
        section("EXAMPLES", examples.iter().map(named).collect());
        roff.control("SH", ["SEE ALSO"]);
        roff.text(self.references(see_also));
        roff
    }

    /// Returns the references to other pages, their names in bold, the subcommands' pages first.
    fn references(&self, others: &[&str]) -> Vec<Inline> {
        let subcommands = self.command.get_subcommands();
        let own = subcommands
            .filter(|sub| !sub.is_hide_set())
            .map(|sub| format!("{}-{}(1)", self.name, sub.get_name()));
        let all: Vec<String> = own.chain(others.iter().map(ToString::to_string)).collect();
        let mut line = Vec::new();
        for (place, reference) in all.iter().enumerate() {
            let (name, number) = reference.split_once('(').unwrap_or((reference, ""));
            let end = if place + 1 < all.len() { ", " } else { "" };
            line.push(bold(name));
            line.push(roman(format!("({number}{end}")));
        }
        line
    }
}
