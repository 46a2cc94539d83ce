//! The present of the service, as one value.

use std::time::{Duration, SystemTime};

use crate::domain::cause::Cause;
use crate::domain::event::EndReason;
use crate::domain::gpu::{Gpu, GpuFinding};
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::loading::ModelLoadProgress;
use crate::domain::phases::Phases;
use crate::domain::report::LaunchKind;
use crate::domain::restart::RESTART_WINDOW;
use crate::domain::spec::{LifecycleMode, ModelId};
use crate::domain::state::ServiceState;
use crate::domain::unit::UnitStatus;

/// The present of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The state.
    pub state: ServiceState,
    /// Who owns the life of the process.
    pub mode: LifecycleMode,
    /// What is served, or would be at the next launch.
    pub model: ModelId,
    /// What vLLM is told besides, if it is not what is configured (`extra_args`): a switch has brought it.
    pub extra_args: Option<Vec<String>>,
    /// The main process, where one is known to run.
    pub pid: Option<u32>,
    /// The number of the last launch; 0 before the first.
    pub incarnation: Incarnation,
    /// Since when it has been healthy without a break; `None` unless running.
    pub running_since: Option<SystemTime>,
    /// How the process came to be ours; `None` where there is none.
    pub launch: Option<LaunchKind>,
    /// How long each part of its launch took, once it serves; `None` for what was adopted.
    pub phases: Option<Phases>,
    /// The last health check of this launch.
    pub last_health_check: Option<HealthNote>,
    /// The models that the server listed at the last check that passed; empty unless running.
    pub listed_models: Vec<String>,
    /// The restarts so far.
    pub restarts: RestartCount,
    /// How far the load is; `None` unless starting.
    pub progress: Option<ModelLoadProgress>,
    /// The GPUs.
    pub gpus: GpuView,
    /// What is wrong with them, in the order in which it was found.
    pub gpu_findings: Vec<GpuFinding>,
    /// The last failure; cleared when the service is healthy again or an operator starts it. The
    /// history keeps all of them.
    pub last_error: Option<Cause>,
    /// Why nothing is launched though it should be: something of an earlier launch outlives SIGKILL,
    /// or cannot be proven gone. It goes on being tried.
    pub blocked: Option<Cause>,
    /// What the service manager says of the unit that it runs vLLM as, where it is asked
    /// (`lifecycle.monitored_unit`).
    pub unit: Option<UnitStatus>,
    /// Why the supervisor has ended, once it has: then this is the last value.
    pub ended: Option<EndReason>,
    /// The number of the last event that this value includes.
    pub sequence: Sequence,
}

impl Snapshot {
    /// The present of a supervisor that has not looked around yet.
    pub fn initial(model: ModelId, cap: u32) -> Self {
        Self {
            state: ServiceState::Unknown,
            mode: LifecycleMode::Managed,
            model,
            extra_args: None,
            pid: None,
            incarnation: Incarnation::NONE,
            running_since: None,
            launch: None,
            phases: None,
            last_health_check: None,
            listed_models: Vec::new(),
            restarts: RestartCount::none(cap),
            progress: None,
            gpus: GpuView::Pending,
            gpu_findings: Vec::new(),
            last_error: None,
            blocked: None,
            unit: None,
            ended: None,
            sequence: Sequence::NONE,
        }
    }
}

/// The last health check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthNote {
    /// When it was answered.
    pub at: SystemTime,
    /// How long it took, if it passed.
    pub latency: Option<Duration>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl HealthNote {
    /// A check that passed.
    pub fn passed(at: SystemTime, latency: Duration) -> Self {
        Self { at, latency: Some(latency), error: None }
    }

    /// A check that failed.
    pub fn failed(at: SystemTime, error: impl Into<String>) -> Self {
        Self { at, latency: None, error: Some(error.into()) }
    }
}

/// The restarts so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestartCount {
    /// Restarts within the window, as of the moment this was published; it is published again when
    /// the count falls.
    pub in_window: u32,
    /// Restarts allowed within the window.
    pub cap: u32,
    /// The window.
    pub window: Duration,
    /// When the window will hold one restart fewer; `None` when it holds none.
    pub reset_at: Option<SystemTime>,
    /// Restarts since the supervisor began.
    pub total: u64,
}

impl RestartCount {
    /// No restart yet.
    pub fn none(cap: u32) -> Self {
        Self { in_window: 0, cap, window: RESTART_WINDOW, reset_at: None, total: 0 }
    }
}

/// What is known of the GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GpuView {
    /// Nobody has looked yet.
    Pending,
    /// These were seen.
    Seen(Vec<Gpu>),
    /// There is nothing to look at, and why.
    Unavailable(String),
    /// No look has come back for long: the driver may hang. The last ones seen.
    Stalled(Vec<Gpu>),
}

impl GpuView {
    /// The GPUs last seen.
    pub fn gpus(&self) -> &[Gpu] {
        match self {
            Self::Seen(gpus) | Self::Stalled(gpus) => gpus,
            Self::Pending | Self::Unavailable(_) => &[],
        }
    }
}
