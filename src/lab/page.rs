//! Lessons as one page of HTML that needs no other file.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::lesson::{Check, Finding, Lesson, Row, Step};
use super::palette::colour;
use super::text::{owners, timer};
use crate::inspect::sockets::State;

/// Where and when the lessons were held.
pub(crate) struct Setting {
    /// Of the operating system, such as `Linux 6.18.4`.
    pub(crate) kernel: String,
    pub(crate) date: String,
}

pub(crate) fn page(lessons: &[Lesson], setting: &Setting) -> String {
    let title = match lessons {
        [one] => format!("tine lab: {}", one.name),
        _ => "tine lab: how TCP connections go wrong".to_owned(),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(state_styles())) }
            }
            body {
                header {
                    h1 { (title) }
                    p.setting {
                        "Shown by tine " (env!("CARGO_PKG_VERSION")) " on " (setting.kernel) ", "
                        (setting.date) ". Every table below is the kernel's own, taken while the \
                        experiment ran; every claim with a mark was checked against it."
                    }
                }
                @if lessons.len() > 1 { (contents(lessons)) }
                main { @for lesson in lessons { (self::lesson(lesson)) } }
            }
        }
    };
    page.into_string()
}

fn contents(lessons: &[Lesson]) -> Markup {
    html! {
        nav {
            ol {
                @for lesson in lessons {
                    li {
                        a href={ "#" (lesson.name) } { (lesson.title) }
                        (mark(lesson.held))
                        p { (lesson.question) }
                    }
                }
            }
        }
    }
}

fn lesson(lesson: &Lesson) -> Markup {
    html! {
        article id=(lesson.name) {
            h2 { code { (lesson.name) } ": " (lesson.title) (mark(lesson.held)) }
            p.question { (lesson.question) }
            ol.steps { @for step in &lesson.steps { (self::step(step)) } }
            @for picture in &lesson.pictures {
                figure aria-label=(picture.title()) { (PreEscaped(picture.svg())) }
            }
            @if !lesson.advice.is_empty() {
                h3 { "What to do about it" }
                ul { @for advice in &lesson.advice { li { (with_code(advice)) } } }
            }
        }
    }
}

fn step(step: &Step) -> Markup {
    html! {
        li {
            p.did { (with_code(&step.did)) }
            @for finding in &step.findings {
                @match finding {
                    Finding::Command(command) => pre.command { "$ " (command) },
                    Finding::Printed(line) => pre { (line) },
                    Finding::Sockets(rows) => (sockets(rows)),
                    Finding::Check(check) => (self::check(check)),
                    Finding::Meaning(meaning) => p.meaning { (with_code(meaning)) },
                }
            }
        }
    }
}

fn check(check: &Check) -> Markup {
    html! {
        p.check {
            (mark(check.held)) " " (with_code(&check.claim))
            @if let Some(seen) = &check.seen { span.seen { ": " (seen) } }
        }
    }
}

fn mark(held: bool) -> Markup {
    html! {
        @if held { span.held { " ✓" } } @else { span.failed { " ✗ not so" } }
    }
}

fn sockets(rows: &[Row]) -> Markup {
    html! {
        @if rows.is_empty() {
            p.none { "no socket" }
        } @else {
            div.scroll { table {
                thead { tr {
                    @for column in ["State", "Recv-Q", "Send-Q", "Local address", "Peer address", "Process", "Timer"] {
                        th { (column) }
                    }
                } }
                tbody {
                    @for row in rows {
                        tr {
                            td { span class={ "state " (row.state.name()) } { (row.state) } }
                            td.number { (row.recv_q) }
                            td.number { (row.send_q) }
                            td { (row.local) }
                            td { @if row.remote.port() == 0 { "*" } @else { (row.remote) } }
                            td { (owners(row)) }
                            td { (timer(row)) }
                        }
                    }
                }
            } }
        }
    }
}

/// What stands between backticks is code.
fn with_code(text: &str) -> Markup {
    html! {
        @for (number, part) in text.split('`').enumerate() {
            @if number % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// The colour of a state is a bar beside its name, so that the name can be read on any ground.
fn state_styles() -> String {
    let states = [
        State::Listen,
        State::SynSent,
        State::SynRecv,
        State::Established,
        State::FinWait1,
        State::FinWait2,
        State::CloseWait,
        State::Closing,
        State::LastAck,
        State::TimeWait,
        State::Close,
    ];
    let rule = |state: State| format!(".{} {{ border-color: {} }}\n", state.name(), colour(state));
    states.map(rule).concat()
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #222; --faint: #666; --ground: #fdfdfc; --panel: #f2f2ef;
  --held: #00714f; --failed: #b00020; --link: #005a8c }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e3; --faint: #a0a09c; --ground: #1b1c1d;
  --panel: #2a2b2d; --held: #4cc79c; --failed: #ff7b86; --link: #7cc4f0 } }
body { color: var(--ink); background: var(--ground); max-width: 56rem; margin: 0 auto;
  padding: 1rem 1.2rem 4rem; font: 1rem/1.55 system-ui, Helvetica, Arial, sans-serif }
h1 { font-size: 1.7rem; line-height: 1.2 } h2 { font-size: 1.3rem; margin: 0 0 .4rem } h3 { font-size: 1.05rem }
a { color: var(--link) }
.setting, .none, .seen, nav p { color: var(--faint) } nav p { margin: .1rem 0 .8rem }
.question { font-style: italic; margin-top: 0 }
article { border-top: 1px solid var(--panel); margin-top: 3rem; padding-top: 1.6rem }
.steps > li { margin: 1.4rem 0 } .steps > li::marker { font-weight: 600 }
.did { font-weight: 600; margin: 0 0 .4rem } .meaning { margin: .5rem 0 } .check { margin: .3rem 0 }
pre, code { font-family: ui-monospace, 'DejaVu Sans Mono', Menlo, monospace; font-size: .86em }
pre { background: var(--panel); padding: .5rem .7rem; overflow-x: auto; border-radius: .3rem; margin: .5rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere }
.held { color: var(--held); font-weight: 700 } .failed { color: var(--failed); font-weight: 700 }
.scroll { overflow-x: auto; margin: .5rem 0 }
table { border-collapse: collapse; font: .82rem/1.45 ui-monospace, 'DejaVu Sans Mono', Menlo, monospace }
th, td { text-align: left; padding: .12rem .9rem .12rem 0; white-space: nowrap }
th { color: var(--faint); font-weight: 400 } .number { text-align: right }
.state { border-left: .5rem solid; padding-left: .4rem }
figure { margin: 1.6rem 0; background: #fff; border-radius: .3rem; overflow-x: auto }
figure svg { display: block; width: 100%; max-width: 860px; height: auto; margin: 0 auto }
@media print { article { break-before: page } figure { break-inside: avoid } }
";
