//! Finds out where an existing journal's numbering stands, at a bounded cost.

use std::io;
use std::sync::Arc;

use super::files::open_to_read;
use super::lane::LastLine;
use super::lines::Lines;
use super::numbers::{BLOCK, Kept, NUMBERS, Numbers};
use super::segments::{EVENTS, Segment, full_segments};
use super::{JournalCodec, JournalError, ResumePoint, plausible};
use crate::adapters::directory::Directory;

/// How much of the end of the latest file is read.
const TAIL_BYTES: u64 = 256 * 1024;

/// A journal whose files are open.
pub(super) struct Opened {
    pub(super) directory: Arc<Directory>,
    pub(super) events: Segment,
    pub(super) events_end: LastLine,
    pub(super) restarts: Segment,
    pub(super) restarts_end: LastLine,
    pub(super) numbers: Numbers,
    /// What the numbers' file says.
    pub(super) kept: Kept,
    /// The last event that is written.
    pub(super) written: u64,
    /// Where numbering goes on from.
    pub(super) resume: ResumePoint,
}

/// Opens the files. What they hold stays as it is.
pub(super) fn open(
    directory: &Arc<Directory>,
    codec: &Arc<dyn JournalCodec>,
) -> Result<Opened, JournalError> {
    let failed = |source| JournalError { path: directory.path().to_owned(), source };
    let events = Segment::of_events(directory)?;
    let restarts = Segment::of_restarts(directory)?;
    let (numbers, kept) = Numbers::open(directory)?;
    let (tail, events_end) = events.tail(TAIL_BYTES)?;
    let (_, restarts_end) = restarts.tail(1)?;
    let mut written = highest(tail.lines(), &**codec);
    let full = full_segments(directory).map_err(failed)?;
    if let Some((last, _)) = full.last() {
        written.sequence = written.sequence.max(*last);
    }
    let nothing_known = written == ResumePoint::default() && !matches!(kept, Kept::Upto(_));
    if nothing_known {
        let scanned = scan(directory, &**codec);
        written = scanned.map_err(|source| JournalError::of(directory, EVENTS, source))?;
    }
    let resume = resume(written, kept, events_end);
    let (directory, written) = (Arc::clone(directory), written.sequence);
    Ok(Opened {
        directory,
        events,
        events_end,
        restarts,
        restarts_end,
        numbers,
        kept,
        written,
        resume,
    })
}

/// Numbers that may have been given are not given again, whether or not they were written.
fn resume(written: ResumePoint, kept: Kept, end: LastLine) -> ResumePoint {
    let unknown = ResumePoint { sequence: written.sequence + BLOCK, ..written };
    match (kept, end) {
        (Kept::Upto(kept), _) => ResumePoint {
            sequence: written.sequence.max(kept.sequence),
            incarnation: written.incarnation.max(kept.incarnation),
        },
        (Kept::Nothing, LastLine::Whole) => written,
        (Kept::Nothing, LastLine::Torn) | (Kept::Rubbish, _) => unknown,
    }
}

fn highest<'a>(lines: impl Iterator<Item = &'a str>, codec: &dyn JournalCodec) -> ResumePoint {
    lines.fold(ResumePoint::default(), |highest, line| raise(highest, line, codec))
}

fn raise(highest: ResumePoint, line: &str, codec: &dyn JournalCodec) -> ResumePoint {
    let numbers = codec.numbers(line);
    let numbers = numbers.and_then(|(seq, of)| Some((plausible(seq.get())?, plausible(of.get())?)));
    numbers.map_or(highest, |(sequence, incarnation)| ResumePoint {
        sequence: highest.sequence.max(sequence),
        incarnation: highest.incarnation.max(incarnation),
    })
}

/// The highest numbers of a file whose end has none: of an earlier version, or rubbish.
fn scan(directory: &Directory, codec: &dyn JournalCodec) -> io::Result<ResumePoint> {
    let mut lines = Lines::of(open_to_read(directory, EVENTS)?);
    let mut highest = ResumePoint::default();
    while let Some(line) = lines.next_line()? {
        highest = raise(highest, &line, codec);
    }
    Ok(highest)
}

impl Opened {
    /// Reserves the first numbers, and tells up to which.
    pub(super) fn reserve(&mut self) -> Result<ResumePoint, JournalError> {
        let reserved = ResumePoint { sequence: self.resume.sequence + BLOCK, ..self.resume };
        let kept = self.numbers.keep(reserved);
        kept.map_err(|source| JournalError::of(&self.directory, NUMBERS, source))?;
        self.kept = Kept::Upto(reserved);
        Ok(reserved)
    }
}
