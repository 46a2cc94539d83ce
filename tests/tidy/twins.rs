//! One name for one thing: what a program meets under a name it never meets as something else.

use std::collections::{BTreeMap, BTreeSet};

use crate::rule::assert_none;
use crate::source::Source;
use crate::workspace;

/// The crate whose types the root package passes on.
const ACTORS: &str = "vllm_supervisor_actors";

/// Names, and the places that each comes from.
type Homes = BTreeMap<String, BTreeSet<String>>;

/// The types that a file of the root package declares for everybody.
fn note_declared(source: &Source, homes: &mut Homes) {
    for kind in ["struct", "enum", "trait", "type"] {
        for at in source.places_of(&["pub", kind]).into_iter().map(|at| at + 2) {
            homes.entry(source.word(at).to_owned()).or_default().insert(source.path.clone());
        }
    }
}

/// The types that a file of the root package passes on, and the module of each.
pub(crate) fn passed_on(source: &Source) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for start in source.places_of(&["pub", "use", ACTORS]) {
        let end = (start..source.tokens.len()).find(|at| source.word(*at) == ";").unwrap_or(start);
        let is_name = |word: &str| word.starts_with(char::is_uppercase);
        let (names, path): (Vec<&str>, Vec<&str>) =
            (start + 2..end).map(|at| source.word(at)).partition(|word| is_name(word));
        let module = path.concat().replace(['{', '}', ','], "");
        found.extend(names.into_iter().map(|name| (name.to_owned(), module.clone())));
    }
    found
}

/// The names with more than one home.
fn twins(sources: &[Source]) -> Vec<String> {
    let mut homes = Homes::new();
    let is_root = |path: &str| path.starts_with("src/") && !path.contains("tests");
    for source in sources.iter().filter(|source| is_root(&source.path)) {
        note_declared(source, &mut homes);
        for (name, module) in passed_on(source) {
            homes.entry(name).or_default().insert(module);
        }
    }
    let doubled = homes.into_iter().filter(|(_, places)| places.len() > 1);
    doubled.map(|(name, places)| format!("{name}: {places:?}")).collect()
}

#[test]
fn no_two_public_types_have_the_same_name() {
    assert_none(&twins(&workspace::sources()));
}

#[test]
fn two_types_of_one_name_are_found() {
    let lib =
        || Source::new("src/lib.rs", "pub use vllm_supervisor_actors::domain::gpu::{Gpu, X};");
    let with = |path: &str, text: &str| twins(&[lib(), Source::new(path, text)]).len();
    assert_eq!(with("src/config.rs", "pub enum Gpu {}"), 1);
    assert_eq!(with("src/x.rs", "pub use vllm_supervisor_actors::domain::spec::Gpu;"), 1);
    assert_eq!(with("src/x.rs", "pub use vllm_supervisor_actors::domain::gpu::Gpu;"), 0);
    assert_eq!(with("src/config.rs", "pub enum GpuConfig {} pub(crate) struct Gpu {}"), 0);
    assert_eq!(with("tests/src/x.rs", "pub struct Gpu {}"), 0);
}
