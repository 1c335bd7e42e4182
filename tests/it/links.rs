//! Links of the pages in the repository lead somewhere, also those that rustdoc shows in another way.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::make::files;
use crate::common::root;

const PAGES: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "c-examples/README.md",
    "src/tools/README.md",
];

/// The definitions of links for rustdoc, which the guide's module puts before each page.
const FOR_RUSTDOC: &str = "src/guide/links.md";

/// Returns the pages of the guide.
fn guide() -> Vec<String> {
    let pages = files(&root().join("src/guide")).into_iter();
    let pages = pages.filter(|name| name.ends_with(".md") && name != "links.md");
    pages.map(|name| format!("src/guide/{name}")).collect()
}

fn text_of(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// Returns the definitions `[label]: target` of a page.
fn definitions(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix('['));
    lines.filter_map(|line| line.split_once("]: ")).collect()
}

/// Returns the targets of links `[text](target)`.
fn inline(text: &str) -> Vec<&str> {
    let after = text.split("](").skip(1);
    after
        .filter_map(|rest| Some(rest.split_once(')')?.0))
        .collect()
}

#[test]
fn every_link_of_a_page_leads_to_a_file() {
    let mut seen = 0;
    for page in PAGES.map(str::to_owned).into_iter().chain(guide()) {
        let text = text_of(&page);
        let defined = definitions(&text).into_iter().map(|(_, target)| target);
        for target in defined.chain(inline(&text)) {
            let (file, _) = target.split_once('#').unwrap_or((target, ""));
            if file.is_empty() || file.starts_with("https://") {
                continue;
            }
            assert!(
                !file.starts_with("crate::"),
                "{page}: {target} is a link for rustdoc alone: write [`Name`], and define it at the end of the page for \
                 readers of the file, and in {FOR_RUSTDOC} for rustdoc"
            );
            let folder = Path::new(&page).parent().expect("a page is in a folder");
            assert!(root().join(folder).join(file).exists(), "{page}: {target}");
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} links were found");
}

#[test]
fn the_links_of_the_guide_are_defined_for_rustdoc_and_for_readers_of_its_files() {
    let for_rustdoc = text_of(FOR_RUSTDOC);
    let for_rustdoc: BTreeSet<&str> = definitions(&for_rustdoc).iter().map(|it| it.0).collect();
    let mut used = BTreeSet::new();
    for page in guide() {
        let text = text_of(&page);
        let own: BTreeSet<&str> = definitions(&text).iter().map(|it| it.0).collect();
        for label in &own {
            assert!(
                for_rustdoc.contains(label),
                "{page}: [{label}] is not in {FOR_RUSTDOC}"
            );
            let uses = text.matches(&format!("[{label}]")).count();
            assert!(uses > 1, "{page}: [{label}] is defined and not used");
            used.insert((*label).to_owned());
        }
        for label in &for_rustdoc {
            let is_used = text.contains(&format!("[{label}]"));
            assert!(
                !is_used || own.contains(label),
                "{page}: [{label}] is not defined at its end"
            );
        }
    }
    for label in for_rustdoc {
        assert!(
            used.contains(label),
            "{FOR_RUSTDOC}: no page uses [{label}]"
        );
    }
}
