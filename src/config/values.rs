//! What an option may hold: how it is read, shown again, and described.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use vllm_supervisor_actors::domain::cause::Code;

use super::sources::Sources;
use super::{ExitPolicy, GpuMonitor, LaunchPolicy, LifecycleMode, ModelReference, Network};

mod texts;

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
        // In quotes it is a text, though it looks like what is expected.
        let is_quoted = |text: &str| serde_json::from_str::<Value>(text).is_ok();
        let shown = match found.as_str() {
            Some(text) if is_quoted(text) => found.to_string(),
            _ => in_words(found),
        };
        vec![Self::new(format!("expected {}", T::EXPECTED), "", shown)]
    }

    /// The same, of what may hold a secret.
    fn kind<T: OptionValue>(found: &Value) -> Vec<Self> {
        vec![Self::new(format!("expected {}", T::EXPECTED), "", kind(found))]
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

/// What a value is, where what it holds may be a secret.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
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
    const EXPECTED: &'static str = "a duration with a unit, such as `30s` or `5m` (a plain number goes to the same key with `_seconds` at its end)";
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

/// A name.
impl OptionValue for Option<String> {
    const EXPECTED: &'static str = "a text";

    fn read(value: &Value, _: &Sources) -> Result<Self, Vec<Fault>> {
        typed::<String, Self>(value).map(Some)
    }

    fn json(&self) -> Value {
        json!(self)
    }

    fn schema() -> Value {
        json!({"type": "string"})
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
    LifecycleMode, "`managed`, `monitored` or `external`",
        "managed" => Self::Managed, "monitored" => Self::Monitored, "external" => Self::External;
    LaunchPolicy, "`auto`, `cold` or `warm`",
        "auto" => Self::Auto, "cold" => Self::Cold, "warm" => Self::Warm;
    GpuMonitor, "`auto`, `nvml`, `amd` or `off`",
        "auto" => Self::Auto, "nvml" => Self::Nvml, "amd" => Self::Amd, "off" => Self::Off;
    ExitPolicy, "`true` or `false`", true => Self::Stop, false => Self::Detach;
    Network, "`online` or `airgapped`", "online" => Self::Online, "airgapped" => Self::Airgapped;
}
