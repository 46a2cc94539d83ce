//! What tells a state directory from all others: a random number that is kept in it.
//!
//! A path does not: it may be relative, be another directory for whoever is in another mount
//! namespace, or have been given to a new one. Beside the number stands which directory it was given
//! to, by device and inode: in a copy it is not this one's. Where a directory is moved to another file
//! system, or its file system shows another device than before, it counts as a copy as well.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::adapters::{directory, proc_fs};

const NAME: &str = "id";
const DRAFT: &str = "id.draft";

/// More than any has.
const LARGEST: u64 = 256;

/// The number of a state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::adapters) struct Identity {
    pub(in crate::adapters) id: String,
    /// Whether it was given just now, so that what ran by another one is not known by it.
    pub(in crate::adapters) is_new: bool,
    /// The number that was found in it, and was another directory's.
    pub(in crate::adapters) former: Option<String>,
}

/// What is kept.
struct Kept {
    id: String,
    /// The directory that it was given to; `None` if it was not said, as before 2026-11-26.
    directory: Option<String>,
}

impl Identity {
    /// The one that is kept there, unless it is another directory's; otherwise `known`, or a new one,
    /// which is then written.
    pub(super) fn of(directory: &OwnedFd, known: Option<&Self>) -> Result<Self, Errno> {
        let stat = fstat(directory)?;
        let here = format!("{}:{}", stat.st_dev, stat.st_ino);
        let kept = read(directory)?;
        let identity = match (kept, known) {
            (Some(kept), _) if kept.directory.as_ref() == Some(&here) => {
                return Ok(Self { id: kept.id, is_new: false, former: None });
            }
            (Some(Kept { id, directory: None }), _) => Self { id, is_new: false, former: None },
            (_, Some(known)) => known.clone(),
            (kept, None) => {
                let id = proc_fs::random_uuid().map_err(|error| errno(&error))?;
                Self { id, is_new: true, former: kept.map(|kept| kept.id) }
            }
        };
        let text = format!("{}\n{here}\n", identity.id);
        directory::replace(directory, NAME, DRAFT, text.as_bytes()).map_err(|it| errno(&it))?;
        Ok(identity)
    }
}

/// `None` if there is none, or it was not written to its end.
fn read(directory: &OwnedFd) -> Result<Option<Kept>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(directory, NAME, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        file => file?,
    };
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::NXIO);
    }
    let mut text = Vec::new();
    File::from(file).take(LARGEST).read_to_end(&mut text).map_err(|it| errno(&it))?;
    let text = String::from_utf8(text).unwrap_or_default();
    let mut lines = text.lines().map(|line| line.trim().to_owned());
    let id = lines.next().unwrap_or_default();
    let is_id = id.len() >= 32 && id.bytes().all(|it| it.is_ascii_hexdigit() || it == b'-');
    Ok(is_id.then(|| Kept { id, directory: lines.next() }))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
