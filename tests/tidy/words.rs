//! Words: those that the house uses, and those that it does without.

use crate::rule::{Finding, Rule, assert_kept, assert_none, assert_sharp};
use crate::source::Source;
use crate::workspace::{self, TextFile};

/// Modules of these names hold what nobody found a place for.
const NO_PLACES: [&str; 5] = ["utils", "common", "types", "imp", "prelude"];

/// Marks of what is not finished.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Directories that exist on the machine of whoever wrote the line.
const PRIVATE_PLACES: [&str; 3] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/Use", "rs/")];

/// Names for which the field has words of its own: `ARCHITECTURE.md`, "Glossary".
const RETIRED: [&str; 11] = [
    "Custody",
    "Deed",
    "Errand",
    "Fate",
    "OnExit",
    "Patient",
    "Remains",
    "RestartRecord",
    "Settle",
    "Tenure",
    "Voice",
];

const NAMES: &[Rule] = &[
    Rule {
        says: "a type is called by the field's own word",
        concerns: |_| true,
        find: |source| {
            let is_retired = |name: &str| RETIRED.iter().any(|word| name.starts_with(word));
            let kinds = ["struct", "enum", "trait"].into_iter();
            kinds.flat_map(|kind| named_after(source, kind, is_retired)).collect()
        },
        broken_by: ("actors/src/x.rs", "enum Fate {}"),
        kept_by: ("actors/src/x.rs", "enum OrphanOutcome {} fn f(g: Fate) {}"),
    },
    Rule {
        says: "a test is named by a sentence: what holds",
        concerns: |_| true,
        find: |source| named_after(source, "fn", |name| name.starts_with("test_")),
        broken_by: ("src/x.rs", "#[test] fn test_stop_2() {}"),
        kept_by: ("src/x.rs", "#[test] fn a_crash_is_not_forgotten() { tests::f(); }"),
    },
    Rule {
        says: "a module is named by what it holds",
        concerns: |_| true,
        find: |source| named_after(source, "mod", |name| NO_PLACES.contains(&name)),
        broken_by: ("src/lib.rs", "pub mod utils;"),
        kept_by: ("src/lib.rs", "use proptest::prelude::*; mod common_cause;"),
    },
    Rule {
        says: "an actor is called so; only the root is a supervisor",
        concerns: |path| !path.contains("tests"),
        find: |source| {
            let is_actor = |name: &str| name.ends_with("Actor") || name == "RootSupervisor";
            let places = source.places_of(&["impl", "Actor", "for"]).into_iter();
            let names = places.map(|at| at + 3).filter(|at| !is_actor(source.word(*at)));
            names.map(|at| finding(source, at)).collect()
        },
        broken_by: ("actors/src/health.rs", "impl Actor for HealthChecker {}"),
        kept_by: ("actors/src/root.rs", "impl Actor for RootSupervisor {}"),
    },
    Rule {
        says: "no type is a manager, a controller or a mock",
        concerns: |_| true,
        find: |source| {
            let is_vague = |name: &str| {
                ["Manager", "Controller"].iter().any(|end| name.ends_with(end))
                    || name.starts_with("Mock")
            };
            let kinds = ["struct", "enum", "trait"].into_iter();
            kinds.flat_map(|kind| named_after(source, kind, is_vague)).collect()
        },
        broken_by: ("actors/src/x.rs", "pub struct MockProbe;"),
        kept_by: ("actors/src/x.rs", "pub struct ScriptedProbe;"),
    },
    Rule {
        says: "a two-way choice is an enum, not a bool among the parameters",
        concerns: |path| path.starts_with("src/") || path.starts_with("actors/src/"),
        find: bool_parameters,
        broken_by: ("src/x.rs", "fn stop(self: &X, immediately: bool) {}"),
        kept_by: (
            "src/x.rs",
            "struct A { b: bool } fn f(g: impl Fn() -> bool) -> bool { h(|i: bool| i) }",
        ),
    },
];

const HABITS: &[Rule] = &[
    Rule {
        says: "a test runs, or says in one line why it cannot",
        concerns: |_| true,
        find: |source| marks(source, &["#", "[", "ignore"]),
        broken_by: ("src/x.rs", "#[ignore] fn f() {}"),
        kept_by: ("src/x.rs", "fn f() { ignore([1]); }"),
    },
    Rule {
        says: "a lint is switched off by `expect`, which says why and when it is no longer needed",
        concerns: |_| true,
        find: |source| {
            let mut found = marks(source, &["#", "[", "allow", "("]);
            found.extend(marks(source, &["#", "!", "[", "allow", "("]));
            found
        },
        broken_by: ("src/x.rs", "#![allow(dead_code)]"),
        kept_by: ("src/x.rs", "#[expect(dead_code, reason = \"…\")] fn f() { allow(); }"),
    },
    Rule {
        says: "nobody sleeps on a thread: wait for a predicate, with a deadline",
        concerns: |_| true,
        find: |source| marks(source, &["thread", "::", "sleep"]),
        broken_by: ("tests/src/x.rs", "fn f() { std::thread::sleep(g()); }"),
        kept_by: ("tests/src/x.rs", "fn f() { thread::spawn(g); }"),
    },
    Rule {
        says: "a test waits for a predicate, never for time to pass",
        concerns: |path| {
            let is_stand_in = path.starts_with("tests/src/fake_vllm");
            path.starts_with("tests/") && !is_stand_in || path.contains("/tests")
        },
        find: |source| marks(source, &["time", "::", "sleep"]),
        broken_by: ("tests/integration/x.rs", "async fn f() { tokio::time::sleep(g()).await; }"),
        kept_by: (
            "tests/src/fake_vllm/worker.rs",
            "async fn f() { tokio::time::sleep(g()).await }",
        ),
    },
];

fn finding(source: &Source, at: usize) -> Finding {
    Finding { line: source.line(at), what: source.word(at).to_owned() }
}

fn marks(source: &Source, words: &[&str]) -> Vec<Finding> {
    let places = source.places_of(words).into_iter();
    places.map(|at| Finding { line: source.line(at), what: words.concat() }).collect()
}

/// The names that stand behind `keyword` and should not.
fn named_after(source: &Source, keyword: &str, is_bad: impl Fn(&str) -> bool) -> Vec<Finding> {
    let names = source.places_of(&[keyword]).into_iter().map(|at| at + 1);
    names.filter(|at| is_bad(source.word(*at))).map(|at| finding(source, at)).collect()
}

fn bool_parameters(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    for start in source.places_of(&["fn"]) {
        // Serde's trait decides what this one is given.
        if source.word(start + 1) == "visit_bool" || source.word(start + 1) == "(" {
            continue;
        }
        let Some(open) = (start..start + 40).find(|at| source.word(*at) == "(") else { continue };
        let inside = open + 1..source.closing(open);
        let bools = inside.filter(|at| source.word(*at) == ":" && source.word(at + 1) == "bool");
        found.extend(bools.map(|at| finding(source, at - 1)));
    }
    found
}

/// The lines of a text file that should not be there.
fn banned_lines(file: &TextFile) -> Vec<String> {
    let is_mark = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric()).any(|word| UNFINISHED.contains(&word))
    };
    let is_private = |line: &str| PRIVATE_PLACES.iter().any(|place| names_place(line, place));
    let lines = file.text.lines().enumerate();
    let banned = lines.filter(|(_, line)| is_mark(line) || is_private(line));
    banned.map(|(at, line)| format!("{}:{}: {}", file.path, at + 1, line.trim())).collect()
}

/// Whether the line names this place, rather than one that ends like it.
fn names_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-'))
    })
}

#[test]
fn names_follow_the_grammar_of_the_house() {
    assert_kept(NAMES);
}

#[test]
fn bad_habits_stay_out() {
    assert_kept(HABITS);
}

#[test]
fn every_rule_about_words_is_broken_by_its_example() {
    assert_sharp(NAMES);
    assert_sharp(HABITS);
}

#[test]
fn nothing_is_unfinished_and_no_private_place_is_named() {
    let banned: Vec<String> = workspace::texts().iter().flat_map(banned_lines).collect();
    assert_none(&banned);
}

#[test]
fn an_unfinished_mark_or_a_private_place_is_found() {
    let banned =
        |text: &str| banned_lines(&TextFile { path: "x".to_owned(), text: text.to_owned() }).len();
    for mark in UNFINISHED {
        assert_eq!(banned(&format!("a\n// {mark}: later")), 1, "{mark}");
        assert_eq!(banned(&format!("a{mark}b")), 0, "{mark}");
    }
    for place in PRIVATE_PLACES {
        assert_eq!(banned(&format!("see \"{place}x\"")), 1, "{place}");
        assert_eq!(banned(&format!("see .{place}x, and a{place}x")), 0, "{place}");
    }
}
