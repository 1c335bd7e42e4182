//! The shape of the source: imports point downward only, as the table in `src/lib.rs` says, files are short, and the
//! library needs few crates.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::process::Command;

use crate::common::make::{files, said};
use crate::common::root;

/// Returns the layer of each module, from the top, by the rows of the table.
fn layers() -> HashMap<String, usize> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs can be read");
    let rows = lib.lines().filter(|line| line.starts_with("//! | `"));
    let modules = |(layer, row): (usize, &str)| {
        let names = row.split('|').nth(1).unwrap_or_default();
        let names = names
            .split('`')
            .filter(|name| !name.trim_matches([' ', ',']).is_empty());
        names
            .map(|name| (name.to_owned(), layer))
            .collect::<Vec<_>>()
    };
    rows.enumerate().flat_map(modules).collect()
}

/// Returns the modules that a file names with `crate::`, with the lines.
fn imports(text: &str) -> Vec<(&str, &str)> {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let names = |line| {
        let paths = str::split(line, "crate::").skip(1);
        let name = |path: &'_ str| path.find(|c: char| !c.is_alphanumeric() && c != '_');
        paths.filter_map(move |path| Some((&path[..name(path)?], line)))
    };
    text.lines().filter(is_code).flat_map(names).collect()
}

#[test]
fn every_import_points_to_a_lower_layer() {
    let layers = layers();
    let source = root().join("src");
    let mut seen = 0;
    for file in files(&source) {
        let Some(path) = file
            .strip_suffix(".rs")
            .filter(|it| !it.starts_with("tools/"))
        else {
            continue;
        };
        let module = path.split('/').next().unwrap_or(path);
        if module == "lib" {
            continue;
        }
        let own = layers
            .get(module)
            .unwrap_or_else(|| panic!("{module} is in no layer"));
        let text = fs::read_to_string(source.join(&file)).expect("a file in UTF-8");
        for (import, line) in imports(&text)
            .into_iter()
            .filter(|(import, _)| *import != module)
        {
            let layer = layers
                .get(import)
                .unwrap_or_else(|| panic!("{file}: {import} is in no layer: {line}"));
            assert!(
                layer > own,
                "{file} imports upward, or from beside it: {line}"
            );
            seen += 1;
        }
    }
    assert!(
        seen > 200,
        "only {seen} imports were found: is this looking at the right files?"
    );
}

#[test]
fn no_file_has_more_than_500_lines() {
    let root = root();
    for folder in ["src", "tests", "benches", "examples", "c-examples"] {
        for file in files(&root.join(folder)) {
            // Some folders have build results of their own.
            let is_source = [".rs", ".c", ".cc"].iter().any(|it| file.ends_with(it));
            if is_source && !file.contains("target/") {
                let text =
                    fs::read_to_string(root.join(folder).join(&file)).expect("a file in UTF-8");
                let lines = text.lines().count();
                assert!(lines <= 500, "{folder}/{file} has {lines} lines: split it");
            }
        }
    }
}

#[test]
fn the_library_alone_needs_few_crates() {
    let tree = said(
        Command::new(env!("CARGO"))
            .args([
                "tree",
                "--locked",
                "--package",
                "tine",
                "--edges",
                "normal",
                "--prefix",
                "none",
            ])
            .current_dir(root()),
    );
    let crates: HashSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(crates.contains("tine") && crates.len() <= 20, "{crates:?}");
}
