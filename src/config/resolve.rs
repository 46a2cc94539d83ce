//! Settles a configuration from flags, environment, file and defaults, and says where each
//! setting came from.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vllm_supervisor_actors::domain::gpu::GpuAction;

use super::field_reader::{FieldReader, Place};
use super::file::{self, Misplaced, ParsedFile};
use super::problem::{ConfigError, Problem};
use super::secret::{self, HF_TOKEN, Secret, Secrets, VLLM_API_KEY};
use super::section::{Field, GpuSection, LifecycleSection, LogsSection, Text, VllmSection};
use super::sources::Sources;
use super::{Config, ExitPolicy, GpuConfig, Lifecycle, Logs, ModelReference, validate};

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
        let (parsed, file_problem) = match parsed {
            Ok(parsed) => (parsed, None),
            Err(problem) => (ParsedFile::default(), Some(problem)),
        };
        let mut fields = FieldReader::new(file.clone(), parsed.lines);
        let section = fields.read::<VllmSection>("", Field::read(parsed.section));
        let misplaced = parsed.misplaced;
        let mut resolver = Resolver { sources, fields, file_problem, misplaced };
        let config = resolver.config(section.unwrap_or_default());
        resolver.fields.problems.extend(resolver.file_problem);

        let problems = resolver.fields.all_problems(&config);
        if !problems.is_empty() {
            return Err(ConfigError { problems, file });
        }
        let origins = config.settings().into_iter().map(|(key, value)| {
            let value = config.secrets.redact(&value);
            Setting { key, value, origin: resolver.fields.origin(key) }
        });
        let origins = origins.collect();
        Ok(Self { config, origins, file })
    }
}

/// Knows which sources each setting has.
struct Resolver<'a> {
    sources: &'a Sources,
    fields: FieldReader,
    file_problem: Option<Problem>,
    misplaced: Option<Misplaced>,
}

impl Resolver<'_> {
    fn config(&mut self, section: VllmSection) -> Config {
        // The stand-in is used only together with a reported problem, so it never gets out.
        let model = self.model(section.model);
        let model = model.unwrap_or_else(|| ModelReference::Hub("stand/in".to_owned()));
        let mut config = Config::with_defaults(model, self.state_dir());
        config.cache_dir = self.cache_dir();
        let sources = self.sources;
        config.secrets = self.secrets();
        config.port = self.port(section.port).map_or(config.port, NonZeroU16::get);

        let fields = &mut self.fields;
        fields.report_unknown("", &section.unknown);
        config.host = fields.read("host", section.host).unwrap_or(config.host);
        let binary = fields.read("vllm_binary", section.vllm_binary);
        config.vllm_binary = binary.map(|command| with_whole_path(command.into(), sources));
        let extra_args = fields.read("extra_args", section.extra_args).unwrap_or_default();
        config.extra_args = extra_args.into_iter().map(String::from).collect();
        let env = fields.read("env", section.env).unwrap_or_default();
        config.env = env.into_iter().map(|(name, value)| (name, value.into())).collect();
        let lifecycle = fields.read("lifecycle", section.lifecycle).unwrap_or_default();
        config.lifecycle = resolve_lifecycle(fields, lifecycle);
        let gpu = fields.read("gpu", section.gpu).unwrap_or_default();
        config.gpu = resolve_gpu(fields, gpu);
        let logs = fields.read("logs", section.logs).unwrap_or_default();
        config.logs = resolve_logs(fields, logs);
        config
    }

    fn model(&mut self, in_file: Field<String>) -> Option<ModelReference> {
        let sources = self.sources;
        let by_flag = sources.overrides.model.as_deref().map(|text| (text, Place::flag("--model")));
        let by_variable = || Some((sources.variable("VLLM_MODEL")?, Place::variable("VLLM_MODEL")));
        let text = match by_flag.or_else(by_variable) {
            Some((text, place)) => {
                self.fields.found("model", place);
                text.to_owned()
            }
            None => self.model_in_file(in_file)?,
        };
        let parsed = ModelReference::parse(&text, &sources.working_directory, sources.home());
        let report = |error| self.fields.report(validate::invalid_model(error).with_value(text));
        parsed.map_err(report).ok()
    }

    /// The last source of a model. That a file which cannot be read gives none is no news.
    fn model_in_file(&mut self, in_file: Field<String>) -> Option<String> {
        if matches!(in_file, Field::Absent) && self.file_problem.is_none() {
            let problem = Problem::no_model();
            self.fields.problems.push(match &self.misplaced {
                Some(Misplaced { what, line }) => {
                    let message = format!("{}: {what}", problem.message);
                    Problem { message, ..problem }.at_line(Some(*line))
                }
                None => problem,
            });
        }
        self.fields.read("model", in_file)
    }

    fn port(&mut self, in_file: Field<NonZeroU16>) -> Option<NonZeroU16> {
        let by_flag =
            self.sources.overrides.port.map(|port| (Value::from(port), Place::flag("--port")));
        let by_variable = || {
            let text = self.sources.variable("VLLM_PORT")?;
            let value = text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from);
            Some((value, Place::variable("VLLM_PORT")))
        };
        match by_flag.or_else(by_variable) {
            // Kubernetes sets such variables for every service it finds, `vllm` among them.
            Some((Value::String(text), place)) if text.contains("://") => {
                let message = "a service address that Kubernetes sets, not a port";
                let help = "set `enableServiceLinks: false` in the pod, or rename the service";
                self.fields.problems.push(Problem::new(place.key, message, help).with_value(text));
                None
            }
            Some((value, place)) => self.fields.read_at("port", Field::read(value), place),
            None => self.fields.read("port", in_file),
        }
    }

    fn state_dir(&mut self) -> PathBuf {
        if let Some(path) = &self.sources.overrides.state_dir {
            self.fields.found("state_dir", Place::flag("--state-dir"));
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
            self.fields.found(setting, Place::variable(variable));
        }
    }

    fn secrets(&mut self) -> Secrets {
        Secrets {
            hf_token: self.secret("hf_token", HF_TOKEN),
            vllm_api_key: self.secret("vllm_api_key", VLLM_API_KEY),
        }
    }

    fn secret(&mut self, setting: &str, variable: &str) -> Option<Secret> {
        let Sources { environment, working_directory, .. } = self.sources;
        match secret::from_environment(variable, environment, working_directory) {
            Ok(found) => {
                let (secret, variable) = found?;
                self.fields.found(setting, Place::variable(&variable));
                Some(secret)
            }
            Err(problem) => {
                self.fields.problems.push(problem);
                None
            }
        }
    }
}

fn resolve_lifecycle(fields: &mut FieldReader, s: LifecycleSection) -> Lifecycle {
    let d = Lifecycle::default();
    fields.report_unknown("lifecycle.", &s.unknown);
    Lifecycle {
        mode: fields.read("lifecycle.mode", s.mode).map_or(d.mode, Into::into),
        launch: fields.read("lifecycle.launch", s.launch).map_or(d.launch, Into::into),
        start_timeout: fields
            .duration("lifecycle.start_timeout", s.start_timeout, s.start_timeout_seconds)
            .unwrap_or(d.start_timeout),
        model_load_timeout: fields
            .duration(
                "lifecycle.model_load_timeout",
                s.model_load_timeout,
                s.model_load_timeout_seconds,
            )
            .unwrap_or(d.model_load_timeout),
        health_check_interval: fields
            .duration(
                "lifecycle.health_check_interval",
                s.health_check_interval,
                s.health_check_interval_seconds,
            )
            .unwrap_or(d.health_check_interval),
        max_consecutive_failures: fields
            .read("lifecycle.max_consecutive_failures", s.max_consecutive_failures)
            .unwrap_or(d.max_consecutive_failures),
        max_restarts_per_minute: fields
            .read("lifecycle.max_restarts_per_minute", s.max_restarts_per_minute)
            .unwrap_or(d.max_restarts_per_minute),
        restart_backoff: fields
            .duration("lifecycle.restart_backoff", s.restart_backoff, s.restart_backoff_seconds)
            .unwrap_or(d.restart_backoff),
        stable_after: fields
            .duration("lifecycle.stable_after", s.stable_after, s.stable_after_seconds)
            .unwrap_or(d.stable_after),
        stop_on_exit: fields.read("lifecycle.stop_on_exit", s.stop_on_exit).map_or(
            d.stop_on_exit,
            |stop| if stop { ExitPolicy::Stop } else { ExitPolicy::Detach },
        ),
        shutdown_grace_period: fields
            .duration(
                "lifecycle.shutdown_grace_period",
                s.shutdown_grace_period,
                s.shutdown_grace_period_seconds,
            )
            .unwrap_or(d.shutdown_grace_period),
        model_load_max_retries: fields
            .read("lifecycle.model_load_max_retries", s.model_load_max_retries)
            .unwrap_or(d.model_load_max_retries),
    }
}

fn resolve_gpu(fields: &mut FieldReader, s: GpuSection) -> GpuConfig {
    let d = GpuConfig::default();
    fields.report_unknown("gpu.", &s.unknown);
    GpuConfig {
        memory_utilization: fields
            .read("gpu.memory_utilization", s.memory_utilization)
            .unwrap_or(d.memory_utilization),
        tensor_parallel_size: fields
            .read("gpu.tensor_parallel_size", s.tensor_parallel_size)
            .unwrap_or(d.tensor_parallel_size),
        pipeline_parallel_size: fields
            .read("gpu.pipeline_parallel_size", s.pipeline_parallel_size)
            .unwrap_or(d.pipeline_parallel_size),
        monitor: fields.read("gpu.monitor", s.monitor).unwrap_or(d.monitor),
        sample_interval: fields
            .duration("gpu.sample_interval", s.sample_interval, s.sample_interval_seconds)
            .unwrap_or(d.sample_interval),
        library: fields.read("gpu.library", s.library).map(PathBuf::from),
        xid_actions: resolve_xid_actions(fields, s.xid_actions),
    }
}

fn resolve_xid_actions(
    fields: &mut FieldReader,
    given: Field<BTreeMap<String, Text>>,
) -> BTreeMap<u32, GpuAction> {
    let given = fields.read("gpu.xid_actions", given).unwrap_or_default();
    let mut actions = BTreeMap::new();
    for (number, action) in given {
        let action = String::from(action);
        let known = GpuAction::ALL.into_iter().find(|known| known.as_str() == action);
        match (number.parse(), known) {
            (Ok(xid), Some(action)) => drop(actions.insert(xid, action)),
            (Err(_), _) => {
                let help = "name it by its number in NVIDIA's catalogue, such as 79";
                let problem = Problem::of_setting("gpu.xid_actions", "not an Xid error", help);
                fields.report(problem.with_value(number));
            }
            (Ok(_), None) => {
                let names: Vec<_> = GpuAction::ALL.iter().map(|known| known.as_str()).collect();
                let help = format!("use one of {}", names.join(", "));
                let key = format!("gpu.xid_actions.{number}");
                let problem = Problem::of_setting(&key, "not what can be done about it", help);
                fields.report(problem.with_value(action));
            }
        }
    }
    actions
}

fn resolve_logs(fields: &mut FieldReader, s: LogsSection) -> Logs {
    let d = Logs::default();
    fields.report_unknown("logs.", &s.unknown);
    Logs {
        max_bytes: fields.read("logs.max_bytes", s.max_bytes).unwrap_or(d.max_bytes),
        keep: fields.read("logs.keep", s.keep).unwrap_or(d.keep),
    }
}

/// The command with a program given as a path made absolute, as vLLM may be launched from
/// another directory; a bare name is left to PATH.
fn with_whole_path(mut command: Vec<String>, sources: &Sources) -> Vec<String> {
    if let Some(program) = command.first_mut() {
        let whole = match (program.strip_prefix("~/"), sources.home()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ if program.contains('/') => sources.working_directory.join(&program),
            _ => return command,
        };
        *program = whole.to_string_lossy().into_owned();
    }
    command
}
