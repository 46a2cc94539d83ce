//! The two ways down: letting requests end before a stop, and the end of the supervisor itself.

use std::time::Duration;

use super::timers::STANDSTILL;
use super::{CommandError, Obstacle, Postponement, Stage, State, Stopping, Then, Turn, Unknown};
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
    Asked {
        /// When, if nothing is over by then, on the monotonic clock.
        due: Duration,
        /// Whether a standstill of ours may still put that off.
        postponement: Postponement,
    },
    /// It has been told that it may.
    Told,
}

/// The least time that vLLM has for an orderly end after its requests had all of the grace period:
/// it takes 0.2 to 0.7 s when idle (vLLM 0.32, observed).
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// How long after the grace period the supervisor ends though something outlives SIGKILL.
const END_MARGIN: Duration = Duration::from_secs(15);

/// Whether we stood still when this was due.
fn is_late(now: Duration, due: Duration) -> bool {
    now.saturating_sub(due) > STANDSTILL
}

impl Turn<'_> {
    /// Lets the requests that run end, for as long as the grace period lasts.
    pub(super) fn drain(&mut self, incarnation: Incarnation, phase: Phase, then: Then) {
        let (timer, after) = (Timer::Drain, self.machine.spec.grace);
        let (until, postponement) = (self.now.monotonic.saturating_add(after), Postponement::Left);
        let stage = Stage::Draining { phase, until, postponement };
        self.enter(State::Stopping(Stopping { incarnation, stage, then }), None);
        self.effect(Effect::Disregard);
        self.effect(Effect::Drain { incarnation });
        self.effect(Effect::Schedule { timer, incarnation, after });
    }

    /// The requests have had their time, unless we slept through it, and they perhaps with us.
    pub(super) fn drain_due(&mut self, incarnation: Incarnation) {
        let (now, after) = (self.now.monotonic, self.machine.spec.grace);
        let State::Stopping(stopping) = &mut self.machine.state else { return };
        match stopping.stage {
            Stage::Draining { phase, until, postponement: Postponement::Left }
                if stopping.incarnation == incarnation && is_late(now, until) =>
            {
                let (until, postponement) = (now.saturating_add(after), Postponement::Used);
                stopping.stage = Stage::Draining { phase, until, postponement };
                self.effect(Effect::Schedule { timer: Timer::Drain, incarnation, after });
                self.put_off_end();
            }
            Stage::Draining { .. } | Stage::Ending => self.drained(incarnation),
        }
    }

    /// Nothing runs any more, or is waited for no longer.
    pub(super) fn drained(&mut self, incarnation: Incarnation) {
        let Some((phase, until)) = self.draining(incarnation) else { return };
        let (now, whole) = (self.now.monotonic, self.machine.spec.grace);
        let left = if is_late(now, until) { whole } else { until.saturating_sub(now) };
        let grace = left.max(LEAST_GRACE.min(whole));
        self.effect(Effect::Stop { incarnation, mode: StopMode::Graceful, phase, grace });
    }

    /// The main process has ended while its requests were waited for.
    pub(super) fn ended_while_draining(&mut self, incarnation: Incarnation) {
        if self.draining(incarnation).is_some() {
            self.effect(Effect::Clear { incarnation });
        }
    }

    /// Ends the drain of this launch, if it is being drained; returns in which phase, and until when
    /// it was to be.
    fn draining(&mut self, of: Incarnation) -> Option<(Phase, Duration)> {
        let State::Stopping(stopping) = &mut self.machine.state else { return None };
        match stopping.stage {
            Stage::Draining { phase, until, .. } if stopping.incarnation == of => {
                stopping.stage = Stage::Ending;
                Some((phase, until))
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
        self.await_end(Postponement::Left);
        self.disappoint(&CommandError::SupervisorEnded);
        match (self.machine.spec.on_exit, &mut self.machine.state) {
            (ExitPolicy::Detach, State::Unknown(Unknown { then, .. })) => {
                *then = then.once_detached();
            }
            (_, State::Stopped | State::Failed { .. })
            | (ExitPolicy::Detach, State::Starting(_) | State::Running(_)) => {}
            (ExitPolicy::Detach, State::Stopping(stopping)) => stopping.then = Then::Rest,
            (ExitPolicy::Detach, State::Crashed(_)) | (ExitPolicy::Stop, _) => {
                self.stop(StopMode::Graceful);
            }
        }
        self.schedule_end();
    }

    /// Counts the time that the way down may take from now on.
    fn await_end(&mut self, postponement: Postponement) {
        let due = self.now.monotonic.saturating_add(self.way_down());
        self.machine.ending = Ending::Asked { due, postponement };
    }

    fn schedule_end(&mut self) {
        let (timer, incarnation, after) = (Timer::End, self.machine.incarnation, self.way_down());
        self.effect(Effect::Schedule { timer, incarnation, after });
    }

    fn way_down(&self) -> Duration {
        self.machine.spec.grace.saturating_add(END_MARGIN)
    }

    /// What is on its way down begins it anew, after a standstill of ours.
    fn put_off_end(&mut self) {
        match self.machine.ending {
            Ending::Asked { postponement: Postponement::Left, .. } => {
                self.await_end(Postponement::Used);
                self.schedule_end();
            }
            Ending::Asked { postponement: Postponement::Used, .. } | Ending::No | Ending::Told => {}
        }
    }

    /// The way down has taken as long as it may, unless we slept through it.
    pub(super) fn end_due(&mut self) {
        let now = self.now.monotonic;
        match self.machine.ending {
            // It has been put off meanwhile.
            Ending::Asked { due, .. } if now < due => {}
            Ending::Asked { due, postponement: Postponement::Left } if is_late(now, due) => {
                self.put_off_end();
            }
            Ending::Asked { .. } => self.end_now(),
            Ending::No | Ending::Told => {}
        }
    }

    fn end_now(&mut self) {
        match self.machine.ending {
            Ending::Asked { .. } => {
                self.machine.ending = Ending::Told;
                self.effect(Effect::End);
            }
            Ending::No | Ending::Told => {}
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
            self.end_now();
        }
    }
}
