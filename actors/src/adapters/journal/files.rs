//! How the journal opens its files.

use std::fs::File;
use std::io;

use rustix::fs::OFlags;

use crate::adapters::directory::Directory;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// At its end.
    AtEnd,
    /// Anywhere.
    Anywhere,
}

/// Opens a file, or makes it.
pub(super) fn open(directory: &Directory, name: &str, access: Access) -> io::Result<File> {
    let append = match access {
        Access::AtEnd => OFlags::APPEND,
        Access::Anywhere => OFlags::empty(),
    };
    directory.open_file(name, OFlags::RDWR | OFlags::CREATE | append)
}

/// Opens a file that is there.
pub(super) fn open_to_read(directory: &Directory, name: &str) -> io::Result<File> {
    directory.open_file(name, OFlags::RDONLY)
}
