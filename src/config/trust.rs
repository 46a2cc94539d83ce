//! Whether a file that nobody named may decide what is run: only if nobody but its user and root could
//! have written it or put it there.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is wrong with the file, or with a directory on the way to it, as a lowercase fragment;
/// `None` if it can be trusted.
pub(super) fn distrust(path: &Path, file: &File) -> io::Result<Option<String>> {
    if let Some(fault) = fault(&file.metadata()?, Kind::File) {
        return Ok(Some(fault));
    }
    let real = fs::canonicalize(path)?;
    // The way as it is written counts as well: a symbolic link on it is as good as the file.
    for directory in path.ancestors().chain(real.ancestors()).filter(|it| it.is_absolute()) {
        let metadata = fs::symlink_metadata(directory)?;
        if !metadata.is_dir() {
            continue;
        }
        if let Some(fault) = fault(&metadata, Kind::Directory) {
            return Ok(Some(format!("its directory {} {fault}", directory.display())));
        }
    }
    Ok(None)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
}

fn fault(metadata: &Metadata, kind: Kind) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Some(format!("belongs to user {owner}"));
    }
    // In a directory with the sticky bit, such as /tmp, only its owner can replace a file.
    let is_sticky = kind == Kind::Directory && mode & 0o1000 != 0;
    // By convention the group with the number of a user has no other member, and a umask of 002
    // gives it everything.
    let group_is_private = metadata.gid() == owner;
    match mode {
        _ if is_sticky => None,
        mode if mode & 0o002 != 0 => Some("may be written by everybody".to_owned()),
        mode if mode & 0o020 != 0 && !group_is_private => {
            Some(format!("may be written by group {}", metadata.gid()))
        }
        _ => None,
    }
}
