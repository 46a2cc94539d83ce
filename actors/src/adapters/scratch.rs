//! A private directory for one launch: sockets, and whatever else is not to outlive it.
//!
//! Its name is random, it is made and never found, and it is ours alone, so nobody can prepare it.
//! Its path is short: vLLM's sockets lie in it, and a socket's path holds 108 bytes.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, CWD, Mode, OFlags, access, fstat, mkdirat, openat};
use rustix::io::Errno;

use super::proc_fs;
use super::system_error::if_present;

mod locks;

pub(super) use locks::{Owner, ScratchLocks};

/// What every name begins with.
const PREFIX: &str = "vllmd-";

/// Random digits of a name.
const DIGITS: usize = 12;

/// Bytes of a socket's path without its NUL (unix(7)).
const SOCKET_PATH: usize = 107;

/// The same, less what vLLM appends: a slash and a UUID (vLLM 0.32, `utils/network_utils.py`,
/// `get_open_zmq_ipc_path`).
const LONGEST: usize = SOCKET_PATH - 37;

/// A directory that was made, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scratch {
    pub(super) path: PathBuf,
    pub(super) place: Place,
}

/// Where it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the directory for temporary files: it can hold those of vLLM too.
    Temporary,
    /// In another one: that for temporary files has too long a path.
    Elsewhere,
}

/// No place was fit.
#[derive(Debug, thiserror::Error)]
#[error("no private directory can be made in {}", path.display())]
pub(super) struct ScratchError {
    /// The last place that was tried.
    path: PathBuf,
    #[source]
    pub(super) source: io::Error,
}

/// Chooses a name in the first of these directories that is fit; the first of them is meant for
/// temporary files. Nothing is made yet: whoever is to remove it can be told before.
pub(super) fn choose(places: &[PathBuf]) -> Result<Scratch, ScratchError> {
    let nowhere = || io::Error::new(io::ErrorKind::InvalidInput, "no directory is given");
    let mut refused = ScratchError { path: PathBuf::new(), source: nowhere() };
    let mut place = Place::Temporary;
    for parent in places {
        if parent.as_os_str().len() + 1 + PREFIX.len() + DIGITS > LONGEST {
            let source = io::Error::new(
                io::ErrorKind::InvalidFilename,
                format!(
                    "its path is too long for sockets, whose own have at most {SOCKET_PATH} bytes"
                ),
            );
            refused = passed_over(parent, source);
            place = Place::Elsewhere;
            continue;
        }
        match choose_in(parent) {
            Ok(path) => return Ok(Scratch { path, place }),
            Err(source) => refused = passed_over(parent, source),
        }
    }
    Err(refused)
}

fn passed_over(parent: &Path, source: io::Error) -> ScratchError {
    let path = parent.to_owned();
    tracing::warn!(error = %source, path = %path.display(), "vLLM's private directory is made elsewhere");
    ScratchError { path, source }
}

fn choose_in(parent: &Path) -> io::Result<PathBuf> {
    drop(open_parent(parent)?);
    let digits = proc_fs::random_uuid()?.replace('-', "");
    Ok(parent.join(format!("{PREFIX}{}", digits.get(..DIGITS).unwrap_or(&digits))))
}

/// A directory in which ours is safe, and may be made.
fn open_parent(parent: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, parent.as_os_str().as_bytes(), flags, Mode::empty())?;
    let stat = fstat(&directory)?;
    if !is_kept_from_others(stat.st_mode, stat.st_uid) {
        let problem = "others could exchange what is in it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    access(parent.as_os_str().as_bytes(), Access::WRITE_OK | Access::EXEC_OK)?;
    Ok(directory)
}

impl Scratch {
    /// Makes it, and never takes one that is there already.
    pub(super) fn make(&self) -> io::Result<()> {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = open_parent(parent)?;
        mkdirat(&directory, name.as_bytes(), Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = fstat(openat(&directory, name.as_bytes(), flags, Mode::empty())?)?;
        let others = Mode::from_raw_mode(made.st_mode) & (Mode::RWXG | Mode::RWXO);
        if made.st_uid == rustix::process::geteuid().as_raw() && others.is_empty() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "what was made is not private"))
    }
}

/// Whether nobody but its owner, who is we or root, can rename what is in a directory: others may
/// not write, or the sticky bit keeps them from what is not theirs.
fn is_kept_from_others(mode: u32, owner: u32) -> bool {
    let is_trusted = owner == 0 || owner == rustix::process::geteuid().as_raw();
    is_trusted && (mode & 0o022 == 0 || mode & 0o1000 != 0)
}

/// Removes one with all that is in it. A path that is none of ours, as a record may hold that was
/// tampered with, is left.
///
/// # Errors
///
/// Why it may be there still.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match what_is_at(path)? {
        What::Nothing => return Ok(()),
        What::Ours => {}
        What::SomethingElse => {
            tracing::warn!(path = %path.display(), "a directory that is not as it was made is left");
            return Ok(());
        }
    }
    // Links in it are not followed.
    let removed = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // Caches of modules and trees of builds may be read only.
            make_writable(path)?;
            fs::remove_dir_all(path)
        }
        removed => removed,
    };
    if_present(removed, &[Errno::NOENT]).map(drop)
}

/// What has the path of a private directory.
enum What {
    Nothing,
    /// A directory as we make them.
    Ours,
    /// A record may have been tampered with, or be another user's.
    SomethingElse,
}

fn what_is_at(path: &Path) -> io::Result<What> {
    let is_named_so =
        path.file_name().is_some_and(|name| name.as_bytes().starts_with(PREFIX.as_bytes()));
    let us = rustix::process::geteuid().as_raw();
    Ok(match if_present(fs::symlink_metadata(path), &[Errno::NOENT, Errno::NOTDIR])? {
        None => What::Nothing,
        Some(data) if is_named_so && data.is_dir() && data.uid() == us => What::Ours,
        Some(_) => What::SomethingElse,
    })
}

/// Lets us write in each directory of a tree that nobody else uses any more.
fn make_writable(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn make(places: &[PathBuf]) -> Result<Scratch, ScratchError> {
        let scratch = choose(places)?;
        scratch.make().unwrap();
        Ok(scratch)
    }

    #[test]
    fn one_that_somebody_has_prepared_is_not_taken() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = choose(&[parent.path().to_owned()]).unwrap();
        fs::create_dir(&scratch.path).unwrap();
        assert_eq!(scratch.make().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn each_is_a_new_directory_that_nobody_else_may_enter() {
        let parent = tempfile::tempdir().unwrap();
        let places = [parent.path().to_owned()];
        let (one, other) = (make(&places).unwrap(), make(&places).unwrap());
        assert_ne!(one.path, other.path);
        assert_eq!(one.place, Place::Temporary);
        for scratch in [one, other] {
            let data = fs::symlink_metadata(&scratch.path).unwrap();
            assert_eq!(data.permissions().mode() & 0o7777, 0o700);
            fs::create_dir_all(scratch.path.join("a/b")).unwrap();
            remove(&scratch.path).unwrap();
            assert!(!scratch.path.exists());
        }
    }

    #[test]
    fn a_directory_with_too_long_a_path_leaves_room_for_no_socket() {
        let parent = tempfile::tempdir().unwrap();
        let long = parent.path().join("x".repeat(60));
        fs::create_dir(&long).unwrap();
        let made = make(&[long, parent.path().to_owned()]).unwrap();
        assert_eq!((made.path.parent(), made.place), (Some(parent.path()), Place::Elsewhere));
        assert!(made.path.as_os_str().len() <= LONGEST);
    }

    #[test]
    fn one_that_is_not_there_is_not_made() {
        let parent = tempfile::tempdir().unwrap();
        let missing = parent.path().join("missing/below");
        let made = make(&[missing.clone(), parent.path().to_owned()]).unwrap();
        assert_eq!((made.path.parent(), made.place), (Some(parent.path()), Place::Temporary));
        assert!(!missing.parent().unwrap().exists());
    }

    #[test]
    fn one_in_which_others_could_exchange_it_is_passed_over() {
        let parent = tempfile::tempdir().unwrap();
        let open = parent.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(
            make(std::slice::from_ref(&open)).unwrap_err().source.kind(),
            io::ErrorKind::PermissionDenied
        );
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        make(&[open]).unwrap();
    }

    #[test]
    fn what_a_record_names_that_is_none_of_ours_is_left() {
        let parent = tempfile::tempdir().unwrap();
        let (other, link) = (parent.path().join("other"), parent.path().join("vllmd-link"));
        fs::create_dir(&other).unwrap();
        symlink(&other, &link).unwrap();
        remove(&other).unwrap();
        remove(&link).unwrap();
        assert!(other.exists() && link.is_symlink());
    }
}
