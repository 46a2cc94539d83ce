//! The paths that a file names, in `use` and elsewhere: `a::{b, c::D}` are `a::b` and `a::c::D`.

use crate::source::Source;

/// A path of two segments or more, or one that is imported.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedPath {
    /// Its segments; `super` and `self` are resolved, so that what is ours starts with `crate`.
    pub(crate) segments: Vec<String>,
    /// Where it is named, from 1.
    pub(crate) line: usize,
    /// The code that names it.
    pub(crate) named_by: Area,
}

/// Which code names a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    /// What is shipped.
    Production,
    /// A module `tests`, in the file or of its own.
    Tests,
}

impl NamedPath {
    /// Whether it is the path `start` or something below it.
    pub(crate) fn is_below(&self, start: &str) -> bool {
        let mut segments = self.segments.iter();
        start.split("::").all(|part| segments.next().is_some_and(|segment| segment == part))
    }

    /// Whether its last segments are these.
    pub(crate) fn ends_in(&self, end: &str) -> bool {
        let mut segments = self.segments.iter().rev();
        end.rsplit("::").all(|part| segments.next().is_some_and(|segment| segment == part))
    }

    /// The segment at this place; empty where there is none.
    pub(crate) fn segment(&self, at: usize) -> &str {
        self.segments.get(at).map_or("", String::as_str)
    }
}

/// Every path that the file names.
pub(crate) fn named_paths(source: &Source) -> Vec<NamedPath> {
    let mut walk = Walk { source, file: module_of(&source.path), inside: Vec::new(), depth: 0 };
    let (mut paths, mut at) = (Vec::new(), 0);
    while at < source.tokens.len() {
        at = walk.step(at, &mut paths);
    }
    paths
}

/// The module that a file holds: `actors/src/root/message.rs` holds `root::message`.
pub(crate) fn module_of(path: &str) -> Vec<String> {
    let path = path.rsplit_once("src/").map_or(path, |(_, inside)| inside);
    let path = path.trim_end_matches(".rs");
    let segments = path.split('/').filter(|segment| !matches!(*segment, "lib" | "main"));
    segments.map(str::to_owned).collect()
}

struct Walk<'a> {
    source: &'a Source,
    file: Vec<String>,
    /// The modules around this place within the file, each with the depth of its braces.
    inside: Vec<(String, usize)>,
    depth: usize,
}

impl Walk<'_> {
    /// Reads what stands at this place, and tells where to go on.
    fn step(&mut self, at: usize, paths: &mut Vec<NamedPath>) -> usize {
        let word = |at: usize| self.source.word(at);
        match word(at) {
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                let depth = self.depth;
                self.inside.retain(|(_, around)| *around < depth);
            }
            "mod" if word(at + 2) == "{" => {
                self.inside.push((word(at + 1).to_owned(), self.depth));
            }
            _ if self.starts_a_path(at) => {
                let mut found = Vec::new();
                let end = self.path(at, &[], &mut found);
                paths.extend(found.into_iter().map(|(segments, line)| NamedPath {
                    segments: self.resolved(segments),
                    line,
                    named_by: self.area(),
                }));
                return end;
            }
            _ => {}
        }
        at + 1
    }

    fn starts_a_path(&self, at: usize) -> bool {
        let before = at.checked_sub(1).map_or("", |before| self.source.word(before));
        is_name(self.source.word(at))
            && !matches!(before, "::" | ".")
            && (self.source.word(at + 1) == "::" || before == "use")
    }

    /// Reads the path that goes on here behind `prefix`, and tells where it ends.
    fn path(
        &self,
        mut at: usize,
        prefix: &[String],
        found: &mut Vec<(Vec<String>, usize)>,
    ) -> usize {
        let word = |at: usize| self.source.word(at);
        let line = self.source.line(at);
        let mut segments = prefix.to_vec();
        loop {
            match word(at) {
                "{" => return self.group(at, &segments, found),
                name if is_name(name) || name == "*" => segments.push(name.to_owned()),
                // A turbofish; what stands in it is looked at by itself.
                _ => break,
            }
            at += 1;
            if word(at) != "::" {
                break;
            }
            at += 1;
        }
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        found.push((segments, line));
        at
    }

    fn group(
        &self,
        open: usize,
        prefix: &[String],
        found: &mut Vec<(Vec<String>, usize)>,
    ) -> usize {
        let close = self.source.closing(open);
        let mut at = open + 1;
        while at < close {
            let goes_on = is_name(self.source.word(at)) || self.source.word(at) == "*";
            at = match self.source.word(at) {
                "as" => at + 2,
                _ if goes_on => self.path(at, prefix, found),
                _ => at + 1,
            };
        }
        close + 1
    }

    fn module(&self) -> Vec<String> {
        self.file.iter().chain(self.inside.iter().map(|(name, _)| name)).cloned().collect()
    }

    fn area(&self) -> Area {
        let is_tests = self.module().iter().any(|segment| segment == "tests");
        if is_tests { Area::Tests } else { Area::Production }
    }

    fn resolved(&self, segments: Vec<String>) -> Vec<String> {
        let supers = segments.iter().take_while(|segment| *segment == "super").count();
        let own = usize::from(segments[0] == "self");
        if supers + own == 0 {
            return segments;
        }
        let mut module = self.module();
        module.truncate(module.len().saturating_sub(supers));
        let rest = segments.into_iter().skip(supers + own);
        std::iter::once("crate".to_owned()).chain(module).chain(rest).collect()
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && !matches!(word, "use" | "pub" | "mod" | "fn" | "as" | "in")
}

fn names(path: &str, text: &str) -> Vec<String> {
    let paths = named_paths(&Source::new(path, text));
    paths.iter().map(|path| path.segments.join("::")).collect()
}

#[test]
fn groups_are_taken_apart() {
    let text = "use a::{self, b, c::{D, E as F}, g::*}; pub(crate) use h;";
    assert_eq!(names("src/x.rs", text), ["a", "a::b", "a::c::D", "a::c::E", "a::g::*", "h"]);
}

#[test]
fn paths_in_code_are_found_and_fields_and_methods_are_not() {
    let text = "fn f() { a::B::new(c.d::<e::F>()); g!(h::i) }";
    assert_eq!(names("src/x.rs", text), ["a::B::new", "e::F", "h::i"]);
}

#[test]
fn super_and_self_are_resolved_in_the_module_where_they_stand() {
    let text = "use super::a; use self::b; mod tests { use super::*; } use super::super::c;";
    assert_eq!(
        names("actors/src/root/message.rs", text),
        ["crate::root::a", "crate::root::message::b", "crate::root::message::*", "crate::c"]
    );
}

#[test]
fn a_module_named_tests_is_test_code() {
    let text = "use a::b; mod tests { use a::b; } use a::b;";
    let paths = named_paths(&Source::new("src/x.rs", text));
    let areas: Vec<Area> = paths.iter().map(|path| path.named_by).collect();
    assert_eq!(areas, [Area::Production, Area::Tests, Area::Production]);
    let paths = named_paths(&Source::new("src/x/tests/more.rs", "use a::b;"));
    assert_eq!(paths[0].named_by, Area::Tests);
}
