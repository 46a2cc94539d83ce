//! What can go wrong for an embedder: when a supervisor is made, and when it is asked for
//! something.

use vllm_supervisor_actors::adapters::http_probe::HttpProbeError;
use vllm_supervisor_actors::domain::cause::{Cause, Code};

pub use vllm_supervisor_actors::adapters::journal::JournalError;
pub use vllm_supervisor_actors::adapters::state_directory::StateDirectoryError;
pub use vllm_supervisor_actors::domain::ticket::CommandError;

use crate::config::ConfigError;

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
    /// The actor that the supervisor was to be linked under is ending, or has ended.
    #[error("the parent actor has ended")]
    ParentEnded,
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
            Self::StateDirectory(_)
            | Self::Journal(_)
            | Self::ParentEnded
            | Self::System { .. } => None,
        }
    }
}

impl From<HttpProbeError> for StartError {
    fn from(error: HttpProbeError) -> Self {
        Self::System { what: "an HTTP client", source: Box::new(error) }
    }
}
