//! Whether to restart, and when: intensity decides whether, backoff decides when, the cause
//! decides if at all.
//!
//! The intensity rule is Erlang/OTP's (`supervisor.erl`, `add_restart`): keep the restarts of the
//! last `window`, *inclusive* of one exactly that old, add this one, and give up when there are
//! then more than the maximum. It is counted when the failure is judged, and every retry of a
//! failed start counts.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use crate::domain::cause::{Cause, Code, RetryClass, TellingLine};
use crate::domain::moment::Moment;

/// The window that `max_restarts` counts in.
pub const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// The least delay before a restart.
pub const MIN_BACKOFF: Duration = Duration::from_secs(2);

/// How often and how soon to restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Restarts allowed within any [`RESTART_WINDOW`].
    pub max_restarts: NonZeroU32,
    /// Delay before the first restart; doubled for each further one. At least [`MIN_BACKOFF`].
    pub backoff: Duration,
    /// The delay grows no longer than this.
    pub backoff_max: Duration,
    /// Healthy this long, and the delay starts over.
    pub stable_after: Duration,
    /// Restarts of a load that failed for a transient reason, in a row.
    pub max_load_retries: u32,
}

impl RestartPolicy {
    /// Launches in a row that never became healthy, after which to give up.
    ///
    /// A model that takes longer to fail than the window is wide would never fill the window, and
    /// fail for ever. In a fast loop the window speaks first, so this is never less than it allows.
    pub fn max_unhealthy_launches(&self) -> u32 {
        self.max_restarts.get().saturating_add(1).max(5)
    }

    fn delay(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let base = self.backoff.max(MIN_BACKOFF);
        base.saturating_mul(1 << doublings).min(self.backoff_max.max(base))
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            max_restarts: NonZeroU32::MIN.saturating_add(2),
            backoff: MIN_BACKOFF,
            backoff_max: Duration::from_secs(60),
            stable_after: Duration::from_secs(60),
            max_load_retries: 2,
        }
    }
}

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start again after `delay`.
    Restart {
        /// Restarts in a row without a stable time between, this one included; from 1.
        attempt: u32,
        /// How long to wait first.
        delay: Duration,
    },
    /// Leave it down, for this reason.
    GiveUp(Cause),
}

/// Failures that vLLM has told alike, one after the other, none of them long after it came to serve. A
/// server that is healthy and dies of its first request fills no window: it takes too long to load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Repeats {
    /// What was told last.
    told: Option<(Code, String)>,
    count: u32,
}

impl Repeats {
    /// How many times in a row this has been told now. One that nothing is told of counts as another.
    fn note(
        &mut self,
        policy: &RestartPolicy,
        told: Option<(Code, String)>,
        healthy_for: Option<Duration>,
    ) -> u32 {
        let is_early = healthy_for.is_none_or(|duration| duration < policy.stable_after);
        let told = told.filter(|_| is_early);
        self.count = if told.is_some() && told == self.told { self.count + 1 } else { 1 };
        self.told = told;
        self.count
    }
}

/// What a failure came after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A launch that somebody asked for could not be begun: nothing of it exists.
    AskedFor,
    /// A restart of ours could not be begun, or came to nothing for want of what it needs.
    NothingStarted,
    /// Something ran, and ended or was judged dead.
    Ended,
    /// Something ran, and was killed by somebody: that says nothing of what it ran.
    Killed,
}

/// OTP's restart intensity: so many within so long, and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intensity {
    /// Monotonic times of the restarts within the window, oldest first.
    recent: VecDeque<Duration>,
}

impl Intensity {
    /// Whether one more restart is allowed now; if so, it is counted.
    pub fn admit(&mut self, max: u32, window: Duration, now: Moment) -> bool {
        let start = now.monotonic.saturating_sub(window);
        while self.recent.front().is_some_and(|at| *at < start) {
            self.recent.pop_front();
        }
        let admitted = self.recent.len() < max as usize;
        if admitted {
            self.recent.push_back(now.monotonic);
        }
        admitted
    }

    /// Counts one more restart, and tells how long to wait with it so that the maximum holds.
    fn make_room(&mut self, max: u32, window: Duration, now: Moment) -> Duration {
        if self.admit(max, window, now) {
            return Duration::ZERO;
        }
        let oldest = self.recent.pop_front().unwrap_or(now.monotonic);
        self.recent.push_back(now.monotonic);
        // The window's end is inclusive.
        (oldest + window).saturating_sub(now.monotonic) + Duration::from_millis(1)
    }

    /// The restart that was counted last happens only now.
    fn postpone(&mut self, now: Moment) {
        if let Some(last) = self.recent.back_mut() {
            *last = now.monotonic;
        }
    }

    /// The times counted within the window that ends now, oldest first.
    fn within(&self, window: Duration, now: Moment) -> impl Iterator<Item = Duration> {
        let start = now.monotonic.saturating_sub(window);
        self.recent.iter().copied().filter(move |at| *at >= start)
    }
}

/// The restarts so far, as far as they still matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartLedger {
    intensity: Intensity,
    attempt: u32,
    repeats: Repeats,
    unhealthy_launches: u32,
    load_retries: u32,
    total: u64,
}

impl RestartLedger {
    /// Judges a failure and enters it. `healthy_for` is how long the incarnation had been proven
    /// healthy, `None` if it never was.
    pub fn judge(
        &mut self,
        policy: &RestartPolicy,
        cause: &Cause,
        healthy_for: Option<Duration>,
        occasion: Occasion,
        now: Moment,
    ) -> Verdict {
        match (cause.retry, occasion) {
            (RetryClass::Permanent, _) => {
                self.note_health(policy, healthy_for);
                return Verdict::GiveUp(cause.clone());
            }
            // Whoever asked is there to do something about it.
            (RetryClass::AfterCleanup, Occasion::AskedFor) => {
                return Verdict::GiveUp(cause.clone());
            }
            (RetryClass::AfterCleanup, Occasion::NothingStarted) => return self.defer(policy, now),
            (RetryClass::AfterCleanup, Occasion::Ended | Occasion::Killed)
            | (RetryClass::Transient, _) => {
                self.note_health(policy, healthy_for);
            }
        }
        let is_own = occasion == Occasion::Ended;
        if is_own && cause.retry == RetryClass::Transient && healthy_for.is_none() {
            if self.load_retries >= policy.max_load_retries {
                return Verdict::GiveUp(cause.clone());
            }
            self.load_retries += 1;
        }
        let told = cause.line().filter(|_| is_own && healthy_for.is_some());
        let told = told.map(|line| (cause.code, likeness(line)));
        let alike = self.repeats.note(policy, told, healthy_for);
        if alike > policy.max_restarts.get() {
            let said = format!("{alike} launches in a row failed alike");
            return Verdict::GiveUp(limit_reached(&said, cause));
        }
        if !self.intensity.admit(policy.max_restarts.get(), RESTART_WINDOW, now) {
            let seconds = RESTART_WINDOW.as_secs();
            let said = format!("{} restarts within {seconds} s", policy.max_restarts);
            return Verdict::GiveUp(limit_reached(&said, cause));
        }
        if self.unhealthy_launches >= policy.max_unhealthy_launches() {
            let said =
                format!("{} launches in a row never became healthy", self.unhealthy_launches);
            return Verdict::GiveUp(limit_reached(&said, cause));
        }
        self.total += 1;
        self.attempt += 1;
        Verdict::Restart { attempt: self.attempt, delay: policy.delay(self.attempt) }
    }

    /// Waits for a precondition: tries again with backoff, never more often than the window allows,
    /// and without an end.
    fn defer(&mut self, policy: &RestartPolicy, now: Moment) -> Verdict {
        self.total += 1;
        self.attempt += 1;
        let delay = policy.delay(self.attempt);
        let room = self.intensity.make_room(policy.max_restarts.get(), RESTART_WINDOW, now);
        Verdict::Restart { attempt: self.attempt, delay: delay.max(room) }
    }

    /// The restart that was judged last is launched now, after its delay and whatever else held it
    /// up: the window counts from here, or a slow end would let more than the maximum into it.
    pub fn launched(&mut self, now: Moment) {
        self.intensity.postpone(now);
    }

    /// Somebody else has restarted it.
    pub fn observed(&mut self, now: Moment) {
        self.intensity.admit(u32::MAX, RESTART_WINDOW, now);
        self.total += 1;
    }

    /// Forgets everything but the total: an operator has taken the matter in hand.
    pub fn clear(&mut self) {
        *self = Self { total: self.total, ..Self::default() };
    }

    /// Restarts within the window that ends now.
    pub fn in_window(&self, now: Moment) -> u32 {
        let count = self.intensity.within(RESTART_WINDOW, now).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Time until the window holds one restart fewer; `None` when it holds none.
    pub fn until_reset(&self, now: Moment) -> Option<Duration> {
        let oldest = self.intensity.within(RESTART_WINDOW, now).next()?;
        Some((oldest + RESTART_WINDOW).saturating_sub(now.monotonic))
    }

    /// Restarts since the supervisor began.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn note_health(&mut self, policy: &RestartPolicy, healthy_for: Option<Duration>) {
        match healthy_for {
            None => self.unhealthy_launches += 1,
            Some(duration) => {
                self.unhealthy_launches = 0;
                self.load_retries = 0;
                if duration >= policy.stable_after {
                    self.attempt = 0;
                }
            }
        }
    }
}

/// What a line has in common with others of its kind: words with digits in them are numbers of processes,
/// sizes, addresses.
fn likeness(line: &TellingLine) -> String {
    let words = line.text.split_inclusive(|character: char| !character.is_alphanumeric());
    let words =
        words.map(|word| if word.contains(|it: char| it.is_ascii_digit()) { "#" } else { word });
    words.collect()
}

fn limit_reached(said: &str, last: &Cause) -> Cause {
    let mut cause =
        Cause::new(Code::RestartLimitReached, format!("{said}; the last cause was {last}"))
            .with_last_lines(last.last_lines.clone())
            .with_log(last.log().map(Path::to_path_buf));
    if let Some(line) = last.line() {
        cause = cause.with_line(line.clone());
    }
    cause.with_source(last.clone())
}

#[cfg(test)]
mod tests;
