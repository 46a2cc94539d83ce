//! The seven states of the service, and the data that exists in each.
//!
//! ```text
//!   Unknown ─── nothing is there ──────────────────────► Stopped
//!           ─── an earlier vLLM is adopted ────────────► Starting
//!           ─── a remnant of one is there ─────────────► Stopping
//!   Stopped ─── start ─────────────────────────────────► Starting
//!   Starting ── healthy ───────────────────────────────► Running
//!   Starting, Running ── stop, restart, load ──────────► Stopping (draining, if it serves)
//!                     ── ended, stalled, hung ─────────► Crashed
//!   Stopping ── nothing is left ───────────────────────► Stopped
//!            ── something outlives SIGKILL ────────────► Unknown
//!   Crashed ─── restart due and nothing left ──────────► Starting
//!           ─── given up and nothing left ─────────────► Failed
//!           ─── stop, nothing left ────────────────────► Stopped
//!           ─── stop, something left, being sought ────► Stopping, Unknown
//!   Failed ──── start ─────────────────────────────────► Starting
//!          ──── stop ──────────────────────────────────► Stopped
//!   Starting, Running, Stopping ── process actor lost ─► Unknown
//! ```
//!
//! Nothing is launched while anything of the incarnation before may be alive: `Stopping`, `Crashed`
//! and `Unknown` are left towards `Starting` only after the process report `Vacated`, or when it is
//! proven that there is nothing.

use std::fmt;
use std::time::Duration;

use crate::domain::cause::Cause;
use crate::domain::diagnosis::Phase;
use crate::domain::id::Incarnation;
use crate::domain::liveness::Liveness;
use crate::domain::moment::Moment;
use crate::domain::phases::Phases;
use crate::domain::target::Target;
use crate::domain::trust::{LaunchMethod, Recall};

mod crashed;
mod starting;

pub use crashed::{Cleanup, Crashed, GivenUp, Next, Undecided};
pub use starting::{Announcement, FirstOutput, Loss, Origin, Silence, Starting};

/// The public name of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceState {
    /// Not running, and nobody wants it to be.
    Stopped,
    /// Being launched or loading, not yet proven healthy.
    Starting,
    /// The process is alive, `/health` answers 200 and the model is listed by `/v1/models`.
    Running,
    /// An asked-for stop is under way.
    Stopping,
    /// Ended or judged dead without being asked; a restart is pending.
    Crashed,
    /// Gave up; an operator's start leaves it.
    Failed,
    /// Cannot be determined now.
    Unknown,
}

impl ServiceState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Stopped,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Crashed,
        Self::Failed,
        Self::Unknown,
    ];

    /// The state's name in lower case, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Crashed => "crashed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A state with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// See [`ServiceState::Unknown`].
    Unknown(Unknown),
    /// See [`ServiceState::Stopped`].
    Stopped,
    /// See [`ServiceState::Starting`].
    Starting(Starting),
    /// See [`ServiceState::Running`].
    Running(Running),
    /// See [`ServiceState::Stopping`].
    Stopping(Stopping),
    /// See [`ServiceState::Crashed`].
    Crashed(Crashed),
    /// See [`ServiceState::Failed`].
    Failed {
        /// Why it gave up.
        cause: Cause,
    },
}

/// We do not know what is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The incarnation in doubt; `None` before the first look at what an earlier supervisor left.
    pub incarnation: Option<Incarnation>,
    /// What to do once it is known.
    pub then: Then,
    /// What stands in the way of knowing.
    pub obstacle: Obstacle,
}

/// What stands in the way of knowing what is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing, so far: the answer is on its way.
    None,
    /// The system does not let us look. We go on trying.
    Unseen(Cause),
    /// Something is known to outlive SIGKILL, or cannot be proven gone after it.
    Lingering(Cause),
}

/// A launch that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Which launch.
    pub incarnation: Incarnation,
    /// What it serves.
    pub target: Target,
    /// The main process.
    pub pid: u32,
    /// When it was first proven healthy.
    pub since: Moment,
    /// How long each part of its launch took, if we launched it.
    pub phases: Option<Phases>,
    /// How it was launched.
    pub method: LaunchMethod,
    /// What launches like it have come to.
    pub recall: Recall,
    /// Whether it has once completed the fixed prompt otherwise than they.
    pub differed: Differed,
    /// Failed checks in a row.
    pub failures: u32,
    /// What was seen of its being alive.
    pub liveness: Liveness,
    /// When it is looked at next, on the monotonic clock.
    pub next_look: Duration,
}

/// Whether a launch answers otherwise than those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differed {
    /// Not that we know.
    Never,
    /// It did once, which may be chance.
    Once,
}

/// A launch being ended on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// Which launch.
    pub incarnation: Incarnation,
    /// How far the stop has come.
    pub stage: Stage,
    /// What follows.
    pub then: Then,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The requests that run are waited for.
    Draining {
        /// How far it has come, as far as is known, which decides how it takes a SIGTERM.
        phase: Phase,
        /// Until when, on the monotonic clock.
        until: Duration,
        /// Whether a standstill of ours may still put that off.
        postponement: Postponement,
    },
    /// It has been told to end, and what is left of it is being killed.
    Ending,
}

/// Whether what we slept through may be waited for once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Postponement {
    /// It may.
    Left,
    /// It has been.
    Used,
}

/// What follows once nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing in particular: keep what is found, rest if nothing is.
    AsFound,
    /// Stay down.
    Rest,
    /// Be up: keep what is found if it is what would be launched, launch if nothing is.
    Launch(Origin),
    /// Launch another one, because somebody asked for that: what is found is ended first.
    Replace,
}

impl Then {
    /// The same for a launch that was told to end: whatever of it is found is not kept.
    pub(super) fn once_ended(self) -> Self {
        match self {
            Self::Launch(_) => Self::Replace,
            Self::AsFound | Self::Rest | Self::Replace => self,
        }
    }

    /// The same for a supervisor that ends and leaves vLLM running: nothing is launched any more, and
    /// what was to be ended is ended.
    pub(super) fn once_detached(self) -> Self {
        match self {
            Self::AsFound | Self::Launch(_) => Self::AsFound,
            Self::Rest | Self::Replace => Self::Rest,
        }
    }

    /// Whether it leads to a launch.
    pub fn is_up(self) -> bool {
        match self {
            Self::Launch(_) | Self::Replace => true,
            Self::AsFound | Self::Rest => false,
        }
    }

    /// What follows now that an operator wants it up.
    pub(super) fn asked_for(self) -> Self {
        match self {
            Self::AsFound | Self::Launch(_) => Self::Launch(Origin::Asked),
            // Whoever stopped it meant what is there.
            Self::Rest | Self::Replace => Self::Replace,
        }
    }
}

impl State {
    /// The state's public name.
    pub fn tag(&self) -> ServiceState {
        match self {
            Self::Unknown(_) => ServiceState::Unknown,
            Self::Stopped => ServiceState::Stopped,
            Self::Starting(_) => ServiceState::Starting,
            Self::Running(_) => ServiceState::Running,
            Self::Stopping(_) => ServiceState::Stopping,
            Self::Crashed(_) => ServiceState::Crashed,
            Self::Failed { .. } => ServiceState::Failed,
        }
    }

    /// The incarnation that the state is about, where there is one.
    pub fn incarnation(&self) -> Option<Incarnation> {
        match self {
            Self::Unknown(unknown) => unknown.incarnation,
            Self::Starting(starting) => Some(starting.incarnation),
            Self::Running(running) => Some(running.incarnation),
            Self::Stopping(stopping) => Some(stopping.incarnation),
            Self::Crashed(crashed) => Some(crashed.incarnation),
            Self::Stopped | Self::Failed { .. } => None,
        }
    }

    /// The main process, where one is known to run.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Starting(starting) => starting.pid,
            Self::Running(running) => Some(running.pid),
            Self::Unknown(_)
            | Self::Stopped
            | Self::Stopping(_)
            | Self::Crashed(_)
            | Self::Failed { .. } => None,
        }
    }
}
