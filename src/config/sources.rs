//! Where settings come from, gathered before anything is read: loading looks at nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fmt};

use serde_json::Value;

use super::problem::{Problem, SECTION};

/// What the command line said. Values are as given; judging them is part of loading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overrides {
    /// `--model`.
    pub model: Option<String>,
    /// `--port`; any number, so that 70000 is reported like every other problem.
    pub port: Option<u32>,
    /// `--state-dir`; needed where neither `XDG_STATE_HOME` nor HOME says where state is kept.
    pub state_dir: Option<PathBuf>,
}

impl Overrides {
    /// What an option's flag gives.
    pub(super) fn of(&self, flag: &str) -> Option<Value> {
        match flag {
            "--model" => self.model.clone().map(Value::from),
            "--port" => self.port.map(Value::from),
            _ => None,
        }
    }
}

/// Whether to look for a configuration file that nobody named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FileSearch {
    /// In the usual places.
    #[default]
    UsualPlaces,
    /// Nowhere.
    Nowhere,
}

/// What a program gives instead of a file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// A YAML text, of which our section is read.
    Text(String),
    /// The section itself.
    Value(Value),
}

/// Everything that loading a configuration depends on, besides the files that it names.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Sources {
    /// The command line.
    pub overrides: Overrides,
    /// The environment: `VLLM_MODEL`, `VLLM_PORT`, the secrets, and where files lie.
    pub environment: BTreeMap<String, String>,
    /// Variables whose values are no text in UTF-8.
    pub unreadable: BTreeSet<String>,
    /// `--config`: the file to read, which then must exist.
    pub file: Option<PathBuf>,
    /// What is read instead of any file.
    pub content: Option<Content>,
    /// Where the settings stand in a file or a text, such as `providers.vllm`; problems name keys below
    /// it.
    pub section: String,
    /// Whether to look for a file when none is named.
    pub search: FileSearch,
    /// What relative paths are taken from, in the file as well.
    pub working_directory: PathBuf,
    /// The file read when there is no other, usually `/etc/vllmd/config.yaml`.
    pub system_file: PathBuf,
}

// The environment may hold secrets, ours and others, so only its size is shown.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("overrides", &self.overrides)
            .field("environment", &format_args!("{} variables", self.environment.len()))
            .field("unreadable", &self.unreadable)
            .field("file", &self.file)
            .field("content", &self.content.is_some())
            .field("section", &self.section)
            .field("search", &self.search)
            .field("working_directory", &self.working_directory)
            .field("system_file", &self.system_file)
            .finish()
    }
}

impl Sources {
    /// The sources of this process. This is the only place that looks at its environment.
    pub fn from_process(overrides: Overrides, file: Option<PathBuf>) -> Self {
        let (mut environment, mut unreadable) = (BTreeMap::new(), BTreeSet::new());
        // A name that is not UTF-8 is none of ours.
        for (name, value) in
            env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        {
            match value.into_string() {
                Ok(value) => drop(environment.insert(name, value)),
                Err(_) => drop(unreadable.insert(name)),
            }
        }
        Self { overrides, environment, unreadable, file, ..Self::alone() }
    }

    /// A YAML text, and nothing else: neither a file nor the environment is looked at. Set `section` if
    /// the settings do not stand below `providers.vllm`, and `environment` for what may override them.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self { content: Some(Content::Text(text.into())), ..Self::alone() }
    }

    /// The settings themselves, as they would stand below `providers.vllm`, and nothing else: neither a
    /// file nor the environment is looked at. Problems name keys below `section`.
    pub fn from_value(settings: Value) -> Self {
        Self { content: Some(Content::Value(settings)), ..Self::alone() }
    }

    fn alone() -> Self {
        Self {
            overrides: Overrides::default(),
            environment: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            file: None,
            content: None,
            section: SECTION.to_owned(),
            search: FileSearch::UsualPlaces,
            // It cannot be told only when it was removed; relative paths then fail on their own.
            working_directory: env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            system_file: PathBuf::from("/etc/vllmd/config.yaml"),
        }
    }

    /// An environment variable; an empty one counts as unset.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// What cannot be read of the variables that we read.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        const OURS: [&str; 11] = [
            "VLLM_MODEL",
            "VLLM_PORT",
            "VLLMD_CONFIG",
            "HF_TOKEN",
            "HF_TOKEN_FILE",
            "VLLM_API_KEY",
            "VLLM_API_KEY_FILE",
            "HOME",
            "XDG_CONFIG_HOME",
            "XDG_STATE_HOME",
            "XDG_CACHE_HOME",
        ];
        OURS.into_iter().filter(|name| self.unreadable.contains(*name)).map(|name| {
            Problem::new(name, "its value is no text in UTF-8", "set it to one, or unset it")
        })
    }

    pub(super) fn home(&self) -> Option<&Path> {
        self.variable("HOME").map(Path::new)
    }

    /// A directory of the XDG Base Directory Specification 0.8, which says that a relative path
    /// in `variable` is to be ignored; the default is below the home directory.
    pub(super) fn xdg_directory(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let given = self.variable(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        given.or_else(|| Some(self.home()?.join(below_home)))
    }

    /// Where a service's state is kept unless somebody says otherwise, if that can be told.
    pub(super) fn state_directory(&self) -> Option<PathBuf> {
        Some(self.xdg_directory("XDG_STATE_HOME", ".local/state")?.join("vllmd"))
    }

    /// Where is kept what can be found out again, if that can be told.
    pub(super) fn cache_directory(&self) -> Option<PathBuf> {
        Some(self.xdg_directory("XDG_CACHE_HOME", ".cache")?.join("vllmd"))
    }

    /// The file somebody asked for, and what named it; it must exist.
    pub(super) fn named_file(&self) -> Option<(PathBuf, &'static str)> {
        let by_flag = self.file.as_deref().map(|file| (file, "--config"));
        let by_variable = || Some((Path::new(self.variable("VLLMD_CONFIG")?), "VLLMD_CONFIG"));
        let (file, named_by) = by_flag.or_else(by_variable)?;
        Some((self.working_directory.join(file), named_by))
    }

    /// The files looked for when none is named; the first that exists is read.
    pub(super) fn usual_files(&self) -> impl Iterator<Item = PathBuf> {
        let own = self.xdg_directory("XDG_CONFIG_HOME", ".config");
        let usual = [
            Some(self.working_directory.join(".agent/config.yml")),
            own.map(|directory| directory.join("vllmd/config.yaml")),
            Some(self.system_file.clone()),
        ];
        usual.into_iter().flatten().filter(|_| self.search == FileSearch::UsualPlaces)
    }
}
