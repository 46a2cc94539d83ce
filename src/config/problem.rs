//! What is wrong with a configuration: every problem found, each with its key and a way out.

use std::fmt;
use std::path::PathBuf;

use vllm_supervisor_actors::domain::cause::Code;

use super::telltale::looks_like_a_secret;

/// The path of the configuration section in the file; keys are reported below it.
pub(super) const SECTION: &str = "providers.vllm";

/// One thing wrong with a configuration. None of its texts contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Problem {
    /// Where the value came from: the key path in the file (`providers.vllm.port`), the flag
    /// (`--port`), the variable (`VLLM_PORT`), or the file itself when it cannot be read.
    pub key: String,
    /// The line of the file, from 1, where the parser tells it.
    pub line: Option<u64>,
    /// The value found, if there is one and it may be shown.
    pub value: Option<String>,
    /// What is wrong: a lowercase fragment.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// The code to look up: [`Code::InvalidModelId`] of a model that is neither a Hub id nor an existing
    /// directory, else [`Code::InvalidConfiguration`].
    pub code: Code,
}

impl Problem {
    pub(super) fn new(
        key: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            line: None,
            value: None,
            message: message.into(),
            help: help.into(),
            code: Code::InvalidConfiguration,
        }
    }

    /// A problem of a setting named relative to the section, such as `gpu.monitor`.
    pub(crate) fn of_setting(
        setting: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self::new(format!("{SECTION}.{setting}"), message, help)
    }

    /// Nobody has named a model.
    pub(super) fn no_model() -> Self {
        let help = format!("give `--model`, set VLLM_MODEL, or set `{SECTION}.model` in the file");
        Self::of_setting("model", "no model is given", help)
    }

    /// Adds the value found, unless it has the shape of a secret.
    pub(crate) fn with_value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into()).filter(|value| !looks_like_a_secret(value));
        self
    }

    /// The same in the words of a file whose section has this name.
    pub(super) fn in_section(mut self, section: &str) -> Self {
        for text in [&mut self.key, &mut self.message, &mut self.help] {
            *text = text.replace(SECTION, section);
        }
        self
    }

    /// The same in the words of a program, which has fields and no file.
    pub(super) fn in_code(mut self) -> Self {
        for text in [&mut self.key, &mut self.message, &mut self.help] {
            *text = text.replace(&format!("{SECTION}."), "");
        }
        self
    }

    pub(super) fn at_line(mut self, line: Option<u64>) -> Self {
        self.line = line;
        self
    }

    pub(super) fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)?;
        if let Some(value) = &self.value {
            write!(f, ", found `{value}`")?;
        }
        write!(f, "; {}", self.help)
    }
}

/// A configuration that cannot be used. Displays one problem a line, as `FILE:LINE: KEY: …`
/// where the line is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", one_problem_a_line(file.as_ref(), problems))]
#[non_exhaustive]
pub struct ConfigError {
    /// Every problem found, sorted by key; never empty.
    pub problems: Vec<Problem>,
    /// The file that the lines of the problems are in, if one was read.
    pub file: Option<PathBuf>,
}

impl ConfigError {
    /// One problem, of no file.
    pub(crate) fn of(problem: Problem) -> Self {
        Self { problems: vec![problem], file: None }
    }

    /// Nobody has named a model.
    pub(crate) fn no_model() -> Self {
        Self::of(Problem::no_model())
    }
}

fn one_problem_a_line(file: Option<&PathBuf>, problems: &[Problem]) -> String {
    let file = file.map(|file| file.display().to_string());
    let line_of = |problem: &Problem| match (&file, problem.line) {
        (Some(file), Some(line)) if problem.key != *file => format!("{file}:{line}: {problem}"),
        _ => problem.to_string(),
    };
    problems.iter().map(line_of).collect::<Vec<_>>().join("\n")
}
