//! Who waits for what, and what came of it.
//!
//! Every request carries a [`Ticket`]. The machine keeps the tickets that are still open, and names
//! in its reaction those that are answered: at the transition that answers them, never by looking
//! at the state afterwards, which may have moved on for somebody else's sake.

use std::fmt;

use crate::domain::cause::{Cause, Code, RetryClass};
use crate::domain::spec::{LifecycleMode, ModelId, ModelReferenceError};
use crate::domain::target::Wanted;

/// Names a request that waits for its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// The ticket with this number. Whoever hands them out uses each number once.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The ticket after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What came of a request.
pub type Outcome = Result<(), CommandError>;

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
    /// Somebody switched to another model meanwhile.
    #[error("the service was switched to {to} meanwhile")]
    Superseded {
        /// The other model.
        to: ModelId,
    },
    /// The new model failed to load; the old one is being brought back.
    #[error(
        "{wanted} could not be loaded{} ({cause}); {} is being brought back",
        if wanted == restored { " with other arguments" } else { "" },
        if wanted == restored { "what was served before" } else { restored.as_str() }
    )]
    SwitchFailed {
        /// The model that was asked for.
        wanted: ModelId,
        /// The model that is served again.
        restored: ModelId,
        /// Why the switch failed.
        cause: Cause,
    },
    /// The model could not be loaded, as is known beforehand. Nothing was done.
    #[error("{wanted} could not be loaded: {cause}")]
    Refused {
        /// The model that was asked for.
        wanted: ModelId,
        /// Why it could not.
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
    /// vLLM's life is not ours: whoever has it in hand starts, stops, restarts and switches it. Nothing was
    /// done.
    #[error(
        "vLLM is not started, stopped, restarted or switched by us in mode `{}`{}", mode.as_str(),
        unit.as_ref().map(|unit| format!("; ask its manager: `systemctl … {unit}`")).unwrap_or_default()
    )]
    NotManaged {
        /// Who owns it.
        mode: LifecycleMode,
        /// The unit that its manager runs it as, if that is known.
        unit: Option<String>,
    },
    /// The supervisor has ended, or is ending.
    #[error("the supervisor has ended")]
    SupervisorEnded,
}

impl CommandError {
    /// Why the service failed, where it did.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Failed(cause)
            | Self::SwitchFailed { cause, .. }
            | Self::Refused { cause, .. }
            | Self::StillAlive(cause) => Some(cause),
            Self::Stopped
            | Self::Superseded { .. }
            | Self::InvalidModel { .. }
            | Self::NotManaged { .. }
            | Self::SupervisorEnded => None,
        }
    }

    /// The code to look up, where the failure has one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::InvalidModel { .. } => Some(Code::InvalidModelId),
            Self::Failed(_)
            | Self::SwitchFailed { .. }
            | Self::Refused { .. }
            | Self::StillAlive(_)
            | Self::Stopped
            | Self::Superseded { .. }
            | Self::NotManaged { .. }
            | Self::SupervisorEnded => self.cause().map(|cause| cause.code),
        }
    }

    /// Whether asking again can help, where that is known.
    pub fn class(&self) -> Option<RetryClass> {
        let of_code = || self.code().map(Code::retry_class);
        self.cause().map(|cause| cause.retry).or_else(of_code)
    }
}

/// What a request waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Goal {
    /// Nothing is alive.
    Down,
    /// The service serves, whatever model it is meant to serve by then.
    Up,
    /// The service serves this.
    Serving(Wanted),
}

impl Goal {
    /// Whether it wants something to run.
    pub fn wants_up(&self) -> bool {
        match self {
            Self::Down => false,
            Self::Up | Self::Serving(_) => true,
        }
    }
}

/// The requests that are still open, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenTickets(Vec<(Ticket, Goal)>);

impl OpenTickets {
    /// Notes that somebody waits.
    pub fn open(&mut self, ticket: Ticket, goal: Goal) {
        self.0.push((ticket, goal));
    }

    /// Whoever held this one waits no longer.
    pub fn forget(&mut self, ticket: Ticket) {
        self.0.retain(|(open, _)| *open != ticket);
    }

    /// Takes out every ticket for whose goal there is an answer now.
    pub fn answer(
        &mut self,
        mut answer: impl FnMut(&Goal) -> Option<Outcome>,
    ) -> Vec<(Ticket, Outcome)> {
        let mut answers = Vec::new();
        self.0.retain(|(ticket, goal)| match answer(goal) {
            Some(outcome) => {
                answers.push((*ticket, outcome));
                false
            }
            None => true,
        });
        answers
    }

    /// The goals that somebody waits for.
    pub fn goals(&self) -> impl Iterator<Item = &Goal> {
        self.0.iter().map(|(_, goal)| goal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_answered_once_and_the_others_stay_open() {
        let mut open = OpenTickets::default();
        open.open(Ticket::new(1), Goal::Down);
        open.open(Ticket::new(2), Goal::Up);
        let answer = |goal: &Goal| (*goal == Goal::Down).then_some(Ok(()));
        assert_eq!(open.answer(answer), [(Ticket::new(1), Ok(()))]);
        assert!(open.answer(answer).is_empty());
        assert_eq!(open.goals().collect::<Vec<_>>(), [&Goal::Up]);
    }

    #[test]
    fn a_ticket_that_is_forgotten_is_not_answered() {
        let mut open = OpenTickets::default();
        open.open(Ticket::new(1), Goal::Up);
        open.open(Ticket::new(2), Goal::Up);
        open.forget(Ticket::new(1));
        assert_eq!(open.answer(|_| Some(Ok(()))), [(Ticket::new(2), Ok(()))]);
    }
}
