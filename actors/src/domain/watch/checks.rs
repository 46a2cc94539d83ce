//! Whether it serves: checks of health, counters, and one token where these disagree.

use std::time::Duration;

use super::{Cadence, Follows, Serving, Turn, View};
use crate::domain::cause::{Cause, Code};
use crate::domain::event::EventKind;
use crate::domain::health::HealthFailure;
use crate::domain::id::Incarnation;
use crate::domain::input::{Effect, Timer};
use crate::domain::liveness::{Judgement, Liveness, Pulse, TOKEN_WITHIN, Trial, VITALS_EVERY};
use crate::domain::report::HealthReport;
use crate::domain::ticket::CommandError;

/// Later than this, it was we who stood still.
const STANDSTILL: Duration = Duration::from_secs(1);

impl Turn<'_> {
    pub(super) fn health(&mut self, report: HealthReport) {
        if report.incarnation != self.watch.incarnation || !self.watch.is_asked() {
            return;
        }
        match report.check {
            Ok(healthy) => self.healthy(Some(healthy.latency)),
            Err(failure) => self.unhealthy(&failure),
        }
    }

    fn healthy(&mut self, latency: Option<Duration>) {
        match &mut self.watch.view {
            View::Running(serving) => {
                serving.liveness.answered();
                if std::mem::take(&mut serving.failures) > 0 {
                    self.health_changed(0, latency);
                }
            }
            // It answers checks though it hangs.
            View::Crashed(fallen) if fallen.follows == Follows::Token => {}
            View::Unknown | View::Starting { .. } | View::Crashed(_) => self.serve(latency),
            View::Stopped | View::Stopping | View::Failed { .. } => {}
        }
    }

    fn serve(&mut self, latency: Option<Duration>) {
        let now = self.now.monotonic;
        let serving = Serving {
            since: self.now,
            failures: 0,
            liveness: Liveness::begin(now),
            next_look: now,
        };
        self.enter(View::Running(Box::new(serving)), None);
        self.health_changed(0, latency);
        self.recover();
        self.watch.last_error = None;
        self.slow_down();
        self.schedule_vitals(VITALS_EVERY);
        self.serves();
    }

    fn health_changed(&mut self, consecutive_failures: u32, latency: Option<Duration>) {
        let healthy = consecutive_failures == 0;
        self.emit(EventKind::HealthChanged { healthy, consecutive_failures, latency });
    }

    /// Whoever is known to serve, or not to, is asked at leisure.
    fn slow_down(&mut self) {
        if self.watch.cadence == Cadence::Eager {
            self.watch.cadence = Cadence::Steady;
            self.effect(Effect::FinishLoading { incarnation: self.watch.incarnation });
        }
    }

    fn unhealthy(&mut self, failure: &HealthFailure) {
        let limit = self.watch.spec.max_consecutive_failures.get();
        let (now, load_timeout) = (self.now, self.watch.spec.model_load_timeout);
        match &mut self.watch.view {
            // That is not vLLM's fault, and says nothing about it.
            View::Running(_) | View::Crashed(_)
                if matches!(failure, HealthFailure::ListenerUnknown { .. }) => {}
            View::Running(serving) => {
                serving.failures += 1;
                let failures = serving.failures;
                self.health_changed(failures, None);
                if failures >= limit {
                    self.lose(failure, failures);
                }
            }
            View::Starting { misses, .. } if is_no_matter_of_time(failure) => {
                *misses += 1;
                if *misses >= limit {
                    self.doubt(cause_of(failure));
                    self.slow_down();
                }
            }
            View::Starting { since, .. } if now.since(*since) >= load_timeout => {
                self.doubt(cause_of(failure));
                self.slow_down();
            }
            View::Starting { misses, .. } => *misses = 0,
            View::Unknown => {
                self.doubt(cause_of(failure));
                self.slow_down();
            }
            View::Crashed(fallen) => {
                // One that has gone away does not hang any more: it serves once it answers again.
                if matches!(failure, HealthFailure::Unreachable { .. }) {
                    fallen.follows = Follows::Answer;
                }
                let cause = fallen.cause.clone();
                self.disappoint(&CommandError::Failed(cause));
            }
            View::Stopped | View::Stopping | View::Failed { .. } => {}
        }
    }

    /// One that served has failed too many checks.
    fn lose(&mut self, failure: &HealthFailure, failures: u32) {
        let said = format!("{failures} health checks in a row failed: {failure}");
        match failure {
            // vLLM's own word for an engine that has died (0.32,
            // `entrypoints/serve/instrumentator/health.py`).
            HealthFailure::Refused { status: 500.., .. } => {
                self.fall(Cause::new(Code::EngineDied, said), None, Follows::Answer);
            }
            HealthFailure::Unreachable { .. }
            | HealthFailure::TimedOut { .. }
            | HealthFailure::Refused { .. }
                if !self.watch.is_alone() =>
            {
                self.fall(Cause::new(Code::EngineHung, said), None, Follows::Answer);
            }
            HealthFailure::Unreachable { .. }
            | HealthFailure::TimedOut { .. }
            | HealthFailure::Refused { .. }
            | HealthFailure::PortTaken { .. }
            | HealthFailure::ListenerUnknown { .. }
            | HealthFailure::NotVllm { .. }
            | HealthFailure::Unauthorised { .. }
            | HealthFailure::ModelMissing { .. } => {
                let cause = cause_of(failure);
                let summary = said;
                self.doubt(Cause { summary, ..cause });
            }
        }
    }

    fn schedule_vitals(&mut self, after: Duration) {
        if let View::Running(serving) = &mut self.watch.view {
            serving.next_look = self.now.monotonic.saturating_add(after);
        }
        let incarnation = self.watch.incarnation;
        self.effect(Effect::Schedule { timer: Timer::Vitals, incarnation, after });
    }

    pub(super) fn vitals_due(&mut self, incarnation: Incarnation) {
        if incarnation != self.watch.incarnation {
            return;
        }
        let now = self.now.monotonic;
        match &mut self.watch.view {
            View::Running(serving) => {
                if now.saturating_sub(serving.next_look) > STANDSTILL {
                    serving.liveness.begin_anew(now);
                }
                serving.liveness.unsampled(now);
                self.effect(Effect::FeelPulse { incarnation });
                self.schedule_vitals(VITALS_EVERY);
            }
            View::Crashed(fallen) if fallen.follows == Follows::Token => {
                self.effect(Effect::AskForToken { incarnation });
                self.schedule_vitals(TOKEN_WITHIN + VITALS_EVERY);
            }
            View::Unknown
            | View::Stopped
            | View::Starting { .. }
            | View::Stopping
            | View::Crashed(_)
            | View::Failed { .. } => {}
        }
    }

    pub(super) fn felt(&mut self, incarnation: Incarnation, pulse: Option<Pulse>) {
        // Whose clients nobody can count is not asked for a token while it has nothing to do.
        let pulse = pulse.map(|pulse| match pulse.requests {
            0 => Pulse { connections: pulse.connections.or(Some(0)), ..pulse },
            _ => pulse,
        });
        self.judge_life(incarnation, |liveness, now| liveness.pulsed(pulse, now));
    }

    pub(super) fn tried(&mut self, incarnation: Incarnation, trial: Trial) {
        if incarnation != self.watch.incarnation {
            return;
        }
        match &mut self.watch.view {
            View::Crashed(fallen) if fallen.follows == Follows::Token => match trial {
                Trial::Made | Trial::Resting => self.serve(None),
                // A check has to do.
                Trial::Unfit => fallen.follows = Follows::Answer,
                Trial::None | Trial::Unknown => {}
            },
            View::Running(_)
            | View::Unknown
            | View::Stopped
            | View::Starting { .. }
            | View::Stopping
            | View::Crashed(_)
            | View::Failed { .. } => {
                self.judge_life(incarnation, |liveness, now| liveness.tried(trial, now));
            }
        }
    }

    fn judge_life(
        &mut self,
        incarnation: Incarnation,
        judge: impl FnOnce(&mut Liveness, Duration) -> Judgement,
    ) {
        if incarnation != self.watch.incarnation {
            return;
        }
        let now = self.now.monotonic;
        let View::Running(serving) = &mut self.watch.view else { return };
        match judge(&mut serving.liveness, now) {
            Judgement::Alive => {}
            Judgement::Doubtful => self.effect(Effect::AskForToken { incarnation }),
            Judgement::Hung(said) => {
                let cause = Cause::new(Code::EngineHung, format!("vLLM hangs: {said}"));
                self.fall(cause.with_remedy(REMEDY), None, Follows::Token);
                self.schedule_vitals(TOKEN_WITHIN + VITALS_EVERY);
            }
        }
    }
}

/// Whether waiting longer does not help: somebody else answers, or nobody may be asked.
fn is_no_matter_of_time(failure: &HealthFailure) -> bool {
    match failure {
        HealthFailure::PortTaken { .. }
        | HealthFailure::NotVllm { .. }
        | HealthFailure::Unauthorised { .. }
        | HealthFailure::ListenerUnknown { .. }
        | HealthFailure::ModelMissing { .. } => true,
        HealthFailure::Unreachable { .. }
        | HealthFailure::TimedOut { .. }
        | HealthFailure::Refused { .. } => false,
    }
}

fn cause_of(failure: &HealthFailure) -> Cause {
    let said = failure.to_string();
    match failure {
        HealthFailure::ModelMissing { listed, .. } => {
            let remedy = format!("set `model` to what it lists: {}", listed.join(", "));
            Cause::new(Code::InvalidConfiguration, said).with_remedy(remedy)
        }
        HealthFailure::Unauthorised { .. } => {
            let remedy = "set VLLM_API_KEY to the key that it was started with";
            Cause::new(Code::InvalidConfiguration, said).with_remedy(remedy)
        }
        HealthFailure::NotVllm { .. } => {
            let remedy = "set `host` and `port` to where vLLM listens";
            Cause::new(Code::InvalidConfiguration, said).with_remedy(remedy)
        }
        HealthFailure::PortTaken { .. } => {
            let remedy = "set `port` to the unit's own; where the unit runs a container, leave \
                          lifecycle.monitored_unit out: its processes are not the unit's";
            Cause::new(Code::PortInUse, said).with_remedy(remedy)
        }
        HealthFailure::TimedOut { .. } => Cause::new(Code::EngineHung, said).with_remedy(
            "somebody listens and does not answer: look whether vLLM hangs, or has more to do than it can",
        ),
        HealthFailure::Refused { .. } => Cause::new(Code::EngineDied, said)
            .with_remedy("read the log of vLLM where it runs; it must be started again there"),
        HealthFailure::Unreachable { .. } => Cause::new(Code::Unrecognised, said).with_remedy(
            "start vLLM where it runs; if that is somewhere else, set `host` and `port`",
        ),
        HealthFailure::ListenerUnknown { .. } => Cause::new(Code::Unrecognised, said)
            .with_remedy("run vllmd as the user of the unit, or as root"),
    }
}

/// Raising a number of checks does not help here.
const REMEDY: &str = "have its manager restart it; if it recurs, look where it stands still \
    (`py-spy dump --pid PID` of engine and workers), and report it with vLLM's log";
