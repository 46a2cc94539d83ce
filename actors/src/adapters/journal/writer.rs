//! The thread that writes the journal.
//!
//! What cannot be written now is kept, within bounds, and tried again; what is lost is counted, and
//! a line says so as soon as one can be written.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use super::numbers::{BLOCK, Kept, Numbers};
use super::segments::{LastLine, Segment};
use super::{Entry, Home, JournalCodec, ResumePoint, Shared, opening};
use crate::adapters::directory::Directory;
use crate::adapters::state_directory::HeldDirectory;
use crate::domain::id::Sequence;

/// How long until what could not be written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How much may wait for a disk that takes nothing, in each file.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Where lines go.
pub(super) trait Sink: Send {
    /// As [`io::Write::write`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Sees to it that what is written now is found again: in another file if the present one is full
    /// or was taken away. Tells how that one ends. `last` is the number of the last event.
    fn make_ready(&mut self, last: u64) -> io::Result<Option<LastLine>>;
}

/// A line to be written.
#[derive(Debug)]
struct Line {
    /// Events are numbered by the journal, restarts one after the other.
    number: u64,
    text: String,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Events, whose numbers are public.
    Events,
    /// Restarts, which are counted in each life anew.
    Restarts,
}

/// One file's lines on their way to it.
pub(super) struct Lane<S> {
    sink: S,
    codec: Arc<dyn JournalCodec>,
    holds: Holds,
    waiting: VecDeque<Line>,
    waiting_bytes: usize,
    /// The last number written, or told to be missing.
    written: u64,
    /// Numbers up to here are not written any more: they stand for other events there.
    foreign: u64,
    /// How the file ends.
    last_line: LastLine,
}

impl<S: Sink> Lane<S> {
    pub(super) fn new(
        sink: S,
        codec: Arc<dyn JournalCodec>,
        holds: Holds,
        written: u64,
        last_line: LastLine,
    ) -> Self {
        Self {
            sink,
            codec,
            holds,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            written,
            foreign: 0,
            last_line,
        }
    }

    pub(super) fn push(&mut self, number: u64, text: String) {
        if number <= self.foreign {
            tracing::error!(number, "an event is lost: the journal has another with its number");
            return;
        }
        self.waiting_bytes += text.len();
        self.waiting.push_back(Line { number, text });
        // The latest is what a diagnosis needs.
        while self.waiting_bytes > QUEUE_BYTES
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.waiting_bytes -= oldest.text.len();
        }
    }

    /// Writes what waits, as far as it can be.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        while let Some(line) = self.waiting.pop_front() {
            if let Err(error) = self.write_next(&line) {
                self.waiting.push_front(line);
                return Err(error);
            }
            self.waiting_bytes -= line.text.len();
        }
        Ok(())
    }

    /// Goes on in another file, which ends so, behind this number.
    fn go_on_in(&mut self, sink: S, last_line: LastLine, written: u64) {
        (self.sink, self.last_line, self.written) = (sink, last_line, written);
    }

    /// Gives up what waits with a number up to this one.
    fn give_up_through(&mut self, foreign: u64) {
        self.foreign = foreign;
        let before = self.waiting.len();
        self.waiting.retain(|line| line.number > foreign);
        self.waiting_bytes = self.waiting.iter().map(|line| line.text.len()).sum();
        let lost = before - self.waiting.len();
        if lost > 0 {
            tracing::error!(lost, "events are lost: the journal has others with their numbers");
        }
    }

    /// Lines that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn write_next(&mut self, line: &Line) -> io::Result<()> {
        if let Some(last_line) = self.sink.make_ready(self.written)? {
            self.last_line = last_line;
        }
        let missing = line.number.saturating_sub(self.written.saturating_add(1));
        if missing > 0 {
            let last = line.number - 1;
            let through = (self.holds == Holds::Events).then_some(Sequence::new(last));
            let text = self.codec.gap(through, SystemTime::now(), missing);
            self.write_line(&text)?;
            self.written = last;
        }
        self.write_line(&line.text)?;
        self.written = self.written.max(line.number);
        Ok(())
    }

    /// In one piece where the system lets us, so that readers never see half a line of a living
    /// supervisor; on a fresh line if the one before was torn.
    fn write_line(&mut self, line: &str) -> io::Result<()> {
        let fresh = if self.last_line == LastLine::Torn { "\n" } else { "" };
        let text = format!("{fresh}{line}\n");
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => {
                    rest = &rest[length..];
                    self.last_line = LastLine::Torn;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.last_line = LastLine::Whole;
        Ok(())
    }
}

/// What the thread works with.
pub(super) struct Writer {
    /// What is held now, to which the journal goes over.
    pub(super) held: HeldDirectory,
    /// Where it is written.
    pub(super) directory: Arc<Directory>,
    pub(super) shared: Arc<Shared>,
    pub(super) codec: Arc<dyn JournalCodec>,
    pub(super) events: Lane<Segment>,
    pub(super) restarts: Lane<Segment>,
    pub(super) numbers: Numbers,
    /// What their file says, unless another supervisor has taken the journal over.
    pub(super) kept: Kept,
    /// The numbers up to which none is given anew by whoever comes after us.
    pub(super) reserved: ResumePoint,
    /// The highest incarnation seen.
    pub(super) incarnation: u64,
    /// Whether the last attempt failed, so that an outage is told once.
    pub(super) outage: Outage,
    pub(super) ahead: Ahead,
}

/// How many numbers are reserved ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// A block: events are to come.
    Block,
    /// None: the end is orderly.
    Nothing,
}

/// Whether the journal can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outage {
    /// It can.
    No,
    /// It cannot, and the log says so already.
    Told,
}

impl Writer {
    /// Writes until the journal is dropped.
    pub(super) fn run(mut self, inbox: &Receiver<Entry>) {
        let mut taken = 0;
        loop {
            let idle = self.events.waiting() + self.restarts.waiting() == 0;
            let entry = if idle {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                inbox.recv_timeout(RETRY_AFTER)
            };
            match entry {
                Ok(entry) => {
                    self.take(entry);
                    taken += 1;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let outcome = self.write();
            self.note(outcome);
            self.shared.handled.send_replace(taken);
        }
        self.finish();
    }

    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Event(event) => {
                self.ahead = Ahead::Block;
                self.incarnation = self.incarnation.max(event.incarnation.get());
                self.events.push(event.sequence.get(), self.codec.event(&event));
            }
            Entry::Restart(number, record) => {
                self.restarts.push(number, self.codec.crash(&record));
            }
            Entry::Close => self.ahead = Ahead::Nothing,
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let share = self.held.share();
        self.follow(&share.directory)?;
        // One that fails does not keep the others back.
        let reserved = self.reserve_ahead();
        let restarts = self.restarts.drain();
        self.events.drain().and(restarts).and(reserved)
    }

    /// Goes over to the directory that is held now, if that is another one: the former was removed,
    /// moved or replaced.
    ///
    /// What stands in it was written by another supervisor, which has ended. Its numbers were given
    /// for its events, and ours for others, so neither is to be told for the other: numbering goes
    /// on behind both, what still waits with one of its numbers is given up, and readers of this
    /// life see its part as missing. Numbers that were given cannot be changed any more.
    fn follow(&mut self, directory: &Arc<Directory>) -> io::Result<()> {
        if Arc::ptr_eq(directory, &self.directory) {
            return Ok(());
        }
        let there = opening::open(directory, &self.codec).map_err(io::Error::other)?;
        tracing::warn!(path = %directory.path().display(), "the journal goes on in the state directory that is held now");
        let foreign = there.resume.sequence;
        self.shared.go_on_behind(foreign);
        self.shared.go_home(Home { directory: Arc::clone(directory), foreign });
        self.directory = Arc::clone(directory);
        self.events.go_on_in(there.events, there.events_end, there.written);
        self.events.give_up_through(foreign);
        let restarts = self.restarts.written;
        self.restarts.go_on_in(there.restarts, there.restarts_end, restarts);
        (self.numbers, self.kept, self.reserved) = (there.numbers, there.kept, there.resume);
        self.incarnation = self.incarnation.max(there.resume.incarnation);
        Ok(())
    }

    fn reserve_ahead(&mut self) -> io::Result<()> {
        if self.ahead == Ahead::Nothing {
            return self.keep_numbers();
        }
        let ahead = self.shared.given() + BLOCK / 2;
        if !self.numbers.are_removed()?
            && self.reserved.sequence >= ahead
            && self.reserved.incarnation >= self.incarnation
        {
            return Ok(());
        }
        let sequence =
            if self.reserved.sequence < ahead { ahead + BLOCK / 2 } else { self.reserved.sequence };
        self.reserve(sequence)
    }

    fn reserve(&mut self, sequence: u64) -> io::Result<()> {
        let point = ResumePoint { sequence, incarnation: self.incarnation };
        self.numbers.keep(point)?;
        (self.kept, self.reserved) = (Kept::Upto(point), point);
        self.shared.reserved.store(sequence, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps the numbers as they stand, unless another supervisor has taken the journal over.
    fn keep_numbers(&mut self) -> io::Result<()> {
        if self.numbers.read()? == self.kept { self.reserve(self.shared.given()) } else { Ok(()) }
    }

    fn note(&mut self, outcome: io::Result<()>) {
        match (outcome, self.outage) {
            (Ok(()), Outage::No) | (Err(_), Outage::Told) => {}
            (Ok(()), Outage::Told) => {
                self.outage = Outage::No;
                tracing::warn!("the journal can be written again");
            }
            (Err(error), Outage::No) => {
                self.outage = Outage::Told;
                tracing::error!(%error, "the journal cannot be written; what fits is kept and tried again");
            }
        }
    }

    /// The last attempt; then the numbers are kept as they stand, without a block ahead.
    fn finish(mut self) {
        let outcome = self.write().and_then(|()| self.keep_numbers());
        let lost = self.events.waiting() + self.restarts.waiting();
        if let Err(error) = outcome {
            tracing::error!(%error, lost, "the journal could not be written to its end");
        }
    }
}
