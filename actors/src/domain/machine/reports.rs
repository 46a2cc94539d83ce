//! What is the case: every report and every timer in every state.

use std::time::Duration;

use super::{
    Cleanup, CommandError, Crashed, Goal, Next, Origin, Running, Stage, Starting, State, Stopping,
    Then, Turn, Unknown,
};
use crate::domain::absence::Doubt;
use crate::domain::cause::{Cause, Code, RetryClass};
use crate::domain::diagnosis::{Exit, Phase, diagnose};
use crate::domain::event::EventKind;
use crate::domain::health::{HealthFailure, Healthy};
use crate::domain::id::Incarnation;
use crate::domain::input::{Effect, StopMode};
use crate::domain::loading::ModelLoadProgress;
use crate::domain::report::{HealthReport, ProcessReport};
use crate::domain::spec::ModelId;

impl Turn<'_> {
    pub(super) fn process(&mut self, report: ProcessReport) {
        match report {
            ProcessReport::Adopted { incarnation, pid, model } => {
                self.adopted(incarnation, pid, model);
            }
            ProcessReport::RemnantFound { incarnation } => self.remnant_found(incarnation),
            ProcessReport::NothingFound { proof: _ } => self.nothing_found(),
            // It stays unknown what is there; the process actor goes on looking.
            ProcessReport::LookFailed { error: _ } => {}
            ProcessReport::Launched { incarnation, pid } => self.launched(incarnation, pid),
            ProcessReport::LaunchFailed { incarnation, cause } => {
                self.launch_failed(incarnation, cause);
            }
            ProcessReport::Exited { incarnation, exit, last_lines } => {
                self.exited(incarnation, exit, last_lines);
            }
            ProcessReport::MemberDied { incarnation, pid, role, exit, last_lines } => {
                let cause = Cause::new(Code::EngineDied, format!("{role} {pid} died: {exit}"));
                let cause = cause.with_last_lines(last_lines);
                if role.is_fatal(exit) {
                    self.member_died(incarnation, exit, cause);
                }
            }
            ProcessReport::Vacated { incarnation, proof: _ } => self.vacated(incarnation),
            ProcessReport::Lingered { incarnation, doubt } => {
                self.lingered(incarnation, &doubt);
            }
            ProcessReport::Sampled { incarnation, work } => self.sampled(incarnation, work),
        }
    }

    /// Whether a report is about the present. The one place where stale ones are dropped.
    fn is_current(&self, incarnation: Incarnation) -> bool {
        self.machine.state.incarnation() == Some(incarnation)
    }

    pub(super) fn current_starting(&mut self, incarnation: Incarnation) -> Option<&mut Starting> {
        match &mut self.machine.state {
            State::Starting(starting) if starting.incarnation == incarnation => Some(starting),
            State::Starting(_)
            | State::Unknown(_)
            | State::Stopped
            | State::Running(_)
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => None,
        }
    }

    fn current_running(&mut self, incarnation: Incarnation) -> Option<&mut Running> {
        match &mut self.machine.state {
            State::Running(running) if running.incarnation == incarnation => Some(running),
            State::Running(_)
            | State::Unknown(_)
            | State::Stopped
            | State::Starting(_)
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => None,
        }
    }

    fn adopted(&mut self, incarnation: Incarnation, pid: u32, model: ModelId) {
        let State::Unknown(Unknown { then, .. }) = self.machine.state else {
            return self.clear_found(incarnation);
        };
        match then {
            // It was looked for before somebody wanted another model.
            Then::Launch(_) | Then::Replace if model != *self.machine.models.wanted() => {
                self.models(|models| models.found(&model));
                self.retire(incarnation, then);
            }
            Then::AsFound | Then::Launch(_) => self.watch(incarnation, pid, model),
            Then::Rest | Then::Replace => self.retire(incarnation, then),
        }
    }

    fn remnant_found(&mut self, incarnation: Incarnation) {
        let State::Unknown(Unknown { then, .. }) = self.machine.state else {
            return self.clear_found(incarnation);
        };
        self.dismantle(incarnation, then);
    }

    /// What was left of a crash when the process actor died has been found.
    fn clear_found(&mut self, incarnation: Incarnation) {
        let State::Crashed(crashed) = &mut self.machine.state else { return };
        if crashed.cleanup == Cleanup::Searching {
            crashed.cleanup = Cleanup::Underway;
            self.effect(Effect::Clear { incarnation });
        }
    }

    /// Ends a vLLM that an earlier supervisor, or process actor, left: it may have requests in hand,
    /// and it may load.
    fn retire(&mut self, incarnation: Incarnation, then: Then) {
        self.machine.incarnation = self.machine.incarnation.max(incarnation);
        self.drain(incarnation, Phase::Loading, then);
    }

    /// Stops what an earlier supervisor left that is of use to nobody.
    fn dismantle(&mut self, incarnation: Incarnation, then: Then) {
        self.machine.incarnation = self.machine.incarnation.max(incarnation);
        self.enter(State::Stopping(Stopping { incarnation, stage: Stage::Ending, then }), None);
        let (mode, phase, grace) = (StopMode::Graceful, Phase::Loading, self.machine.spec.grace);
        self.effect(Effect::Stop { incarnation, mode, phase, grace });
    }

    fn nothing_found(&mut self) {
        match &mut self.machine.state {
            State::Unknown(Unknown { then, .. }) => {
                let then = *then;
                self.proceed(then);
            }
            State::Crashed(crashed) if crashed.cleanup == Cleanup::Searching => {
                crashed.cleanup = Cleanup::Done;
                self.follow_crash();
            }
            State::Crashed(_)
            | State::Stopped
            | State::Starting(_)
            | State::Running(_)
            | State::Stopping(_)
            | State::Failed { .. } => {}
        }
    }

    fn launched(&mut self, incarnation: Incarnation, pid: u32) {
        if let Some(starting) = self.current_starting(incarnation) {
            starting.pid = Some(pid);
        }
    }

    fn launch_failed(&mut self, incarnation: Incarnation, cause: Cause) {
        if !self.is_current(incarnation) {
            return;
        }
        match self.machine.state {
            State::Starting(_) => self.fail(incarnation, cause, Cleanup::Done),
            State::Stopping(Stopping { then, .. }) | State::Unknown(Unknown { then, .. }) => {
                self.proceed(then);
            }
            State::Stopped | State::Running(_) | State::Crashed(_) | State::Failed { .. } => {}
        }
    }

    fn exited(&mut self, incarnation: Incarnation, exit: Exit, last_lines: Vec<String>) {
        if !self.is_current(incarnation) {
            return;
        }
        let phase = match self.machine.state {
            State::Starting(_) => Phase::Loading,
            State::Running(_) => Phase::Serving,
            State::Stopping(_) => return self.ended_while_draining(incarnation),
            // It was asked to, or is being cleared already: `Vacated` will follow.
            State::Unknown(_) | State::Stopped | State::Crashed(_) | State::Failed { .. } => return,
        };
        self.fail(incarnation, diagnose(exit, phase, last_lines), Cleanup::Underway);
    }

    /// vLLM goes down with its engine or a worker, seconds later: this is the crash. Whoever was
    /// asked to end, and takes them along, does not crash.
    fn member_died(&mut self, incarnation: Incarnation, exit: Exit, cause: Cause) {
        if !self.is_current(incarnation) {
            return;
        }
        match self.machine.state {
            // One that fails to load ends by itself, or is ended by the front, which then says why.
            State::Starting(_) if !is_from_outside(exit) => {}
            State::Starting(_) | State::Running(_) => {
                self.fail(incarnation, cause, Cleanup::Underway);
            }
            State::Unknown(_)
            | State::Stopped
            | State::Stopping(_)
            | State::Crashed(_)
            | State::Failed { .. } => {}
        }
    }

    fn vacated(&mut self, incarnation: Incarnation) {
        if !self.is_current(incarnation) {
            return;
        }
        match &mut self.machine.state {
            State::Stopping(Stopping { then, .. }) | State::Unknown(Unknown { then, .. }) => {
                let then = *then;
                self.proceed(then);
            }
            State::Crashed(crashed) => {
                crashed.cleanup = Cleanup::Done;
                self.follow_crash();
            }
            State::Stopped | State::Starting(_) | State::Running(_) | State::Failed { .. } => {}
        }
    }

    fn lingered(&mut self, incarnation: Incarnation, doubt: &Doubt) {
        if !self.is_current(incarnation) {
            return;
        }
        let said = match doubt {
            Doubt::Left(_) => format!("{doubt} after SIGKILL; the kernel may wait for a device"),
            Doubt::Unseen(_) => format!("it cannot be known what is left: {doubt}"),
        };
        let cause = Cause::new(Code::Unrecognised, said);
        match &mut self.machine.state {
            State::Stopping(Stopping { then, .. }) => {
                let (incarnation, then) = (Some(incarnation), then.once_ended());
                self.machine.last_error = Some(cause.clone());
                let doubt = Unknown { incarnation, then, lingering: Some(cause.clone()) };
                self.enter(State::Unknown(doubt), Some(cause.clone()));
            }
            State::Unknown(unknown) => unknown.lingering = Some(cause.clone()),
            State::Crashed(crashed) => match crashed.cleanup {
                Cleanup::Underway | Cleanup::Blocked(_) => {
                    crashed.cleanup = Cleanup::Blocked(cause.clone());
                }
                // The last words of an actor that is gone.
                Cleanup::Searching | Cleanup::Done => return,
            },
            State::Stopped | State::Starting(_) | State::Running(_) | State::Failed { .. } => {
                return;
            }
        }
        self.emit(EventKind::CleanupBlocked { cause });
        self.answer_blocked();
    }

    /// Nobody can say how long what is left stands in the way: whoever waits is told so, and what
    /// they wish for stays wished for.
    pub(super) fn answer_blocked(&mut self) {
        let Some(cause) = self.machine.blocked().cloned() else { return };
        let missed = match &self.machine.state {
            State::Crashed(Crashed { next: Next::GiveUp(last), .. }) => {
                CommandError::Failed(last.clone())
            }
            State::Crashed(_)
            | State::Unknown(_)
            | State::Stopped
            | State::Starting(_)
            | State::Running(_)
            | State::Stopping(_)
            | State::Failed { .. } => CommandError::StillAlive(cause.clone()),
        };
        self.disappoint(&missed);
        self.answer(|goal| {
            (*goal == Goal::Down).then(|| Err(CommandError::StillAlive(cause.clone())))
        });
    }

    pub(super) fn health(&mut self, report: HealthReport) {
        match report.check {
            Ok(healthy) => self.healthy(report.incarnation, &healthy),
            Err(failure) => self.unhealthy(report.incarnation, &failure),
        }
    }

    fn healthy(&mut self, incarnation: Incarnation, healthy: &Healthy) {
        let now = self.now;
        if let Some(running) = self.current_running(incarnation) {
            if running.failures > 0 {
                running.failures = 0;
                self.health_changed(0, Some(healthy.latency));
            }
            return;
        }
        let Some(starting) = self.current_starting(incarnation) else { return };
        // Without a pid this cannot be the server that we are launching.
        let Some(pid) = starting.pid else { return };
        let model = starting.model.clone();
        let began = ModelLoadProgress::loading(model.clone(), 99, starting.since.wall);
        let progress = starting.progress.take().unwrap_or(began).complete(now.wall);
        self.emit(EventKind::LoadProgressed { progress });
        let running = Running { incarnation, model: model.clone(), pid, since: now, failures: 0 };
        self.enter(State::Running(running), None);
        self.health_changed(0, Some(healthy.latency));
        self.machine.last_error = None;
        if let Some(from) = self.machine.models.proves() {
            self.emit(EventKind::ModelSwitched { from, to: model });
        }
        self.effect(Effect::FinishLoading { incarnation });
        self.serves();
    }

    fn unhealthy(&mut self, incarnation: Incarnation, failure: &HealthFailure) {
        if let Some(starting) = self.current_starting(incarnation) {
            starting.last_failure = Some(Box::new(failure.clone()));
        }
        match failure {
            // It is not vLLM's fault, and says nothing about it.
            HealthFailure::ListenerUnknown { .. } => {}
            // vLLM cannot listen there any more.
            HealthFailure::PortTaken { .. } if self.is_loading(incarnation) => {
                let cause = Cause::new(Code::PortInUse, failure.to_string());
                self.fail(incarnation, cause, Cleanup::Underway);
            }
            HealthFailure::PortTaken { .. }
            | HealthFailure::Unreachable { .. }
            | HealthFailure::TimedOut { .. }
            | HealthFailure::Refused { .. }
            | HealthFailure::NotVllm { .. }
            | HealthFailure::Unauthorised { .. }
            | HealthFailure::ModelMissing { .. } => self.missed(incarnation, failure),
        }
    }

    /// Without a pid there is nobody yet whose port it could be.
    fn is_loading(&mut self, incarnation: Incarnation) -> bool {
        self.current_starting(incarnation).is_some_and(|starting| starting.pid.is_some())
    }

    fn missed(&mut self, incarnation: Incarnation, failure: &HealthFailure) {
        let limit = self.max_failures().get();
        if let Some(running) = self.current_running(incarnation) {
            running.failures += 1;
            let failures = running.failures;
            self.health_changed(failures, None);
            if failures >= limit {
                let said = format!("{failures} health checks in a row failed: {failure}");
                self.fail(incarnation, Cause::new(Code::EngineHung, said), Cleanup::Underway);
            }
            return;
        }
        let Some(starting) = self.current_starting(incarnation) else { return };
        // While it loads, only an answer counts: a server that is up without the model stays so, and
        // so does one with another key. That one was started by somebody else: the next has ours.
        let code = match failure {
            HealthFailure::ModelMissing { .. } => Code::Unrecognised,
            HealthFailure::Unauthorised { .. } => Code::InvalidConfiguration,
            HealthFailure::PortTaken { .. }
            | HealthFailure::ListenerUnknown { .. }
            | HealthFailure::Unreachable { .. }
            | HealthFailure::TimedOut { .. }
            | HealthFailure::Refused { .. }
            | HealthFailure::NotVllm { .. } => {
                starting.misses = 0;
                return;
            }
        };
        starting.misses += 1;
        if starting.misses >= limit {
            let retry = RetryClass::Transient;
            let cause = Cause { retry, ..Cause::new(code, failure.to_string()) };
            self.fail(incarnation, cause, Cleanup::Underway);
        }
    }

    fn health_changed(&mut self, consecutive_failures: u32, latency: Option<Duration>) {
        let healthy = consecutive_failures == 0;
        self.emit(EventKind::HealthChanged { healthy, consecutive_failures, latency });
    }

    /// A launch that was up should be up again; one that was being stopped should be down; what
    /// follows a crash still follows it.
    pub(super) fn process_actor_lost(&mut self) {
        let then = match &mut self.machine.state {
            State::Stopped
            | State::Failed { .. }
            | State::Crashed(Crashed { cleanup: Cleanup::Done, .. }) => return,
            State::Unknown(unknown) => {
                unknown.lingering = None;
                return self.effect(Effect::Adopt);
            }
            State::Stopping(stopping) => stopping.then.once_ended(),
            State::Starting(starting) => Then::Launch(starting.origin),
            State::Running(_) => Then::Launch(Origin::Restart),
            State::Crashed(crashed) => {
                crashed.cleanup = Cleanup::Searching;
                return self.effect(Effect::Adopt);
            }
        };
        let incarnation = self.machine.state.incarnation();
        self.effect(Effect::Disregard);
        let doubt = Unknown { incarnation, then, lingering: None };
        self.enter(State::Unknown(doubt), None);
        self.effect(Effect::Adopt);
    }
}

/// Whether this is no end that vLLM gives a process of its own while it loads: that is an exit, or
/// SIGTERM (vLLM 0.32, `v1/utils.py`, `shutdown`).
fn is_from_outside(exit: Exit) -> bool {
    const SIGTERM: i32 = 15;
    match exit {
        Exit::Signal(signal) => signal != SIGTERM,
        Exit::Code(_) | Exit::Unknown => false,
    }
}
