//! A launch until it is proven healthy.

use std::time::Duration;

use crate::domain::cause::Cause;
use crate::domain::course::Pace;
use crate::domain::diagnosis::Exit;
use crate::domain::health::HealthFailure;
use crate::domain::id::Incarnation;
use crate::domain::loading::ModelLoadProgress;
use crate::domain::moment::Moment;
use crate::domain::phases::Stopwatch;
use crate::domain::report::Work;
use crate::domain::target::Target;
use crate::domain::trust::{LaunchMethod, Recall};

/// A launch on its way to health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Starting {
    /// Which launch.
    pub incarnation: Incarnation,
    /// The main process, once it exists.
    pub pid: Option<u32>,
    /// What it is to serve.
    pub target: Target,
    /// Why it was launched.
    pub origin: Origin,
    /// How it is launched.
    pub method: LaunchMethod,
    /// What launches like it have come to.
    pub recall: Recall,
    /// When it was launched, or adopted.
    pub since: Moment,
    /// Whether it has said anything yet, which decides the timeout that applies.
    pub first_output: FirstOutput,
    /// The last sign of progress: output, a phase, or bytes moved.
    pub last_sign: Moment,
    /// The last time that processors were seen at work for it. That alone proves no progress.
    pub last_busy: Moment,
    /// When it is to be asked next whether it still moves.
    pub next_look: Duration,
    /// Whether it is about to be judged for its silence.
    pub silence: Silence,
    /// The work that was seen last, and when.
    pub work: (Moment, Work),
    /// The end of a process that vLLM needs: no check that passes after it proves anything, and
    /// its main process is about to say why.
    pub loss: Option<Box<Loss>>,
    /// How far it is beside the load before.
    pub pace: Box<Pace>,
    /// How far the load is, if the log has told.
    pub progress: Option<ModelLoadProgress>,
    /// Checks in a row that reached the server and did not find the model there.
    pub misses: u32,
    /// Whether the server has said that it listens.
    pub announcement: Announcement,
    /// How long each part of the launch takes.
    pub stopwatch: Box<Stopwatch>,
    /// What the last check saw.
    pub last_failure: Option<Box<HealthFailure>>,
}

/// Why a launch was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody asked for it, and is told of a failure at once.
    Asked,
    /// It follows a crash, or the loss of a process actor.
    Restart,
    /// It was found running.
    Found,
}

/// Whether a server has said that it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// Not yet.
    Awaited,
    /// It listens, or is about to.
    Made,
}

/// Whether a launch has written anything yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstOutput {
    /// Nothing yet: the start timeout applies.
    Awaited,
    /// Output came: the model load timeout applies.
    Seen,
}

/// What is thought of the silence of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It has not lasted too long.
    Borne,
    /// It has: whether anything moves has been asked once more, and the next look decides. What
    /// was said already may wait to be heard, if it is we who were slow.
    Questioned,
}

/// The end of a process that a launch needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What that says of the cause.
    pub cause: Cause,
    /// How it ended.
    pub exit: Exit,
}
