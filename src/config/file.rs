//! Finds and reads the configuration file. The YAML parser is behind [`parse`], nobody else's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::{fmt, io};

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Number, Value};
use serde_saphyr::{Location, Spanned};

use super::problem::{Problem, SECTION};
use super::sources::{Content, Sources};
use super::telltale::looks_like_a_secret;
use super::trust;

/// The file's lines, from 1, by key below the section: `gpu.monitor`, `extra_args[0]`.
pub(super) type Lines = BTreeMap<String, u64>;

/// Numbers as they are written, by key: `010` and `1.10` are others to YAML.
pub(super) type Written = BTreeMap<String, String>;

/// A file, as far as it is ours.
#[derive(Debug, Default)]
pub(super) struct ParsedFile {
    /// What stands below `providers.vllm`; `null` without such a section.
    pub(super) section: Value,
    pub(super) lines: Lines,
    pub(super) written: Written,
    /// What belongs into our section and stands elsewhere, where there is no such section.
    pub(super) misplaced: Option<Misplaced>,
}

/// A key of ours at the wrong level, or with a slip in its name.
#[derive(Debug)]
pub(super) struct Misplaced {
    /// What is to be told: the key, where it stands, where it belongs.
    pub(super) what: String,
    pub(super) line: u64,
    pub(super) owner: Owner,
}

/// Whose a misplaced key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Ours: the file is not what its author means.
    We,
    /// Another program's, perhaps.
    Anybody,
}

impl Misplaced {
    /// By the keys of the whole file.
    const PLACES: [(&'static str, &'static str, Owner); 3] = [
        ("vllm", "`vllm` stands at the top of the file, and belongs below `providers:`", Owner::We),
        (
            "model",
            "`model` stands at the top of the file, and belongs below `providers:`, `vllm:`",
            Owner::Anybody,
        ),
        (
            "providers.model",
            "`model` stands right below `providers`, and belongs below `providers:`, `vllm:`",
            Owner::Anybody,
        ),
    ];

    /// What other programs have in the file need not be readable to us.
    fn find(text: &str) -> Option<Self> {
        let document: Option<Spanned<Yaml>> =
            serde_saphyr::from_str_with_options(text, options()).ok()?;
        let mut outline = Outline::of(text);
        outline.flatten(document?, "");
        let lines = outline.lines;
        let slip = lines.iter().find(|(key, _)| is_slip(key)).map(|(key, line)| {
            let what = format!("`{SECTION}` is missing, and there is `{key}`");
            // Another program may be called so; it has no settings of ours.
            let is_ours =
                OURS_ALONE.iter().any(|word| lines.contains_key(&format!("{key}.{word}")));
            Self { what, line: *line, owner: if is_ours { Owner::We } else { Owner::Anybody } }
        });
        let place = |(key, what, owner): &(&str, &str, Owner)| {
            Some(Self { what: (*what).to_owned(), line: *lines.get(*key)?, owner: *owner })
        };
        slip.or_else(|| Self::PLACES.iter().find_map(place))
    }
}

/// Settings that nobody else is likely to have.
const OURS_ALONE: [&str; 4] = ["vllm_binary", "extra_args", "lifecycle", "gpu"];

/// Whether a key is that of our section, but for a letter.
fn is_slip(key: &str) -> bool {
    let is_near = |word: &str, meant: &str| {
        word == meant
            || strsim::osa_distance(&word.to_lowercase(), meant) == 1
            || word.eq_ignore_ascii_case(meant)
    };
    let parts = key.split_once('.');
    key != SECTION
        && parts
            .is_some_and(|(first, second)| is_near(first, "providers") && is_near(second, "vllm"))
}

/// Reads the configuration file, if there is one: the one named, else the first that exists.
///
/// The path comes apart from the outcome, as it is known of a broken file too.
pub(super) fn load(sources: &Sources) -> (Option<PathBuf>, Result<ParsedFile, Problem>) {
    let parse_at =
        |path: &Path, text: &str| parse_named(&path.display().to_string(), text, sources);
    match &sources.content {
        Some(Content::Text(text)) => return (None, parse_named(&sources.section, text, sources)),
        Some(Content::Value(section)) => {
            let section = section.clone();
            return (None, Ok(ParsedFile { section, ..ParsedFile::default() }));
        }
        None => {}
    }
    if let Some((path, named_by)) = sources.named_file() {
        let parsed = match fs::read_to_string(&path) {
            Ok(text) => parse_at(&path, &text),
            Err(error) => Err(unreadable(named_by, &path, &error)),
        };
        return (Some(path), parsed);
    }
    for path in sources.usual_files() {
        match read_trusted(&path) {
            Ok(Ok(text)) => {
                let parsed = parse_at(&path, &text);
                return (Some(path), parsed);
            }
            Ok(Err(fault)) => {
                let problem = untrusted(&path, &fault);
                return (Some(path), Err(problem));
            }
            Err(error) if is_absence(&error) => {}
            Err(error) => {
                let problem = unreadable(&path.display().to_string(), &path, &error);
                return (Some(path), Err(problem));
            }
        }
    }
    (None, Ok(ParsedFile::default()))
}

/// The text of a file that nobody named, or why it is not believed.
fn read_trusted(path: &Path) -> io::Result<Result<String, String>> {
    let file = File::open(path)?;
    match trust::distrust(path, &file)? {
        Some(fault) => Ok(Err(fault)),
        None => io::read_to_string(file).map(Ok),
    }
}

fn untrusted(path: &Path, fault: &str) -> Problem {
    let help = "name it with `--config` if you trust it, or take the right to write it from others";
    let message = format!("nobody named this configuration file, and {fault}");
    Problem::new(path.display().to_string(), message, help)
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unreadable(key: &str, path: &Path, error: &io::Error) -> Problem {
    let message = format!("the configuration file cannot be read: {error}");
    Problem::new(key, message, "name a readable YAML file").with_value(path.display().to_string())
}

fn parse_named(name: &str, text: &str, sources: &Sources) -> Result<ParsedFile, Problem> {
    parse(text, &sources.section).map_err(|error| {
        let help = "correct the YAML there; `vllmd config schema` prints the schema of the file";
        // The parser may quote the text it stumbled over.
        let message = match error.to_string() {
            message if looks_like_a_secret(&message) => "not a usable YAML file".to_owned(),
            message => message,
        };
        Problem::new(name, message, help).at_line(error.line)
    })
}

/// Why a text is not YAML of the right outline; the parser's message says at which column.
#[derive(Debug, thiserror::Error)]
#[error("not a usable YAML file: {message}")]
pub(super) struct ParseYamlError {
    line: Option<u64>,
    message: String,
}

/// Reads our section out of a YAML text, in the types of YAML 1.2: `no` and `off` are texts.
fn parse(text: &str, section: &str) -> Result<ParsedFile, ParseYamlError> {
    let words: Vec<&str> = section.split('.').collect();
    let found =
        serde_saphyr::with_deserializer_from_str_with_options(text, options(), |document| {
            Below(&words).deserialize(document)
        });
    let found = found.map_err(|error| ParseYamlError {
        line: error.location().map(|at| at.line()),
        message: error.render_with_formatter(&serde_saphyr::UserMessageFormatter),
    })?;
    let mut outline = Outline::of(text);
    let is_lost = found.is_none() && section == SECTION;
    let misplaced = if is_lost { Misplaced::find(text) } else { None };
    let section = found;
    let section = section.map_or(Value::Null, |section| outline.flatten(section, ""));
    let Outline { lines, written, .. } = outline;
    Ok(ParsedFile { section, lines, written, misplaced })
}

fn options() -> serde_saphyr::Options {
    // A snippet could show a secret, and a number without end would hide every other problem.
    serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::AsString,
    }
}

/// Finds what stands below these keys; all else may be what it will.
struct Below<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Below<'_> {
    type Value = Option<Spanned<Yaml>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            Option::deserialize(deserializer)
        } else {
            deserializer.deserialize_option(self)
        }
    }
}

impl<'de> Visitor<'de> for Below<'_> {
    type Value = Option<Spanned<Yaml>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map with `{}`", self.0.join("."))
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = entries.next_key::<Key>()? {
            match self.0.split_first() {
                Some((first, rest)) if key.0.as_deref() == Some(*first) => {
                    found = entries.next_value_seed(Below(rest))?;
                }
                _ => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// A key of somebody's, which need not be a text.
struct Key(Option<String>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Yaml::deserialize(deserializer)? {
            Yaml::Scalar(Value::String(text)) => Self(Some(text)),
            _ => Self(None),
        })
    }
}

/// A YAML value whose parts know their lines.
enum Yaml {
    Scalar(Value),
    List(Vec<Spanned<Yaml>>),
    Map(Vec<(Spanned<String>, Spanned<Yaml>)>),
}

/// What stands where, and how.
struct Outline<'a> {
    text: &'a str,
    lines: Lines,
    written: Written,
}

impl<'a> Outline<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, lines: Lines::new(), written: Written::new() }
    }

    fn written(&self, at: Location) -> Option<&'a str> {
        let start = usize::try_from(at.span().byte_offset()?).ok()?;
        let length = usize::try_from(at.span().byte_len()?).ok()?;
        self.text.get(start..start.checked_add(length)?).map(str::trim)
    }

    /// The plain value; what is to be known of its parts is added under their paths below `path`.
    fn flatten(&mut self, yaml: Spanned<Yaml>, path: &str) -> Value {
        match yaml.value {
            Yaml::Scalar(value) => {
                if let Some(written) = self.written(yaml.defined).filter(|_| value.is_number()) {
                    self.written.insert(path.to_owned(), written.to_owned());
                }
                value
            }
            Yaml::List(items) => {
                let items = items.into_iter().enumerate().map(|(index, item)| {
                    let path = format!("{path}[{index}]");
                    self.lines.insert(path.clone(), item.referenced.line());
                    self.flatten(item, &path)
                });
                Value::Array(items.collect())
            }
            Yaml::Map(entries) => {
                let entries = entries.into_iter().map(|(key, value)| {
                    let dot = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{dot}{}", key.value);
                    self.lines.insert(path.clone(), key.referenced.line());
                    (key.value, self.flatten(value, &path))
                });
                Value::Object(entries.collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value below {SECTION}")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(value.into()))
    }

    // Numbers that JSON cannot hold stay texts, and are then wrong wherever a number is due.
    fn visit_i128<E>(self, value: i128) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(value.to_string().into()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(value.to_string().into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
        let number = Number::from_f64(value);
        Ok(Yaml::Scalar(number.map_or_else(|| value.to_string().into(), Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Yaml, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Yaml::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Yaml, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Yaml::Map(map))
    }
}
