//! Settles a configuration from flags, environment, file and defaults, and says where each
//! setting came from.
//!
//! A value that cannot be read is a problem and settles nothing, so its default stands in for it
//! and the other settings are judged in the same run. A value that a stronger source replaces is
//! not judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::file::{self, Lines, Misplaced, Owner, ParsedFile, Written};
use super::options::{Entry, OPTIONS, SECTIONS, in_order_of_reading, keys, summary};
use super::problem::{ConfigError, Problem, SECTION};
use super::secret::{self, HF_TOKEN, Secret, Secrets, VLLM_API_KEY};
use super::sources::Sources;
use super::telltale::{is_named_like_a_secret, where_a_secret_belongs};
use super::values::{Fault, in_words};
use super::{Config, ModelReference, suggest, validate};

/// Where a setting's value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody gave it.
    Default,
    /// The configuration file at this path.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// The command-line flag of this name, such as `--port`.
    Flag(&'static str),
}

/// One setting, as `check` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// The key below the section, such as `lifecycle.stop_on_exit`.
    pub key: &'static str,
    /// The value in words; masked when it is a secret.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// A configuration that can be used, and where it came from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Resolved {
    /// The configuration; it has no [`Config::problems`].
    pub config: Config,
    /// Every setting with its origin, in the order of the file.
    pub origins: Vec<Setting>,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
}

impl Resolved {
    /// Reads the configuration from `sources`.
    ///
    /// # Errors
    /// With every problem of every source, when there is any.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let (file, parsed) = file::load(sources);
        let (parsed, unread) = match parsed {
            Ok(parsed) => (parsed, None),
            Err(problem) => (ParsedFile::default(), Some(problem)),
        };
        let ParsedFile { section, lines, written, misplaced } = parsed;
        let (places, problems, file_read) = (BTreeMap::new(), Vec::new(), file.clone());
        let mut resolver = Resolver { sources, file: file_read, lines, written, places, problems };
        if unread.is_none() {
            resolver.expect_model(&section, misplaced);
        }
        resolver.problems.extend(unread);
        resolver.problems.extend(sources.problems());
        let config = resolver.config(section);
        let problems = resolver.all_problems(&config);
        if !problems.is_empty() {
            return Err(ConfigError { problems, file });
        }
        let origins = config.settings().into_iter().map(|(key, value)| {
            let place = resolver.places.get(key);
            let origin = place.map_or(Origin::Default, |place| place.origin.clone());
            Setting { key, value: config.secrets.redact(&value), origin }
        });
        let origins = origins.collect();
        Ok(Self { config, origins, file })
    }
}

/// Where a value was found: what an operator would change.
#[derive(Clone)]
struct Place {
    /// The key in the words of the source: a path in the file, a flag or a variable.
    key: String,
    line: Option<u64>,
    origin: Origin,
    /// What stands there, where it may be shown.
    value: Option<String>,
}

impl Place {
    fn flag(name: &'static str) -> Self {
        Self { key: name.to_owned(), line: None, origin: Origin::Flag(name), value: None }
    }

    fn variable(name: &str) -> Self {
        let origin = Origin::Environment(name.to_owned());
        Self { key: name.to_owned(), line: None, origin, value: None }
    }
}

/// Settles one setting after the other.
struct Resolver<'a> {
    sources: &'a Sources,
    file: Option<PathBuf>,
    lines: Lines,
    written: Written,
    /// Of the settings found so far, by their keys below the section.
    places: BTreeMap<String, Place>,
    problems: Vec<Problem>,
}

impl Resolver<'_> {
    fn config(&mut self, section: Value) -> Config {
        // The stand-in is used only together with a reported problem, so it never gets out.
        let model = ModelReference::Hub("stand/in".to_owned());
        let mut config = Config::with_defaults(model, self.state_dir());
        config.cache_dir = self.cache_dir();
        config.secrets = Secrets {
            hf_token: self.secret("hf_token", HF_TOKEN),
            vllm_api_key: self.secret("vllm_api_key", VLLM_API_KEY),
        };
        let maps = self.maps(section);
        for entry in in_order_of_reading() {
            let (map, word) = entry.key.split_once('.').unwrap_or(("", entry.key));
            let given = maps.get(map).and_then(|map| self.given(entry, map, word));
            let given = self.stronger(entry).or(given);
            if let Some((value, place)) = given {
                let written = place.value.clone().unwrap_or_else(|| in_words(&value));
                let place = Place { value: Some(written), ..place };
                self.settle(entry, &mut config, &value, place);
            }
        }
        config
    }

    /// The maps of the section, by their keys; what is none is a problem, as is a key that nobody knows.
    fn maps(&mut self, section: Value) -> BTreeMap<&'static str, Map<String, Value>> {
        let mut maps = BTreeMap::new();
        let mut rest = Map::from_iter([(String::new(), section)]);
        for known in SECTIONS {
            let map = match rest.remove(known.key) {
                None | Some(Value::Null) => continue,
                Some(Value::Object(map)) => map,
                Some(found) => {
                    let Place { key, line, .. } = self.place_in_file(known.key);
                    let problem =
                        Problem::new(key, "expected a map of settings", summary(known.help));
                    self.problems.push(problem.with_value(in_words(&found)).at_line(line));
                    continue;
                }
            };
            if known.key.is_empty() {
                rest.clone_from(&map);
            }
            let dot = if known.key.is_empty() { "" } else { "." };
            for word in map.keys() {
                self.expect_known(&format!("{}{dot}{word}", known.key), word);
            }
            maps.insert(known.key, map);
        }
        maps
    }

    fn expect_known(&mut self, key: &str, word: &str) {
        // A path written as one word is not read as a path.
        let is_word = !word.is_empty() && !word.contains('.');
        if is_word && keys().any(|known| known == key) {
            return;
        }
        let problem = if is_named_like_a_secret(word) {
            let message = "a secret does not belong in the file";
            Problem::of_setting(key, message, where_a_secret_belongs(word))
        } else {
            Problem::of_setting(key, "unknown key", help_for_unknown(key))
        };
        let problem = self.located(problem);
        self.problems.push(problem);
    }

    /// That a file which cannot be read gives no model is no news.
    fn expect_model(&mut self, section: &Value, misplaced: Option<Misplaced>) {
        let is_given = !section["model"].is_null() || self.stronger(&OPTIONS[0]).is_some();
        let problem = Problem::no_model();
        match misplaced {
            // What it says would be heeded by nobody.
            Some(Misplaced { what, line, owner: Owner::We }) if is_given => {
                let help = "correct the file: what it has there would be heeded by nobody";
                self.problems.push(Problem::new(SECTION, what, help).at_line(Some(line)));
            }
            _ if is_given => {}
            Some(Misplaced { what, line, .. }) => {
                let message = format!("{}: {what}", problem.message);
                self.problems.push(Problem { message, ..problem }.at_line(Some(line)));
            }
            None => self.problems.push(problem),
        }
    }

    /// What a flag or the environment gives.
    fn stronger(&self, entry: &Entry) -> Option<(Value, Place)> {
        let (flag, variable) = (entry.flag?, entry.variable?);
        if let Some(value) = self.sources.overrides.of(flag) {
            return Some((value, Place::flag(flag)));
        }
        let text = self.sources.variable(variable)?;
        let number = text.parse::<u64>().ok().filter(|_| (entry.schema)()["type"] == "integer");
        Some((number.map_or_else(|| text.into(), Value::from), Place::variable(variable)))
    }

    /// What the file gives, under the option's own key or in seconds.
    fn given(
        &mut self,
        entry: &Entry,
        map: &Map<String, Value>,
        word: &str,
    ) -> Option<(Value, Place)> {
        let found = |word: &str| map.get(word).filter(|value| !value.is_null()).cloned();
        let own = found(word).map(|mut value| {
            if entry.takes_texts {
                self.write_out(&mut value, entry.key);
            }
            (value, self.place_in_file(entry.key))
        });
        if !entry.has_seconds {
            return own;
        }
        let twin = format!("{word}_seconds");
        let Some(seconds) = found(&twin) else { return own };
        let place = self.place_in_file(&format!("{}_seconds", entry.key));
        let duration = seconds.as_f64().and_then(|it| Duration::try_from_secs_f64(it).ok());
        let (message, help) = match (own, duration) {
            (None, Some(duration)) => {
                let place = Place { value: Some(in_words(&seconds)), ..place };
                return Some((humantime::format_duration(duration).to_string().into(), place));
            }
            (None, None) => {
                ("expected a number of seconds from 0".to_owned(), format!("`{word}` in seconds"))
            }
            (Some(_), _) => {
                let message = format!("given as well as `{SECTION}.{}`", entry.key);
                let problem = Problem::new(place.key, message, "remove one of the two keys");
                self.problems.push(problem.at_line(place.line));
                return None;
            }
        };
        let problem = Problem::new(place.key, message, help);
        self.problems.push(problem.with_value(in_words(&seconds)).at_line(place.line));
        None
    }

    /// Gives numbers in a list or a map of texts as they are written.
    fn write_out(&self, value: &mut Value, key: &str) {
        match value {
            Value::Number(_) => {
                if let Some(written) = self.written.get(key) {
                    *value = written.as_str().into();
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.write_out(item, &format!("{key}[{index}]"));
                }
            }
            Value::Object(entries) => {
                for (name, item) in entries {
                    self.write_out(item, &format!("{key}.{name}"));
                }
            }
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }

    fn settle(&mut self, entry: &Entry, config: &mut Config, value: &Value, place: Place) {
        match (entry.read)(config, value, self.sources) {
            Ok(()) => drop(self.places.insert(entry.key.to_owned(), place)),
            Err(faults) => {
                for fault in faults {
                    let line = match fault.part.as_str() {
                        "" => place.line,
                        part => self.lines.get(&format!("{}{part}", entry.key)).copied(),
                    };
                    self.problems.push(of_fault(entry, fault, &place.key).at_line(line));
                }
            }
        }
    }

    fn state_dir(&mut self) -> PathBuf {
        if let Some(path) = &self.sources.overrides.state_dir {
            self.places.insert("state_dir".to_owned(), Place::flag("--state-dir"));
            return self.sources.working_directory.join(path);
        }
        let directory = self.sources.state_directory();
        self.note_directory("state_dir", directory.as_deref(), "XDG_STATE_HOME");
        // An empty one is a problem of the configuration.
        directory.unwrap_or_default()
    }

    fn cache_dir(&mut self) -> Option<PathBuf> {
        let directory = self.sources.cache_directory();
        self.note_directory("cache_dir", directory.as_deref(), "XDG_CACHE_HOME");
        directory
    }

    /// Whether the directory lies where the variable says.
    fn note_directory(&mut self, setting: &str, directory: Option<&Path>, variable: &str) {
        let named = self.sources.variable(variable).map(Path::new);
        if named.is_some() && named == directory.and_then(Path::parent) {
            self.places.insert(setting.to_owned(), Place::variable(variable));
        }
    }

    fn secret(&mut self, setting: &str, variable: &str) -> Option<Secret> {
        let Sources { environment, working_directory, .. } = self.sources;
        match secret::from_environment(variable, environment, working_directory) {
            Ok(found) => {
                let (secret, variable) = found?;
                self.places.insert(setting.to_owned(), Place::variable(&variable));
                Some(secret)
            }
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// Every problem, those of `config` included; sorted, and without the secrets of `config`.
    fn all_problems(&self, config: &Config) -> Vec<Problem> {
        let of_config = validate::problems(config).into_iter().map(|problem| self.located(problem));
        let mut problems: Vec<Problem> = self.problems.iter().cloned().chain(of_config).collect();
        for problem in &mut problems {
            *problem = problem.clone().in_section(&self.sources.section);
            problem.value = problem.value.as_deref().map(|value| config.secrets.redact(value));
            problem.message = config.secrets.redact(&problem.message);
        }
        problems.sort();
        problems
    }

    /// A problem of a setting in the words of the place that its value came from.
    fn located(&self, mut problem: Problem) -> Problem {
        let setting = problem.key.strip_prefix(SECTION).and_then(|key| key.strip_prefix('.'));
        if let Some(setting) = setting {
            problem.line = self.lines.get(setting).copied();
            if let Some(place) = self.places.get(setting) {
                problem.line = place.line;
                problem.key.clone_from(&place.key);
                // As written: what it was read as may look different. What is not shown stays so.
                if let (Some(written), Some(_)) = (&place.value, &problem.value) {
                    problem = problem.with_value(written);
                }
            }
        }
        problem
    }

    fn place_in_file(&self, setting: &str) -> Place {
        Place {
            key: format!("{SECTION}.{setting}").trim_end_matches('.').to_owned(),
            line: self.lines.get(setting).copied(),
            origin: self.file.clone().map_or(Origin::Default, Origin::File),
            value: None,
        }
    }
}

/// A fault in the value of an option, in the words of the place that it came from.
pub(super) fn of_fault(entry: &Entry, fault: Fault, place: &str) -> Problem {
    let Fault { part, message, help, value, code } = fault;
    let help = if help.is_empty() { entry.summary().to_owned() } else { help };
    Problem::new(format!("{place}{part}"), message, help).with_value(value).with_code(code)
}

fn help_for_unknown(key: &str) -> String {
    let known: Vec<String> = keys().collect();
    match suggest::nearest(key, known.iter().map(String::as_str)) {
        Some(nearest) if !nearest.is_empty() => format!("did you mean `{SECTION}.{nearest}`?"),
        _ => {
            "a flag of vLLM belongs into `extra_args`; `vllmd config schema` has the keys there are"
                .to_owned()
        }
    }
}
