//! Reads the whole output of vLLM, line by line, and says in the end why it failed, if it did.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use regex::bytes::{Captures, Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::line::{Line, Loudness, Reader, Speaker, is_plainly_quiet};
use super::rule::{Reach, Rule, Weight};
use super::rules;
use crate::domain::cause::{Code, RetryClass};

/// How much of a line is looked at, in bytes; a list of all architectures takes ten thousand.
const LONGEST_LINE: usize = 16 * 1024;

/// How much of a telling line is kept, in characters.
const LONGEST_QUOTE: usize = 1000;

/// How many lines before the end of what served may explain it.
const SHORTLY_BEFORE: u64 = 400;

/// How many findings wait for such an end.
const MOST_WAITING: usize = 64;

/// Room for the states of the automaton that looks for all rules at once, in bytes.
const AUTOMATON: usize = 16 << 20;

/// A line that is one exception: a name of Python's, at the very beginning.
const EXCEPTION: &str =
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Timeout|Unsupported|Failure)\b";

/// What somebody complains by, who is not Python.
const COMPLAINT: &str = r"(?i)\b(?:error|fatal|panic(?:ked)?|abort(?:ed)?|cannot|failed)\b";

/// What vLLM says of its own course, in all versions from 0.8 to 0.33 (`entrypoints/openai/api_server.py`,
/// `entrypoints/launcher.py`, uvicorn).
const COURSE: [(&str, Stage); 6] = [
    ("vLLM API server version", Stage::Starting),
    // From 0.12 on after a banner.
    ("non-default args: ", Stage::Starting),
    ("Application startup complete", Stage::Serving),
    ("API server: shutdown triggered", Stage::Stopping),
    ("Shutting down FastAPI HTTP server", Stage::Stopping),
    ("Waiting for application shutdown", Stage::Stopping),
];

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Serving,
    Stopping,
}

/// Why vLLM failed, by its own output.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The kind of failure.
    pub code: Code,
    /// What happened, in a sentence.
    pub summary: String,
    /// What the operator can do.
    pub remedy: String,
    /// Whether trying again can help.
    pub class: RetryClass,
    /// The number of the telling line, from 1; 0 if there was none.
    pub line_number: u64,
    /// The telling line, without what stands before its message, and without control characters.
    pub line: String,
}

/// The rules, ready to be looked for.
#[derive(Debug)]
pub struct Rulebook {
    rules: Vec<&'static Rule>,
    set: RegexSet,
    reader: Reader,
    /// Whether a line has something of [`COURSE`].
    course: Regex,
    exception: Regex,
    complaint: Regex,
}

/// Reads one log. Its memory is bounded, however long that or a line of it is.
#[derive(Debug)]
pub struct Scanner {
    book: Arc<Rulebook>,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    number: u64,
    /// Whether the last lines were the frames of a traceback.
    is_in_frames: bool,
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
    /// What no rule knows.
    unknown: Unknown,
}

#[derive(Clone, Debug)]
struct Finding {
    rule: &'static Rule,
    quote: Quote,
}

#[derive(Clone, Debug, Default)]
struct Quote {
    number: u64,
    text: String,
}

/// The most telling of the lines that no rule knows, from the best to the last resort.
#[derive(Debug, Default)]
struct Unknown {
    exception_of_engine: Option<Quote>,
    exception: Option<Quote>,
    complaint: Option<Quote>,
    last: Option<Quote>,
}

impl Rulebook {
    /// All rules.
    ///
    /// # Errors
    ///
    /// If one of them is no pattern, which a test rules out.
    pub fn new() -> Result<Self, regex::Error> {
        let rules: Vec<&'static Rule> = rules::all().collect();
        let set = RegexSetBuilder::new(rules.iter().map(|rule| rule.pattern))
            .unicode(false)
            .dfa_size_limit(AUTOMATON)
            .size_limit(AUTOMATON)
            .build()?;
        Ok(Self {
            set,
            rules,
            reader: Reader::new()?,
            course: plain(&COURSE.map(|(words, _)| words).join("|"))?,
            exception: plain(EXCEPTION)?,
            complaint: plain(COMPLAINT)?,
        })
    }

    /// The rule that says most of this message; of those that say as much the first.
    pub(super) fn rule_for(&self, message: &[u8]) -> Option<&'static Rule> {
        // To know which takes much longer than to know that none does.
        if !self.set.is_match(message) {
            return None;
        }
        let matched = self.set.matches(message).into_iter().map(|index| self.rules[index]);
        matched.reduce(|best, rule| if rule.weight > best.weight { rule } else { best })
    }

    fn stage_in(&self, message: &[u8]) -> Option<Stage> {
        let found = self.course.find(message)?;
        COURSE.iter().find(|(words, _)| words.as_bytes() == found.as_bytes()).map(|it| it.1)
    }
}

pub(super) fn plain(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).build()
}

impl Scanner {
    /// One that has read nothing yet.
    pub fn new(book: &Arc<Rulebook>) -> Self {
        Self {
            book: Arc::clone(book),
            partial: Vec::new(),
            number: 0,
            is_in_frames: false,
            course: Course::new(),
        }
    }

    /// Reads on.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if self.partial.is_empty() {
                self.line(&bytes[..end.min(LONGEST_LINE)]);
            } else {
                self.keep(&bytes[..end]);
                let mut line = mem::take(&mut self.partial);
                self.line(&line);
                line.clear();
                self.partial = line;
            }
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// The cause; `None` if vLLM came to serve and nothing speaks of its having failed since.
    pub fn finish(mut self) -> Option<Diagnosis> {
        if !self.partial.is_empty() {
            let line = mem::take(&mut self.partial);
            self.line(&line);
        }
        self.course.diagnosis()
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.partial.capacity()
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LONGEST_LINE - self.partial.len().min(LONGEST_LINE);
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn line(&mut self, raw: &[u8]) {
        self.number += 1;
        if is_plainly_quiet(raw) && !self.book.course.is_match(raw) {
            self.is_in_frames = false;
            return;
        }
        let line = self.book.reader.read(raw);
        if line.message.iter().all(u8::is_ascii_whitespace) || self.is_source(&line.message) {
            return;
        }
        match (line.loudness, self.book.stage_in(&line.message)) {
            (Loudness::Quiet, None) => {}
            // Another launch: what was before is history.
            (_, Some(Stage::Starting)) => self.course = Course::new(),
            (_, Some(stage)) => self.course.enter(stage),
            (Loudness::Loud, None) => self.course.hear(&self.book, &line, self.number),
        }
    }

    /// Whether it is a line of a program, which a traceback quotes: that has the words of errors too.
    fn is_source(&mut self, message: &[u8]) -> bool {
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
            unknown: Unknown::default(),
        }
    }

    fn enter(&mut self, stage: Stage) {
        match stage {
            // It serves in spite of all that it has complained of.
            Stage::Serving => *self = Self { stage, ..Self::new() },
            Stage::Starting | Stage::Stopping => self.stage = stage,
        }
    }

    fn hear(&mut self, book: &Rulebook, line: &Line<'_>, number: u64) {
        // What is in the way of a stop that was asked for explains nothing.
        if self.stage == Stage::Stopping {
            return;
        }
        let Some(rule) = book.rule_for(&line.message) else {
            if self.stage == Stage::Starting || self.has_ended {
                self.unknown.note(book, line, number);
            }
            return;
        };
        if self.stage == Stage::Serving && rule.reach == Reach::Start {
            return;
        }
        let finding = Finding { rule, quote: Quote::of(line, number) };
        if self.stage == Stage::Starting || self.has_ended {
            self.weigh(finding);
        } else if rule.reach == Reach::Always {
            self.has_ended = true;
            for before in mem::take(&mut self.waiting) {
                if before.quote.number + SHORTLY_BEFORE >= number {
                    self.weigh(before);
                }
            }
            self.weigh(finding);
        } else {
            if self.waiting.len() == MOST_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(finding);
        }
    }

    fn weigh(&mut self, finding: Finding) {
        let is_better = |best: &Finding| finding.rule.weight > best.rule.weight;
        if self.best.as_ref().is_none_or(is_better) {
            self.best = Some(finding);
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
                let is_death = self.stage == Stage::Serving;
                let code = if is_death { Code::EngineDied } else { Code::Unrecognised };
                Some(Diagnosis::of(code, quote))
            }
            (Some(Finding { rule, quote }), _) => Some(Diagnosis::by(rule, quote)),
            (None, _) => Some(Diagnosis::of(Code::Unrecognised, self.unknown.most_telling())),
        }
    }
}

impl Unknown {
    fn note(&mut self, book: &Rulebook, line: &Line<'_>, number: u64) {
        let quote = || Quote::of(line, number);
        if book.exception.is_match(&line.message) {
            let place = match line.speaker {
                Speaker::Engine => &mut self.exception_of_engine,
                Speaker::Other => &mut self.exception,
            };
            place.get_or_insert_with(quote);
        } else if book.complaint.is_match(&line.message) {
            self.complaint.get_or_insert_with(quote);
        }
        self.last = Some(quote());
    }

    fn most_telling(self) -> Quote {
        let Self { exception_of_engine, exception, complaint, last } = self;
        exception_of_engine.or(exception).or(complaint).or(last).unwrap_or_default()
    }
}

impl Quote {
    fn of(line: &Line<'_>, number: u64) -> Self {
        let text = String::from_utf8_lossy(&line.message);
        Self { number, text: text.trim().chars().take(LONGEST_QUOTE).collect() }
    }
}

impl Diagnosis {
    fn of(code: Code, quote: Quote) -> Self {
        Self {
            code,
            summary: code.summary().to_owned(),
            remedy: code.remedy().to_owned(),
            class: code.retry_class(),
            line_number: quote.number,
            line: quote.text,
        }
    }

    fn by(rule: &Rule, quote: Quote) -> Self {
        let found = plain(rule.pattern).ok();
        let found = found.as_ref().and_then(|it| it.captures(quote.text.as_bytes()));
        let filled = |template: Option<&str>| fill(template?, found.as_ref()?);
        let (summary, remedy) = (filled(rule.summary), filled(rule.remedy));
        let plain = Self::of(rule.code, quote);
        Self {
            summary: summary.unwrap_or(plain.summary),
            remedy: remedy.unwrap_or(plain.remedy),
            ..plain
        }
    }
}

/// The template with what was found in the place of names in braces; `None` if one was not found.
fn fill(template: &str, found: &Captures<'_>) -> Option<String> {
    let mut parts = template.split('{');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}')?;
        let said = found.name(name)?.as_bytes();
        text.push_str(String::from_utf8_lossy(said).trim());
        text.push_str(rest);
    }
    Some(text)
}
