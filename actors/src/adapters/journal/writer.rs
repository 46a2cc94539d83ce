//! The thread that writes the journal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::lane::{Holds, Lane, Outage};
use super::numbers::{BLOCK, Kept, Numbers};
use super::opening::{self, Opened};
use super::segments::Segment;
use super::{Entry, Home, JournalCodec, ResumePoint, Shared};
use crate::adapters::directory::Directory;
use crate::adapters::state_directory::HeldDirectory;

/// How long until what could not be written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the thread works with.
pub(super) struct Writer {
    /// What is held now, to which the journal goes over.
    held: HeldDirectory,
    /// Where it is written.
    directory: Arc<Directory>,
    shared: Arc<Shared>,
    codec: Arc<dyn JournalCodec>,
    events: Lane<Segment>,
    restarts: Lane<Segment>,
    numbers: Numbers,
    /// What their file says, unless another supervisor has taken the journal over.
    kept: Kept,
    /// The numbers up to which none is given anew by whoever comes after us.
    reserved: ResumePoint,
    /// The highest incarnation seen.
    incarnation: u64,
    /// Whether the last attempt failed, so that an outage is told once.
    outage: Outage,
    ahead: Ahead,
}

/// How many numbers are reserved ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ahead {
    /// A block: events are to come.
    Block,
    /// None: the end is orderly.
    Nothing,
}

impl Writer {
    /// Of a journal whose first numbers are reserved up to these.
    pub(super) fn of(
        opened: Opened,
        held: &HeldDirectory,
        reserved: ResumePoint,
        shared: &Arc<Shared>,
        codec: &Arc<dyn JournalCodec>,
    ) -> Self {
        let lane =
            |sink, holds, written, end| Lane::new(sink, Arc::clone(codec), holds, written, end);
        Self {
            held: held.clone(),
            directory: opened.directory,
            shared: Arc::clone(shared),
            codec: Arc::clone(codec),
            events: lane(opened.events, Holds::Events, opened.written, opened.events_end),
            restarts: lane(opened.restarts, Holds::Restarts, 0, opened.restarts_end),
            numbers: opened.numbers,
            kept: opened.kept,
            reserved,
            incarnation: opened.resume.incarnation,
            outage: Outage::No,
            ahead: Ahead::Block,
        }
    }

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
            Entry::Record(number, record) => {
                self.restarts.push(number, self.codec.record(&record));
            }
            Entry::Moved => {}
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
