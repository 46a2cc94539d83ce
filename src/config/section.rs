//! The form of the configuration file: what it may say, before anything is decided.
//!
//! Deserialising never fails on a wrong value: the field remembers what it found, so that every
//! problem of a file is reported at once. The doc comments here are the descriptions of the JSON
//! schema and the help line of a wrong value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

use super::{GpuMonitor, LaunchPolicy, LifecycleMode};

/// A setting as the file has it. `null` is the same as leaving the key out.
#[derive(Debug, Default)]
pub(super) enum Field<T> {
    #[default]
    Absent,
    Given(T),
    /// Something else than an `Expected` value.
    Wrong(Value),
}

impl<T: DeserializeOwned> Field<T> {
    pub(super) fn read(value: Value) -> Self {
        match value {
            Value::Null => Self::Absent,
            value => T::deserialize(&value).map_or(Self::Wrong(value), Self::Given),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::read)
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        Option::<T>::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        Option::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Option::<T>::json_schema(generator)
    }
}

/// What a value of a type looks like, to those who write the file.
pub(super) trait Expected {
    const WHAT: &'static str;
}

macro_rules! expected {
    ($($type:ty => $what:literal),+ $(,)?) => { $(
        impl Expected for $type {
            const WHAT: &'static str = $what;
        }
    )+ };
}

expected! {
    String => "a text",
    bool => "`true` or `false`",
    f64 => "a number",
    u32 => "a whole number from 0",
    u64 => "a whole number from 0",
    NonZeroU16 => "a whole number from 1 to 65535",
    NonZeroU32 => "a whole number from 1",
    IpAddr => "an IP address such as `127.0.0.1`",
    CommandLine => "a command line, or a list of texts",
    Vec<Text> => "a list of texts (put quotes around `true` and `false`)",
    BTreeMap<String, Text> => "a map from names to texts (put quotes around `true` and `false`)",
    HumanDuration => "a duration with a unit, such as `30s` or `5m`",
    Seconds => "a number of seconds from 0",
    ModeName => "`managed`",
    LaunchName => "`cold` or `warm`",
    GpuMonitor => "`auto`, `nvml`, `amd` or `off`",
    VllmSection => "a map of settings",
    LifecycleSection => "a map of settings",
    GpuSection => "a map of settings",
    LogsSection => "a map of settings",
}

/// Keys we do not know, with their values.
pub(super) type Unknown = BTreeMap<String, Value>;

/// The settings of one vLLM server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct VllmSection {
    /// The model: `namespace/name` on the Hugging Face Hub, or a directory (absolute, or starting with `./`, `../` or `~/`). `--model` and `VLLM_MODEL` override it.
    pub(super) model: Field<String>,
    /// The address vLLM listens on. Other than loopback needs `VLLM_API_KEY` in the environment.
    pub(super) host: Field<IpAddr>,
    /// The TCP port vLLM listens on, 1 to 65535. `--port` and `VLLM_PORT` override it.
    pub(super) port: Field<NonZeroU16>,
    /// The command that starts vLLM: a command line split at white space, or a list of its words. Unset: `vllm`, else `python3 -m vllm.entrypoints.openai.api_server`, from PATH.
    pub(super) vllm_binary: Field<CommandLine>,
    /// Further arguments for vLLM. Flags that are set from this file are not allowed here, nor those with which vLLM could not be found or owned: TLS, `--uds`, `--grpc`, `--headless`, `--config`, Ray, several machines, and the like.
    pub(super) extra_args: Field<Vec<Text>>,
    /// Environment variables for vLLM, on top of those of the supervisor. No secrets: these come from the supervisor's own environment.
    pub(super) env: Field<BTreeMap<String, Text>>,
    /// When to start, to give up waiting, to restart and to stop.
    pub(super) lifecycle: Field<LifecycleSection>,
    /// How vLLM uses the GPUs, and how they are watched.
    pub(super) gpu: Field<GpuSection>,
    /// How much of vLLM's output is kept.
    pub(super) logs: Field<LogsSection>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unknown: Unknown,
}

/// The settings below `lifecycle`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct LifecycleSection {
    /// Who owns the life of vLLM: `managed` means that the supervisor does.
    pub(super) mode: Field<ModeName>,
    /// How vLLM is started: `cold`, from nothing, or `warm`, forked from a process that has imported what vLLM imports.
    pub(super) launch: Field<LaunchName>,
    /// The longest silence between launch and the server's first sign of life, such as `30s`.
    pub(super) start_timeout: Field<HumanDuration>,
    /// `start_timeout` as a number of seconds.
    pub(super) start_timeout_seconds: Field<Seconds>,
    /// The longest time without progress while the model loads, such as `5m`. A download that moves is never killed.
    pub(super) model_load_timeout: Field<HumanDuration>,
    /// `model_load_timeout` as a number of seconds.
    pub(super) model_load_timeout_seconds: Field<Seconds>,
    /// The time from one health check to the next while running, such as `60s`.
    pub(super) health_check_interval: Field<HumanDuration>,
    /// `health_check_interval` as a number of seconds.
    pub(super) health_check_interval_seconds: Field<Seconds>,
    /// How many failed health checks in a row mean that vLLM is dead, at least 1.
    pub(super) max_consecutive_failures: Field<NonZeroU32>,
    /// How many restarts are tried in any 60 seconds, at least 1.
    pub(super) max_restarts_per_minute: Field<NonZeroU32>,
    /// The wait before the first restart, `2s` to `60s`; it doubles with each restart, up to 60 seconds.
    pub(super) restart_backoff: Field<HumanDuration>,
    /// `restart_backoff` as a number of seconds.
    pub(super) restart_backoff_seconds: Field<Seconds>,
    /// How long vLLM must be healthy for the backoff to start afresh, such as `60s`.
    pub(super) stable_after: Field<HumanDuration>,
    /// `stable_after` as a number of seconds.
    pub(super) stable_after_seconds: Field<Seconds>,
    /// `true`: nothing of vLLM survives the supervisor. `false`: vLLM lives on, and the next run adopts it.
    pub(super) stop_on_exit: Field<bool>,
    /// The time vLLM has to end by itself before it is killed, such as `10s`.
    pub(super) shutdown_grace_period: Field<HumanDuration>,
    /// `shutdown_grace_period` as a number of seconds.
    pub(super) shutdown_grace_period_seconds: Field<Seconds>,
    /// How often a model load is tried again after a failure that may pass; 0 for never.
    pub(super) model_load_max_retries: Field<u32>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unknown: Unknown,
}

/// The settings below `gpu`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct GpuSection {
    /// The share of a GPU's memory vLLM may use, above 0 and at most 1.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub(super) memory_utilization: Field<f64>,
    /// Over how many GPUs each layer is split, at least 1.
    pub(super) tensor_parallel_size: Field<NonZeroU32>,
    /// Over how many groups of GPUs the layers are spread, at least 1.
    pub(super) pipeline_parallel_size: Field<NonZeroU32>,
    /// What GPUs are read with: `auto` takes what is found, `nvml` takes NVIDIA's library alone, `amd` what the kernel shows of AMD's, `off` reads nothing.
    pub(super) monitor: Field<GpuMonitor>,
    /// The time from one reading of the GPUs to the next, such as `1s`.
    pub(super) sample_interval: Field<HumanDuration>,
    /// `sample_interval` as a number of seconds.
    pub(super) sample_interval_seconds: Field<Seconds>,
    /// NVIDIA's management library, `libnvidia-ml.so.1`, as an absolute path. Unset: where the loader looks.
    pub(super) library: Field<String>,
    /// What is done about Xid errors of NVIDIA's GPUs, by their numbers, other than NVIDIA prescribes: `none`, `restart_application`, `reset_gpu`, `reboot` or `contact_support`. With the last three nothing is run on that GPU until a person has acted.
    pub(super) xid_actions: Field<BTreeMap<String, Text>>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unknown: Unknown,
}

/// The settings below `logs`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct LogsSection {
    /// The room on the disk that the log of one launch may take, in bytes, from 1048576 (1 MiB) to 1099511627776 (1 TiB). The middle of a longer one is dropped.
    #[schemars(range(min = 1_048_576, max = 1_099_511_627_776_u64))]
    pub(super) max_bytes: Field<u64>,
    /// Of how many launches the logs are kept, the present one included, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) keep: Field<NonZeroU32>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) unknown: Unknown,
}

/// Who owns the life of vLLM. This version supports `managed` alone.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "LifecycleMode")]
pub(super) enum ModeName {
    /// We do: vLLM is started, watched, restarted and stopped by us.
    Managed,
    /// Another manager does, such as systemd; we watch. Not supported yet.
    #[schemars(skip)]
    Monitored,
    /// Nobody we know; we use what runs. Not supported yet.
    #[schemars(skip)]
    External,
}

impl From<ModeName> for LifecycleMode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Managed => Self::Managed,
            ModeName::Monitored => Self::Monitored,
            ModeName::External => Self::External,
        }
    }
}

/// How vLLM is started.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "LaunchPolicy")]
pub(super) enum LaunchName {
    /// Warm, for as long as nothing speaks against it: a launch that fails, or answers otherwise, where
    /// one made from nothing does not.
    Auto,
    /// As a process of its own, from nothing.
    Cold,
    /// Forked from a process that has imported what vLLM imports; from nothing where there is none.
    Warm,
}

impl From<LaunchName> for LaunchPolicy {
    fn from(name: LaunchName) -> Self {
        match name {
            LaunchName::Auto => Self::Auto,
            LaunchName::Cold => Self::Cold,
            LaunchName::Warm => Self::Warm,
        }
    }
}

/// A text, which a number may stand for: `4096` in `extra_args` needs no quotes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Text {
    Plain(String),
    Number(Number),
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        match text {
            Text::Plain(text) => text,
            Text::Number(number) => number.to_string(),
        }
    }
}

/// A program and its arguments. A path with white space in it needs the list form.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum CommandLine {
    Line(String),
    Words(Vec<Text>),
}

impl From<CommandLine> for Vec<String> {
    fn from(command: CommandLine) -> Self {
        match command {
            CommandLine::Line(line) => line.split_whitespace().map(str::to_owned).collect(),
            CommandLine::Words(words) => words.into_iter().map(String::from).collect(),
        }
    }
}

/// A duration in words.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct HumanDuration(
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(super) Duration,
);

/// A duration as a number of seconds, fractions allowed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "f64")]
#[schemars(with = "f64", extend("minimum" = 0))]
pub(super) struct Seconds(pub(super) Duration);

impl TryFrom<f64> for Seconds {
    type Error = std::time::TryFromFloatSecsError;

    fn try_from(seconds: f64) -> Result<Self, Self::Error> {
        Duration::try_from_secs_f64(seconds).map(Self)
    }
}
