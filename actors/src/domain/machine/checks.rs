//! What the checks of health find: proof that a launch serves, or that it does not.

use std::time::Duration;

use super::{Announcement, Origin, Running, State, Turn};
use crate::domain::cause::{Cause, Code, RetryClass};
use crate::domain::event::EventKind;
use crate::domain::health::{HealthFailure, Healthy};
use crate::domain::id::Incarnation;
use crate::domain::input::Effect;
use crate::domain::liveness::Liveness;
use crate::domain::loading::ModelLoadProgress;
use crate::domain::report::HealthReport;
use crate::domain::state::Differed;
use crate::domain::trust::Memory;

impl Turn<'_> {
    pub(super) fn health(&mut self, report: HealthReport) {
        match report.check {
            Ok(healthy) => self.healthy(report.incarnation, &healthy),
            Err(failure) => self.unhealthy(report.incarnation, &failure),
        }
    }

    fn healthy(&mut self, incarnation: Incarnation, healthy: &Healthy) {
        let now = self.now;
        if let Some(running) = self.current_running(incarnation) {
            running.liveness.answered();
            if running.failures > 0 {
                running.failures = 0;
                self.health_changed(0, Some(healthy.latency));
            }
            return;
        }
        let Some(starting) = self.current_starting(incarnation) else { return };
        // The front may answer for some time after its engine has died.
        if starting.loss.is_some() {
            return;
        }
        // Without a pid this cannot be the server that we are launching.
        let Some(pid) = starting.pid else { return };
        let target = starting.target.clone();
        let model = target.model.clone();
        let began = ModelLoadProgress::loading(model.clone(), 99, starting.since.wall);
        let progress = starting.progress.take().unwrap_or(began).complete(now.wall);
        let (method, recall) = (starting.method, starting.recall.clone());
        let is_ours = starting.origin != Origin::Found;
        let course = (*starting.pace).clone().finish(now.monotonic).filter(|_| is_ours);
        let phases = is_ours.then(|| starting.stopwatch.clone().stop(now.monotonic));
        self.emit(EventKind::LoadProgressed { progress });
        self.enter(
            State::Running(Running {
                incarnation,
                target: target.clone(),
                pid,
                since: now,
                phases: phases.clone(),
                method,
                recall: recall.clone(),
                differed: Differed::Never,
                failures: 0,
                liveness: Liveness::begin(now.monotonic),
                next_look: now.monotonic,
            }),
            None,
        );
        if let (Some(phases), Some(launch)) = (phases, self.machine.launch()) {
            self.emit(EventKind::LaunchTimed { launch, phases });
        }
        self.health_changed(0, Some(healthy.latency));
        self.recover(incarnation);
        self.machine.last_error = None;
        if let Some(from) = self.machine.models.proves() {
            let extra_args = self.machine.switched_arguments(&target);
            self.emit(EventKind::ModelSwitched { from: from.model, to: model, extra_args });
        }
        self.effect(Effect::FinishLoading { incarnation });
        self.schedule_vitals(incarnation);
        self.trust(incarnation, &target, method, &recall);
        if let Some(course) = course {
            self.effect(Effect::Remember { target, memory: Memory::Course(method, course) });
        }
        self.serves();
    }

    fn unhealthy(&mut self, incarnation: Incarnation, failure: &HealthFailure) {
        if let Some(starting) = self.current_starting(incarnation) {
            starting.last_failure = Some(Box::new(failure.clone()));
        }
        match failure {
            // It is not vLLM's fault, and says nothing about it. One that says that it listens has
            // nothing more to say.
            HealthFailure::ListenerUnknown { .. } => {
                let now = self.now;
                if let Some(starting) = self.current_starting(incarnation)
                    && starting.announcement == Announcement::Made
                {
                    starting.last_sign = now;
                }
            }
            // vLLM cannot listen there any more.
            HealthFailure::PortTaken { .. } if self.is_loading(incarnation) => {
                let cause = Cause::new(Code::PortInUse, failure.to_string());
                self.fail(incarnation, cause, None);
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
        let (limit, now) = (self.max_failures().get(), self.now.monotonic);
        if let Some(running) = self.current_running(incarnation) {
            let is_late = matches!(failure, HealthFailure::TimedOut { .. });
            // Who is stopped as a whole does not hang, nor does who has much to do.
            if running.liveness.is_suspended() || is_late && running.liveness.is_only_late(now) {
                return;
            }
            running.failures += 1;
            let failures = running.failures;
            self.health_changed(failures, None);
            if failures >= limit {
                let said = format!("{failures} health checks in a row failed: {failure}");
                self.fail(incarnation, Cause::new(Code::EngineHung, said), None);
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
            self.fail(incarnation, cause, None);
        }
    }

    fn health_changed(&mut self, consecutive_failures: u32, latency: Option<Duration>) {
        let healthy = consecutive_failures == 0;
        self.emit(EventKind::HealthChanged { healthy, consecutive_failures, latency });
    }
}
