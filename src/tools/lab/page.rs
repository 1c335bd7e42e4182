//! Lessons as one HTML page that needs no other file.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::lesson::{Check, Finding, Lesson, Row, Step};
use super::palette::{self, colour};
use super::text::{owners, timer};
use crate::sockets::State;

/// The kernel and the day of the experiments.
pub(crate) struct Setting {
    /// Name and version, such as `Linux 6.18.4`.
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
                style { (PreEscaped(STYLE)) (PreEscaped(state_styles())) (PreEscaped(palette::dark_rules("figure "))) }
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
        nav aria-label="Experiments" {
            ol {
                @for lesson in lessons {
                    li {
                        a href={ "#" (lesson.name) } { code { (lesson.name) } ": " (with_code(lesson.title)) }
                        "\u{a0}" (mark(lesson.held))
                        p { (with_code(lesson.question)) }
                    }
                }
            }
        }
    }
}

fn lesson(lesson: &Lesson) -> Markup {
    html! {
        article id=(lesson.name) {
            h2 { code { (lesson.name) } ": " (with_code(lesson.title)) "\u{a0}" (mark(lesson.held)) }
            p.question { (with_code(lesson.question)) }
            ol.steps { @for step in &lesson.steps { (self::step(step)) } }
            @for picture in &lesson.pictures {
                figure aria-label=(clean(picture.title())) { (PreEscaped(picture.within_page())) }
            }
            @if !lesson.advice.is_empty() {
                h3 { "What to do about it" }
                ul { @for advice in &lesson.advice { li { (with_code(advice)) } } }
            }
        }
    }
}

fn step(step: &Step) -> Markup {
    let is_on_screen =
        |finding: &Finding| matches!(finding, Finding::Command(_) | Finding::Printed(_));
    let together = |one: &Finding, next: &Finding| is_on_screen(one) && is_on_screen(next);
    html! {
        li {
            p.did { (with_code(&step.did)) }
            @for findings in step.findings.chunk_by(together) {
                @match findings {
                    [Finding::Sockets(rows)] => (sockets(rows)),
                    [Finding::Check(check)] => (self::check(check)),
                    [Finding::Meaning(meaning)] => p.meaning { (with_code(meaning)) },
                    lines => pre tabindex="0" { code { @for line in lines { (screen(line)) } } },
                }
            }
        }
    }
}

/// A line of a terminal.
fn screen(finding: &Finding) -> Markup {
    html! {
        @match finding {
            Finding::Command(command) => { kbd { "$ " (clean(command)) } "\n" },
            Finding::Printed(line) => { (clean(line)) "\n" },
            Finding::Sockets(_) | Finding::Check(_) | Finding::Meaning(_) => {},
        }
    }
}

fn check(check: &Check) -> Markup {
    html! {
        p.check {
            (mark(check.held)) " " (with_code(&check.claim))
            @if let Some(seen) = &check.seen { span.seen { ": " (clean(seen)) } }
        }
    }
}

fn mark(held: bool) -> Markup {
    html! {
        @if held {
            span.held role="img" aria-label="held" { "✓" }
        } @else {
            span.failed { "✗ failed" }
        }
    }
}

/// The columns of `ss -tanpo`, with the class of those that are right-aligned.
const COLUMNS: [(&str, Option<&str>); 7] = [
    ("State", None),
    ("Recv-Q", Some("number")),
    ("Send-Q", Some("number")),
    ("Local Address:Port", None),
    ("Peer Address:Port", None),
    ("Process", None),
    ("Timer", None),
];

fn sockets(rows: &[Row]) -> Markup {
    html! {
        @if rows.is_empty() {
            p.none { "no socket" }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="sockets" { table {
                thead { tr {
                    @for (column, class) in COLUMNS { th scope="col" class=[class] { (column) } }
                } }
                tbody {
                    @for row in rows {
                        tr {
                            td { span class={ "state " (row.state.name()) } { (row.state) } }
                            td.number { (row.recv_q) }
                            td.number { (row.send_q) }
                            td { (row.local) }
                            td { @if row.remote.port() == 0 { "*" } @else { (row.remote) } }
                            td.owners { (owners(row)) }
                            td { (timer(row)) }
                        }
                    }
                }
            } }
        }
    }
}

/// Marks the text between backticks as code.
fn with_code(text: &str) -> Markup {
    html! {
        @for (number, part) in clean(text).split('`').enumerate() {
            @if number % 2 == 1 { code { (words(part)) } } @else { (part) }
        }
    }
}

/// Keeps each word of a command together, which a browser may break after a hyphen, as in `--mode`.
fn words(command: &str) -> Markup {
    html! {
        @for (number, word) in command.split(' ').enumerate() {
            @if number > 0 { " " }
            @if word.contains('-') { span { (word) } } @else { (word) }
        }
    }
}

/// Replaces control characters: HTML allows none, and a program may print any.
fn clean(text: &str) -> String {
    let shown = |letter: char| letter == '\n' || letter == '\t' || !letter.is_control();
    text.replace(|letter| !shown(letter), "\u{fffd}")
}

/// Shows the colour of a state as a bar beside its name, so that the name is legible on any background.
fn state_styles() -> String {
    let rule = |state: State| format!(".{} {{ border-color: {} }}\n", state.name(), colour(state));
    State::ALL.map(rule).concat()
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #222; --faint: #5f5f5f; --ground: #fdfdfc; --panel: #f2f2ef;
  --rule: #ddddd8; --held: #00714f; --failed: #b00020; --link: #005a8c; --figure: #fff;
  --shade: rgb(0 0 0 / .3) }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e3; --faint: #a8a8a4; --ground: #1b1c1d;
  --panel: #2a2b2d; --rule: #3c3d40; --held: #4cc79c; --failed: #ff7b86; --link: #7cc4f0; --figure: #1b1c1d;
  --shade: rgb(255 255 255 / .35) } }
body { color: var(--ink); background: var(--ground); max-width: 58rem; margin: 0 auto;
  padding: 1rem 1.2rem 4rem; font: 1rem/1.55 system-ui, Helvetica, Arial, sans-serif; -webkit-text-size-adjust: 100% }
h1 { font-size: 1.8rem; line-height: 1.2 } h3 { font-size: 1.05rem; margin: 2rem 0 .4rem }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .4rem }
a { color: var(--link) } p, li { max-width: 46rem }
.setting, .none, .seen, nav p { color: var(--faint) } nav p { margin: .1rem 0 .8rem }
nav, .question { max-width: 46rem } .question { font-size: 1.08rem; font-style: italic; margin-top: 0 }
article { border-top: 1px solid var(--rule); margin-top: 3.5rem; padding-top: 1.8rem }
.steps { padding-left: 1.6rem } .steps > li { margin: 1.6rem 0; max-width: none }
.steps > li::marker { font-weight: 700 }
.did { font-weight: 600; margin: 0 0 .4rem } .meaning { margin: .6rem 0 } .check { margin: .3rem 0 }
pre, code, kbd, table { font-family: ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace }
code { font-size: .88em } code span { white-space: nowrap } pre code, kbd { font-size: 1em }
pre { --behind: var(--panel); padding: .55rem .8rem; border-radius: .3rem; margin: .5rem 0;
  font-size: .84rem; line-height: 1.45 }
kbd { font-weight: 700 }
.held { color: var(--held); font-weight: 700 } .failed { color: var(--failed); font-weight: 700; white-space: nowrap }
.scroll { --behind: var(--ground); margin: .5rem 0 }
.scroll, pre { overflow-x: auto; background-color: var(--behind); background-repeat: no-repeat;
  background-image: linear-gradient(to right, var(--behind) 40%, transparent),
    linear-gradient(to left, var(--behind) 40%, transparent),
    linear-gradient(to right, var(--shade), transparent), linear-gradient(to left, var(--shade), transparent);
  background-position: 0 0, 100% 0, 0 0, 100% 0; background-size: 2.4rem 100%, 2.4rem 100%, .8rem 100%, .8rem 100%;
  background-attachment: local, local, scroll, scroll }
table { border-collapse: collapse; font-size: .8rem; line-height: 1.4 }
th, td { text-align: left; padding: .16rem .8rem .16rem 0; white-space: nowrap; vertical-align: top }
th { color: var(--faint); font-weight: 400; border-bottom: 1px solid var(--rule) }
th.number, td.number { text-align: right }
.state { border-left: .55rem solid; padding-left: .45rem; font-weight: 600 }
figure { margin: 1.8rem 0; background: var(--figure); border: 1px solid var(--rule); border-radius: .4rem }
figure svg { display: block; width: 100%; max-width: 640px; height: auto; margin: 0 auto }
@media (max-width: 40rem) { body { padding: .6rem .9rem 3rem } h1 { font-size: 1.5rem } .steps { padding-left: 1.2rem }
  figure { margin: 1.8rem -.9rem; border-width: 1px 0; border-radius: 0 } }
@media print { :root { color-scheme: light } body { font-size: 10pt; max-width: none } article { break-before: page }
  figure, table, pre, .did { break-inside: avoid } .did, h2, h3 { break-after: avoid }
  figure { border: 0 } figure svg { max-height: 24cm } .scroll { overflow: visible } pre { white-space: pre-wrap } }
";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::picture::samples;
    use crate::sockets::{Timer, TimerKind};

    fn row(state: State, recv_q: u32, timer: Option<Timer>) -> Row {
        Row {
            state,
            recv_q,
            send_q: 0,
            local: ([127, 0, 0, 1], 9501).into(),
            remote: ([127, 0, 0, 1], 50_158).into(),
            owners: vec!["master[4711]".to_owned()],
            timer,
        }
    }

    fn sample(name: &'static str, held: bool) -> Lesson {
        let timer = Timer {
            kind: TimerKind::Retransmit,
            left: Duration::from_millis(400),
            retransmits: 2,
        };
        let check = |held| Check {
            claim: "the server is in CLOSE_WAIT".to_owned(),
            held,
            seen: (!held).then(|| "ESTABLISHED".to_owned()),
        };
        let findings = vec![
            Finding::Command("ss -tan | grep '<CLOSE>'".to_owned()),
            Finding::Printed("one & two\u{1b}[0m".to_owned()),
            Finding::Printed("three".to_owned()),
            Finding::Sockets(vec![
                row(State::CloseWait, 1, None),
                row(State::LastAck, 0, Some(timer)),
            ]),
            Finding::Sockets(Vec::new()),
            Finding::Check(check(true)),
            Finding::Check(check(held)),
            Finding::Meaning("It waits for `close()`, and for nothing else.".to_owned()),
        ];
        let did = "The client closes; the server `sleeps`.".to_owned();
        Lesson {
            name,
            title: "a callback that blocks leaks <connections>",
            question: "Why does `ss` still show it?",
            steps: vec![Step { did, findings }],
            advice: vec!["Set a deadline & keep to it.".to_owned()],
            pictures: samples::all().into_iter().map(|it| it.1).collect(),
            held,
            took: Duration::from_secs(1),
        }
    }

    fn whole() -> String {
        let setting = Setting {
            kernel: "Linux 6.18".to_owned(),
            date: "2026-11-24".to_owned(),
        };
        page(&[sample("one", true), sample("two", false)], &setting)
    }

    #[test]
    fn every_element_is_closed_and_every_text_escaped() {
        let page = whole();
        // Apart from void elements, which are in the head, the page is XML.
        let (_, body) = page.split_once("<body>").expect("a body");
        let body = body.strip_suffix("</html>").expect("an end");
        roxmltree::Document::parse(&format!("<body>{body}")).expect("elements that are closed");
        assert!(page.starts_with("<!DOCTYPE html>"));
        assert!(page.contains("&lt;connections&gt;") && page.contains("one &amp; two\u{fffd}"));
    }

    #[test]
    fn the_contents_lead_to_every_lesson() {
        let page = whole();
        for name in ["one", "two"] {
            assert!(page.contains(&format!("href=\"#{name}\"")));
            assert!(page.contains(&format!("<article id=\"{name}\"")));
        }
    }

    #[test]
    fn a_command_and_its_output_stay_together() {
        let page = whole();
        let lines =
            "<kbd>$ ss -tan | grep '&lt;CLOSE&gt;'</kbd>\none &amp; two\u{fffd}[0m\nthree\n";
        assert!(page.contains(lines), "{page:.6000}");
    }

    #[test]
    fn a_claim_that_failed_shows_the_state_that_was_found() {
        let page = whole();
        assert!(page.contains("✗ failed") && page.contains(": ESTABLISHED"));
    }

    /// Writes the page to look at, like the pictures: `TINE_PICTURES=FOLDER`.
    #[test]
    fn the_page_can_be_written_to_a_file() {
        if let Some(folder) = std::env::var_os("TINE_PICTURES") {
            let path = std::path::Path::new(&folder).join("page.html");
            std::fs::write(path, whole()).expect("a file");
        }
    }
}
