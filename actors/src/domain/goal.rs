//! What a caller waits for, and when the wait is over.
//!
//! Commands change the wish and return at once; the caller's answer is given when the state says
//! so. Two callers with the same goal share the one action that leads there.

use crate::domain::cause::Cause;
use crate::domain::machine::Machine;
use crate::domain::spec::ModelId;
use crate::domain::state::{ServiceState, State, Then};

/// What a caller waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// This model is served. `reverted_switches` is the machine's count when the wait began.
    Served {
        /// The model.
        model: ModelId,
        /// How many switches had been reverted before.
        reverted_switches: u64,
    },
    /// Nothing is alive.
    Down,
}

/// Why a goal will not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missed {
    /// The service gave up.
    #[error("the service failed: {0}")]
    Failed(Cause),
    /// Somebody stopped it meanwhile.
    #[error("the service was stopped meanwhile")]
    Stopped,
    /// Somebody asked for another model meanwhile.
    #[error("the service was switched to {to} meanwhile")]
    Superseded {
        /// The other model.
        to: ModelId,
    },
    /// The new model failed to load; the old one is being brought back.
    #[error("{wanted} could not be loaded ({cause}); {restored} is being brought back")]
    Reverted {
        /// The model that was asked for.
        wanted: ModelId,
        /// The model that is served again.
        restored: ModelId,
        /// Why the switch failed.
        cause: Cause,
    },
    /// Something outlives SIGKILL.
    #[error("the service could not be stopped: {0}")]
    Lingering(Cause),
}

impl Goal {
    /// The goal of having the machine's present model served.
    pub fn served(machine: &Machine) -> Self {
        Self::Served {
            model: machine.model().clone(),
            reverted_switches: machine.reverted_switches(),
        }
    }

    /// Whether the wait is over, given that the service passed through `visited` on its way to
    /// where it is: a stop has succeeded even if a start that waited for it has begun already.
    pub fn outcome(
        &self,
        machine: &Machine,
        visited: &[ServiceState],
    ) -> Option<Result<(), Missed>> {
        match self {
            Self::Down => down(machine, visited),
            Self::Served { model, reverted_switches } => {
                if model != machine.model() {
                    return Some(Err(diverted(model, *reverted_switches, machine)));
                }
                served(machine)
            }
        }
    }
}

fn down(machine: &Machine, visited: &[ServiceState]) -> Option<Result<(), Missed>> {
    let is_down =
        |state: &ServiceState| matches!(state, ServiceState::Stopped | ServiceState::Failed);
    if visited.iter().any(is_down) {
        return Some(Ok(()));
    }
    match machine.state() {
        State::Stopped | State::Failed { .. } => Some(Ok(())),
        State::Unknown(unknown) => {
            unknown.lingering.clone().map(|cause| Err(Missed::Lingering(cause)))
        }
        State::Starting(_) | State::Running(_) | State::Stopping(_) | State::Crashed(_) => None,
    }
}

fn served(machine: &Machine) -> Option<Result<(), Missed>> {
    match machine.state() {
        State::Running(_) => Some(Ok(())),
        State::Failed { cause } => Some(Err(Missed::Failed(cause.clone()))),
        State::Stopped => Some(Err(Missed::Stopped)),
        State::Stopping(stopping) if stopping.then == Then::Rest => Some(Err(Missed::Stopped)),
        State::Unknown(unknown) if unknown.then == Then::Rest => Some(Err(Missed::Stopped)),
        State::Stopping(_) | State::Unknown(_) | State::Starting(_) | State::Crashed(_) => None,
    }
}

fn diverted(wanted: &ModelId, reverted_before: u64, machine: &Machine) -> Missed {
    match machine.last_error() {
        Some(cause) if machine.reverted_switches() > reverted_before => Missed::Reverted {
            wanted: wanted.clone(),
            restored: machine.model().clone(),
            cause: cause.clone(),
        },
        _ => Missed::Superseded { to: machine.model().clone() },
    }
}

#[cfg(test)]
mod tests;
