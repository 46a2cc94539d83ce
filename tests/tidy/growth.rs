//! What a program meets can grow without breaking it: public types are `#[non_exhaustive]`, but for
//! those of which each possibility has to be thought of.

use std::collections::BTreeSet;

use crate::rule::assert_none;
use crate::source::Source;
use crate::twins::passed_on;
use crate::workspace;

/// Types to which nothing is added without everybody's having to think of it.
const CLOSED: [&str; 8] = [
    // The states of the mission, what may follow a failure, and what may be chosen.
    "ServiceState",
    "RetryClass",
    "StopMode",
    "LifecycleMode",
    "ExitPolicy",
    "OrphanOutcome",
    "FileSearch",
    // Something, or a hole in its place.
    "Notice",
];

/// The types of this file that programs meet and that cannot grow.
fn rigid(source: &Source, met: &BTreeSet<String>) -> Vec<String> {
    let is_root = source.path.starts_with("src/") && !source.path.contains("tests");
    let mut found = Vec::new();
    for kind in ["struct", "enum"] {
        for at in source.places_of(&["pub", kind]) {
            let name = source.word(at + 2);
            let is_met = is_root || met.contains(name);
            if is_met && !CLOSED.contains(&name) && is_open(source, at) && !is_marked(source, at) {
                found.push(format!("{}:{}: {name}", source.path, source.line(at)));
            }
        }
    }
    found
}

/// Whether programs can take it apart: an enum, or a struct with public fields.
fn is_open(source: &Source, at: usize) -> bool {
    let end = (at..source.tokens.len()).find(|at| matches!(source.word(*at), ";" | "{" | "("));
    let Some(open) = end.filter(|at| source.word(*at) != ";") else { return false };
    let mut fields = open..source.closing(open);
    source.word(at + 1) == "enum"
        || fields.any(|at| source.word(at) == "pub" && source.word(at + 1) != "(")
}

fn is_marked(source: &Source, at: usize) -> bool {
    let start = (0..at).rev().find(|at| matches!(source.word(*at), "}" | ";" | "{"));
    (start.unwrap_or(0)..at).any(|at| source.word(at) == "non_exhaustive")
}

#[test]
fn what_programs_meet_can_grow() {
    let sources = workspace::sources();
    let met: BTreeSet<String> = sources.iter().flat_map(passed_on).map(|(name, _)| name).collect();
    let shipped = sources.iter().filter(|it| {
        (it.path.starts_with("src/") || it.path.starts_with("actors/src/"))
            && !it.path.contains("/testing")
    });
    let found: Vec<String> = shipped.flat_map(|source| rigid(source, &met)).collect();
    assert_none(&found);
}

#[test]
fn a_type_that_cannot_grow_is_found() {
    let met = BTreeSet::from(["Gpu".to_owned()]);
    let count = |path: &str, text: &str| rigid(&Source::new(path, text), &met).len();
    assert_eq!(
        count("src/x.rs", "pub enum A {} pub struct B { pub b: u8 } pub struct C(pub u8);"),
        3
    );
    assert_eq!(count("src/x.rs", "#[non_exhaustive] pub enum A {} pub struct B { b: u8 }"), 0);
    assert_eq!(count("src/x.rs", "pub struct A; pub struct B { pub(crate) b: u8 } enum C {}"), 0);
    assert_eq!(
        count("actors/src/x.rs", "pub struct Gpu { pub a: u8 } pub struct B { pub b: u8 }"),
        1
    );
}
