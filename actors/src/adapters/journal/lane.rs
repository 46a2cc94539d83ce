//! The lines of one file on their way to it.
//!
//! What cannot be written now is kept, within bounds, and tried again; what is lost is counted, and
//! a line says so as soon as one can be written.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::SystemTime;

use super::JournalCodec;
use crate::domain::id::Sequence;

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
    pub(super) written: u64,
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
    pub(super) fn go_on_in(&mut self, sink: S, last_line: LastLine, written: u64) {
        (self.sink, self.last_line, self.written) = (sink, last_line, written);
    }

    /// Gives up what waits with a number up to this one.
    pub(super) fn give_up_through(&mut self, foreign: u64) {
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

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastLine {
    /// With the end of a line, or it is empty.
    Whole,
    /// Within a line.
    Torn,
}

/// Whether the journal can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outage {
    /// It can.
    No,
    /// It cannot, and the log says so already.
    Told,
}
