//! The rules, and what else there is to be known of lines, ready to be looked for.

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use thiserror::Error;

use super::line::{Line, Loudness, Reader, UNDERSTATED};
use super::rule::Rule;
use super::rules;

/// Room for the states of the automaton that looks for all rules at once, in bytes.
const AUTOMATON: usize = 16 << 20;

/// A line that is one exception: a name of Python's, at the very beginning.
const EXCEPTION: &str = r"^(?:[A-Za-z_]\w*\.)+\w+: |^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Timeout|Unsupported|Failure)\b";

/// What somebody complains by, who is not Python.
const COMPLAINT: &str = r"(?i)\b(?:error|fatal|panic(?:ked)?|abort(?:ed)?|cannot|failed)\b";

/// What vLLM says of its own course, in all versions from 0.8 to 0.33 (`entrypoints/openai/api_server.py`,
/// `entrypoints/launcher.py`, uvicorn).
const COURSE: [(&str, Stage); 8] = [
    ("vLLM API server version", Stage::Starting),
    // From 0.12 on after a banner.
    ("non-default args: ", Stage::Starting),
    ("Application startup complete", Stage::Serving),
    // What a log has that was cut at its beginning, or of a quieter server.
    ("Avg prompt throughput: ", Stage::Serving),
    ("Engine 000: Avg prompt throughput: ", Stage::Serving),
    ("[shutdown] API server: shutdown triggered", Stage::Stopping),
    ("Shutting down FastAPI HTTP server", Stage::Stopping),
    ("Waiting for application shutdown", Stage::Stopping),
];

/// What uvicorn's line of a request that was answered ends with.
const ANSWERED: &str = " HTTP/1.1\" 200 OK";

/// What is not to be told further, behind what is: a token of Hugging Face, an API key, a password.
const SECRET: &str = r"(?i)(--api-key[= ]+|bearer\s+)[^\s@'\x22,]+|(://[^/\s:@]*:)[^\s@'\x22,/]+(@)|\bhf_[a-z0-9]{8,}";

/// A line that only vLLM writes, or something about it.
const VLLM: &str =
    r"(?i)vllm|\((?:EngineCore|APIServer|Worker)\w*[ )]|^(?:api_server|entry)\.py: error";

/// What a launch begins with that comes to nothing at once.
const FALSE_START: &str = r"^usage: |^\S+(?: \w+)?: error: |^(?:ImportError|ModuleNotFoundError)\b";

/// The same, where a server may have been killed without a word, whose clients' requests fail of much.
const BAD_START: &str = r"^usage: |^ImportError: lib\S+\.so";

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Starting,
    Serving,
    Stopping,
}

/// A rule that is none.
#[derive(Debug, Error)]
#[error("a rule of diagnosis is no pattern: {0}")]
pub struct RuleError(String);

/// The rules, ready to be looked for.
#[derive(Debug)]
pub struct Rulebook {
    rules: Vec<&'static Rule>,
    set: RegexSet,
    pub(super) reader: Reader,
    /// Whether a line has something of [`COURSE`], or that it serves.
    course: Regex,
    /// The same of what serves already: that it does is no news, and nearly all that it says.
    turn: Regex,
    pub(super) exception: Regex,
    pub(super) complaint: Regex,
    pub(super) vllm: Regex,
    pub(super) false_start: Regex,
    pub(super) bad_start: Regex,
    pub(super) secret: Regex,
}

impl Rulebook {
    /// All rules.
    ///
    /// # Errors
    ///
    /// If one of them is no pattern, which a test rules out.
    pub fn new() -> Result<Self, RuleError> {
        Self::of(rules::all().collect()).map_err(|error| RuleError(error.to_string()))
    }

    fn of(rules: Vec<&'static Rule>) -> Result<Self, regex::Error> {
        let set = RegexSetBuilder::new(rules.iter().map(|rule| rule.pattern))
            .unicode(false)
            .dfa_size_limit(AUTOMATON)
            .size_limit(AUTOMATON)
            .build()?;
        Ok(Self {
            set,
            rules,
            reader: Reader::new()?,
            course: plain(&any_of(
                [ANSWERED, UNDERSTATED].into_iter().chain(COURSE.map(|(words, _)| words)),
            ))?,
            turn: plain(&any_of([UNDERSTATED].into_iter().chain(turns())))?,
            exception: plain(EXCEPTION)?,
            complaint: plain(COMPLAINT)?,
            vllm: plain(VLLM)?,
            false_start: plain(FALSE_START)?,
            bad_start: plain(BAD_START)?,
            secret: plain(SECRET)?,
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

    /// Whether a line may say that another stage than this begins, or that it has ended.
    pub(super) fn may_turn(&self, stage: Stage, raw: &[u8]) -> bool {
        if stage == Stage::Starting { &self.course } else { &self.turn }.is_match(raw)
    }

    /// What vLLM says of its course, in sentences of its own: a client's words are in its log too.
    pub(super) fn stage_in(line: &Line<'_>) -> Option<Stage> {
        if line.loudness == Loudness::Loud {
            return None;
        }
        let says = |words: &str| line.message.starts_with(words.as_bytes());
        let said = COURSE.iter().find(|(words, _)| says(words)).map(|(_, stage)| *stage);
        said.or_else(|| line.message.ends_with(ANSWERED.as_bytes()).then_some(Stage::Serving))
    }
}

/// What is said by who serves no more.
fn turns() -> impl Iterator<Item = &'static str> {
    COURSE.into_iter().filter(|(_, stage)| *stage != Stage::Serving).map(|(words, _)| words)
}

fn any_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(regex::escape).collect::<Vec<_>>().join("|")
}

pub(super) fn plain(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).build()
}
