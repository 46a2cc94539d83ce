//! What somebody wants: every request in every state.

use std::time::Duration;

use super::{
    Cleanup, CommandError, Ending, Goal, Models, Next, Obstacle, Origin, Outcome, Stage, State,
    Stopping, Then, Turn, Unknown,
};
use crate::domain::diagnosis::Phase;
use crate::domain::id::Incarnation;
use crate::domain::input::{Asker, Effect, Request, StopMode};
use crate::domain::switch::Otherwise;
use crate::domain::target::Wanted;
use crate::domain::ticket::Ticket;

impl Turn<'_> {
    pub(super) fn request(&mut self, ticket: Ticket, request: Request) {
        let goal = match &request {
            Request::Stop(_) => Goal::Down,
            Request::Start | Request::Ensure | Request::Restart => Goal::Up,
            Request::Load { wanted, .. } => Goal::Serving(wanted.clone()),
        };
        if let Some(refusal) = self.refusal(&goal, &request) {
            return self.reaction.answers.push((ticket, refusal));
        }
        self.machine.tickets.open(ticket, goal);
        match request {
            Request::Start => self.start(),
            Request::Ensure => self.ensure(),
            Request::Stop(mode) => self.stop(mode),
            Request::Restart => self.restart(),
            Request::Load { wanted, asker } => self.load(&wanted, asker),
        }
        self.answer_blocked();
    }

    /// The answer to a request that changes nothing, because it must not.
    fn refusal(&self, goal: &Goal, request: &Request) -> Option<Outcome> {
        if self.machine.ending != Ending::No && goal.wants_up() {
            return Some(Err(CommandError::SupervisorEnded));
        }
        let is_a_programs = match request {
            Request::Ensure | Request::Load { asker: Asker::Program, .. } => true,
            Request::Start
            | Request::Stop(_)
            | Request::Restart
            | Request::Load { asker: Asker::Operator, .. } => false,
        };
        let given_up = match &self.machine.state {
            State::Failed { cause } => Some(cause),
            State::Crashed(crashed) => match &crashed.next {
                Next::GiveUp(cause) => Some(cause),
                Next::Undecided(_) | Next::RestartAt(_) | Next::RestartNow(_) => None,
            },
            State::Unknown(_)
            | State::Stopped
            | State::Starting(_)
            | State::Running(_)
            | State::Stopping(_) => None,
        };
        given_up.filter(|_| is_a_programs).map(|cause| Err(CommandError::Failed(cause.clone())))
    }

    /// Those who wait for what is served now have it.
    pub(super) fn serves(&mut self) {
        let State::Running(running) = &self.machine.state else { return };
        let served = running.target.clone();
        self.answer(|goal| match goal {
            Goal::Serving(wanted) => wanted.is(&served).then_some(Ok(())),
            Goal::Up => Some(Ok(())),
            Goal::Down => None,
        });
    }

    fn start(&mut self) {
        self.take_in_hand();
        self.bring_up();
    }

    fn bring_up(&mut self) {
        match &mut self.machine.state {
            State::Starting(_) => {}
            State::Running(_) => self.serves(),
            State::Unknown(Unknown { then, .. }) | State::Stopping(Stopping { then, .. }) => {
                *then = then.asked_for();
            }
            State::Stopped | State::Failed { .. } => self.launch(Origin::Asked),
            State::Crashed(_) => self.restart_crashed(),
        }
    }

    /// An operator does not wait for what is decided of a crash.
    fn restart_crashed(&mut self) {
        self.overtake_diagnosis(Some(Duration::ZERO));
        if let State::Crashed(crashed) = &mut self.machine.state {
            crashed.next = Next::RestartNow(Origin::Asked);
        }
        self.follow_crash();
    }

    fn ensure(&mut self) {
        match &self.machine.state {
            State::Starting(_) | State::Crashed(_) | State::Failed { .. } => {}
            // What is to come up anyway does so for the reason that it had.
            State::Unknown(Unknown { then, .. }) | State::Stopping(Stopping { then, .. })
                if then.is_up() => {}
            State::Running(_) => self.serves(),
            State::Unknown(_) | State::Stopping(_) | State::Stopped => self.bring_up(),
        }
    }

    pub(super) fn stop(&mut self, mode: StopMode) {
        // Whoever stops the service abandons a switch that is under way.
        self.models(Models::abandon);
        self.disappoint(&CommandError::Stopped);
        self.overtake_diagnosis(None);
        self.machine.outage = None;
        match &mut self.machine.state {
            State::Stopped => self.answer(|goal| (*goal == Goal::Down).then_some(Ok(()))),
            State::Failed { .. } => self.rest(),
            State::Unknown(unknown) => {
                unknown.then = Then::Rest;
                // What is still being looked for is held by nobody who could stop it.
                if matches!(unknown.obstacle, Obstacle::Lingering(_)) {
                    self.hasten(mode);
                }
            }
            State::Stopping(stopping) => {
                stopping.then = Then::Rest;
                self.hasten(mode);
            }
            State::Starting(_) | State::Running(_) => self.end(mode, Then::Rest),
            State::Crashed(crashed) => match &crashed.cleanup {
                Cleanup::Done => self.rest(),
                Cleanup::Underway | Cleanup::Blocked(_) => {
                    let incarnation = crashed.incarnation;
                    self.enter(stopping(incarnation, Stage::Ending, Then::Rest), None);
                    // It may have been reported to linger before, which is said once a ladder.
                    self.kill(incarnation);
                }
                sought @ (Cleanup::Searching | Cleanup::Unseen(_)) => {
                    let obstacle = match sought {
                        Cleanup::Unseen(cause) => Obstacle::Unseen(cause.clone()),
                        Cleanup::Searching
                        | Cleanup::Underway
                        | Cleanup::Blocked(_)
                        | Cleanup::Done => Obstacle::None,
                    };
                    let (incarnation, then) = (Some(crashed.incarnation), Then::Rest);
                    let doubt = Unknown { incarnation, then, obstacle };
                    self.enter(State::Unknown(doubt), None);
                }
            },
        }
    }

    fn restart(&mut self) {
        match &mut self.machine.state {
            State::Starting(_) | State::Running(_) => {
                self.take_in_hand();
                self.end(StopMode::Graceful, Then::Launch(Origin::Asked));
            }
            State::Unknown(unknown) => {
                unknown.then = Then::Replace;
                self.take_in_hand();
            }
            State::Stopping(_) | State::Stopped | State::Crashed(_) | State::Failed { .. } => {
                self.start();
            }
        }
    }

    fn load(&mut self, wanted: &Wanted, asker: Asker) {
        if wanted.is(self.machine.models.wanted()) {
            self.machine.models.settle();
            return match asker {
                Asker::Operator => self.start(),
                Asker::Program => self.ensure(),
            };
        }
        let target = self.machine.resolve(wanted);
        let superseded = CommandError::Superseded { to: target.model.clone() };
        self.answer(|goal| match goal {
            Goal::Serving(other) if !other.is(&target) => Some(Err(superseded.clone())),
            Goal::Serving(_) | Goal::Up | Goal::Down => None,
        });
        let otherwise = if self.is_wanted_up() { Otherwise::Restore } else { Otherwise::Judge };
        self.models(|models| models.turn_to(target.clone(), otherwise));
        if matches!(self.machine.state, State::Starting(_) | State::Running(_)) {
            let method = self.machine.trusts.method(&target);
            self.effect(Effect::Prepare { target, method });
        }
        match (&self.machine.state, asker) {
            (State::Starting(_) | State::Running(_), Asker::Program) => {
                self.end(StopMode::Graceful, Then::Launch(Origin::Asked));
            }
            (State::Starting(_) | State::Running(_), Asker::Operator) => self.restart(),
            // The restart that is due launches it.
            (State::Crashed(_), Asker::Program) => {}
            (
                State::Unknown(_) | State::Stopping(_) | State::Stopped | State::Failed { .. },
                Asker::Program,
            ) => self.bring_up(),
            (
                State::Unknown(_)
                | State::Stopping(_)
                | State::Stopped
                | State::Crashed(_)
                | State::Failed { .. },
                Asker::Operator,
            ) => self.start(),
        }
    }

    /// Whether the service runs or is to run, as far as anybody has said.
    fn is_wanted_up(&self) -> bool {
        match &self.machine.state {
            State::Starting(_) | State::Running(_) => true,
            State::Crashed(crashed) => !matches!(crashed.next, Next::GiveUp(_)),
            State::Stopping(Stopping { then, .. }) | State::Unknown(Unknown { then, .. }) => {
                then.is_up()
            }
            State::Stopped | State::Failed { .. } => false,
        }
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
        match (phase, mode) {
            (Phase::Serving, StopMode::Graceful) => self.drain(incarnation, phase, then),
            (Phase::Loading, _) | (Phase::Serving, StopMode::Immediate) => {
                self.enter(stopping(incarnation, Stage::Ending, then), None);
                self.effect(Effect::Disregard);
                let grace = self.machine.spec.grace;
                self.effect(Effect::Stop { incarnation, mode, phase, grace });
            }
        }
    }

    /// A stop is under way already; a second one can only make it faster.
    fn hasten(&mut self, mode: StopMode) {
        let Some(incarnation) = self.machine.state.incarnation() else { return };
        match mode {
            StopMode::Graceful => {}
            StopMode::Immediate => {
                if let State::Stopping(stopping) = &mut self.machine.state {
                    stopping.stage = Stage::Ending;
                }
                self.kill(incarnation);
            }
        }
    }

    fn kill(&mut self, incarnation: Incarnation) {
        let (mode, phase, grace) = (StopMode::Immediate, Phase::Loading, self.machine.spec.grace);
        self.effect(Effect::Stop { incarnation, mode, phase, grace });
    }

    /// An operator's word: what went wrong before counts no more.
    fn take_in_hand(&mut self) {
        self.machine.ledger.clear();
        self.machine.last_error = None;
    }
}

fn stopping(incarnation: Incarnation, stage: Stage, then: Then) -> State {
    State::Stopping(Stopping { incarnation, stage, then })
}
