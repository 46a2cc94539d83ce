//! What somebody wants of a service that is not ours.

use super::{Follows, Life, Turn, View};
use crate::domain::input::{Effect, Request};
use crate::domain::ticket::{CommandError, Goal, Outcome, Ticket};

impl Turn<'_> {
    pub(super) fn request(&mut self, ticket: Ticket, request: &Request) {
        let goal = match request {
            Request::Load { wanted, .. } => Goal::Serving(wanted.clone()),
            Request::Ensure | Request::Start | Request::Restart | Request::Stop(_) => Goal::Up,
        };
        if let Some(outcome) = self.outcome(request) {
            return self.reaction.answers.push((ticket, outcome));
        }
        self.watch.tickets.open(ticket, goal);
        if self.watch.is_asked() {
            let incarnation = self.watch.incarnation;
            self.effect(Effect::Probe { incarnation });
        }
    }

    /// The answer to a request that needs no look.
    fn outcome(&self, request: &Request) -> Option<Outcome> {
        let is_of_another = match request {
            Request::Start | Request::Stop(_) | Request::Restart => true,
            Request::Load { wanted, .. } => !wanted.is(&self.watch.spec.target),
            Request::Ensure => false,
        };
        if is_of_another {
            return Some(Err(self.watch.not_managed()));
        }
        if self.watch.life == Life::Ends {
            return Some(Err(CommandError::SupervisorEnded));
        }
        if let Some(cause) = &self.watch.obstacle {
            return Some(Err(CommandError::Failed(cause.clone())));
        }
        match &self.watch.view {
            View::Running(_) => Some(Ok(())),
            View::Stopped => Some(Err(self.watch.not_managed())),
            View::Failed { cause } => Some(Err(CommandError::Failed(cause.clone()))),
            View::Crashed(fallen) => match fallen.follows {
                Follows::Nothing | Follows::Token => {
                    Some(Err(CommandError::Failed(fallen.cause.clone())))
                }
                Follows::Undecided | Follows::Restart | Follows::Answer => None,
            },
            // Nobody is asked, and why is known.
            View::Unknown if !self.watch.is_asked() => {
                self.watch.last_error.clone().map(|cause| Err(CommandError::Failed(cause)))
            }
            View::Unknown | View::Starting { .. } | View::Stopping => None,
        }
    }

    /// Those who wait have it.
    pub(super) fn serves(&mut self) {
        self.answer(|goal| match goal {
            Goal::Up | Goal::Serving(_) => Some(Ok(())),
            Goal::Down => None,
        });
    }
}
