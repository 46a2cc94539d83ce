//! The files of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

use crate::source::Source;

/// What no version control keeps: build output, git's own, and what the command makes.
const UNTRACKED: [&str; 3] = ["target", ".git", ".agent"];

/// A text file: its path from the root of the workspace, with `/`, and what stands in it.
#[derive(Debug)]
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests are a member of the workspace").to_owned()
}

/// What stands in this file of the workspace.
pub(crate) fn read(path: &str) -> String {
    let place = root().join(path);
    fs::read_to_string(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()))
}

/// The paths of all files, from the root of the workspace, with `/`.
pub(crate) fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    collect(&root(), "", &mut paths);
    paths.sort();
    paths
}

fn collect(directory: &Path, prefix: &str, paths: &mut Vec<String>) {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let entry = entry.expect("an entry of a directory that exists");
        let name = entry.file_name().into_string().expect("file names are UTF-8");
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().expect("the type of a file that exists");
        if kind.is_dir() && !UNTRACKED.contains(&name.as_str()) {
            collect(&entry.path(), &format!("{path}/"), paths);
        } else if kind.is_file() {
            paths.push(path);
        }
    }
}

/// Every text file.
pub(crate) fn texts() -> Vec<TextFile> {
    let files = paths().into_iter().filter_map(|path| {
        let text = String::from_utf8(fs::read(root().join(&path)).ok()?).ok()?;
        Some(TextFile { path, text })
    });
    files.collect()
}

/// Every Rust file.
pub(crate) fn sources() -> Vec<Source> {
    let files = texts()
        .into_iter()
        .filter(|file| Path::new(&file.path).extension().is_some_and(|it| it == "rs"));
    files.map(|file| Source::new(&file.path, &file.text)).collect()
}

/// The crates that the workspace depends on, as code names them.
pub(crate) fn dependencies() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let lines = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let entries = lines.take_while(|line| !line.starts_with('['));
    let names = entries.filter_map(|line| line.split_once(['=', '.'])).map(|(name, _)| name.trim());
    names.filter(|name| !name.starts_with('#')).map(|name| name.replace('-', "_")).collect()
}

#[test]
fn files_of_every_package_are_found_and_build_output_is_not() {
    let paths = paths();
    for path in ["Cargo.toml", "src/lib.rs", "actors/src/lib.rs", "tests/tidy/workspace.rs"] {
        assert!(paths.iter().any(|found| found == path), "{path}");
    }
    assert!(!paths.iter().any(|path| path.starts_with("target/") || path.starts_with(".git/")));
}

#[test]
fn dependencies_are_named_as_in_code() {
    let dependencies = dependencies();
    for name in ["tokio", "serde_saphyr", "vllm_supervisor_actors"] {
        assert!(dependencies.iter().any(|found| found == name), "{name}");
    }
}
