//! Whether what serves is alive, and what becomes of it if it is not.

use std::time::Duration;

use super::Turn;
use super::timers::STANDSTILL;
use crate::domain::cause::{Cause, Code};
use crate::domain::id::Incarnation;
use crate::domain::input::{Effect, Timer};
use crate::domain::liveness::{Judgement, Liveness, Pulse, Trial, VITALS_EVERY};

impl Turn<'_> {
    pub(super) fn schedule_vitals(&mut self, incarnation: Incarnation) {
        let (now, after) = (self.now.monotonic, VITALS_EVERY);
        if let Some(running) = self.current_running(incarnation) {
            running.next_look = now.saturating_add(after);
            self.effect(Effect::Schedule { timer: Timer::Vitals, incarnation, after });
        }
    }

    pub(super) fn vitals_due(&mut self, incarnation: Incarnation) {
        let now = self.now.monotonic;
        let Some(running) = self.current_running(incarnation) else { return };
        if now.saturating_sub(running.next_look) > STANDSTILL {
            running.liveness.begin_anew(now);
        }
        self.effect(Effect::Sample { incarnation });
        self.effect(Effect::FeelPulse { incarnation });
        self.schedule_vitals(incarnation);
    }

    pub(super) fn felt(&mut self, incarnation: Incarnation, pulse: Option<Pulse>) {
        self.judge_life(incarnation, |liveness, now| liveness.pulsed(pulse, now));
    }

    pub(super) fn tried(&mut self, incarnation: Incarnation, trial: Trial) {
        let now = self.now.monotonic;
        let Some(running) = self.current_running(incarnation) else { return };
        if now.saturating_sub(running.next_look) > STANDSTILL {
            // We stood still, and it perhaps with us.
            running.liveness.begin_anew(now);
        }
        self.judge_life(incarnation, |liveness, now| liveness.tried(trial, now));
    }

    /// What is seen of a launch that serves.
    pub(super) fn judge_life(
        &mut self,
        incarnation: Incarnation,
        judge: impl FnOnce(&mut Liveness, Duration) -> Judgement,
    ) {
        let now = self.now.monotonic;
        let Some(running) = self.current_running(incarnation) else { return };
        match judge(&mut running.liveness, now) {
            Judgement::Alive => {}
            Judgement::Doubtful => self.effect(Effect::AskForToken { incarnation }),
            Judgement::Hung(said) => {
                let cause = Cause::new(Code::EngineHung, format!("vLLM hangs: {said}"));
                self.fail(incarnation, cause.with_remedy(REMEDY), None);
            }
        }
    }
}

/// Raising a number of checks does not help here.
const REMEDY: &str = "if it recurs, look where it stands still \
    (`py-spy dump --pid PID` of engine and workers), and report it with vLLM's log";
