//! Puts a supervisor together: configuration and adapters in, a running root actor out.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorStatus};
use tokio::sync::{broadcast, watch};
use vllm_supervisor_actors::adapters::launcher::AddressFault;
use vllm_supervisor_actors::domain::gpu::XidPolicy;
use vllm_supervisor_actors::domain::preflight::Finding;
use vllm_supervisor_actors::domain::restart::RestartPolicy;
use vllm_supervisor_actors::domain::spec::{ExitPolicy, ModelId, ServiceSpec};
use vllm_supervisor_actors::domain::state::ServiceState;
use vllm_supervisor_actors::domain::target::Target;
use vllm_supervisor_actors::root::{Link, RootArgs, RootSupervisor, Snapshot};

// What the command readings at without a supervisor.
#[cfg(feature = "cli")]
pub(crate) use vllm_supervisor_actors::adapters::{
    orphans::{Look, OrphanReaper},
    state_directory::{Holder, log_file},
};

pub(crate) use vllm_supervisor_actors::adapters::launcher::{can_be_listened_at, left_running};
pub(crate) use vllm_supervisor_actors::adapters::state_directory::StateDirectory;

use crate::config::{
    Config, ConfigError, Draft, LifecycleMode, ModelReferenceError, Overrides, Problem, Sources,
    invalid_model,
};
use crate::error::StartError;
use crate::handle::{Connection, SupervisorHandle};
use crate::launch_recipe;

mod models;
mod parts;

use parts::Parts;

/// Events that a subscriber may fall behind before it is told of a gap.
const EVENT_BACKLOG: usize = 1024;

/// The way to a supervisor: [`Supervisor::builder`].
#[derive(Debug)]
pub struct Supervisor;

impl Supervisor {
    /// What is known of a launch of this configuration before it: nothing is started, and nothing is
    /// changed. What is fatal ([`Finding::fatal`](crate::preflight::Finding::fatal)) is what a start and a
    /// switch are refused for. It takes milliseconds, but where the Hub is asked whether it gives the model,
    /// up to three seconds, and for a GPU
    /// driver that does not answer two more; for so long the thread is blocked.
    pub fn check(config: &Config) -> Vec<Finding> {
        match config.lifecycle.mode {
            LifecycleMode::Managed => {
                launch_recipe::preflight(config, || parts::gpus_for_a_look(config))
            }
            // Nothing is launched.
            LifecycleMode::Monitored | LifecycleMode::External => Vec::new(),
        }
    }

    /// The same without asking the Hub, which a start does by itself, and the GPUs' driver.
    #[cfg(feature = "cli")]
    pub(crate) fn check_quickly(config: &Config) -> Vec<Finding> {
        match config.lifecycle.mode {
            LifecycleMode::Managed => launch_recipe::quick_preflight(config),
            LifecycleMode::Monitored | LifecycleMode::External => Vec::new(),
        }
    }

    /// A supervisor to be configured.
    pub fn builder() -> SupervisorBuilder {
        SupervisorBuilder::default()
    }
}

type Edit = Box<dyn FnOnce(&mut Config) + Send>;

/// A supervisor to be configured. Everything has a default but the model.
#[derive(Default)]
pub struct SupervisorBuilder {
    config: Option<Config>,
    model: Option<String>,
    edits: Vec<Edit>,
}

impl fmt::Debug for SupervisorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorBuilder")
            .field("config", &self.config)
            .field("model", &self.model)
            .field("edits", &self.edits.len())
            .finish()
    }
}

impl SupervisorBuilder {
    /// Starts from a configuration, such as one that was loaded from a file
    /// ([`Resolved::load`](crate::config::Resolved::load)). What else is set here wins over it.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// The model: `namespace/name` of Hugging Face, or a directory (absolute, or starting with
    /// `./`, `../` or `~`).
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// The TCP port vLLM listens on, from 1; 8000 by default.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.configure(move |config| config.port = port)
    }

    /// The command line that starts vLLM, program first; by default `vllm` is looked for.
    #[must_use]
    pub fn vllm_binary<I: IntoIterator<Item = S>, S: Into<String>>(self, words: I) -> Self {
        let words = words.into_iter().map(Into::into).collect();
        self.configure(move |config| config.vllm_binary = Some(words))
    }

    /// Further arguments of vLLM.
    #[must_use]
    pub fn extra_args<I: IntoIterator<Item = S>, S: Into<String>>(self, words: I) -> Self {
        let words = words.into_iter().map(Into::into).collect();
        self.configure(move |config| config.extra_args = words)
    }

    /// An environment variable for vLLM.
    #[must_use]
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.configure(move |config| drop(config.env.insert(name, value)))
    }

    /// What becomes of vLLM when the supervisor ends; by default it lives on.
    #[must_use]
    pub fn on_exit(self, on_exit: ExitPolicy) -> Self {
        self.configure(move |config| config.lifecycle.stop_on_exit = on_exit)
    }

    /// Where to keep what outlives the supervisor: journal, logs, and what is needed to adopt a
    /// running vLLM. One supervisor a directory; by default `$XDG_STATE_HOME/vllmd`, else
    /// `~/.local/state/vllmd`.
    #[must_use]
    pub fn state_dir(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.configure(move |config| config.state_dir = path)
    }

    /// Where to keep what can be found out again: what a warm process has learnt of vLLM. Supervisors
    /// share it; by default `$XDG_CACHE_HOME/vllmd`, else `~/.cache/vllmd`.
    #[must_use]
    pub fn cache_dir(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.configure(move |config| config.cache_dir = Some(path))
    }

    /// Any other setting.
    #[must_use]
    pub fn configure(mut self, edit: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        self.edits.push(Box::new(edit));
        self
    }

    /// Makes the supervisor. vLLM is not started: that is
    /// [`SupervisorHandle::start`]. If an earlier supervisor with the same state directory and
    /// settings left a vLLM running, it is adopted. If the system does not let us look for one, the
    /// state is `Unknown` and [`Snapshot::blocked`] says why; it goes on being tried, and nothing is
    /// launched before.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then nothing was started and nothing is left.
    pub async fn spawn(self) -> Result<SupervisorHandle, StartError> {
        self.spawn_under(None).await
    }

    /// As [`SupervisorBuilder::spawn`], linked under an actor of the program, whose child is then
    /// what [`SupervisorHandle::actor_ref`] refers to.
    ///
    /// When the parent ends, however it does, the supervisor ends as by
    /// [`SupervisorHandle::shutdown`]: vLLM is stopped first, or left running, as configured.
    /// ractor waits for no child, so the parent is gone before that is done; the last [`Snapshot`]
    /// and the last event say when. A parent that is to outlive vLLM stops its children itself and
    /// waits for them (`stop_children_and_wait`), or calls `shutdown` in its `post_stop`.
    ///
    /// When the supervisor ends, the parent is told by a `SupervisionEvent`: `ActorTerminated` if it
    /// was asked to end, `ActorFailed` (of a [`SupervisorKilled`](crate::SupervisorKilled)) if it was
    /// killed, or died of a bug. What ractor does by
    /// default at either is to stop the parent.
    ///
    /// # Errors
    ///
    /// As [`SupervisorBuilder::spawn`]; and [`StartError::ParentEnded`].
    pub async fn spawn_linked(self, parent: ActorCell) -> Result<SupervisorHandle, StartError> {
        self.spawn_under(Some(parent)).await
    }

    async fn spawn_under(self, parent: Option<ActorCell>) -> Result<SupervisorHandle, StartError> {
        // It would be linked no more; looked for before anything is begun.
        if parent.as_ref().is_some_and(|parent| parent.get_status() >= ActorStatus::Draining) {
            return Err(StartError::ParentEnded);
        }
        let config = self.resolve(&Sources::from_process(Overrides::default(), None))?;
        let parts = Parts::of(&config).await?;
        connect(&config, parts, parent).await
    }

    /// What is given here is not looked for in the process's environment.
    fn resolve(self, process: &Sources) -> Result<Config, ConfigError> {
        let mut draft = match (self.config, self.model) {
            (Some(config), Some(model)) => Draft::from(config).with_model(&model, process),
            (Some(config), None) => Draft::from(config),
            (None, Some(model)) => Draft::of_model(&model, process),
            (None, None) => return Err(ConfigError::no_model()),
        };
        for edit in self.edits {
            draft.edit(edit);
        }
        draft.settle()
    }
}

async fn connect(
    config: &Config,
    parts: Parts,
    parent: Option<ActorCell>,
) -> Result<SupervisorHandle, StartError> {
    let Parts { adapters, gpus, gpu_findings, resume, base_url } = parts;
    let spec = spec(config)?;
    let mut first = Snapshot::initial(spec.target.model.clone(), spec.restart.max_restarts.get());
    first.mode = spec.mode;
    let (snapshots, mut snapshot) = watch::channel(first);
    let events = broadcast::Sender::new(EVENT_BACKLOG);
    let journal = Arc::clone(&adapters.journal);
    let args = RootArgs {
        spec,
        gpus,
        gpu_findings,
        health_interval: config.lifecycle.health_check_interval,
        adapters,
        resume,
        snapshots,
        events: events.clone(),
    };
    let (root, _) = Actor::spawn(None, RootSupervisor, args).await.map_err(|error| {
        StartError::System { what: "the supervisor's actors", source: Box::new(error) }
    })?;
    let (events, present) = (events.downgrade(), snapshot.clone());
    let first_event = resume.sequence.next();
    // From here on dropping the handle ends the supervisor, also if nobody waits for the rest.
    let link = None;
    let mut connection =
        Connection { root, link, snapshot: present, events, journal, base_url, first_event };
    if let Some(parent) = parent {
        let link = Link::spawn(connection.root.clone(), snapshot.clone(), parent).await;
        let Ok(link) = link else {
            SupervisorHandle::new(connection).shutdown().await;
            return Err(StartError::ParentEnded);
        };
        connection.link = Some(link);
    }
    let handle = SupervisorHandle::new(connection);
    // Until the first look around, nobody could say what is alive; if it fails, that is said.
    let has_looked = |present: &Snapshot| {
        let is_told = present.blocked.is_some() || present.last_error.is_some();
        present.state != ServiceState::Unknown || is_told
    };
    let known = snapshot.wait_for(has_looked).await.is_ok();
    if !known {
        let source = "they ended at once".into();
        return Err(StartError::System { what: "the supervisor's actors", source });
    }
    Ok(handle)
}

fn spec(config: &Config) -> Result<ServiceSpec, ConfigError> {
    let lifecycle = &config.lifecycle;
    let model = ModelId::new(config.model.to_string())
        .map_err(|_| ConfigError::of(invalid_model(ModelReferenceError::ForbiddenCharacter)))?;
    Ok(ServiceSpec {
        mode: lifecycle.mode,
        unit: lifecycle.monitored_unit.clone(),
        target: Target { model, arguments: launch_recipe::arguments(config.extra_args.clone()) },
        launch: lifecycle.launch,
        restart: RestartPolicy {
            max_restarts: lifecycle.max_restarts_per_minute,
            backoff: lifecycle.restart_backoff,
            backoff_max: Duration::from_secs(60),
            stable_after: lifecycle.stable_after,
            max_load_retries: lifecycle.model_load_max_retries,
        },
        start_timeout: lifecycle.start_timeout,
        model_load_timeout: lifecycle.model_load_timeout,
        grace: lifecycle.shutdown_grace_period,
        max_consecutive_failures: lifecycle.max_consecutive_failures,
        on_exit: lifecycle.stop_on_exit,
        xids: XidPolicy::with(config.gpu.xid_actions.clone()),
    })
}

/// The problem of an address at which vLLM can never listen.
pub(crate) fn address_problem(config: &Config, fault: &AddressFault) -> Option<Problem> {
    match fault {
        AddressFault::Foreign { source, .. } => {
            let message = format!("no address of this machine: {source}");
            let help = "use 127.0.0.1, an address that `ip address` lists, or 0.0.0.0 for all";
            let problem = Problem::of_setting("host", message, help);
            Some(problem.with_value(config.host.to_string()))
        }
        AddressFault::Forbidden { first_free, source, .. } => {
            let message = format!("not a port that this user may listen at: {source}");
            let help =
                format!("use a port from {first_free} on, or give vllmd CAP_NET_BIND_SERVICE");
            let problem = Problem::of_setting("port", message, help);
            Some(problem.with_value(config.port.to_string()))
        }
        // It may be free by the time that vLLM needs it; what else there is, only a launch can tell.
        AddressFault::InUse { .. } | AddressFault::Other { .. } => None,
    }
}

#[cfg(test)]
mod tests;
