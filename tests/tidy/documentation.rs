//! Documents that keep their promises: what they name exists.

use std::path::Path;

use crate::rule::assert_none;
use crate::source::Source;
use crate::workspace::{self, TextFile};

/// Documents for those who come anew.
const DOCUMENTS: [&str; 4] = ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"];

/// Lines of `ARCHITECTURE.md`: one sitting.
const ARCHITECTURE_LINES: usize = 270;

/// By these ends a word in a document is known to name a file.
const FILE_ENDS: [&str; 6] = [".rs", ".md", ".yaml", ".json", ".sh", ".toml"];

fn has_a_module_doc(source: &Source) -> bool {
    let mut lines = source.text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with("#!["));
    first.is_some_and(|line| line.strip_prefix("//!").is_some_and(|text| !text.trim().is_empty()))
}

/// The words between single backticks, outside of fenced blocks, with their lines.
fn code_words(text: &str) -> Vec<(usize, &str)> {
    let mut is_fenced = false;
    let mut words = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        if !is_fenced && !is_fence {
            words.extend(line.split('`').skip(1).step_by(2).map(|word| (at + 1, word)));
        }
    }
    words
}

/// What the files of the workspace are called, and what files they make.
struct Files {
    paths: Vec<String>,
    sources: Vec<Source>,
}

impl Files {
    fn of_the_workspace() -> Self {
        Self { paths: workspace::paths(), sources: workspace::sources() }
    }

    /// Whether this reads as the path of a file here: by its end, or by its first directory. Ids of
    /// models, media types and routes do not.
    fn is_claimed(&self, word: &str) -> bool {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./*".contains(c);
        let is_foreign = word.starts_with(['/', '-']) || word.starts_with("target/");
        let has_end = FILE_ENDS.iter().any(|end| word.len() > end.len() && word.ends_with(end));
        word.chars().all(is_plain) && !is_foreign && (has_end || self.begins_here(word))
    }

    fn begins_here(&self, word: &str) -> bool {
        let Some((first, _)) = word.split_once('/') else { return false };
        self.paths.iter().any(|path| path.starts_with(&format!("{first}/")))
    }

    /// Whether a file or directory is called so, from the root or from somewhere below, with `*`
    /// for what is left open; or our code makes a file of that name.
    fn has(&self, word: &str) -> bool {
        let start = word.split('*').next().unwrap_or_default().trim_end_matches('/');
        let is_at = |path: &str| {
            let rest = path.strip_prefix(start);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || word.contains('*'))
        };
        let is_below = |path: &str| {
            is_at(path) || path.match_indices('/').any(|(slash, _)| is_at(&path[slash + 1..]))
        };
        let literal = format!("\"{word}\"");
        self.paths.iter().any(|path| is_below(path))
            || self.sources.iter().any(|source| source.text.contains(&literal))
    }

    /// The words of a document that name a file that is not there.
    fn missing(&self, document: &TextFile) -> Vec<String> {
        let words = code_words(&document.text).into_iter();
        let missing = words.filter(|(_, word)| self.is_claimed(word) && !self.has(word));
        missing.map(|(line, word)| format!("{}:{line}: no `{word}`", document.path)).collect()
    }
}

/// The links of a document that lead within the repository, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate();
    let links = lines.flat_map(|(at, line)| {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.map(move |target| (at + 1, target))
    });
    let inner = links.map(|(line, link)| (line, link.split('#').next().unwrap_or_default()));
    inner.filter(|(_, link)| !link.is_empty() && !link.contains(':')).collect()
}

fn broken_links(document: &TextFile, root: &Path) -> Vec<String> {
    let broken = links(&document.text).into_iter().filter(|(_, link)| !root.join(link).exists());
    broken.map(|(line, link)| format!("{}:{line}: no {link}", document.path)).collect()
}

fn documents() -> impl Iterator<Item = TextFile> {
    DOCUMENTS
        .into_iter()
        .map(|path| TextFile { path: path.to_owned(), text: workspace::read(path) })
}

/// The variants of an enum in this source.
fn variants(source: &Source, name: &str) -> Vec<String> {
    let Some(&start) = source.places_of(&["enum", name, "{"]).first() else { return Vec::new() };
    let inside = start + 3..source.closing(start + 2);
    inside.step_by(2).map(|at| source.word(at).to_owned()).collect()
}

/// The states that the diagram in this source leaves out.
fn states_left_out(source: &Source) -> Vec<String> {
    let docs = source.text.lines().filter_map(|line| line.strip_prefix("//!"));
    let diagram: Vec<&str> = docs
        .skip_while(|line| line.trim() != "```text")
        .skip(1)
        .take_while(|line| line.trim() != "```")
        .collect();
    let states = variants(source, "ServiceState").into_iter();
    states.filter(|state| !diagram.iter().any(|line| line.contains(state.as_str()))).collect()
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = workspace::sources().into_iter().filter(|source| !has_a_module_doc(source));
    let silent: Vec<String> = silent.map(|source| format!("{}:1: no `//!`", source.path)).collect();
    assert_none(&silent);
}

#[test]
fn a_file_without_a_word_about_itself_is_found() {
    for (text, expected) in [
        ("//! What it is.\nuse a;", true),
        ("#![expect(x)]\n\n//! What it is.", true),
        ("//!\nuse a;", false),
        ("/// Not about the file.\nstruct X;", false),
        ("", false),
    ] {
        assert_eq!(has_a_module_doc(&Source::new("src/x.rs", text)), expected, "{text}");
    }
}

#[test]
fn the_architecture_is_read_in_one_sitting() {
    let lines = workspace::read("ARCHITECTURE.md").lines().count();
    assert!(lines <= ARCHITECTURE_LINES, "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let files = Files::of_the_workspace();
    let missing: Vec<String> = documents().flat_map(|document| files.missing(&document)).collect();
    assert_none(&missing);
}

#[test]
fn a_file_that_is_named_and_not_there_is_found() {
    let files = Files::of_the_workspace();
    let missing = |text: &str| {
        let document = TextFile { path: "X.md".to_owned(), text: text.to_owned() };
        files.missing(&document).len()
    };
    for there in [
        "`actors/src/domain/state.rs`, `domain/state.rs`, `src/config`, `actors/src/domain/**`",
        "`config/examples/*.yaml`, `events.jsonl`, `.ci/run`",
        "`org/model`, `/health`, `application/json`, `target/vllm/venv`, `a::b/c d`",
        "```\n`src/nowhere.rs`\n```",
    ] {
        assert_eq!(missing(there), 0, "{there}");
    }
    for gone in ["`src/nowhere.rs`", "`domain/stat.rs`", "`src/nowhere`", "a\n`no.md`", "`src/x/*`"]
    {
        assert_eq!(missing(gone), 1, "{gone}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let root = workspace::root();
    let broken: Vec<String> =
        documents().flat_map(|document| broken_links(&document, &root)).collect();
    assert_none(&broken);
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let text = "[a](README.md#x) [b](https://x.y/z) [c](#here)\n[d](src/nowhere.rs), [e](src)";
    let document = TextFile { path: "X.md".to_owned(), text: text.to_owned() };
    assert_eq!(broken_links(&document, &workspace::root()), ["X.md:2: no src/nowhere.rs"]);
}

#[test]
fn the_diagram_shows_every_state() {
    let path = "actors/src/domain/state.rs";
    let source = Source::new(path, &workspace::read(path));
    assert!(variants(&source, "ServiceState").len() == 7, "the states are not found in {path}");
    assert_eq!(states_left_out(&source), Vec::<String>::new());
}

#[test]
fn a_state_that_is_missing_from_the_diagram_is_found() {
    let text = "//! ```text\n//! Up -> Up\n//! ```\n//! Down\nenum ServiceState { Up, Down, }";
    assert_eq!(states_left_out(&Source::new("x.rs", text)), ["Down"]);
}

#[test]
fn the_two_commands_of_the_readme_exist() {
    let readme = workspace::read("README.md");
    for command in ["cargo quickstart", "cargo test"] {
        assert!(readme.lines().any(|line| line.starts_with(command)), "README.md lacks {command}");
    }
    let aliases = workspace::read(".cargo/config.toml");
    assert!(aliases.contains("quickstart = \"run ") && aliases.contains("--bin quickstart"));
    let programs = workspace::read("tests/Cargo.toml");
    assert!(programs.contains("[[bin]]\nname = \"quickstart\""));
}
