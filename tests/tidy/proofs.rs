//! `tests/findings.tsv`: what was once found wrong, and the tests that show that it stays mended;
//! `tests/requirements.tsv`: what is wanted, and the tests that show that it is so.
//!
//! A line is a name (and what it means), and behind a tab the names of tests with commas between them; or,
//! behind a `-`, the reason why there is none.

use std::collections::BTreeSet;

use crate::rule::assert_none;
use crate::source::Source;
use crate::workspace;

struct Table {
    path: &'static str,
    header: &'static str,
}

const FINDINGS: Table = Table { path: "tests/findings.tsv", header: "finding\ttests" };
const REQUIREMENTS: Table = Table { path: "tests/requirements.tsv", header: "id\twhat\ttests" };

/// The names of the functions that a test harness runs in this source.
fn tests_of(source: &Source) -> impl Iterator<Item = String> {
    let functions = source.places_of(&["fn"]).into_iter();
    functions.filter(|at| is_test(source, *at)).map(|at| source.word(at + 1).to_owned())
}

/// Whether one of the attributes before the `fn` at this place is `test`, or ends so, with or
/// without arguments.
fn is_test(source: &Source, function: usize) -> bool {
    // Between the attributes and `fn` stand at most words such as `pub(crate)` and `async`.
    let start = (0..function).rev().find(|at| matches!(source.word(*at), "}" | ";" | "{"));
    let before = start.map_or(0, |at| at + 1)..function;
    let opens = before.filter(|at| source.word(*at) == "#" && source.word(at + 1) == "[");
    let mut attributes = opens.map(|at| at + 2);
    attributes.any(|at| {
        let last =
            (at..function).find(|at| source.word(at + 1) != "::" && source.word(*at) != "::");
        last.is_some_and(|at| source.word(at) == "test" && matches!(source.word(at + 1), "]" | "("))
    })
}

/// What is wrong with the table, given the tests that there are.
fn complaints(table: &Table, text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let Table { path, header } = table;
    let columns = header.split('\t').count();
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let mut broken = Vec::new();
    if lines.next().is_none_or(|(_, first)| first != *header) {
        broken.push(format!("{path}:1: the header is not {header:?}"));
    }
    let mut seen = BTreeSet::new();
    for (line, row) in lines {
        let mut complain = |what: &str| broken.push(format!("{path}:{line}: {what}"));
        let cells: Vec<&str> = row.split('\t').collect();
        let (Some(name), Some(shown), true) = (cells.first(), cells.last(), cells.len() == columns)
        else {
            complain("another number of columns than the header");
            continue;
        };
        if cells[..columns - 1].iter().any(|cell| cell.trim().is_empty()) || !seen.insert(*name) {
            complain(&format!("`{name}` has no name or no meaning, or stands twice"));
        }
        match shown.strip_prefix('-') {
            Some(reason) if reason.trim().is_empty() => complain("no reason"),
            Some(_) => {}
            None => {
                let missing = shown.split(',').map(str::trim).filter(|name| !tests.contains(*name));
                missing.for_each(|name| complain(&format!("there is no test `{name}`")));
            }
        }
    }
    broken
}

fn all_tests() -> BTreeSet<String> {
    workspace::sources().iter().flat_map(tests_of).collect()
}

#[test]
fn every_finding_has_tests_that_exist_or_a_reason() {
    assert_none(&complaints(&FINDINGS, &workspace::read(FINDINGS.path), &all_tests()));
}

#[test]
fn every_requirement_has_tests_that_exist_or_a_reason() {
    assert_none(&complaints(&REQUIREMENTS, &workspace::read(REQUIREMENTS.path), &all_tests()));
}

#[test]
fn every_requirement_is_in_the_table() {
    let table = workspace::read(REQUIREMENTS.path);
    let listed: BTreeSet<&str> = table.lines().filter_map(|row| row.split('\t').next()).collect();
    let numbered = (1..=51).map(|number| format!("FR-{number:03}"));
    let numbered = numbered.chain((1..=10).map(|number| format!("B-{number}")));
    let numbered = numbered.chain((1..=6).map(|number| format!("C-{number}")));
    let figures = [1, 3].into_iter().chain(5..=18);
    let numbered = numbered.chain(figures.map(|number| format!("NFR-{number:03}")));
    let codes = workspace::read("actors/src/domain/cause/code.rs");
    let codes = codes.lines().filter_map(|line| line.trim().strip_prefix("/// VLM-"));
    let codes = codes.filter_map(|line| Some(format!("VLM-{}", line.get(..3)?)));
    let modes = ["managed", "monitored", "external"].map(|mode| format!("MODE-{mode}"));
    let wanted: Vec<String> = numbered.chain(codes).chain(modes).collect();
    assert!(wanted.len() > 90, "{wanted:?}");
    let missing: Vec<String> =
        wanted.into_iter().filter(|id| !listed.contains(id.as_str())).collect();
    assert_none(&missing);
}

#[test]
fn tests_are_told_from_other_functions() {
    let text = "#[test] fn a() {} fn b() {} #[tokio::test(start_paused = true)] async fn c() {}
        #[cfg(test)] fn d() {} const E: u8 = 1; #[test] #[should_panic] pub(crate) fn e() {}
        #[test_case(1)] fn f() {} // #[test] fn g() {}
        mod tests { #[expect(x, reason = \"y\")] #[tokio::test] async fn h() {} }";
    let source = Source::new("src/x.rs", text);
    assert_eq!(tests_of(&source).collect::<Vec<_>>(), ["a", "c", "e", "h"]);
}

#[test]
fn a_row_that_shows_nothing_is_found() {
    let tests = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    let count = |table: &Table, rows: &str| {
        complaints(table, &format!("{}\n{rows}", table.header), &tests).len()
    };
    for whole in ["", "M-1\ta", "M-1\ta, b\nO-1\t- cannot happen: why", "M-1\tb\nM-2\tb\n"] {
        assert_eq!(count(&FINDINGS, whole), 0, "{whole}");
    }
    for broken in ["M-1", "M-1\t", "M-1\tc", "M-1\ta, c", "\ta", "M-1\t- ", "M-1\ta\nM-1\tb", "\n"]
    {
        assert_eq!(count(&FINDINGS, broken), 1, "{broken:?}");
    }
    assert_eq!(count(&REQUIREMENTS, "FR-001\tit starts\ta"), 0);
    for broken in ["FR-001\ta", "FR-001\t\ta", "FR-001\tit starts\tc"] {
        assert_eq!(count(&REQUIREMENTS, broken), 1, "{broken:?}");
    }
    assert_eq!(complaints(&FINDINGS, "", &tests).len(), 1);
}
