//! What a [`ProcessActor`](super::ProcessActor) is told, and what it tells.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::absence::Proof;
use crate::domain::cause::Cause;
use crate::domain::diagnosis::Phase;
use crate::domain::id::Incarnation;
use crate::domain::input::StopMode;
use crate::domain::report::ProcessReport;
use crate::domain::target::Target;
use crate::domain::trust::{LaunchMethod, Memory};
use crate::message::messages;
use crate::ports::{Found, Head};

/// What a [`ProcessActor`](super::ProcessActor) is told.
#[derive(Debug)]
pub enum ProcessMessage {
    /// Look for what an earlier owner left, and hold it.
    Adopt {
        /// What it should serve to be of use.
        target: Target,
    },
    /// The search is over (from itself).
    Found {
        /// What there was.
        found: Found,
    },
    /// Start vLLM.
    Launch {
        /// The number of this launch.
        incarnation: Incarnation,
        /// What to serve.
        target: Target,
        /// How much of it may be forked.
        method: LaunchMethod,
    },
    /// The main process runs (from itself).
    Started {
        /// Which launch.
        incarnation: Incarnation,
        /// The main process.
        head: Arc<dyn Head>,
    },
    /// It could not be started, and nothing of it is left (from itself).
    NotStarted {
        /// Which launch.
        incarnation: Incarnation,
        /// Why.
        cause: Cause,
        /// That nothing is left.
        proof: Proof,
    },
    /// It is known to serve.
    Served {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Keep this of launches of a model.
    Remember {
        /// What is launched.
        target: Target,
        /// What to keep.
        memory: Memory,
    },
    /// A launch of this model follows what runs now.
    Prepare {
        /// What is launched.
        target: Target,
        /// How it will be launched.
        method: LaunchMethod,
    },
    /// Nothing will be launched until somebody asks for it: keep nothing ready.
    Rest,
    /// A stop was asked for, and begins when the requests that run are answered: whatever happens
    /// to us until then, vLLM is not kept.
    KeepNoLonger {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Climb the stop ladder until nothing is left.
    Stop {
        /// Which launch.
        incarnation: Incarnation,
        /// How.
        mode: StopMode,
        /// How far it had come.
        phase: Phase,
        /// The time between the first SIGTERM and SIGKILL.
        grace: Duration,
    },
    /// Read what it has written.
    Diagnose {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Tell what is to be seen of its tree.
    Sample {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Nothing is left (from itself).
    Vacated {
        /// Which launch.
        incarnation: Incarnation,
        /// That nothing is.
        proof: Proof,
    },
}

messages!(ProcessMessage);

/// Numbers the process actors of one supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(u32);

impl Epoch {
    /// That of the actor after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A report with the actor it comes from: the words of one that has died since, still on their
/// way, say nothing of what its successor holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessNews {
    /// Whose words.
    pub epoch: Epoch,
    /// What they say.
    pub report: ProcessReport,
}
