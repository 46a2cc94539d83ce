//! The two ways down: letting requests end before a stop, and the end of the supervisor itself.

use std::time::Duration;

use super::{CommandError, Obstacle, Stage, State, Stopping, Then, Turn, Unknown};
use crate::domain::diagnosis::Phase;
use crate::domain::id::Incarnation;
use crate::domain::input::{Effect, StopMode, Timer};
use crate::domain::spec::ExitPolicy;

/// How far the supervisor is on its own way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It has not been asked to end.
    No,
    /// It ends once what was to be stopped is stopped.
    Asked,
    /// It has been told that it may.
    Told,
}

/// The least time that vLLM has for an orderly end after its requests had all of the grace period:
/// it takes 0.2 to 0.7 s when idle (vLLM 0.32, observed).
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// How long after the grace period the supervisor ends though something outlives SIGKILL.
const END_MARGIN: Duration = Duration::from_secs(15);

impl Turn<'_> {
    /// Lets the requests that run end, for as long as the grace period lasts.
    pub(super) fn drain(&mut self, incarnation: Incarnation, phase: Phase, then: Then) {
        let stage = Stage::Draining { phase, since: self.now };
        self.enter(State::Stopping(Stopping { incarnation, stage, then }), None);
        self.effect(Effect::Disregard);
        self.effect(Effect::Drain { incarnation });
        let (timer, after) = (Timer::Drain, self.machine.spec.grace);
        self.effect(Effect::Schedule { timer, incarnation, after });
    }

    /// Nothing runs any more, or is waited for no longer.
    pub(super) fn drained(&mut self, incarnation: Incarnation) {
        let Some((phase, since)) = self.draining(incarnation) else { return };
        let whole = self.machine.spec.grace;
        let grace = whole.saturating_sub(self.now.since(since)).max(LEAST_GRACE.min(whole));
        self.effect(Effect::Stop { incarnation, mode: StopMode::Graceful, phase, grace });
    }

    /// The main process has ended while its requests were waited for.
    pub(super) fn ended_while_draining(&mut self, incarnation: Incarnation) {
        if self.draining(incarnation).is_some() {
            self.effect(Effect::Clear { incarnation });
        }
    }

    /// Ends the drain of this launch, if it is being drained; returns in which phase, and since when.
    fn draining(&mut self, of: Incarnation) -> Option<(Phase, super::Moment)> {
        let State::Stopping(stopping) = &mut self.machine.state else { return None };
        match stopping.stage {
            Stage::Draining { phase, since } if stopping.incarnation == of => {
                stopping.stage = Stage::Ending;
                Some((phase, since))
            }
            Stage::Draining { .. } | Stage::Ending => None,
        }
    }

    /// The supervisor is to end. What only loads or serves may be kept; what is being ended is
    /// ended, and nothing is launched any more.
    pub(super) fn shut_down(&mut self) {
        if self.machine.ending != Ending::No {
            return;
        }
        self.machine.ending = Ending::Asked;
        self.disappoint(&CommandError::SupervisorEnded);
        match (self.machine.spec.on_exit, &mut self.machine.state) {
            (ExitPolicy::Detach, State::Unknown(Unknown { then, .. })) if then.is_up() => {
                *then = Then::AsFound;
            }
            (_, State::Stopped | State::Failed { .. })
            | (ExitPolicy::Detach, State::Starting(_) | State::Running(_) | State::Unknown(_)) => {}
            (ExitPolicy::Detach, State::Stopping(stopping)) => stopping.then = Then::Rest,
            (ExitPolicy::Detach, State::Crashed(_)) | (ExitPolicy::Stop, _) => {
                self.stop(StopMode::Graceful);
            }
        }
        let after = self.machine.spec.grace.saturating_add(END_MARGIN);
        let (timer, incarnation) = (Timer::End, self.machine.incarnation);
        self.effect(Effect::Schedule { timer, incarnation, after });
    }

    /// The way down has taken as long as it may.
    pub(super) fn end_due(&mut self) {
        if self.machine.ending == Ending::Asked {
            self.machine.ending = Ending::Told;
            self.effect(Effect::End);
        }
    }

    /// Says once that the supervisor may end.
    pub(super) fn end_if_ready(&mut self) {
        let detaches = self.machine.spec.on_exit == ExitPolicy::Detach;
        let ready = match &self.machine.state {
            State::Stopped | State::Failed { .. } => true,
            State::Starting(_) | State::Running(_) => detaches,
            // What outlives SIGKILL will not be waited for, nor what would only be kept.
            State::Unknown(unknown) => {
                matches!(unknown.obstacle, Obstacle::Lingering(_))
                    || (detaches && unknown.then == Then::AsFound)
            }
            State::Stopping(_) | State::Crashed(_) => false,
        };
        if ready {
            self.end_due();
        }
    }
}
