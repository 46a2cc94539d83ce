//! What is due: every timer in every state.

use std::time::Duration;

use super::{FirstOutput, Next, Origin, Silence, Starting, State, Turn};
use crate::domain::cause::{Cause, Code};
use crate::domain::diagnosis::Evidence;
use crate::domain::id::Incarnation;
use crate::domain::input::{Effect, Timer};

/// How many times the timeout a load may be silent while processors work for it. Compilation says
/// nothing for minutes; a process that spins says nothing for ever.
const BUSY_FACTOR: u32 = 4;

/// A timer that is later than this was not merely held up: we stood still (a suspend, a debugger, a
/// frozen cgroup), and vLLM's silence meanwhile is ours. A look that late judges nobody.
pub(super) const STANDSTILL: Duration = Duration::from_secs(1);

/// How long the main process may take to say why, once a process that it needs has ended while it
/// loads. vLLM notices within five seconds (0.32, observed), and may do neither: after a SIGTERM its
/// engine loads to the end, ends in order, and leaves a front that waits for it.
pub(super) const EXPLAINED_WITHIN: Duration = Duration::from_secs(10);

/// How long before it is judged a silent load is asked for the last time. What is waiting to be
/// heard is heard by then, and a check that is not answered at once does not matter.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(2);

impl Turn<'_> {
    pub(super) fn due(&mut self, timer: Timer, incarnation: Incarnation) {
        match timer {
            Timer::Restart => self.restart_due(incarnation),
            Timer::Silence => self.silence_due(incarnation),
            Timer::Drain => self.drain_due(incarnation),
            Timer::Vitals => self.vitals_due(incarnation),
            Timer::Diagnosis => self.diagnosed(incarnation, Evidence::default()),
            Timer::Window => self.schedule_window(),
            Timer::End => self.end_due(),
        }
    }

    /// Asks for the moment at which the count of restarts falls: whoever looks at it then sees the
    /// truth.
    pub(super) fn schedule_window(&mut self) {
        let Some(left) = self.machine.ledger.until_reset(self.now) else { return };
        // The window's end is inclusive.
        let after = left + Duration::from_millis(1);
        let (timer, incarnation) = (Timer::Window, self.machine.incarnation);
        self.effect(Effect::Schedule { timer, incarnation, after });
    }

    /// Asks again after a quarter of the timeout, so that a stall is found at most a quarter late.
    pub(super) fn schedule_silence(&mut self, incarnation: Incarnation, timeout: Duration) {
        self.look_after(timeout / 4, incarnation);
    }

    pub(super) fn look_after(&mut self, after: Duration, incarnation: Incarnation) {
        let due = self.now.monotonic + after;
        if let Some(starting) = self.current_starting(incarnation) {
            starting.next_look = due;
        }
        self.effect(Effect::Schedule { timer: Timer::Silence, incarnation, after });
    }

    fn restart_due(&mut self, incarnation: Incarnation) {
        let State::Crashed(crashed) = &mut self.machine.state else { return };
        if crashed.incarnation != incarnation {
            return;
        }
        match crashed.next {
            Next::RestartAt(_) => crashed.next = Next::RestartNow(Origin::Restart),
            Next::Undecided(_) | Next::RestartNow(_) | Next::GiveUp(_) => {}
        }
        self.follow_crash();
    }

    fn silence_due(&mut self, incarnation: Incarnation) {
        let (now, spec) = (self.now, &self.machine.spec);
        let (start, load) = (spec.start_timeout, spec.model_load_timeout);
        let Some(starting) = self.current_starting(incarnation) else { return };
        let (limit, option) = match starting.first_output {
            FirstOutput::Awaited => (start, "lifecycle.start_timeout"),
            FirstOutput::Seen => (load, "lifecycle.model_load_timeout"),
        };
        let late = now.monotonic.saturating_sub(starting.next_look);
        let asked = std::mem::replace(&mut starting.silence, Silence::Borne);
        if late > STANDSTILL {
            starting.last_sign.monotonic += late;
            starting.last_busy.monotonic += late;
            let pause = if starting.loss.is_some() { EXPLAINED_WITHIN } else { limit / 4 };
            self.effect(Effect::Sample { incarnation });
            return self.look_after(pause, incarnation);
        }
        if let Some(loss) = starting.loss.take() {
            return self.fail(incarnation, loss.cause, Some(loss.exit));
        }
        let quiet = now.since(starting.last_sign);
        let works =
            now.since(starting.last_busy) < limit && quiet < limit.saturating_mul(BUSY_FACTOR);
        if quiet < limit || works {
            self.effect(Effect::Sample { incarnation });
            return self.schedule_silence(incarnation, limit);
        }
        match asked {
            Silence::Borne => {
                starting.silence = Silence::Questioned;
                self.effect(Effect::Sample { incarnation });
                self.effect(Effect::Probe { incarnation });
                self.look_after(LAST_WORD_WITHIN.min(limit / 4), incarnation);
            }
            Silence::Questioned => {
                let cause = stalled(starting, quiet, limit, option);
                self.suspect(None);
                self.fail(incarnation, cause, None);
            }
        }
    }
}

fn stalled(starting: &Starting, quiet: Duration, limit: Duration, option: &str) -> Cause {
    // Where vLLM is up and not found, this is what tells why.
    let seen = starting.last_failure.as_ref().map(|failure| format!("; {failure}"));
    let said = format!(
        "no progress for {} s while {} ({option} is {} s){}",
        quiet.as_secs(),
        starting.progress.as_ref().map_or("starting", |_| "loading"),
        limit.as_secs(),
        seen.unwrap_or_default()
    );
    Cause::new(Code::LoadTimedOut, said)
}
