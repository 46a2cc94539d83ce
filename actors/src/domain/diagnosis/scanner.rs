//! Reads the whole output of vLLM, line by line, and says in the end why it failed, if it did.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use memchr::memchr;

use super::line::{Line, Loudness, Speaker, is_plainly_quiet};
use super::partial::{LONGEST_LINE, Partial};
use super::quote::{Diagnosis, Quote};
use super::rule::{Reach, Rule, Weight};
use super::rulebook::{Rulebook, Stage};
use crate::domain::cause::Code;

/// How many lines before the end of what served may explain it.
const SHORTLY_BEFORE: u64 = 400;

/// How many findings wait for such an end.
const MOST_WAITING: usize = 64;

/// What is to be done about a log of somebody else.
const FOREIGN: &str = "give the whole output of one launch of vLLM: a file of `logs` in the state \
    directory of vllmd, or what `vllm serve` writes to stdout and stderr";

/// A log that says neither that vLLM has failed nor that it has come to serve.
const UNFINISHED: &str = "it ends while vLLM loads, and tells of no failure";
const KILLED: &str = "it still loads, hangs, or was killed from outside, which leaves no line: how it \
    ended is in restarts.jsonl of the state directory, and in the kernel's log if that killed it";

/// Reads one log. Its memory is bounded, however long that or a line of it is.
#[derive(Debug)]
pub struct Scanner {
    book: Arc<Rulebook>,
    /// The beginning of a line whose end has not come yet.
    partial: Partial,
    number: u64,
    /// Whether the last lines were the frames of a traceback.
    is_in_frames: bool,
    /// Whether it is the log of a vLLM at all.
    is_vllms: bool,
    course: Course,
}

/// What one launch has said so far.
#[derive(Debug)]
struct Course {
    stage: Stage,
    /// Whether what serves has been said to end.
    has_ended: bool,
    best: Option<Finding>,
    /// What a server that serves has said, and may yet turn out to have ended of.
    waiting: VecDeque<Finding>,
    /// The exceptions that an engine which serves has told lately, and no rule knows.
    exceptions: VecDeque<Quote>,
    /// What no rule knows.
    unknown: Unknown,
}

#[derive(Clone, Debug)]
struct Finding {
    rule: &'static Rule,
    quote: Quote,
}

/// The most telling of the lines that no rule knows, from the best to the last resort.
#[derive(Debug, Default)]
struct Unknown {
    exception_of_engine: Option<Quote>,
    exception: Option<Quote>,
    complaint: Option<Quote>,
    last: Option<Quote>,
}

impl Scanner {
    /// One that has read nothing yet.
    pub fn new(book: &Arc<Rulebook>) -> Self {
        Self {
            book: Arc::clone(book),
            partial: Partial::default(),
            number: 0,
            is_in_frames: false,
            is_vllms: false,
            course: Course::new(),
        }
    }

    /// Reads on.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.partial.is_empty() && end <= LONGEST_LINE {
                self.line(&bytes[..end]);
            } else {
                self.partial.push(&bytes[..end]);
                self.end_line();
            }
            bytes = &bytes[end + 1..];
        }
        self.partial.push(bytes);
    }

    fn end_line(&mut self) {
        let mut partial = mem::take(&mut self.partial);
        self.line(partial.finish());
        self.partial = partial;
    }

    /// Whether it is the log of a vLLM, as far as it was read.
    pub fn is_of_vllm(&self) -> bool {
        self.is_vllms
    }

    /// The cause; `None` if vLLM came to serve and nothing speaks of its having failed since.
    pub fn finish(mut self) -> Option<Diagnosis> {
        if !self.partial.is_empty() {
            self.end_line();
        }
        let diagnosis = self.course.diagnosis();
        if self.is_vllms {
            return diagnosis;
        }
        // The words of errors are everybody's.
        let quote = diagnosis.map(|it| Quote { number: it.line_number, text: it.line });
        let summary = if self.number == 0 { "the log is empty" } else { "no line of it is vLLM's" };
        let found = Diagnosis::of(Code::Unrecognised, quote.unwrap_or_default());
        Some(found.saying(summary, FOREIGN))
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.partial.room()
    }

    fn line(&mut self, raw: &[u8]) {
        self.number += 1;
        self.is_vllms = self.is_vllms || self.book.vllm.is_match(raw);
        if is_plainly_quiet(raw) && !self.book.may_turn(self.course.stage, raw) {
            return;
        }
        let line = self.book.reader.read(raw);
        if line.message.iter().all(u8::is_ascii_whitespace) || self.is_source(&line.message) {
            return;
        }
        match (line.loudness, Rulebook::stage_in(&line)) {
            (Loudness::Quiet, None) => {}
            // Another launch: what was before is history.
            (_, Some(Stage::Starting)) => self.course = Course::new(),
            (_, Some(stage)) => self.course.enter(stage),
            (Loudness::Loud, None) => self.course.hear(&self.book, &line, self.number),
        }
    }

    /// Whether it is a line of a program, which a traceback quotes: that has the words of errors too.
    fn is_source(&mut self, message: &[u8]) -> bool {
        let bare = message.trim_ascii_start();
        let bare = bare.strip_prefix(b"|").unwrap_or(bare).trim_ascii_start();
        let mark = "❱".as_bytes();
        let is_marked = bare.windows(mark.len()).take(16).any(|part| part == mark);
        if is_marked || [&b"raise "[..], b"warnings.warn("].iter().any(|it| bare.starts_with(it)) {
            return true;
        }
        let is_frame = message.starts_with(b"  File \"");
        self.is_in_frames = is_frame || self.is_in_frames && message.starts_with(b"  ");
        self.is_in_frames && (is_frame || message.starts_with(b"    "))
    }
}

impl Course {
    fn new() -> Self {
        Self {
            stage: Stage::Starting,
            has_ended: false,
            best: None,
            waiting: VecDeque::new(),
            exceptions: VecDeque::new(),
            unknown: Unknown::default(),
        }
    }

    fn enter(&mut self, stage: Stage) {
        match stage {
            Stage::Serving if self.stage != Stage::Starting => {}
            // It serves in spite of all that it has complained of.
            Stage::Serving => *self = Self { stage, ..Self::new() },
            Stage::Starting | Stage::Stopping => self.stage = stage,
        }
    }

    fn hear(&mut self, book: &Rulebook, line: &Line<'_>, number: u64) {
        let rule = book.rule_for(&line.message);
        if self.stage == Stage::Serving && book.bad_start.is_match(&line.message) && !self.has_ended
        {
            *self = Self::new();
        }
        if self.stage == Stage::Stopping {
            let is_told_by_others = rule.is_some_and(|it| it.weight == Weight::Witness);
            if book.false_start.is_match(&line.message) && !self.has_ended {
                *self = Self::new();
            } else if !(self.has_ended && is_told_by_others) {
                // What is in the way of a stop that was asked for explains nothing.
                return;
            }
        }
        let Some(rule) = rule else {
            if self.stage == Stage::Starting || self.has_ended {
                self.unknown.note(book, line, number);
            } else if line.speaker == Speaker::Engine && book.exception.is_match(&line.message) {
                self.forget_exceptions_long_before(number);
                // The first ones tell most.
                if self.exceptions.len() < MOST_WAITING {
                    self.exceptions.push_back(Quote::of(book, line, number));
                }
            }
            return;
        };
        if self.stage == Stage::Serving && rule.reach == Reach::Start {
            return;
        }
        let quote = || Quote::of(book, line, number);
        if self.stage == Stage::Starting || self.has_ended {
            self.weigh(rule, quote);
        } else if rule.reach == Reach::Always {
            self.has_ended = true;
            for before in mem::take(&mut self.waiting) {
                if is_shortly_before(&before.quote, number) {
                    self.weigh(before.rule, || before.quote);
                }
            }
            self.forget_exceptions_long_before(number);
            self.unknown.exception_of_engine = self.exceptions.pop_front();
            self.weigh(rule, quote);
        } else {
            if self.waiting.len() == MOST_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(Finding { rule, quote: quote() });
        }
    }

    fn forget_exceptions_long_before(&mut self, number: u64) {
        while self.exceptions.front().is_some_and(|it| !is_shortly_before(it, number)) {
            self.exceptions.pop_front();
        }
    }

    fn weigh(&mut self, rule: &'static Rule, quote: impl FnOnce() -> Quote) {
        if self.best.as_ref().is_none_or(|best| rule.weight > best.rule.weight) {
            self.best = Some(Finding { rule, quote: quote() });
        }
    }

    fn diagnosis(self) -> Option<Diagnosis> {
        if self.stage != Stage::Starting && !self.has_ended {
            return None;
        }
        let exception = self.unknown.exception_of_engine.clone().or(self.unknown.exception.clone());
        match (self.best, exception) {
            // Something has failed in a way of its own, and all else is what came of it.
            (Some(Finding { rule, .. }), Some(quote)) if rule.weight == Weight::Symptom => {
                let is_death = self.stage != Stage::Starting;
                let code = if is_death { Code::EngineDied } else { Code::Unrecognised };
                Some(Diagnosis::of(code, quote))
            }
            (Some(Finding { rule, quote }), _) => Some(Diagnosis::by(rule, quote)),
            (None, exception) => {
                let is_failure = exception.is_some() || self.unknown.complaint.is_some();
                let is_unfinished = !self.has_ended && !is_failure;
                let found = Diagnosis::of(Code::Unrecognised, self.unknown.most_telling());
                Some(if is_unfinished { found.saying(UNFINISHED, KILLED) } else { found })
            }
        }
    }
}

fn is_shortly_before(quote: &Quote, number: u64) -> bool {
    quote.number + SHORTLY_BEFORE >= number
}

impl Unknown {
    fn note(&mut self, book: &Rulebook, line: &Line<'_>, number: u64) {
        if self.exception_of_engine.is_some() {
            return;
        }
        let quote = || Quote::of(book, line, number);
        if book.exception.is_match(&line.message) {
            let place = match line.speaker {
                Speaker::Engine => &mut self.exception_of_engine,
                Speaker::Other => &mut self.exception,
            };
            place.get_or_insert_with(quote);
        } else if self.complaint.is_none() && self.exception.is_none() {
            let is_complaint = book.complaint.is_match(&line.message);
            let place = if is_complaint { &mut self.complaint } else { &mut self.last };
            *place = Some(quote());
        }
    }

    fn most_telling(self) -> Quote {
        let Self { exception_of_engine, exception, complaint, last } = self;
        exception_of_engine.or(exception).or(complaint).or(last).unwrap_or_default()
    }
}
