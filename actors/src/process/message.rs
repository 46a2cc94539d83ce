//! What a [`ProcessActor`](super::ProcessActor) is told, and what it tells.

use crate::domain::diagnosis::Phase;
use crate::domain::id::Incarnation;
use crate::domain::input::StopMode;
use crate::domain::report::ProcessReport;
use crate::domain::spec::ModelId;
use crate::message::messages;
use crate::ports::Found;

/// What a [`ProcessActor`](super::ProcessActor) is told.
#[derive(Debug)]
pub enum ProcessMessage {
    /// Look for what an earlier owner left, and hold it.
    Adopt {
        /// What it should serve to be of use.
        model: ModelId,
    },
    /// The search is over (from itself).
    Found {
        /// What there was.
        found: Found,
        /// What it should serve.
        model: ModelId,
    },
    /// Start vLLM.
    Launch {
        /// The number of this launch.
        incarnation: Incarnation,
        /// What to serve.
        model: ModelId,
    },
    /// Climb the stop ladder until nothing is left.
    Stop {
        /// Which launch.
        incarnation: Incarnation,
        /// How.
        mode: StopMode,
        /// How far it had come.
        phase: Phase,
    },
    /// Tell how much the tree has worked.
    SampleWork {
        /// Which launch.
        incarnation: Incarnation,
    },
    /// Nothing is left (from itself).
    Vacated {
        /// Which launch.
        incarnation: Incarnation,
    },
}

messages!(ProcessMessage);

/// Numbers the process actors of one supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenure(u32);

impl Tenure {
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
    pub tenure: Tenure,
    /// What they say.
    pub report: ProcessReport,
}
