//! `tests/findings.tsv`: what was once found wrong, and the tests that show that it stays mended.
//!
//! A line is the finding, a tab, and the names of tests with commas between them; or, behind a `-`,
//! the reason why it was judged otherwise.

use std::collections::BTreeSet;

use crate::rule::assert_none;
use crate::source::Source;
use crate::workspace;

const TABLE: &str = "tests/findings.tsv";
const HEADER: &str = "finding\ttests";

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
fn complaints(table: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut lines = table.lines().enumerate().map(|(at, line)| (at + 1, line));
    let mut broken = Vec::new();
    if lines.next().is_none_or(|(_, header)| header != HEADER) {
        broken.push(format!("{TABLE}:1: the header is not {HEADER:?}"));
    }
    let mut seen = BTreeSet::new();
    for (line, row) in lines {
        let mut complain = |what: &str| broken.push(format!("{TABLE}:{line}: {what}"));
        let Some((finding, shown)) = row.split_once('\t') else {
            complain("no tab");
            continue;
        };
        if finding.trim().is_empty() || !seen.insert(finding) {
            complain(&format!("the finding `{finding}` has no name, or stands twice"));
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

#[test]
fn every_finding_has_tests_that_exist_or_a_reason() {
    let sources = workspace::sources();
    let tests: BTreeSet<String> = sources.iter().flat_map(tests_of).collect();
    assert_none(&complaints(&workspace::read(TABLE), &tests));
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
    let count = |rows: &str| complaints(&format!("{HEADER}\n{rows}"), &tests).len();
    for whole in ["", "M-1\ta", "M-1\ta, b\nO-1\t- cannot happen: why", "M-1\tb\nM-2\tb\n"] {
        assert_eq!(count(whole), 0, "{whole}");
    }
    for broken in ["M-1", "M-1\t", "M-1\tc", "M-1\ta, c", "\ta", "M-1\t- ", "M-1\ta\nM-1\tb", "\n"]
    {
        assert_eq!(count(broken), 1, "{broken:?}");
    }
    assert_eq!(complaints("", &tests).len(), 1);
}
