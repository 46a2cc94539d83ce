//! The public history: what happened to the service, numbered, in order.

use std::time::{Duration, SystemTime};

use crate::domain::cause::Cause;
use crate::domain::gpu::{FindingNews, GpuFinding};
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::incident::{Incident, Recovery};
use crate::domain::loading::ModelLoadProgress;
use crate::domain::phases::Phases;
use crate::domain::report::LaunchKind;
use crate::domain::spec::ModelId;
use crate::domain::state::ServiceState;
use crate::domain::trust::LaunchMethod;

/// Something that happened to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Its number: one more than that of the event before it.
    pub sequence: Sequence,
    /// When it happened.
    pub at: SystemTime,
    /// The launch it belongs to.
    pub incarnation: Incarnation,
    /// What happened.
    pub kind: EventKind,
}

impl Event {
    /// An event with everything that is told of it.
    pub fn new(
        sequence: Sequence,
        at: SystemTime,
        incarnation: Incarnation,
        kind: EventKind,
    ) -> Self {
        Self { sequence, at, incarnation, kind }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The service went from one state to another.
    StateChanged {
        /// The state it left.
        from: ServiceState,
        /// The state it is in now.
        to: ServiceState,
        /// Why, if something failed; of a crash what was known at once
        /// ([`EventKind::IncidentRecorded`] tells the rest).
        cause: Option<Cause>,
    },
    /// The model came further, or (every ten seconds) where it stands.
    LoadProgressed {
        /// How far it is.
        progress: ModelLoadProgress,
    },
    /// A launch has come to serve.
    LaunchTimed {
        /// How it was started.
        launch: LaunchKind,
        /// How long each part of it took.
        phases: Phases,
    },
    /// Launches of this configuration have failed, or answered otherwise, where the same made from
    /// nothing did not: until vLLM or we change no more of them is forked than this.
    LaunchDistrusted {
        /// How they are made from now on.
        instead: LaunchMethod,
    },
    /// What a crashed launch has written has been read, or could not be in time: why it crashed, and
    /// what follows. There is one for every end that nobody asked for.
    IncidentRecorded {
        /// What is kept of it.
        incident: Box<Incident>,
    },
    /// The service runs again after ends that nobody asked for: what has followed them has helped.
    ServiceRecovered {
        /// From what.
        recovery: Recovery,
    },
    /// A restart will follow a crash.
    RestartScheduled {
        /// Restarts in a row without a stable time between, this one included; from 1.
        attempt: u32,
        /// How long until then.
        delay: Duration,
        /// Restarts within the window, this one included.
        restarts_in_window: u32,
    },
    /// Why the state is what it is has changed, and the state has not.
    StateExplained {
        /// Why.
        cause: Cause,
    },
    /// A health check changed the verdict, or another one failed in a row.
    HealthChanged {
        /// Whether it passed.
        healthy: bool,
        /// Failed checks in a row; 0 when it passed.
        consecutive_failures: u32,
        /// How long it took, if it passed.
        latency: Option<Duration>,
    },
    /// Another model, or one with other arguments, is to be served from now on: it was asked for, or it is gone back to.
    ModelWanted {
        /// The model that was to be served before.
        from: ModelId,
        /// The model that is to be served now.
        to: ModelId,
        /// What vLLM is told besides, if it is not what is configured (`extra_args`).
        extra_args: Option<Vec<String>>,
    },
    /// Something is wrong with a GPU, or more is to be done about it than before.
    GpuFindingRaised {
        /// What it is.
        finding: Box<GpuFinding>,
    },
    /// Something is not wrong with a GPU any more.
    GpuFindingCleared {
        /// What it was.
        finding: Box<GpuFinding>,
    },
    /// What is left of a launch cannot be removed, or cannot be looked for: nothing is launched
    /// until it is proven gone, which goes on being tried.
    CleanupBlocked {
        /// What is left, or why nobody can say.
        cause: Cause,
    },
    /// The supervisor has ended: this is the last event, also after what became of a launch that it
    /// still held ([`EventKind::Orphaned`]), and the state is unknown from now on.
    SupervisorEnded {
        /// Why.
        reason: EndReason,
    },
    /// Another model, or one with other arguments, is served now.
    ModelSwitched {
        /// The model before.
        from: ModelId,
        /// The model now.
        to: ModelId,
        /// What vLLM is told besides, if it is not what is configured (`extra_args`).
        extra_args: Option<Vec<String>>,
    },
    /// The owner of vLLM's main process ended without having stopped it.
    Orphaned {
        /// The pid of the main process, if that had been started.
        pid: Option<u32>,
        /// What was to become of it.
        outcome: OrphanOutcome,
        /// What outlives its killing, or why nobody can say; `None` if it is proven gone, or kept.
        left: Option<String>,
    },
}

/// What becomes of a process whose owner ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrphanOutcome {
    /// Killed, with everything it started.
    Killed,
    /// Left running, for the next supervisor to adopt.
    Kept,
}

/// Why a supervisor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// It was asked to, nobody held a handle any more, or the actor that it was linked under ended.
    ShutDown,
    /// Its actors died too often: a bug. It ended as orderly as it could.
    ActorsDied,
    /// It was killed, with its runtime or by a bug.
    Killed,
}

impl From<FindingNews> for EventKind {
    fn from(news: FindingNews) -> Self {
        match news {
            FindingNews::Raised(finding) => Self::GpuFindingRaised { finding: Box::new(finding) },
            FindingNews::Cleared(finding) => Self::GpuFindingCleared { finding: Box::new(finding) },
        }
    }
}

impl EndReason {
    /// The reason's name in lower case, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ShutDown => "shut_down",
            Self::ActorsDied => "actors_died",
            Self::Killed => "killed",
        }
    }
}
