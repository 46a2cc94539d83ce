//! The configuration of a service: plain data, its defaults, and where it is read from.
//!
//! A setting is taken from the strongest source that gives it: command-line flag, environment,
//! file, default. [`Resolved::load`] does that and reports every problem at once; an embedder
//! may as well start from [`Config::with_defaults`] and change fields.

mod addresses;
mod argument;
mod bounds;
mod draft;
mod file;
mod model_reference;
mod options;
mod problem;
mod reserved;
mod resolve;
mod schema;
mod secret;
mod sources;
mod suggest;
mod telltale;
mod trust;
mod validate;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use vllm_supervisor_actors::domain::gpu::GpuAction;

pub(crate) use addresses::{credentials, has_credentials};
pub(crate) use argument::Argument;
pub(crate) use draft::Draft;
pub(crate) use model_reference::NamesOfProcess;
pub use model_reference::{ModelReference, ModelReferenceError};
use options::OPTIONS;
pub use problem::{ConfigError, Problem};
pub use reserved::reserved_flags;
pub use resolve::{Origin, Resolved, Setting};
pub use schema::schema;
pub use secret::{Secret, Secrets};
pub(crate) use telltale::is_named_like_a_secret;
pub(crate) use validate::{invalid_model, problems_of_arguments};
use values::in_words;

pub use sources::{Content, FileSearch, Overrides, Sources};
pub use vllm_supervisor_actors::domain::spec::{ExitPolicy, LaunchPolicy, LifecycleMode};

/// The configuration file with every key at its default and explained.
pub const DEFAULT_YAML: &str = include_str!("../config/default.yaml");

/// The variables that take the network from vLLM (`huggingface_hub` 1.0, transformers 5).
pub(crate) const OFFLINE: [&str; 2] = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];

/// Everything that is decided before a service starts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The model to serve.
    pub model: ModelReference,
    /// The address vLLM listens on; other than loopback only with an API key.
    pub host: IpAddr,
    /// The TCP port vLLM listens on, from 1.
    pub port: u16,
    /// The command line that starts vLLM, program first; `None` to look for one.
    pub vllm_binary: Option<Vec<String>>,
    /// Further arguments of vLLM, none of them one of the [`reserved_flags`].
    pub extra_args: Vec<String>,
    /// Environment variables vLLM gets on top of ours; no secrets.
    pub env: BTreeMap<String, String>,
    /// Whether vLLM may ask the Hugging Face Hub.
    pub network: Network,
    /// When to start, to give up waiting, to restart and to stop.
    pub lifecycle: Lifecycle,
    /// How vLLM uses the GPUs, and how they are watched.
    pub gpu: GpuConfig,
    /// How much of vLLM's output is kept.
    pub logs: Logs,
    /// The directory that holds what outlives a run; one service a directory.
    pub state_dir: PathBuf,
    /// The directory that holds what can be found out again, which services share; `None` to keep
    /// nothing of it.
    pub cache_dir: Option<PathBuf>,
    /// The secrets vLLM needs.
    pub secrets: Secrets,
}

impl Config {
    /// A configuration of defaults, read from nowhere.
    pub fn with_defaults(model: ModelReference, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            model,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8000,
            vllm_binary: None,
            extra_args: Vec::new(),
            env: BTreeMap::new(),
            network: Network::Online,
            lifecycle: Lifecycle::default(),
            gpu: GpuConfig::default(),
            logs: Logs::default(),
            state_dir: state_dir.into(),
            cache_dir: None,
            secrets: Secrets::default(),
        }
    }

    /// The defaults for a model named in words (`namespace/name`, or a path), with the directories
    /// and the secrets of this process's environment. No file is read.
    ///
    /// Where neither `XDG_STATE_HOME` nor HOME is set, `state_dir` is empty, and has to be set before
    /// the configuration can be used.
    ///
    /// # Errors
    /// With every problem, when the model cannot be used, or a secret that the environment names.
    pub fn for_model(model: &str) -> Result<Self, ConfigError> {
        let process = Sources::from_process(Overrides::default(), None);
        Draft::of_model(model, &process).unedited()
    }

    /// Everything wrong with this configuration, sorted by key (`lifecycle.start_timeout`); empty when it
    /// can be used.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<_> =
            validate::problems(self).into_iter().map(Problem::in_code).collect();
        problems.sort();
        problems
    }

    /// Every setting in words, in the order of the file, secrets masked.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings: Vec<_> =
            OPTIONS.iter().map(|entry| (entry.key, in_words(&(entry.json)(self)))).collect();
        let cache_dir = self.cache_dir.as_ref().map_or("unset".into(), |it| it.to_string_lossy());
        settings.extend([
            ("state_dir", self.state_dir.display().to_string()),
            ("cache_dir", cache_dir.into_owned()),
            ("hf_token", secret::masked(self.secrets.hf_token.as_ref())),
            ("vllm_api_key", secret::masked(self.secrets.vllm_api_key.as_ref())),
        ]);
        settings
    }
}

/// The settings below `lifecycle`. The longest duration allowed is 30 days.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifecycle {
    /// Who owns the life of vLLM.
    pub mode: LifecycleMode,
    /// The unit that systemd runs vLLM as, if it is to be asked; of [`LifecycleMode::Monitored`] alone.
    pub monitored_unit: Option<String>,
    /// How vLLM is started.
    pub launch: LaunchPolicy,
    /// The longest silence between launch and the server's first sign of life; above 0.
    pub start_timeout: Duration,
    /// The longest time without progress while a model loads; above 0.
    pub model_load_timeout: Duration,
    /// The time from one health check to the next while running; above 0.
    pub health_check_interval: Duration,
    /// How many failed health checks in a row mean that vLLM is dead.
    pub max_consecutive_failures: NonZeroU32,
    /// How many restarts are tried in any 60 seconds.
    pub max_restarts_per_minute: NonZeroU32,
    /// The wait before the first restart, doubled for each further one; 2 to 60 seconds.
    pub restart_backoff: Duration,
    /// How long vLLM must be healthy for the backoff to start afresh.
    pub stable_after: Duration,
    /// What becomes of vLLM when we end.
    pub stop_on_exit: ExitPolicy,
    /// The time vLLM has to end by itself before it is killed.
    pub shutdown_grace_period: Duration,
    /// How often a model load is tried again after a failure that may pass; 0 for never.
    pub model_load_max_retries: u32,
}

impl Default for Lifecycle {
    fn default() -> Self {
        const THREE: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");
        Self {
            mode: LifecycleMode::Managed,
            monitored_unit: None,
            launch: LaunchPolicy::Auto,
            start_timeout: Duration::from_secs(30),
            model_load_timeout: Duration::from_secs(300),
            health_check_interval: Duration::from_secs(60),
            max_consecutive_failures: THREE,
            max_restarts_per_minute: THREE,
            restart_backoff: Duration::from_secs(2),
            stable_after: Duration::from_secs(60),
            stop_on_exit: ExitPolicy::Detach,
            shutdown_grace_period: Duration::from_secs(10),
            model_load_max_retries: 2,
        }
    }
}

/// The settings below `gpu`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GpuConfig {
    /// The share of a GPU's memory vLLM may use; above 0, at most 1.
    pub memory_utilization: f64,
    /// Over how many GPUs each layer is split.
    pub tensor_parallel_size: NonZeroU32,
    /// Over how many groups of GPUs the layers are spread.
    pub pipeline_parallel_size: NonZeroU32,
    /// What GPUs are read with.
    pub monitor: GpuMonitor,
    /// The time from one reading of the GPUs to the next; above 0, at most 30 days.
    pub sample_interval: Duration,
    /// NVIDIA's management library, where the loader would not find it.
    pub library: Option<PathBuf>,
    /// What is done about Xid errors of NVIDIA's GPUs, by their numbers, other than NVIDIA prescribes.
    /// [`GpuAction::None`]: they are left alone.
    pub xid_actions: BTreeMap<u32, GpuAction>,
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self {
            memory_utilization: 0.9,
            tensor_parallel_size: NonZeroU32::MIN,
            pipeline_parallel_size: NonZeroU32::MIN,
            monitor: GpuMonitor::Auto,
            sample_interval: Duration::from_secs(1),
            library: None,
            xid_actions: BTreeMap::new(),
        }
    }
}

/// The settings below `logs`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Logs {
    /// The room on the disk that the log of one launch may take, in bytes; 1 MiB to 1 TiB. The
    /// middle of a longer one is dropped: its length still says how much vLLM wrote, its blocks how
    /// much room it takes.
    pub max_bytes: u64,
    /// Of how many launches the logs are kept, the present one included; 1 to 1000.
    pub keep: NonZeroU32,
}

impl Default for Logs {
    fn default() -> Self {
        const TEN: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");
        Self { max_bytes: 256 * 1024 * 1024, keep: TEN }
    }
}

/// Whether vLLM may ask the Hugging Face Hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Network {
    /// It may, and downloads what it lacks.
    #[default]
    Online,
    /// It may not: it gets `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE`, and a model that is not whole in the
    /// local cache is refused before a launch.
    Airgapped,
}

/// What GPUs are read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GpuMonitor {
    /// With whatever is found; without GPUs this is fine.
    Auto,
    /// With NVIDIA's management library; that it is missing is reported, and vLLM is run all the same.
    Nvml,
    /// With what the kernel shows of AMD's GPUs; that there are none is reported, and vLLM is run all the same.
    Amd,
    /// Not at all.
    Off,
}
