//! What somebody wants: every command in every state.

use super::{Next, Remains, State, Stopping, Then, Turn, Unknown};
use crate::domain::diagnosis::Phase;
use crate::domain::id::Incarnation;
use crate::domain::input::{Effect, StopMode};
use crate::domain::spec::ModelId;

impl Turn<'_> {
    pub(super) fn start(&mut self) {
        self.take_in_hand();
        match &mut self.machine.state {
            State::Starting(_) | State::Running(_) => {}
            State::Unknown(unknown) => unknown.then = Then::Launch,
            State::Stopping(stopping) => stopping.then = Then::Launch,
            State::Stopped | State::Failed { .. } => self.launch(),
            State::Crashed(crashed) => {
                crashed.next = Next::RestartNow;
                self.follow_crash();
            }
        }
    }

    pub(super) fn ensure(&mut self) {
        match &self.machine.state {
            State::Starting(_) | State::Running(_) | State::Crashed(_) | State::Failed { .. } => {}
            State::Unknown(_) | State::Stopping(_) | State::Stopped => self.start(),
        }
    }

    pub(super) fn stop(&mut self, mode: StopMode) {
        // Whoever stops the service abandons a switch that is under way.
        self.machine.fallback = None;
        match &mut self.machine.state {
            State::Stopped => {}
            State::Failed { .. } => self.enter(State::Stopped, None),
            State::Unknown(unknown) => {
                unknown.then = Then::Rest;
                // What is still being looked for is held by nobody who could stop it.
                if unknown.lingering.is_some() {
                    self.hasten(mode);
                }
            }
            State::Stopping(stopping) => {
                stopping.then = Then::Rest;
                self.hasten(mode);
            }
            State::Starting(_) | State::Running(_) => self.end(mode, Then::Rest),
            State::Crashed(crashed) => match crashed.remains {
                Remains::Gone => self.enter(State::Stopped, None),
                Remains::Clearing => {
                    let incarnation = crashed.incarnation;
                    self.enter(stopping(incarnation, Then::Rest), None);
                    // It may have been reported to linger before, which is said once a ladder.
                    let (mode, phase) = (StopMode::Immediate, Phase::Loading);
                    self.effect(Effect::Stop { incarnation, mode, phase });
                }
                Remains::Sought => {
                    let (incarnation, then) = (Some(crashed.incarnation), Then::Rest);
                    let doubt = Unknown { incarnation, then, lingering: None };
                    self.enter(State::Unknown(doubt), None);
                }
            },
        }
    }

    pub(super) fn restart(&mut self) {
        match &self.machine.state {
            State::Starting(_) | State::Running(_) => {
                self.take_in_hand();
                self.end(StopMode::Graceful, Then::Launch);
            }
            State::Unknown(_)
            | State::Stopping(_)
            | State::Stopped
            | State::Crashed(_)
            | State::Failed { .. } => self.start(),
        }
    }

    pub(super) fn load(&mut self, model: ModelId) {
        if model == self.machine.model {
            return self.start();
        }
        let old = std::mem::replace(&mut self.machine.model, model);
        match &self.machine.state {
            State::Running(_) => self.machine.fallback = Some(old),
            // Whatever was last proven to load is what to go back to.
            State::Starting(_) | State::Stopping(_) | State::Unknown(_) | State::Crashed(_) => {}
            State::Stopped | State::Failed { .. } => self.machine.fallback = None,
        }
        if self.machine.fallback.as_ref() == Some(&self.machine.model) {
            self.machine.fallback = None;
        }
        self.restart();
    }

    /// Ends the current launch, and says what follows.
    fn end(&mut self, mode: StopMode, then: Then) {
        let (incarnation, phase) = match &self.machine.state {
            State::Starting(starting) => (starting.incarnation, Phase::Loading),
            State::Running(running) => (running.incarnation, Phase::Serving),
            State::Unknown(_)
            | State::Stopped
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => return,
        };
        self.enter(stopping(incarnation, then), None);
        self.effect(Effect::Disregard);
        self.effect(Effect::Stop { incarnation, mode, phase });
    }

    /// A stop is under way already; a second one can only make it faster.
    fn hasten(&mut self, mode: StopMode) {
        let Some(incarnation) = self.machine.state.incarnation() else { return };
        match mode {
            StopMode::Graceful => {}
            StopMode::Immediate => {
                self.effect(Effect::Stop { incarnation, mode, phase: Phase::Loading });
            }
        }
    }

    /// An operator's word: what went wrong before counts no more.
    fn take_in_hand(&mut self) {
        self.machine.ledger.clear();
        self.machine.last_error = None;
    }
}

fn stopping(incarnation: Incarnation, then: Then) -> State {
    State::Stopping(Stopping { incarnation, then })
}
