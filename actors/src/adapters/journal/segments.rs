//! The journal's files: `events.jsonl`, which is written, and those that it became when it was full.
//!
//! A full file is renamed to `events-<number of its last event>.jsonl`. The oldest go when there
//! are too many.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::JournalError;
use super::files::{Access, open};
use super::lane::{LastLine, Outage, Sink};
use crate::adapters::directory::Directory;

/// A file of this size is full.
pub(super) const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// What full files may hold together; with the one being written, 64 MiB.
pub(super) const FULL_SEGMENTS_BYTES: u64 = 15 * SEGMENT_BYTES;

/// The full files of a directory, oldest first, by the number of their last event.
pub(super) fn full_segments(directory: &Directory) -> io::Result<Vec<(u64, String)>> {
    let names = directory.names()?.into_iter();
    let mut segments: Vec<_> = names.filter_map(|name| Some((last_of(&name)?, name))).collect();
    segments.sort();
    Ok(segments)
}

fn last_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("events-")?.strip_suffix(".jsonl")?;
    super::plausible(digits.parse().ok()?)
}

/// The file of events that is written.
pub(super) const EVENTS: &str = "events.jsonl";

/// The restarts.
pub(super) const RESTARTS: &str = "restarts.jsonl";

/// The restarts before those.
pub(super) const OLDER_RESTARTS: &str = "restarts-old.jsonl";

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
    directory: Arc<Directory>,
    name: &'static str,
    /// What it is called while it is begun.
    fresh: &'static str,
    file: File,
    turn: Turn,
    /// Whether the last attempt to begin a new file failed.
    turning: Outage,
}

impl Segment {
    /// The file of events.
    pub(super) fn of_events(directory: &Arc<Directory>) -> Result<Self, JournalError> {
        Self::open(directory, (EVENTS, "events.new"), Turn::Numbered)
    }

    /// The file of restarts.
    pub(super) fn of_restarts(directory: &Arc<Directory>) -> Result<Self, JournalError> {
        Self::open(directory, (RESTARTS, "restarts.new"), Turn::Replaced)
    }

    fn open(
        directory: &Arc<Directory>,
        (name, fresh): (&'static str, &'static str),
        turn: Turn,
    ) -> Result<Self, JournalError> {
        let file = open(directory, name, Access::AtEnd)
            .map_err(|source| JournalError::of(directory, name, source))?;
        Ok(Self { directory: Arc::clone(directory), name, fresh, file, turn, turning: Outage::No })
    }

    /// The end of the file, at most this much, whole lines only; and whether its last line is torn.
    pub(super) fn tail(&self, most: u64) -> Result<(String, LastLine), JournalError> {
        self.read_tail(most).map_err(|source| JournalError::of(&self.directory, self.name, source))
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

    /// Begins a new file, and tells how that ends.
    fn turn(&mut self, last: u64) -> io::Result<Option<LastLine>> {
        let full = match self.turn {
            Turn::Numbered => format!("events-{last:020}.jsonl"),
            Turn::Replaced => OLDER_RESTARTS.to_owned(),
        };
        // Nothing of ours has been added since: the next event gives it a name of its own.
        if self.turn == Turn::Numbered && self.directory.stat(&full)?.is_some() {
            return Ok(None);
        }
        // The new file first: without room for it everything stays as it is.
        let file = open(&self.directory, self.fresh, Access::AtEnd)?;
        self.directory.rename(self.name, &full)?;
        self.directory.rename(self.fresh, self.name)?;
        self.file = file;
        if self.turn == Turn::Numbered {
            self.prune()?;
        }
        Ok(Some(self.read_tail(1)?.1))
    }

    /// Removes the oldest full files. The newest stays, whatever its size.
    fn prune(&self) -> io::Result<()> {
        let mut kept = 0;
        for (index, (_, name)) in full_segments(&self.directory)?.into_iter().rev().enumerate() {
            let size = self.directory.stat(&name)?.map_or(0, |stat| stat.st_size.cast_unsigned());
            kept += size;
            if index > 0 && kept > FULL_SEGMENTS_BYTES {
                self.directory.remove(&name)?;
            }
        }
        Ok(())
    }
}

impl Sink for Segment {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    /// Where no new file can be begun, the present one grows to twice its size, and no further.
    fn make_ready(&mut self, last: u64) -> io::Result<Option<LastLine>> {
        let mut other = None;
        if !self.directory.is_named(self.name, &self.file)? {
            self.file = open(&self.directory, self.name, Access::AtEnd)?;
            other = Some(self.read_tail(1)?.1);
            let path = self.directory.path().join(self.name);
            tracing::warn!(path = %path.display(), "a file of the journal was taken away; it is made anew");
        }
        let length = self.file.metadata()?.len();
        if length < SEGMENT_BYTES {
            return Ok(other);
        }
        match (self.turn(last), self.turning) {
            (Ok(turned), _) => {
                self.turning = Outage::No;
                other = turned.or(other);
            }
            (Err(error), _) if length >= 2 * SEGMENT_BYTES => return Err(error),
            (Err(_), Outage::Told) => {}
            (Err(error), Outage::No) => {
                self.turning = Outage::Told;
                tracing::error!(%error, "the journal cannot begin a new file");
            }
        }
        Ok(other)
    }
}
