//! The manual pages that `tine man` writes: complete, and well-formed.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::common::launch::Launch;
use crate::common::make::{files, output};

#[test]
fn the_manual_pages_have_every_flag_that_the_help_has() {
    let folder = tempfile::tempdir().unwrap();
    let made = Launch::tine(&["man", folder.path().to_str().unwrap()]).run();
    assert!(
        made.status.success() && made.stdout.is_empty() && made.stderr.is_empty(),
        "{made:#?}"
    );
    for (name, subcommand, sections) in [
        ("tine", None, &["SUBCOMMANDS"][..]),
        (
            "tine-serve",
            Some("serve"),
            &["SIGNALS", "EXIT STATUS", "EXAMPLES"],
        ),
        (
            "tine-doctor",
            Some("doctor"),
            &["ARGUMENTS", "EXIT STATUS", "EXAMPLES"],
        ),
        (
            "tine-lab",
            Some("lab"),
            &["ARGUMENTS", "EXIT STATUS", "EXAMPLES"],
        ),
        (
            "tine-load",
            Some("load"),
            &["ARGUMENTS", "EXIT STATUS", "EXAMPLES"],
        ),
        (
            "tine-post",
            Some("post"),
            &["ARGUMENTS", "EXIT STATUS", "EXAMPLES"],
        ),
    ] {
        let page = fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
        let page = page
            .replace("\\-", "-")
            .replace("\\fB", "")
            .replace("\\fR", "");
        assert_sections(name, &page, sections);
        let flags = flags_of(subcommand);
        assert!(flags.contains("--help"), "{flags:?}");
        for flag in flags {
            let described = page
                .lines()
                .any(|line| words(line).any(|word| word == flag));
            assert!(described, "{name} has no {flag}:\n{page}");
        }
    }
    assert_eq!(
        files(folder.path()).len(),
        6,
        "hidden subcommands have no page"
    );
}

#[track_caller]
fn assert_sections(name: &str, page: &str, sections: &[&str]) {
    let all = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SEE ALSO"];
    for section in all.iter().chain(sections) {
        let headings = page.lines().filter_map(|line| line.strip_prefix(".SH "));
        let mut headings = headings.map(|heading| heading.trim_matches('"'));
        assert!(
            headings.any(|heading| heading == *section),
            "{name} has no {section}:\n{page}"
        );
    }
}

/// Returns the flags that the help explains.
fn flags_of(subcommand: Option<&str>) -> BTreeSet<String> {
    let arguments: Vec<&str> = subcommand.into_iter().chain(["--help"]).collect();
    let help = Launch::tine(&arguments).run().stdout;
    // Explanations are further to the right, and general text begins at the left.
    let is_of_flags = |line: &&str| line.starts_with("  -") || line.starts_with("      --");
    let flags = help.lines().filter(is_of_flags).flat_map(words);
    flags
        .filter(|word| word.starts_with("--"))
        .map(str::to_owned)
        .collect()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split([' ', ',', '['])
}

#[test]
fn the_manual_pages_are_formatted_without_a_warning() {
    if Command::new("groff").arg("--version").output().is_err() {
        eprintln!("skipped: there is no groff here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = Launch::tine(&["man", folder.path().to_str().unwrap()]).run();
    assert!(made.status.success(), "{made:#?}");
    for page in files(folder.path()) {
        let mut format = Command::new("groff");
        format
            .args(["-man", "-ww", "-Tutf8", "-z"])
            .arg(folder.path().join(page));
        let formatted = output(&mut format);
        assert!(
            formatted.status.success() && formatted.stderr.is_empty(),
            "{formatted:#?}"
        );
    }
}

#[test]
fn manual_pages_that_can_not_be_written_are_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let failed = Launch::tine(&["man", nowhere.to_str().unwrap()]).run();
    assert_eq!(failed.status.code(), Some(1), "{failed:#?}");
    let expected = format!("tine: cannot write {}/tine.1: ", nowhere.display());
    assert!(
        failed.stderr.starts_with(&expected) && failed.stderr.trim_end().lines().count() == 1,
        "{failed:#?}"
    );
}
