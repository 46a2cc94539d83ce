//! The local cache of the Hugging Face Hub (`huggingface_hub` 1.0, "Understand caching"):
//! `models--<namespace>--<name>` with `refs/<revision>`, `snapshots/<commit>` and `blobs`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The directory of a revision of a model.
///
/// # Errors
///
/// [`io::ErrorKind::NotFound`] if the cache has none; what stood in the way of looking.
pub(super) fn snapshot(cache: &Path, id: &str, revision: &str) -> io::Result<PathBuf> {
    let model = cache.join(format!("models--{}", id.replace('/', "--")));
    let commit = match fs::read_to_string(model.join("refs").join(revision)) {
        Ok(commit) => commit.trim().to_owned(),
        // A commit names itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => revision.to_owned(),
        Err(error) => return Err(error),
    };
    let snapshot = model.join("snapshots").join(commit);
    fs::metadata(&snapshot)?;
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_found_by_branch_and_by_commit_and_absence_is_told_from_failure() {
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join("models--org--a");
        fs::create_dir_all(model.join("refs")).unwrap();
        fs::create_dir_all(model.join("snapshots/abc")).unwrap();
        fs::write(model.join("refs/main"), "abc\n").unwrap();
        let of = |id, revision| snapshot(cache.path(), id, revision).map_err(|it| it.kind());
        let expected = model.join("snapshots/abc");
        assert_eq!(of("org/a", "main"), Ok(expected.clone()));
        assert_eq!(of("org/a", "abc"), Ok(expected));
        assert_eq!(of("org/a", "v2"), Err(io::ErrorKind::NotFound));
        assert_eq!(of("org/b", "main"), Err(io::ErrorKind::NotFound));
        fs::write(cache.path().join("models--org--c"), "").unwrap();
        assert_eq!(of("org/c", "main"), Err(io::ErrorKind::NotADirectory));
    }
}
