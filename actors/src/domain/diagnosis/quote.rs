//! What is told of a failure: the telling line, and what the rule that knows it makes of it.

use regex::bytes::Captures;

use super::line::Line;
use super::rule::Rule;
use super::rulebook::{Rulebook, plain};
use crate::domain::cause::{Code, RetryClass};

/// How much of a telling line is kept, in characters.
const LONGEST_QUOTE: usize = 1000;

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

/// A line, as it is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Quote {
    pub(super) number: u64,
    pub(super) text: String,
}

impl Quote {
    pub(super) fn of(book: &Rulebook, line: &Line<'_>, number: u64) -> Self {
        let told = book.secret.replace_all(&line.message, &b"${1}${2}***${3}"[..]);
        let text = String::from_utf8_lossy(&told);
        let shown = text.trim().chars().filter(|it| !it.is_control() && !turns_text(*it));
        Self { number, text: shown.take(LONGEST_QUOTE).collect() }
    }
}

/// Whether it turns the direction in which text is shown (Unicode, UAX 9).
fn turns_text(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl Diagnosis {
    pub(super) fn of(code: Code, quote: Quote) -> Self {
        Self {
            code,
            summary: code.summary().to_owned(),
            remedy: code.remedy().to_owned(),
            class: code.retry_class(),
            line_number: quote.number,
            line: quote.text,
        }
    }

    /// The same with its words changed.
    #[must_use]
    pub fn map_text(self, change: impl Fn(String) -> String) -> Self {
        let Self { summary, remedy, line, .. } = self;
        Self { summary: change(summary), remedy: change(remedy), line: change(line), ..self }
    }

    /// The same, in other words.
    pub(super) fn saying(self, summary: &str, remedy: &str) -> Self {
        Self { summary: summary.to_owned(), remedy: remedy.to_owned(), ..self }
    }

    pub(super) fn by(rule: &Rule, quote: Quote) -> Self {
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
