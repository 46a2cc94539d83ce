//! Settles one setting after the other: remembers where each value was found, and collects what
//! is wrong on the way.
//!
//! A value that cannot be read is a problem and settles nothing, so its default stands in for it
//! and the other settings are judged in the same run. A value that a stronger source replaces is
//! not judged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::file::Lines;
use super::problem::{Problem, SECTION};
use super::section::{Expected, Field, HumanDuration, Seconds, Unknown};
use super::telltale::is_named_like_a_secret;
use super::{Config, Origin, schema, suggest};

/// Where a value was found: what an operator would change.
pub(super) struct Place {
    /// The key in the words of the source: a path in the file, a flag or a variable.
    pub(super) key: String,
    line: Option<u64>,
    origin: Origin,
}

impl Place {
    pub(super) fn flag(name: &'static str) -> Self {
        Self { key: name.to_owned(), line: None, origin: Origin::Flag(name) }
    }

    pub(super) fn variable(name: &str) -> Self {
        Self { key: name.to_owned(), line: None, origin: Origin::Environment(name.to_owned()) }
    }
}

/// The settings found so far, by their keys below the section, and the problems.
pub(super) struct FieldReader {
    file: Option<PathBuf>,
    lines: Lines,
    places: BTreeMap<String, Place>,
    pub(super) problems: Vec<Problem>,
}

impl FieldReader {
    pub(super) fn new(file: Option<PathBuf>, lines: Lines) -> Self {
        Self { file, lines, places: BTreeMap::new(), problems: Vec::new() }
    }

    /// Settles what the file gives, if it does.
    pub(super) fn read<T: Expected>(&mut self, setting: &str, field: Field<T>) -> Option<T> {
        let place = self.place_in_file(setting);
        self.read_at(setting, field, place)
    }

    /// Settles what a certain place gives, if it does.
    pub(super) fn read_at<T: Expected>(
        &mut self,
        setting: &str,
        field: Field<T>,
        place: Place,
    ) -> Option<T> {
        match field {
            Field::Absent => None,
            Field::Given(value) => {
                self.found(setting, place);
                Some(value)
            }
            Field::Wrong(found) => {
                // A duration in seconds is described under its own key, not under the setting's.
                let key = place.key.strip_prefix(SECTION).and_then(|key| key.strip_prefix('.'));
                let help = schema::description(key.unwrap_or(setting));
                let problem = Problem::new(place.key, format!("expected {}", T::WHAT), help);
                self.problems.push(problem.with_value(in_words(&found)).at_line(place.line));
                None
            }
        }
    }

    /// Settles a duration that has two keys, of which the file may give one.
    pub(super) fn duration(
        &mut self,
        setting: &str,
        text: Field<HumanDuration>,
        seconds: Field<Seconds>,
    ) -> Option<Duration> {
        let twin = self.place_in_file(&format!("{setting}_seconds"));
        if !matches!(text, Field::Absent) && !matches!(seconds, Field::Absent) {
            let message = format!("given as well as `{SECTION}.{setting}`");
            let problem = Problem::new(twin.key, message, "remove one of the two keys");
            self.problems.push(problem.at_line(twin.line));
            return None;
        }
        let text = self.read(setting, text).map(|text| text.0);
        text.or_else(|| Some(self.read_at(setting, seconds, twin)?.0))
    }

    /// Notes where the value of a setting was found.
    pub(super) fn found(&mut self, setting: &str, place: Place) {
        self.places.insert(setting.to_owned(), place);
    }

    /// Where a setting's value came from.
    pub(super) fn origin(&self, setting: &str) -> Origin {
        self.places.get(setting).map_or(Origin::Default, |place| place.origin.clone())
    }

    /// Reports keys that are none of ours; `prefix` is empty or ends with a dot.
    pub(super) fn report_unknown(&mut self, prefix: &str, unknown: &Unknown) {
        for key in unknown.keys() {
            let setting = format!("{prefix}{key}");
            let problem = if is_named_like_a_secret(key) {
                let message = "a secret does not belong in the file";
                Problem::of_setting(&setting, message, where_a_secret_belongs(key))
            } else {
                Problem::of_setting(&setting, "unknown key", help_for_unknown(&setting))
            };
            self.report(problem);
        }
    }

    /// Adds a problem of a setting in the words of the place that its value came from.
    pub(super) fn report(&mut self, problem: Problem) {
        let problem = self.located(problem);
        self.problems.push(problem);
    }

    /// Every problem, those of `config` included; sorted, and without the secrets of `config`.
    pub(super) fn all_problems(&self, config: &Config) -> Vec<Problem> {
        let of_config = config.problems().into_iter().map(|problem| self.located(problem));
        let mut problems: Vec<Problem> = self.problems.iter().cloned().chain(of_config).collect();
        for problem in &mut problems {
            problem.value = problem.value.as_deref().map(|value| config.secrets.redact(value));
            problem.message = config.secrets.redact(&problem.message);
        }
        problems.sort();
        problems
    }

    fn located(&self, mut problem: Problem) -> Problem {
        let setting = problem.key.strip_prefix(SECTION).and_then(|key| key.strip_prefix('.'));
        if let Some(setting) = setting {
            problem.line = self.lines.get(setting).copied();
            if let Some(place) = self.places.get(setting) {
                problem.line = place.line;
                problem.key.clone_from(&place.key);
            }
        }
        problem
    }

    fn place_in_file(&self, setting: &str) -> Place {
        Place {
            key: format!("{SECTION}.{setting}").trim_end_matches('.').to_owned(),
            line: self.lines.get(setting).copied(),
            origin: self.file.clone().map_or(Origin::Default, Origin::File),
        }
    }
}

/// A value as it would be written, texts without their quotes.
fn in_words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What to do with a secret found in the file, by the name it was given there.
pub(super) fn where_a_secret_belongs(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    let variable = if name == "TOKEN" || name.contains("HF") || name.contains("HUGGING") {
        "HF_TOKEN"
    } else if name == "API_KEY" || name.contains("VLLM") {
        "VLLM_API_KEY"
    } else {
        return format!("set {name} in the environment of vllmd instead; vLLM inherits it");
    };
    format!("set {variable} in the environment, or {variable}_FILE to the path of a file with it")
}

fn help_for_unknown(setting: &str) -> String {
    let known = schema::settings();
    match suggest::nearest(setting, known.iter().map(|(key, _)| key.as_str())) {
        Some(nearest) => format!("did you mean `{SECTION}.{nearest}`?"),
        None => "remove it, or see `vllmd config schema` for the keys there are".to_owned(),
    }
}
