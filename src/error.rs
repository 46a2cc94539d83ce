//! What can go wrong for an embedder: when a supervisor is made, and when it is asked for
//! something.

use vllm_supervisor_actors::adapters::http_probe::HttpProbeError;
use vllm_supervisor_actors::domain::cause::{Cause, Code};
use vllm_supervisor_actors::domain::spec::ModelId;
use vllm_supervisor_actors::domain::ticket::Missed;

pub use vllm_supervisor_actors::adapters::journal::JournalError;
pub use vllm_supervisor_actors::adapters::state_directory::StateDirectoryError;

use crate::config::{ConfigError, ModelReferenceError};

/// Why a supervisor could not be made. Nothing was started, and nothing is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot be used; it lists every problem.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no vLLM.
    #[error("{0}; {remedy}", remedy = .0.remedy())]
    VllmNotFound(Cause),
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDirectory(#[from] StateDirectoryError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The system refused something that every program needs.
    #[error("the system refused {what}")]
    System {
        /// What it refused.
        what: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StartError {
    /// The code to look up, where the failure has one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Config(_) => Some(Code::InvalidConfiguration),
            Self::VllmNotFound(cause) => Some(cause.code),
            Self::StateDirectory(_) | Self::Journal(_) | Self::System { .. } => None,
        }
    }
}

impl From<HttpProbeError> for StartError {
    fn from(error: HttpProbeError) -> Self {
        Self::System { what: "an HTTP client", source: Box::new(error) }
    }
}

/// Why a command did not lead where it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The service gave up, or had given up before; the cause says why and what to do.
    #[error("the service failed: {0}")]
    Failed(Cause),
    /// Somebody stopped the service meanwhile.
    #[error("the service was stopped meanwhile")]
    Stopped,
    /// Somebody started the service again before it was down.
    #[error("the service was started again before it was down")]
    Started,
    /// Somebody switched to another model meanwhile.
    #[error("the service was switched to {to} meanwhile")]
    Superseded {
        /// The other model.
        to: ModelId,
    },
    /// The new model failed to load; the old one is being brought back.
    #[error("{wanted} could not be loaded ({cause}); {restored} is being brought back")]
    SwitchFailed {
        /// The model that was asked for.
        wanted: ModelId,
        /// The model that is served again.
        restored: ModelId,
        /// Why the switch failed.
        cause: Cause,
    },
    /// Something of vLLM outlives SIGKILL, or cannot be looked for. It is still being tried, and what
    /// was asked for happens once it is gone.
    #[error("what is left of an earlier launch stands in the way: {0}")]
    StillAlive(Cause),
    /// The text names no model. Nothing was done.
    #[error("`{text}` names no model: {reason}")]
    InvalidModel {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: ModelReferenceError,
    },
    /// The supervisor has ended, or is ending.
    #[error("the supervisor has ended")]
    SupervisorEnded,
}

impl CommandError {
    /// Why the service failed, where it did.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Failed(cause) | Self::SwitchFailed { cause, .. } | Self::StillAlive(cause) => {
                Some(cause)
            }
            Self::Stopped
            | Self::Started
            | Self::Superseded { .. }
            | Self::InvalidModel { .. }
            | Self::SupervisorEnded => None,
        }
    }
}

impl From<Missed> for CommandError {
    fn from(missed: Missed) -> Self {
        match missed {
            Missed::Failed(cause) => Self::Failed(cause),
            Missed::Stopped => Self::Stopped,
            Missed::Started => Self::Started,
            Missed::Superseded { to } => Self::Superseded { to },
            Missed::Reverted { wanted, restored, cause } => {
                Self::SwitchFailed { wanted, restored, cause }
            }
            Missed::Lingering(cause) => Self::StillAlive(cause),
            // What else there may be to say one day is said by a supervisor that is ending.
            Missed::Ending | _ => Self::SupervisorEnded,
        }
    }
}
