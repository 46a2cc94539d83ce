//! The journal's files: `events.jsonl`, which is written, and those that it became when it was full.
//!
//! A full file is renamed to `events-<number of its last event>.jsonl`. The oldest go when there
//! are too many.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::JournalError;
use super::writer::{Outage, Sink};

/// A file of this size is full.
pub(super) const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// What full files may hold together; with the one being written, 64 MiB.
pub(super) const FULL_SEGMENTS_BYTES: u64 = 15 * SEGMENT_BYTES;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// At its end.
    AtEnd,
    /// Anywhere.
    Anywhere,
}

/// Opens a regular file, or makes it (mode 0600). Nothing else is followed or waited for: not a
/// link, not a pipe.
pub(super) fn open(path: &Path, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    match access {
        Access::AtEnd => options.append(true),
        Access::Anywhere => options.write(true),
    };
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file =
        options.read(true).create(true).mode(0o600).custom_flags(flags.cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Whether a file that is open has no name any more: nobody will find what is written to it.
pub(super) fn is_removed(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.nlink() == 0)
}

/// The full files of a directory, oldest first, by the number of their last event.
pub(super) fn full_segments(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let last = entry.file_name().to_str().and_then(last_of);
        segments.extend(last.map(|last| (last, entry.path())));
    }
    segments.sort();
    Ok(segments)
}

fn last_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("events-")?.strip_suffix(".jsonl")?;
    super::plausible(digits.parse().ok()?)
}

/// The file that is written, below a directory.
pub(super) fn active(directory: &Path) -> PathBuf {
    directory.join("events.jsonl")
}

/// The restarts, below a directory.
pub(super) fn restarts(directory: &Path) -> PathBuf {
    directory.join("restarts.jsonl")
}

/// The restarts before those, below a directory.
pub(super) fn older_restarts(directory: &Path) -> PathBuf {
    directory.join("restarts-old.jsonl")
}

/// What becomes of a full file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// One of the files of events.
    Numbered,
    /// The one file of older restarts.
    Replaced,
}

/// A file that is written, and gives way to a new one when it is full.
#[derive(Debug)]
pub(super) struct Segment {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    turn: Turn,
    /// Whether the last attempt to begin a new file failed.
    turning: Outage,
}

impl Segment {
    /// The file of events.
    pub(super) fn of_events(directory: &Path) -> Result<Self, JournalError> {
        Self::open(directory, active(directory), Turn::Numbered)
    }

    /// The file of restarts.
    pub(super) fn of_restarts(directory: &Path) -> Result<Self, JournalError> {
        Self::open(directory, restarts(directory), Turn::Replaced)
    }

    fn open(directory: &Path, path: PathBuf, turn: Turn) -> Result<Self, JournalError> {
        let file = open(&path, Access::AtEnd)
            .map_err(|source| JournalError { path: path.clone(), source })?;
        Ok(Self { directory: directory.to_owned(), path, file, turn, turning: Outage::No })
    }

    /// The end of the file, at most this much, whole lines only; and whether its last line is torn.
    pub(super) fn tail(&self, most: u64) -> Result<(String, LastLine), JournalError> {
        self.read_tail(most).map_err(|source| JournalError { path: self.path.clone(), source })
    }

    fn read_tail(&self, most: u64) -> io::Result<(String, LastLine)> {
        let length = self.file.metadata()?.len();
        let start = length.saturating_sub(most);
        let mut bytes = vec![0; usize::try_from(length - start).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, start)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let last_line = if whole == bytes.len() { LastLine::Whole } else { LastLine::Torn };
        Ok((String::from_utf8_lossy(&bytes[..whole]).into_owned(), last_line))
    }

    fn turn(&mut self, last: u64) -> io::Result<()> {
        let full = match self.turn {
            Turn::Numbered => self.directory.join(format!("events-{last:020}.jsonl")),
            Turn::Replaced => older_restarts(&self.directory),
        };
        // Nothing of ours has been added since: the next event gives it a name of its own.
        if self.turn == Turn::Numbered && fs::symlink_metadata(&full).is_ok() {
            return Ok(());
        }
        // The new file first: without room for it everything stays as it is.
        let fresh = self.path.with_extension("new");
        let file = open(&fresh, Access::AtEnd)?;
        fs::rename(&self.path, full)?;
        fs::rename(&fresh, &self.path)?;
        self.file = file;
        if self.turn == Turn::Numbered { self.prune() } else { Ok(()) }
    }

    /// Removes the oldest full files. The newest stays, whatever its size.
    fn prune(&self) -> io::Result<()> {
        let mut kept = 0;
        for (index, (_, path)) in full_segments(&self.directory)?.into_iter().rev().enumerate() {
            kept += fs::symlink_metadata(&path)?.size();
            if index > 0 && kept > FULL_SEGMENTS_BYTES {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastLine {
    /// With the end of a line, or it is empty.
    Whole,
    /// Within a line.
    Torn,
}

impl Sink for Segment {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    /// Where no new file can be begun, the present one grows to twice its size, and no further.
    fn make_ready(&mut self, last: u64) -> io::Result<()> {
        if is_removed(&self.file)? {
            self.file = open(&self.path, Access::AtEnd)?;
            tracing::warn!(path = %self.path.display(), "a file of the journal was removed; it is made anew");
        }
        let length = self.file.metadata()?.len();
        if length < SEGMENT_BYTES {
            return Ok(());
        }
        match (self.turn(last), self.turning) {
            (Ok(()), _) => self.turning = Outage::No,
            (Err(error), _) if length >= 2 * SEGMENT_BYTES => return Err(error),
            (Err(_), Outage::Told) => {}
            (Err(error), Outage::No) => {
                self.turning = Outage::Told;
                tracing::error!(%error, "the journal cannot begin a new file");
            }
        }
        Ok(())
    }
}
