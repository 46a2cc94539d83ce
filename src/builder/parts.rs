//! What a supervisor is put together of: adapters, by who has the life of vLLM in hand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use vllm_supervisor_actors::adapters::downloads::HubDownloads;
use vllm_supervisor_actors::adapters::gpu::{GpuRoom, GpuSampler, NoGpus, Ours, QuarantineFile};
use vllm_supervisor_actors::adapters::http_probe::HttpProbe;
use vllm_supervisor_actors::adapters::journal::FileJournal;
use vllm_supervisor_actors::adapters::launcher::{ProcessLauncher, fresh_marker_prefix};
use vllm_supervisor_actors::adapters::listener::{Members, ProcListeners};
use vllm_supervisor_actors::adapters::log_tail::{LogBounds, LogFiles};
#[cfg(feature = "systemd")]
use vllm_supervisor_actors::adapters::systemd::SystemdUnit;
use vllm_supervisor_actors::domain::gpu::{Devices, GpuFinding, GpuRules, XidPolicy};
use vllm_supervisor_actors::domain::machine::Resume;
use vllm_supervisor_actors::ports::{GpuSource, UnitSource};
use vllm_supervisor_actors::root::{Adapters, Means, Owner};

use super::models::ModelsOfProcess;
use super::{StateDirectory, address_problem, can_be_listened_at, left_running};
use crate::config::{Config, ConfigError, GpuMonitor, LifecycleMode, Secret};
use crate::error::StartError;
use crate::launch_recipe;
use crate::wire::JsonLines;

/// See the module.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) adapters: Adapters,
    pub(super) gpus: GpuRules,
    pub(super) gpu_findings: Vec<GpuFinding>,
    pub(super) resume: Resume,
    pub(super) base_url: String,
}

impl Parts {
    /// Those for this configuration.
    pub(super) async fn of(config: &Config) -> Result<Self, StartError> {
        match config.lifecycle.mode {
            LifecycleMode::Managed => Self::of_ours(config).await,
            LifecycleMode::Monitored | LifecycleMode::External => Self::of_others(config).await,
        }
    }

    /// For a vLLM that we launch.
    async fn of_ours(config: &Config) -> Result<Self, StartError> {
        let address = SocketAddr::new(config.host, config.port);
        if let Err(fault) = can_be_listened_at(address)
            && let Some(problem) = address_problem(config, &fault)
            // A vLLM that has the address can be adopted, though nobody else may have it any more.
            && left_running(&config.state_dir, address).is_none()
        {
            return Err(ConfigError::of(problem).into());
        }
        let recipe =
            launch_recipe::recipe(config, marker_prefix()?).map_err(StartError::VllmNotFound)?;
        let base_url = format!("http://{}", recipe.address);
        let probe = probe(config, &base_url)?;
        let state = Arc::new(StateDirectory::open(&config.state_dir)?);
        let (journal, resume) = FileJournal::open(state.present(), Box::new(JsonLines))?;
        let quarantine = QuarantineFile::in_directory(Arc::clone(&state));
        let gpus = gpu_source(config, Arc::clone(&state));
        let models =
            ModelsOfProcess::new(Arc::clone(&recipe.foresee), recipe.configured.arguments.clone());
        let (hidden, foresee) = (recipe.hidden(), Arc::clone(&recipe.foresee));
        let downloads = HubDownloads {
            place: Arc::new(move |arguments| {
                let preflight = foresee(arguments).preflight;
                (preflight.hub_cache, preflight.revision)
            }),
        };
        let launcher = ProcessLauncher::new(recipe, Arc::clone(&state));
        let (devices, launcher) = if launcher.is_for_gpus() {
            let room = GpuRoom::new(Arc::clone(&gpus), config.gpu.memory_utilization);
            (launch_recipe::devices(config), launcher.waiting_for(room))
        } else {
            // Which it uses, if any, is known by its processes alone.
            (Devices::Unknown, launcher)
        };
        let rules = GpuRules::new(XidPolicy::with(config.gpu.xid_actions.clone()), devices);
        let gpu_findings = quarantine.examine(&*gpus, &rules).await;
        let listeners = ProcListeners::new(address, launcher.members());
        let adapters = Adapters {
            owner: Owner::Us(Means {
                launcher: Arc::new(launcher),
                output: Arc::new(log_files(config, state, &hidden)?),
                downloads: Arc::new(downloads),
                models: Arc::new(models),
            }),
            gpus,
            quarantine: Arc::new(quarantine),
            probe: Arc::new(probe.asking_only_members(Arc::new(listeners))),
            journal: Arc::new(journal),
        };
        Ok(Self { adapters, gpus: rules, gpu_findings, resume, base_url })
    }

    /// For a vLLM that somebody else has in hand.
    async fn of_others(config: &Config) -> Result<Self, StartError> {
        let address = SocketAddr::new(config.host, config.port);
        let base_url = format!("http://{address}");
        let mut probe = probe(config, &base_url)?;
        let state = Arc::new(StateDirectory::open(&config.state_dir)?);
        let (journal, resume) = FileJournal::open(state.present(), Box::new(JsonLines))?;
        let quarantine = QuarantineFile::in_directory(Arc::clone(&state));
        let gpus = gpu_source(config, state);
        // Which it uses, if any, nobody here knows.
        let rules =
            GpuRules::new(XidPolicy::with(config.gpu.xid_actions.clone()), Devices::Unknown);
        let gpu_findings = quarantine.examine(&*gpus, &rules).await;
        let unit = config.lifecycle.monitored_unit.as_deref().and_then(unit);
        let owner = Owner::Other(unit.map(|(source, members)| {
            probe =
                probe.clone().asking_only_members(Arc::new(ProcListeners::new(address, members)));
            source
        }));
        let adapters = Adapters {
            owner,
            gpus,
            quarantine: Arc::new(quarantine),
            probe: Arc::new(probe),
            journal: Arc::new(journal),
        };
        Ok(Self { adapters, gpus: rules, gpu_findings, resume, base_url })
    }
}

fn probe(config: &Config, base_url: &str) -> Result<HttpProbe, StartError> {
    let api_key = config.secrets.vllm_api_key.clone().filter(|key| !key.is_blank());
    Ok(HttpProbe::new(base_url, api_key)?)
}

/// The unit's manager, and the processes of the unit.
#[cfg(feature = "systemd")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature there is none")]
fn unit(name: &str) -> Option<(Arc<dyn UnitSource>, Members)> {
    let unit = SystemdUnit::new(name);
    let members = unit.members();
    Some((Arc::new(unit), members))
}

/// What is asked for is refused before.
#[cfg(not(feature = "systemd"))]
fn unit(_: &str) -> Option<(Arc<dyn UnitSource>, Members)> {
    None
}

fn marker_prefix() -> Result<String, StartError> {
    fresh_marker_prefix()
        .map_err(|error| StartError::System { what: "a random number", source: Box::new(error) })
}

fn log_files(
    config: &Config,
    state: Arc<StateDirectory>,
    secrets: &[Secret],
) -> Result<LogFiles, StartError> {
    let keep = usize::try_from(config.logs.keep.get()).unwrap_or(usize::MAX);
    LogFiles::new(state, LogBounds { max_bytes: config.logs.max_bytes, keep }, secrets)
        .map_err(|error| StartError::System { what: "a thread", source: Box::new(error) })
}

fn gpu_source(config: &Config, state: Arc<StateDirectory>) -> Arc<dyn GpuSource> {
    gpus(config, Arc::new(move |pid| state.has_launched(pid)))
}

/// For whoever does not ask whose processes are on them.
pub(super) fn gpus_for_a_look(config: &Config) -> Arc<dyn GpuSource> {
    gpus(config, Arc::new(|_| false))
}

fn gpus(config: &Config, ours: Ours) -> Arc<dyn GpuSource> {
    let interval = config.gpu.sample_interval;
    let library = config.gpu.library.clone();
    match config.gpu.monitor {
        GpuMonitor::Off => Arc::new(NoGpus { reason: "gpu.monitor is off".to_owned() }),
        GpuMonitor::Auto => Arc::new(GpuSampler::any(interval, library, ours)),
        GpuMonitor::Nvml => Arc::new(GpuSampler::nvidia(interval, library, ours)),
        GpuMonitor::Amd => Arc::new(GpuSampler::amd(interval, PathBuf::from("/"), ours)),
    }
}
