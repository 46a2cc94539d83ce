//! Finds out where an existing journal's numbering stands, at a bounded cost.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::lines::Lines;
use super::numbers::{BLOCK, Kept, Numbers};
use super::segments::{LastLine, Segment, active, full_segments};
use super::writer::{Ahead, Holds, Lane, Outage, Writer};
use super::{JournalCodec, JournalError, ResumePoint, Shared, plausible};

/// How much of the end of the latest file is read.
const TAIL_BYTES: u64 = 256 * 1024;

/// A journal whose files are open.
pub(super) struct Opened {
    events: Segment,
    events_end: LastLine,
    restarts: Segment,
    restarts_end: LastLine,
    numbers: Numbers,
    /// The last event that is written.
    written: u64,
    /// Where numbering goes on from.
    pub(super) resume: ResumePoint,
    /// Up to where it may go at once.
    pub(super) reserved: ResumePoint,
}

/// Opens the files, and reserves the first numbers.
pub(super) fn open(
    directory: &Path,
    codec: &Arc<dyn JournalCodec>,
) -> Result<Opened, JournalError> {
    let failed = |source| JournalError { path: directory.to_owned(), source };
    let events = Segment::of_events(directory)?;
    let restarts = Segment::of_restarts(directory)?;
    let (mut numbers, kept) = Numbers::open(directory)?;
    let (tail, events_end) = events.tail(TAIL_BYTES)?;
    let (_, restarts_end) = restarts.tail(1)?;
    let mut written = highest(tail.lines(), &**codec);
    let full = full_segments(directory).map_err(failed)?;
    if let Some((last, _)) = full.last() {
        written.sequence = written.sequence.max(*last);
    }
    let nothing_known = written == ResumePoint::default() && !matches!(kept, Kept::Upto(_));
    if nothing_known {
        let path = active(directory);
        let scanned = scan(&path, &**codec);
        written = scanned.map_err(|source| JournalError { path, source })?;
    }
    let resume = resume(written, kept, events_end);
    let reserved = ResumePoint { sequence: resume.sequence + BLOCK, ..resume };
    numbers
        .keep(reserved)
        .map_err(|source| JournalError { path: directory.join("numbers"), source })?;
    let written = written.sequence;
    Ok(Opened { events, events_end, restarts, restarts_end, numbers, written, resume, reserved })
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
fn scan(path: &Path, codec: &dyn JournalCodec) -> io::Result<ResumePoint> {
    let mut lines = Lines::of(File::open(path)?);
    let mut highest = ResumePoint::default();
    while let Some(line) = lines.next_line()? {
        highest = raise(highest, &line, codec);
    }
    Ok(highest)
}

impl Opened {
    pub(super) fn writer(
        self,
        shared: &Arc<Shared>,
        codec: &Arc<dyn JournalCodec>,
    ) -> Writer<Segment> {
        let lane =
            |sink, holds, written, end| Lane::new(sink, Arc::clone(codec), holds, written, end);
        Writer {
            shared: Arc::clone(shared),
            codec: Arc::clone(codec),
            events: lane(self.events, Holds::Events, self.written, self.events_end),
            restarts: lane(self.restarts, Holds::Restarts, 0, self.restarts_end),
            numbers: self.numbers,
            reserved: self.reserved,
            incarnation: self.resume.incarnation,
            outage: Outage::No,
            ahead: Ahead::Block,
        }
    }
}
