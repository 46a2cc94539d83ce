//! What follows an end that nobody asked for: the verdict, the record, and the way on once nothing
//! is left.

use std::time::Duration;

use super::{Cleanup, CommandError, Crashed, Ending, Goal, Models, Next, Origin, State, Turn};
use crate::domain::cause::{Cause, Code};
use crate::domain::event::EventKind;
use crate::domain::id::Incarnation;
use crate::domain::input::{CrashRecord, Effect, Timer};
use crate::domain::loading::ModelLoadProgress;
use crate::domain::restart::{Occasion, Verdict};
use crate::domain::spec::ModelId;

/// What had become of a launch that fails.
struct Failing {
    /// How long it was healthy; `None` if it never was.
    healthy_for: Option<Duration>,
    /// How far it had loaded, if it never was healthy.
    progress: Option<ModelLoadProgress>,
    /// Why it was launched.
    origin: Origin,
}

impl Turn<'_> {
    /// The current launch failed: judges the failure and says what follows.
    pub(super) fn fail(&mut self, incarnation: Incarnation, cause: Cause, cleanup: Cleanup) {
        let Failing { healthy_for, progress, origin } = self.what_it_had_come_to();
        let model = self.machine.models.wanted().clone();
        self.machine.last_error = Some(cause.clone());
        self.effect(Effect::Disregard);
        if cleanup == Cleanup::Underway {
            self.effect(Effect::Clear { incarnation });
        }
        let given_up = if healthy_for.is_none() { self.give_up_switch(&cause) } else { None };
        let verdict = if given_up.is_some() {
            None
        } else {
            let occasion = match (origin, &cleanup) {
                (Origin::Asked, _) if cause.code == Code::PortInUse => Occasion::AskedFor,
                (Origin::Asked, Cleanup::Done) => Occasion::AskedFor,
                (Origin::Restart | Origin::Found, Cleanup::Done) => Occasion::NothingStarted,
                // Somebody was faster: the port was free when we looked.
                (Origin::Restart | Origin::Found, _)
                    if cause.code == Code::PortInUse && healthy_for.is_none() =>
                {
                    Occasion::NothingStarted
                }
                (
                    _,
                    Cleanup::Underway
                    | Cleanup::Blocked(_)
                    | Cleanup::Searching
                    | Cleanup::Unseen(_),
                ) => Occasion::Ended,
            };
            let machine = &mut *self.machine;
            let policy = &machine.spec.restart;
            Some(machine.ledger.judge(policy, &cause, healthy_for, occasion, self.now))
        };
        self.record(incarnation, model, &cause, healthy_for, verdict.as_ref());
        if let Some(progress) = progress {
            let progress = progress.failed();
            self.emit(EventKind::LoadProgressed { progress });
        }
        self.crash(incarnation, cause, cleanup, verdict.as_ref());
    }

    /// A launch failed before it served. Goes back to the model before, if there is one to go back
    /// to, and tells those who asked for the new one.
    fn give_up_switch(&mut self, cause: &Cause) -> Option<ModelId> {
        let mut given_up = None;
        self.models(|models| given_up = models.fails());
        let wanted = given_up.clone()?;
        let restored = self.machine.models.wanted().clone();
        let missed =
            CommandError::SwitchFailed { wanted: wanted.clone(), restored, cause: cause.clone() };
        let goal = Goal::Serving(wanted);
        self.answer(|open| (*open == goal).then(|| Err(missed.clone())));
        given_up
    }

    fn crash(
        &mut self,
        incarnation: Incarnation,
        cause: Cause,
        cleanup: Cleanup,
        verdict: Option<&Verdict>,
    ) {
        let next = match verdict {
            None => Next::RestartNow(Origin::Restart),
            Some(Verdict::Restart { delay, .. }) => {
                Next::RestartAt(self.now.monotonic.saturating_add(*delay))
            }
            Some(Verdict::GiveUp(last)) => Next::GiveUp(last.clone()),
        };
        let crashed = Crashed { incarnation, cause: cause.clone(), cleanup, next };
        self.enter(State::Crashed(crashed), Some(cause));
        if let Some(&Verdict::Restart { attempt, delay }) = verdict {
            let restarts_in_window = self.machine.ledger.in_window(self.now);
            self.emit(EventKind::RestartScheduled { attempt, delay, restarts_in_window });
            let timer = Timer::Restart;
            self.effect(Effect::Schedule { timer, incarnation, after: delay });
            self.schedule_window();
        }
        self.follow_crash();
    }

    /// Goes on from a crash once nothing is left of it.
    pub(super) fn follow_crash(&mut self) {
        let State::Crashed(crashed) = &self.machine.state else { return };
        if crashed.cleanup != Cleanup::Done {
            return;
        }
        match crashed.next.clone() {
            Next::RestartAt(_) => {}
            Next::RestartNow(_) if self.machine.ending != Ending::No => self.rest(),
            Next::RestartNow(origin) => {
                self.machine.ledger.launched(self.now);
                self.launch(origin);
            }
            Next::GiveUp(cause) => {
                self.machine.last_error = Some(cause.clone());
                // What could not be loaded is not what the next start tries.
                self.models(Models::abandon);
                self.enter(State::Failed { cause: cause.clone() }, Some(cause.clone()));
                self.answer(|goal| (*goal == Goal::Down).then_some(Ok(())));
                self.disappoint(&CommandError::Failed(cause));
            }
        }
    }

    fn record(
        &mut self,
        incarnation: Incarnation,
        model: ModelId,
        cause: &Cause,
        healthy_for: Option<Duration>,
        verdict: Option<&Verdict>,
    ) {
        let restart_after = match verdict {
            None => Some(Duration::ZERO),
            Some(Verdict::Restart { delay, .. }) => Some(*delay),
            Some(Verdict::GiveUp(_)) => None,
        };
        self.effect(Effect::Record(CrashRecord {
            at: self.now.wall,
            incarnation,
            model,
            cause: cause.clone(),
            healthy_for,
            restart_after,
        }));
    }

    fn what_it_had_come_to(&self) -> Failing {
        match &self.machine.state {
            State::Running(running) => Failing {
                healthy_for: Some(self.now.since(running.since)),
                progress: None,
                origin: Origin::Restart,
            },
            State::Starting(starting) => Failing {
                healthy_for: None,
                progress: starting.progress.clone(),
                origin: starting.origin,
            },
            State::Unknown(_)
            | State::Stopped
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => {
                Failing { healthy_for: None, progress: None, origin: Origin::Restart }
            }
        }
    }
}
