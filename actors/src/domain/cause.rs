//! Why the service failed: a code, what happened this time, what to do about it, and whether
//! trying again can help.

use std::fmt;
use std::path::{Path, PathBuf};

mod code;

pub use code::Code;

/// Whether, and on what condition, trying again can cure a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryClass {
    /// The same start would fail in the same way: never retried.
    Permanent,
    /// It may pass by itself: retried with backoff.
    Transient,
    /// Its precondition (a free port, free memory) may come true; until that can be proven, it is
    /// retried with backoff like a transient one.
    AfterCleanup,
}

impl RetryClass {
    /// The class's name in lower case, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::AfterCleanup => "after_cleanup",
        }
    }
}

/// Why the service failed, this time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cause {
    /// The kind of failure.
    pub code: Code,
    /// What happened, with this occurrence's facts; a lowercase fragment.
    pub summary: String,
    /// Whether trying again can help.
    pub retry: RetryClass,
    /// The last lines of vLLM's output, oldest first, secrets masked; empty if there were none.
    pub last_lines: Vec<String>,
    /// What is known besides; apart, for a cause is in most errors, and seldom has it.
    pub particulars: Option<Box<Particulars>>,
}

/// What is known of a cause by what vLLM has written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Particulars {
    /// What the operator can do this time, where more is known than of the code.
    pub remedy: Option<String>,
    /// The line that tells why, if one does.
    pub line: Option<TellingLine>,
    /// The file that all of the output is in, if there is any.
    pub log: Option<PathBuf>,
    /// What led to this.
    pub source: Option<Cause>,
}

/// The line of a log that tells why vLLM failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TellingLine {
    /// Its number in the log, from 1.
    pub number: u64,
    /// What it says, without what stands before its message and without control characters, secrets
    /// masked.
    pub text: String,
}

impl TellingLine {
    /// The line of this number, from 1.
    pub fn new(number: u64, text: impl Into<String>) -> Self {
        Self { number, text: text.into() }
    }
}

impl Cause {
    /// A cause with the class of its code.
    pub fn new(code: Code, summary: impl Into<String>) -> Self {
        Self {
            code,
            summary: summary.into(),
            retry: code.retry_class(),
            last_lines: Vec::new(),
            particulars: None,
        }
    }

    /// The same cause with something better to do about it than what is true of its code.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        let remedy = remedy.into();
        if remedy != self.code.remedy() {
            self.particulars().remedy = Some(remedy);
        }
        self
    }

    /// The same cause with the line that tells it.
    #[must_use]
    pub fn with_line(mut self, line: TellingLine) -> Self {
        self.particulars().line = Some(line);
        self
    }

    /// The same cause with the file that the output is in.
    #[must_use]
    pub fn with_log(mut self, log: Option<PathBuf>) -> Self {
        if log.is_some() {
            self.particulars().log = log;
        }
        self
    }

    /// The same cause with what led to it.
    #[must_use]
    pub fn with_source(mut self, source: Self) -> Self {
        self.particulars().source = Some(source);
        self
    }

    /// What led to this: of [`Code::RestartLimitReached`] the last crash.
    pub fn source(&self) -> Option<&Self> {
        self.particulars.as_ref()?.source.as_ref()
    }

    fn particulars(&mut self) -> &mut Particulars {
        self.particulars.get_or_insert_default()
    }

    /// The line of vLLM's output that tells why, if one does.
    pub fn line(&self) -> Option<&TellingLine> {
        self.particulars.as_ref()?.line.as_ref()
    }

    /// The file that all of vLLM's output is in, if there is any.
    pub fn log(&self) -> Option<&Path> {
        self.particulars.as_ref()?.log.as_deref()
    }

    /// The same cause with the output that preceded it.
    #[must_use]
    pub fn with_last_lines(mut self, lines: Vec<String>) -> Self {
        self.last_lines = lines;
        self
    }

    /// What the operator can do.
    pub fn remedy(&self) -> &str {
        let known = self.particulars.as_ref().and_then(|it| it.remedy.as_deref());
        known.unwrap_or_else(|| self.code.remedy())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.summary)?;
        match self.line() {
            Some(line) if !self.summary.contains(&line.text) => write!(f, " ({})", line.text),
            Some(_) | None => Ok(()),
        }
    }
}
