//! What an option may hold: how it is read, shown again, and described.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use vllm_supervisor_actors::domain::cause::Code;
use vllm_supervisor_actors::domain::gpu::GpuAction;

use super::sources::Sources;
use super::{
    ExitPolicy, GiveUpPolicy, GpuMonitor, LaunchPolicy, LifecycleMode, ModelReference, Network,
    StartPolicy,
};

/// What is wrong with a value, or with a part of it.
#[derive(Debug)]
pub(super) struct Fault {
    /// Which part, as the option's key goes on: `.79`; empty for the whole.
    pub(super) part: String,
    pub(super) message: String,
    /// What to do; empty where what the option is for says it.
    pub(super) help: String,
    pub(super) value: String,
    pub(super) code: Code,
}

impl Fault {
    pub(super) fn new(
        message: impl Into<String>,
        help: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        let (message, help, value) = (message.into(), help.into(), value.into());
        Self { part: String::new(), message, help, value, code: Code::InvalidConfiguration }
    }

    fn shape<T: OptionValue>(found: &Value) -> Vec<Self> {
        vec![Self::new(format!("expected {}", T::EXPECTED), "", in_words(found))]
    }
}

/// The value of an option.
pub(super) trait OptionValue: Sized {
    /// What it looks like, to those who write the file.
    const EXPECTED: &'static str;

    /// Whether a second key may give it as a number of seconds.
    const HAS_SECONDS: bool = false;

    /// Whether it is made of texts, for which numbers may stand as they are written.
    const TAKES_TEXTS: bool = false;

    /// Reads what a source gives.
    fn read(value: &Value, sources: &Sources) -> Result<Self, Vec<Fault>>;

    /// As it would be read again; null where there is none.
    fn json(&self) -> Value;

    /// What JSON schema says of it.
    fn schema() -> Value;
}

/// A value as it would be written, texts without their quotes.
pub(super) fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "unset".to_owned(),
        value => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    }
}

fn typed<'a, T: Deserialize<'a>, V: OptionValue>(value: &'a Value) -> Result<T, Vec<Fault>> {
    T::deserialize(value).map_err(|_| Fault::shape::<V>(value))
}

/// Types that serde reads as we want them, shown by what follows.
macro_rules! plain {
    ($($type:ty, $expected:literal, $schema:tt, $json:expr;)+) => { $(
        impl OptionValue for $type {
            const EXPECTED: &'static str = $expected;

            fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
                typed::<Self, Self>(value)
            }

            fn json(&self) -> Value {
                let shown: fn(&Self) -> Value = $json;
                shown(self)
            }

            fn schema() -> Value {
                json!($schema)
            }
        }
    )+ };
}

plain! {
    IpAddr, "an IP address such as `127.0.0.1`", {"type": "string"}, |it| it.to_string().into();
    u32, "a whole number from 0", {"type": "integer", "minimum": 0}, |it| (*it).into();
    u64, "a whole number from 0", {"type": "integer", "minimum": 0}, |it| (*it).into();
    NonZeroU32, "a whole number from 1", {"type": "integer", "minimum": 1}, |it| it.get().into();
    f64, "a number", {"type": "number"}, |it| shortest(*it);
}

/// `1` for 1.0, as it would be written.
fn shortest(number: f64) -> Value {
    let text = number.to_string();
    serde_json::from_str(&text).unwrap_or_else(|_| text.into())
}

/// A port.
impl OptionValue for u16 {
    const EXPECTED: &'static str = "a whole number from 1 to 65535";

    fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
        // Kubernetes sets such variables for every service it finds, `vllm` among them.
        if let Some(text) = value.as_str().filter(|text| text.contains("://")) {
            let message = "a service address that Kubernetes sets, not a port";
            let help = "set `enableServiceLinks: false` in the pod, or rename the service";
            return Err(vec![Fault::new(message, help, text)]);
        }
        typed::<NonZeroU16, Self>(value).map(NonZeroU16::get)
    }

    fn json(&self) -> Value {
        (*self).into()
    }

    fn schema() -> Value {
        json!({"type": "integer", "minimum": 1, "maximum": u16::MAX})
    }
}

impl OptionValue for Duration {
    const EXPECTED: &'static str = "a duration with a unit, such as `30s` or `5m`";
    const HAS_SECONDS: bool = true;

    fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
        // Of `5M` nobody means five months.
        let is_of_months = |text: &str| {
            let units = text.split(|c: char| !c.is_ascii_alphabetic());
            units.into_iter().any(|unit| unit == "M" || unit.starts_with("month"))
        };
        if value.as_str().is_some_and(is_of_months) {
            let help = "write minutes as `5m`, a long time in days as `30d`";
            return Err(vec![Fault::new(
                "`M` is a month, the longest time 30 days",
                help,
                in_words(value),
            )]);
        }
        humantime_serde::deserialize(value).map_err(|_| Fault::shape::<Self>(value))
    }

    fn json(&self) -> Value {
        humantime::format_duration(*self).to_string().into()
    }

    fn schema() -> Value {
        json!({"type": "string"})
    }
}

impl OptionValue for ModelReference {
    const EXPECTED: &'static str = "a text";

    fn read(value: &Value, sources: &Sources) -> Result<Self, Vec<Fault>> {
        let text = typed::<&str, Self>(value)?;
        Self::parse(text, &sources.working_directory, sources.home()).map_err(|error| {
            let fault = Fault::new(error.to_string(), error.help(), text);
            vec![Fault { code: Code::InvalidModelId, ..fault }]
        })
    }

    fn json(&self) -> Value {
        self.to_string().into()
    }

    fn schema() -> Value {
        json!({"type": "string"})
    }
}

/// A path, as it stands.
impl OptionValue for Option<PathBuf> {
    const EXPECTED: &'static str = "a text";

    fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
        typed::<PathBuf, Self>(value).map(Some)
    }

    fn json(&self) -> Value {
        self.as_ref().map_or(Value::Null, |path| path.display().to_string().into())
    }

    fn schema() -> Value {
        json!({"type": "string"})
    }
}

/// A text, which a number may stand for: `4096` in `extra_args` needs no quotes.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(text).collect()
}

fn texts_by_name(value: &Value) -> Option<BTreeMap<String, String>> {
    let entries = value.as_object()?.iter();
    entries.map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

/// Arguments.
impl OptionValue for Vec<String> {
    const EXPECTED: &'static str = "a list of texts (put quotes around `true` and `false`)";
    const TAKES_TEXTS: bool = true;

    fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
        texts(value).ok_or_else(|| Fault::shape::<Self>(value))
    }

    fn json(&self) -> Value {
        json!(self)
    }

    fn schema() -> Value {
        json!({"type": "array", "items": {"type": ["string", "number"]}})
    }
}

/// Variables.
impl OptionValue for BTreeMap<String, String> {
    const EXPECTED: &'static str =
        "a map from names to texts (put quotes around `true` and `false`)";
    const TAKES_TEXTS: bool = true;

    fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
        texts_by_name(value).ok_or_else(|| Fault::shape::<Self>(value))
    }

    fn json(&self) -> Value {
        json!(self)
    }

    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": {"type": ["string", "number"]}})
    }
}

/// A program and its arguments: a line, split at white space, or a list of words.
impl OptionValue for Option<Vec<String>> {
    const EXPECTED: &'static str = "a command line, or a list of texts";
    const TAKES_TEXTS: bool = true;

    /// A program given as a path is made absolute, as vLLM may be launched from another directory; a
    /// bare name is left to PATH.
    fn read(value: &Value, sources: &Sources) -> Result<Self, Vec<Fault>> {
        let whole = |program: &str| match (program.strip_prefix("~/"), sources.home()) {
            (Some(rest), Some(home)) => Some(home.join(rest)),
            _ if program.contains('/') => Some(sources.working_directory.join(program)),
            _ => None,
        };
        let line = |line: &str| {
            // A path with blanks in it is a path.
            if whole(line.trim()).is_some_and(|path| path.exists()) {
                return vec![line.trim().to_owned()];
            }
            line.split_whitespace().map(str::to_owned).collect()
        };
        let words: Option<Vec<String>> = value.as_str().map(line).or_else(|| texts(value));
        let mut words = words.ok_or_else(|| Fault::shape::<Self>(value))?;
        if let Some(program) = words.first_mut()
            && let Some(whole) = whole(program)
        {
            *program = whole.to_string_lossy().into_owned();
        }
        Ok(Some(words))
    }

    fn json(&self) -> Value {
        json!(self)
    }

    fn schema() -> Value {
        json!({"anyOf": [{"type": "string"}, Vec::<String>::schema()]})
    }
}

/// What is done about Xid errors.
impl OptionValue for BTreeMap<u32, GpuAction> {
    const EXPECTED: &'static str =
        "a map from the numbers of Xid errors to what is done about them";

    fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
        let given = texts_by_name(value).ok_or_else(|| Fault::shape::<Self>(value))?;
        let (mut actions, mut faults) = (Self::new(), Vec::new());
        for (number, action) in given {
            let known = GpuAction::ALL.into_iter().find(|known| known.as_str() == action);
            match (number.parse(), known) {
                (Ok(xid), Some(action)) => drop(actions.insert(xid, action)),
                (Err(_), _) => {
                    let help = "name it by its number in NVIDIA's catalogue, such as 79";
                    faults.push(Fault::new("not an Xid error", help, number));
                }
                (Ok(_), None) => {
                    let names: Vec<_> = GpuAction::ALL.iter().map(|it| it.as_str()).collect();
                    let help = format!("use one of {}", names.join(", "));
                    let fault = Fault::new("not what can be done about it", help, action);
                    faults.push(Fault { part: format!(".{number}"), ..fault });
                }
            }
        }
        if faults.is_empty() { Ok(actions) } else { Err(faults) }
    }

    fn json(&self) -> Value {
        let named = self.iter().map(|(xid, action)| (xid.to_string(), action.as_str().into()));
        Value::Object(named.collect())
    }

    fn schema() -> Value {
        let names = GpuAction::ALL.map(GpuAction::as_str);
        json!({"type": "object", "additionalProperties": {"enum": names}})
    }
}

/// One of a few, by name.
macro_rules! choice {
    ($($type:ty, $expected:literal, $($json:literal => $value:expr),+;)+) => { $(
        impl OptionValue for $type {
            const EXPECTED: &'static str = $expected;

            fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
                $(
                    if *value == json!($json) {
                        return Ok($value);
                    }
                )+
                Err(Fault::shape::<Self>(value))
            }

            fn json(&self) -> Value {
                let known = [$(($value, json!($json))),+];
                let known = known.into_iter().find(|(value, _)| value == self);
                known.map_or(Value::Null, |(_, json)| json)
            }

            fn schema() -> Value {
                json!({"enum": [$($json),+]})
            }
        }
    )+ };
}

choice! {
    LifecycleMode, "`managed`",
        "managed" => Self::Managed, "monitored" => Self::Monitored, "external" => Self::External;
    LaunchPolicy, "`auto`, `cold` or `warm`",
        "auto" => Self::Auto, "cold" => Self::Cold, "warm" => Self::Warm;
    GpuMonitor, "`auto`, `nvml`, `amd` or `off`",
        "auto" => Self::Auto, "nvml" => Self::Nvml, "amd" => Self::Amd, "off" => Self::Off;
    ExitPolicy, "`true` or `false`", true => Self::Stop, false => Self::Detach;
    StartPolicy, "`true` or `false`", true => Self::OnDemand, false => Self::AtOnce;
    GiveUpPolicy, "`exit` or `stay`", "exit" => Self::Exit, "stay" => Self::Stay;
    Network, "`online` or `airgapped`", "online" => Self::Online, "airgapped" => Self::Airgapped;
}
