//! What tells a state directory from all others: a random number that is kept in it.
//!
//! A path does not: it may be relative, be another directory for whoever is in another mount
//! namespace, or have been given to a new one.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::adapters::{directory, proc_fs};

const NAME: &str = "id";
const DRAFT: &str = "id.draft";

/// More than any has.
const LARGEST: u64 = 64;

/// The number of a state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: String,
    /// Whether it was not there, so that what ran by another one is not known by it.
    pub(super) is_new: bool,
}

impl Identity {
    /// The one that is kept there; otherwise `known`, or a new one, which is then written.
    pub(super) fn of(directory: &OwnedFd, known: Option<&Self>) -> Result<Self, Errno> {
        if let Some(id) = read(directory)? {
            return Ok(Self { id, is_new: false });
        }
        let identity = match known {
            Some(known) => known.clone(),
            None => Self { id: proc_fs::random_uuid().map_err(|it| errno(&it))?, is_new: true },
        };
        let text = format!("{}\n", identity.id);
        directory::replace(directory, NAME, DRAFT, text.as_bytes()).map_err(|it| errno(&it))?;
        Ok(identity)
    }
}

/// `None` if there is none, or it was not written to its end.
fn read(directory: &OwnedFd) -> Result<Option<String>, Errno> {
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
    let id = String::from_utf8(text).unwrap_or_default().trim().to_owned();
    let is_id = id.len() >= 32 && id.bytes().all(|it| it.is_ascii_hexdigit() || it == b'-');
    Ok(is_id.then_some(id))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
