//! What an installed vLLM is, by the directories that installers leave beside it.

use std::fs::{self, DirEntry};
use std::path::Path;

/// The distributions of vLLM among these packages (`vllm-0.32.0+cpu.dist-info`), each by its entry and name.
pub(super) fn distributions(packages: &Path) -> impl Iterator<Item = (DirEntry, String)> {
    let entries = fs::read_dir(packages).into_iter().flatten().flatten();
    let named = entries.map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (entry, name)
    });
    named.filter(|(_, name)| name.starts_with("vllm") && name.ends_with(".dist-info"))
}
