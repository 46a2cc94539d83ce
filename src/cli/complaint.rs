//! What is wrong, in the form in which an operator is told: `error[CODE]: what`, then what helps.

use std::error::Error;
use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::plain;
use crate::config::{ConfigError, Origin, Problem, Setting};
use crate::{Cause, Particulars, StartError, StateDirectoryError, TellingLine};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// What to look it up by, if it has a code.
    code: Option<String>,
    /// What is wrong: a lowercase fragment with key and value, where there are any.
    summary: String,
    /// What the operator can do; may be empty.
    remedy: String,
    /// The last lines of vLLM's log, oldest first, where they can explain it.
    last_lines: Vec<String>,
    /// Which of its lines tells why, and where all of it is.
    particulars: Option<Box<Particulars>>,
}

/// A complaint as a JSON object.
#[derive(Debug, Serialize)]
pub(super) struct ComplaintBody<'a> {
    code: Option<&'a str>,
    summary: &'a str,
    remedy: &'a str,
}

impl Complaint {
    /// A complaint that has no code.
    pub(super) fn new(summary: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (summary, remedy) = (summary.into(), remedy.into());
        Self { code: None, summary, remedy, last_lines: Vec::new(), particulars: None }
    }

    /// The complaint about an error of ours that nothing but its text explains.
    pub(super) fn of_error(error: &dyn Error) -> Self {
        Self::new(with_sources(error), "")
    }

    /// One complaint for each problem of a configuration.
    pub(super) fn of_config(error: &ConfigError) -> Vec<Self> {
        let file = error.file.as_ref().map(|file| file.display().to_string());
        let complaint = |problem| Self::of_problem_in(file.as_deref(), problem);
        error.problems.iter().map(complaint).collect()
    }

    /// The complaint about one problem of settings, in the words of whatever gave the value.
    pub(super) fn of_problem(problem: &Problem, settings: &[Setting]) -> Self {
        let has_this_key = |setting: &&Setting| {
            problem.key.strip_suffix(setting.key).is_some_and(|it| it.ends_with('.'))
        };
        let key = match settings.iter().find(has_this_key).map(|setting| &setting.origin) {
            Some(Origin::Flag(name)) => (*name).to_owned(),
            Some(Origin::Environment(name)) => name.clone(),
            Some(Origin::Default | Origin::File(_)) | None => problem.key.clone(),
        };
        Self::of_problem_in(None, &Problem { key, ..problem.clone() })
    }

    fn of_problem_in(file: Option<&str>, problem: &Problem) -> Self {
        let place = match (file, problem.line) {
            (Some(file), Some(line)) if *file == problem.key => format!("{file}:{line}"),
            (Some(file), Some(line)) => format!("{file}:{line}: {}", problem.key),
            _ => problem.key.clone(),
        };
        let found = problem.value.as_ref().map(|value| format!(", found `{value}`"));
        let summary = format!("{place}: {}{}", problem.message, found.unwrap_or_default());
        let code = Some(problem.code.to_string());
        Self { code, ..Self::new(summary, problem.help.clone()) }
    }

    /// The complaints about a supervisor that could not be made of these settings.
    pub(super) fn of_start(error: &StartError, settings: &[Setting]) -> Vec<Self> {
        match error {
            StartError::Config(error) => {
                let problems = error.problems.iter();
                problems.map(|problem| Self::of_problem(problem, settings)).collect()
            }
            StartError::VllmNotFound(cause) => vec![Self::from(cause)],
            StartError::StateDirectory(error) => vec![Self::from(error)],
            StartError::Journal(_) | StartError::ParentEnded | StartError::System { .. } => {
                vec![Self::of_error(error)]
            }
        }
    }

    fn line(&self) -> Option<&TellingLine> {
        self.particulars.as_ref()?.line.as_ref()
    }

    fn log(&self) -> Option<&Path> {
        self.particulars.as_ref()?.log.as_deref()
    }

    /// As the fields of a log record.
    pub(super) fn record(&self) -> serde_json::Value {
        let Self { code, summary, remedy, last_lines, .. } = self;
        let (line, log) = (self.line(), self.log());
        json!({
            "message": summary,
            "code": code,
            "remedy": remedy,
            "line_number": line.map(|line| line.number),
            "line": line.map(|line| &line.text),
            "last_lines": last_lines,
            "log": log.map(Path::to_string_lossy),
        })
    }

    /// As one JSON object; the names are those of `last_error` in the status.
    pub(super) fn body(&self) -> ComplaintBody<'_> {
        ComplaintBody { code: self.code.as_deref(), summary: &self.summary, remedy: &self.remedy }
    }
}

impl From<&Cause> for Complaint {
    fn from(cause: &Cause) -> Self {
        let code = Some(cause.code.to_string());
        let (last_lines, particulars) = (cause.last_lines.clone(), cause.particulars.clone());
        Self { code, last_lines, particulars, ..Self::new(cause.summary.clone(), cause.remedy()) }
    }
}

impl From<&StateDirectoryError> for Complaint {
    fn from(error: &StateDirectoryError) -> Self {
        let remedy = match error {
            StateDirectoryError::InUse { .. } => {
                "end the other one, or give each its own with `--state-dir`"
            }
            StateDirectoryError::Unsafe { .. } => {
                "let nobody but its owner write to it, or choose another with `--state-dir`"
            }
            StateDirectoryError::Unusable { .. } | _ => {
                "make it writable for this user, or choose another with `--state-dir`"
            }
        };
        Self::new(with_sources(error), remedy)
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "error[{code}]: {}", plain::line(&self.summary))?,
            None => write!(f, "error: {}", plain::line(&self.summary))?,
        }
        if let Some(TellingLine { number, text, .. }) = self.line() {
            write!(f, "\n  line {number}: {}", plain::line(text))?;
        }
        if !self.remedy.is_empty() {
            write!(f, "\n  help: {}", plain::line(&self.remedy))?;
        }
        if let Some(log) = self.log() {
            write!(f, "\n  log: {}", plain::line(&log.display().to_string()))?;
        }
        if !self.last_lines.is_empty() {
            f.write_str("\n  the last lines of vLLM's log:")?;
        }
        self.last_lines.iter().try_for_each(|line| write!(f, "\n    {}", plain::line(line)))
    }
}

fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn a_cause_is_told_with_code_remedy_and_last_lines() {
        let cause = Cause::new(Code::ArgumentsRejected, "vLLM does not know --nope")
            .with_last_lines(vec!["usage: vllm".to_owned(), "unrecognized: --nope".to_owned()]);
        let expected = "error[VLM-013]: vLLM does not know --nope\n  \
            help: correct extra_args or env for the installed version of vLLM; its own message is \
            in the log\n  the last lines of vLLM's log:\n    usage: vllm\n    unrecognized: --nope";
        assert_eq!(Complaint::from(&cause).to_string(), expected);
    }

    #[test]
    fn the_words_of_vllm_are_shown_and_not_obeyed() {
        let cause = Cause::new(Code::Unrecognised, "exit status 1\nerror: forged")
            .with_last_lines(vec!["\u{1b}]0;title\u{7}".to_owned(), "x".repeat(16 * 1024)]);
        let told = Complaint::from(&cause).to_string();
        assert!(told.starts_with("error[VLM-099]: exit status 1\\u{a}error: forged\n"), "{told}");
        assert!(!told.contains(['\u{1b}', '\u{7}']), "{told}");
        assert!(told.lines().all(|line| line.len() < 1100) && told.ends_with('…'), "{told}");
    }

    #[test]
    fn what_has_no_code_and_no_remedy_is_one_line() {
        let source = std::io::Error::other("no space");
        let error = StartError::System { what: "a thread", source: Box::new(source) };
        let told = Complaint::of_start(&error, &[])[0].to_string();
        assert_eq!(told, "error: the system refused a thread: no space");
    }
}
