//! The file `numbers`: the numbers that may have been given, kept before they are.
//!
//! Events are written without waiting for the disk, so what the journal holds after a crash does
//! not tell which numbers were given. Numbers are reserved a block at a time, synchronously; after
//! a crash numbering goes on behind the block, and readers see the rest of it as a gap. After an
//! orderly end the file says exactly where numbering stands.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::files::{Access, open};
use super::{JournalError, ResumePoint};
use crate::adapters::directory::Directory;

/// The file's name.
pub(super) const NUMBERS: &str = "numbers";

/// How many numbers are reserved at a time.
pub(super) const BLOCK: u64 = 1000;

/// Digits of a number in the file, enough for any.
const DIGITS: usize = 20;

/// The file, open.
#[derive(Debug)]
pub(super) struct Numbers {
    directory: Arc<Directory>,
    file: File,
}

/// What the file said when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// There was none: a new journal, or one of a version without the file.
    Nothing,
    /// It was torn, or is no file of ours.
    Rubbish,
    /// Numbers up to these may have been given.
    Upto(ResumePoint),
}

impl Numbers {
    pub(super) fn open(directory: &Arc<Directory>) -> Result<(Self, Kept), JournalError> {
        let failed = |source| JournalError::of(directory, NUMBERS, source);
        let file = open(directory, NUMBERS, Access::Anywhere).map_err(failed)?;
        let numbers = Self { directory: Arc::clone(directory), file };
        let kept = numbers.read().map_err(failed)?;
        Ok((numbers, kept))
    }

    /// What the file says now.
    pub(super) fn read(&self) -> io::Result<Kept> {
        let mut text = [0; 2 * DIGITS + 2];
        match self.file.read_exact_at(&mut text, 0) {
            Ok(()) => Ok(parse(&text).map_or(Kept::Rubbish, Kept::Upto)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                let empty = self.file.metadata()?.len() == 0;
                Ok(if empty { Kept::Nothing } else { Kept::Rubbish })
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps the numbers. They are overwritten in place, which needs no room on a full disk.
    /// A file that was removed is made anew, where its directory is there.
    pub(super) fn keep(&mut self, point: ResumePoint) -> io::Result<()> {
        if self.are_removed()? {
            self.file = open(&self.directory, NUMBERS, Access::Anywhere)?;
        }
        let text = format!("{:020} {:020}\n", point.sequence, point.incarnation);
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.sync_data()
    }

    /// Whether nobody will find the file again.
    pub(super) fn are_removed(&self) -> io::Result<bool> {
        Ok(!self.directory.is_named(NUMBERS, &self.file)?)
    }
}

fn parse(text: &[u8]) -> Option<ResumePoint> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let (sequence, incarnation) = text.split_once(' ')?;
    let number = |digits: &str| super::plausible(digits.parse().ok()?);
    Some(ResumePoint { sequence: number(sequence)?, incarnation: number(incarnation)? })
}
