//! What follows an end that nobody asked for, in two moments: it is a crash at once, and what is left is
//! cleared away; why it ended, and what follows, is decided when what it has written has been read.

use std::time::Duration;

use super::{
    Cleanup, CommandError, Crashed, Ending, GivenUp, Goal, Models, Next, Origin, State, Turn,
    Undecided,
};
use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::{Evidence, Exit, explain};
use crate::domain::event::EventKind;
use crate::domain::id::Incarnation;
use crate::domain::incident::Incident;
use crate::domain::input::{Effect, Timer};
use crate::domain::loading::ModelLoadProgress;
use crate::domain::restart::{Occasion, Verdict};

/// How long what a launch has written is waited for: far longer than it takes to read (milliseconds; a log
/// as long as is read, some 2 s), for without it a failure that is permanent is taken for one that is not.
/// A disk that hangs must not keep a service down.
const DIAGNOSED_WITHIN: Duration = Duration::from_secs(10);

impl Turn<'_> {
    /// The current launch has failed, for this cause by all that is known at once. `exit` is how one of
    /// its processes ended; `None` where we have judged it.
    pub(super) fn fail(&mut self, incarnation: Incarnation, cause: Cause, exit: Option<Exit>) {
        self.crash(incarnation, cause, exit, Cleanup::Underway);
        self.effect(Effect::Diagnose { incarnation });
        self.effect(Effect::Clear { incarnation });
        let (timer, after) = (Timer::Diagnosis, DIAGNOSED_WITHIN);
        self.effect(Effect::Schedule { timer, incarnation, after });
    }

    /// The current launch could not be begun, and nothing of it exists.
    pub(super) fn fail_to_launch(&mut self, incarnation: Incarnation, cause: Cause) {
        self.crash(incarnation, cause, None, Cleanup::Done);
        self.conclude(Evidence::default());
    }

    fn crash(
        &mut self,
        incarnation: Incarnation,
        cause: Cause,
        exit: Option<Exit>,
        cleanup: Cleanup,
    ) {
        let (mut undecided, progress) = self.what_it_had_come_to();
        undecided.exit = exit;
        undecided.has_run = cleanup != Cleanup::Done;
        self.machine.last_error = Some(cause.clone());
        self.suffer_outage(incarnation);
        if undecided.healthy_for.is_some() {
            self.machine.exits.end_of_service(self.now.monotonic);
        }
        self.effect(Effect::Disregard);
        if let Some(progress) = progress {
            let progress = progress.failed();
            self.emit(EventKind::LoadProgressed { progress });
        }
        let next = Next::Undecided(Box::new(undecided));
        let crashed = Crashed { incarnation, cause: cause.clone(), cleanup, next };
        self.enter(State::Crashed(crashed), Some(cause));
    }

    /// What the launch has written has been read.
    pub(super) fn diagnosed(&mut self, incarnation: Incarnation, evidence: Evidence) {
        if self.machine.state.incarnation() == Some(incarnation) {
            self.conclude(evidence);
        }
    }

    /// Judges a crash that has not been judged yet, and says what follows.
    fn conclude(&mut self, evidence: Evidence) {
        let State::Crashed(crashed) = &self.machine.state else { return };
        let Next::Undecided(undecided) = &crashed.next else { return };
        let (incarnation, undecided) = (crashed.incarnation, undecided.clone());
        let wanted = self.machine.models.wanted().clone();
        if undecided.given_up.as_ref().is_some_and(|it| it.wanted == wanted) {
            // A program has asked for it again, before it could know.
            self.models(|models| drop(models.fails()));
        }
        let State::Crashed(crashed) = &self.machine.state else { return };
        let evidence = self.machine.exits.heard(incarnation, evidence);
        let cause =
            explain(crashed.cause.clone(), undecided.exit, evidence, &self.machine.spec.xids);
        let cause = self.blamed(cause, undecided.exit);
        let State::Crashed(crashed) = &mut self.machine.state else { return };
        crashed.cause = cause.clone();
        let occasion = occasion(&undecided, &cause);
        self.machine.last_error = Some(cause.clone());
        let verdict = undecided.given_up.is_none().then(|| {
            let machine = &mut *self.machine;
            let (policy, healthy_for) = (&machine.spec.restart, undecided.healthy_for);
            machine.ledger.judge(policy, &cause, healthy_for, occasion, self.now)
        });
        let (next, restart_after) = match &verdict {
            None => (Next::RestartNow(Origin::Restart), Some(Duration::ZERO)),
            Some(Verdict::Restart { delay, .. }) => {
                (Next::RestartAt(self.now.monotonic.saturating_add(*delay)), Some(*delay))
            }
            Some(Verdict::GiveUp(last)) => (Next::GiveUp(last.clone()), None),
        };
        self.close(incarnation, *undecided, cause, restart_after);
        if let State::Crashed(crashed) = &mut self.machine.state {
            crashed.next = next;
        }
        if let Some(Verdict::Restart { attempt, delay }) = verdict {
            let restarts_in_window = self.machine.ledger.in_window(self.now);
            self.emit(EventKind::RestartScheduled { attempt, delay, restarts_in_window });
            let timer = Timer::Restart;
            self.effect(Effect::Schedule { timer, incarnation, after: delay });
            self.schedule_window();
        }
        self.follow_crash();
    }

    /// Somebody has decided what follows a crash, before it was judged.
    pub(super) fn overtake_diagnosis(&mut self, restart_after: Option<Duration>) {
        let State::Crashed(crashed) = &self.machine.state else { return };
        let Next::Undecided(undecided) = &crashed.next else { return };
        let (undecided, cause) = (undecided.clone(), crashed.cause.clone());
        self.close(crashed.incarnation, *undecided, cause, restart_after);
    }

    /// Keeps a crash in the history, and tells those who asked for a model that was not loaded.
    fn close(
        &mut self,
        incarnation: Incarnation,
        undecided: Undecided,
        cause: Cause,
        restart_after: Option<Duration>,
    ) {
        let Undecided { at, model, healthy_for, given_up, .. } = undecided;
        // Somebody may have asked for it again meanwhile.
        if let Some(GivenUp { wanted, restored }) = given_up
            && wanted != *self.machine.models.wanted()
        {
            let cause = cause.clone();
            let missed = CommandError::SwitchFailed {
                wanted: wanted.model.clone(),
                restored: restored.model.clone(),
                cause,
            };
            self.answer(|goal| match goal {
                Goal::Serving(it) if it.is(&wanted) && !it.is(&restored) => {
                    Some(Err(missed.clone()))
                }
                Goal::Serving(_) | Goal::Up | Goal::Down => None,
            });
        }
        let (exits, kernel) = self.machine.exits.take(incarnation);
        let incident = Box::new(Incident {
            healthy_for,
            restart_after,
            exits,
            kernel,
            ..Incident::new(at, incarnation, model, cause)
        });
        self.emit(EventKind::IncidentRecorded { incident });
    }

    /// Goes on from a crash once nothing is left of it.
    pub(super) fn follow_crash(&mut self) {
        let State::Crashed(crashed) = &self.machine.state else { return };
        if crashed.cleanup != Cleanup::Done {
            return;
        }
        match crashed.next.clone() {
            Next::Undecided(_) | Next::RestartAt(_) => {}
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

    /// What is to be known of the current launch when it is judged, and how far it had loaded, if it
    /// never was healthy. One that was to serve another model, and never has, is given up.
    fn what_it_had_come_to(&mut self) -> (Undecided, Option<ModelLoadProgress>) {
        let (healthy_for, progress, origin) = match &self.machine.state {
            State::Running(running) => (Some(self.now.since(running.since)), None, Origin::Restart),
            State::Starting(starting) => (None, starting.progress.clone(), starting.origin),
            State::Unknown(_)
            | State::Stopped
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => (None, None, Origin::Restart),
        };
        let (at, model) = (self.now.wall, self.machine.models.wanted().model.clone());
        let mut given_up = None;
        if healthy_for.is_none() {
            self.models(|models| given_up = models.fails());
        }
        let restored = self.machine.models.wanted().clone();
        let given_up = given_up.map(|wanted| GivenUp { wanted, restored });
        let (exit, has_run) = (None, false);
        (Undecided { at, exit, has_run, model, healthy_for, origin, given_up }, progress)
    }
}

/// What a failure came after.
fn occasion(undecided: &Undecided, cause: &Cause) -> Occasion {
    let is_port = cause.code == Code::PortInUse;
    // Somebody was faster: the port was free when we looked.
    let is_overtaken = is_port && undecided.healthy_for.is_none();
    // Who was killed for what he is has not been killed by chance.
    let is_killed =
        undecided.exit.is_some_and(Exit::is_from_outside) && cause.code == Code::EngineDied;
    match undecided.origin {
        Origin::Asked if is_port || !undecided.has_run => Occasion::AskedFor,
        Origin::Restart | Origin::Found if is_overtaken || !undecided.has_run => {
            Occasion::NothingStarted
        }
        _ if is_killed => Occasion::Killed,
        Origin::Asked | Origin::Restart | Origin::Found => Occasion::Ended,
    }
}
