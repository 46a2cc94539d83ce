//! What there is of a launch that has crashed.

use std::time::{Duration, SystemTime};

use super::Origin;
use crate::domain::cause::Cause;
use crate::domain::diagnosis::Exit;
use crate::domain::id::Incarnation;
use crate::domain::spec::ModelId;
use crate::domain::target::Target;

/// A launch that ended without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crashed {
    /// Which launch.
    pub incarnation: Incarnation,
    /// Why, as far as it is known.
    pub cause: Cause,
    /// Whether anything of it may still be alive.
    pub cleanup: Cleanup,
    /// What follows.
    pub next: Next,
}

/// Whether anything of a crashed launch may still be alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Being killed.
    Underway,
    /// Being killed, in vain so far.
    Blocked(Cause),
    /// Being looked for: the process actor that was to kill it died.
    Searching,
    /// The same, in vain so far: the system does not let us look.
    Unseen(Cause),
    /// Proven gone.
    Done,
}

/// A crash that has not been judged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// When it ended, by the clock.
    pub at: SystemTime,
    /// How the process ended that it was noticed by; `None` if it lived, and was judged by us.
    pub exit: Option<Exit>,
    /// Whether anything of it ever ran.
    pub has_run: bool,
    /// What it served or was to serve.
    pub model: ModelId,
    /// How long it had been proven healthy; `None` if it never was.
    pub healthy_for: Option<Duration>,
    /// Why it was launched.
    pub origin: Origin,
    /// The switch that it ends, if it was the launch of another model that has never served.
    pub given_up: Option<GivenUp>,
}

/// A switch that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// What could not be loaded.
    pub wanted: Target,
    /// The one that is gone back to.
    pub restored: Target,
}

/// What follows a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nobody knows yet: what it has written is being read.
    Undecided(Box<Undecided>),
    /// A restart when its delay is over: when, on the monotonic clock.
    RestartAt(Duration),
    /// A restart as soon as nothing is left.
    RestartNow(Origin),
    /// `Failed`, as soon as nothing is left.
    GiveUp(Cause),
}

impl Cleanup {
    /// Whether what is left is being looked for.
    pub(in crate::domain) fn is_sought(&self) -> bool {
        match self {
            Self::Searching | Self::Unseen(_) => true,
            Self::Underway | Self::Blocked(_) | Self::Done => false,
        }
    }
}
