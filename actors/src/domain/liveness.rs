//! Whether a vLLM that serves is alive: its processes run, and its counters move while it has
//! something to do. `/health` says 200 for as long as no process has ended (vLLM 0.32,
//! `entrypoints/serve/instrumentator/health.py`): it says nothing of an engine that stands still.
//!
//! Who is busy is not hung: a long prompt, a full queue and a kernel that is being compiled move
//! counters, or processors. Only where neither moves though something should, it is asked for one
//! token, and only if none comes it is called hung.

use std::time::Duration;

use crate::domain::report::{Halt, Role, Sample, Work};

/// How often a vLLM that serves is looked at.
pub const VITALS_EVERY: Duration = Duration::from_secs(5);

/// How long one token may take, of a vLLM of which nothing moves.
pub const TOKEN_WITHIN: Duration = Duration::from_secs(10);

/// How long a process may be stopped while the others run: two looks.
const HALTED_FOR: Duration = Duration::from_secs(5);

/// How long nothing may move though requests run. With two looks and [`TOKEN_WITHIN`] a hang is found
/// within 30 s.
const STILL_FOR: Duration = Duration::from_secs(10);

/// The same where processors work: as long as vLLM itself gives a step of its engine (0.32,
/// `VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS`). A worker that waits for a GPU spins; and a front that has more to do
/// than it can answers `/health` late.
const BUSY_FOR: Duration = Duration::from_secs(300);

/// The same where no token can be had of this model: it completes nothing.
const UNPROVEN_FOR: Duration = Duration::from_secs(20);

/// How often one is asked for a token that has clients and nothing to do, by its counters: what
/// has come since its engine stands still is not counted.
const IDLE_TRIAL_EVERY: Duration = Duration::from_secs(60);

/// A tree that used less than this share of one processor was not at work: vLLM's front polls its
/// engine while it waits for it, also for one that hangs.
pub const IDLE_SHARE: u32 = 20;

/// What vLLM's counters say at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Requests that run or wait in the engine. One is counted only after the first step that the
    /// engine made for it.
    pub requests: u64,
    /// Another one, when the engine has made a step in between.
    pub mark: u64,
    /// Whether it was put to sleep: then it does nothing, rightly.
    pub rest: Rest,
    /// Connections of clients, idle ones included; `None` if nobody can say.
    pub connections: Option<u64>,
}

/// Whether vLLM sleeps (`POST /sleep`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It is awake.
    Awake,
    /// It was put to sleep.
    Asleep,
}

/// What came of asking for one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It was made.
    Made,
    /// None came in time.
    None,
    /// This model gives none.
    Unfit,
    /// It was put to sleep, or is paused: it does nothing, rightly.
    Resting,
    /// It could not be asked this time.
    Unknown,
}

/// What is to be made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing speaks against it.
    Alive,
    /// Its signs disagree: it is to be asked for one token.
    Doubtful,
    /// It hangs, for this reason.
    Hung(String),
}

/// What has been seen of a vLLM that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Liveness {
    mark: Option<u64>,
    requests: u64,
    /// When the counters last moved, or there was nothing to do.
    moved: Duration,
    /// The longest time that they stood still with requests in hand, and went on.
    slowest: Duration,
    /// When processors last worked.
    worked: Duration,
    work: Option<(Duration, Work)>,
    /// When those that speak HTTP last worked, and what they had done by the last look.
    front_worked: Option<Duration>,
    front: Duration,
    /// Since when they have answered nothing in time.
    late_since: Option<Duration>,
    /// Since when who has been stopped while others run.
    halted: Option<Duration>,
    suspension: Suspension,
    trial: Asked,
    /// When a token was last asked for.
    asked: Option<Duration>,
    /// Whether the last one was not made, where nothing else spoke of a hang.
    is_unanswered: bool,
    /// Whether something has happened that may have hurt it: then that processors work says nothing.
    is_suspected: bool,
}

/// Whether somebody has stopped all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspension {
    None,
    Whole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Not,
    Waiting,
    /// It gives no tokens.
    InVain,
}

impl Liveness {
    /// One that has just been found to serve.
    pub fn begin(now: Duration) -> Self {
        Self {
            mark: None,
            requests: 0,
            moved: now,
            slowest: Duration::ZERO,
            worked: now,
            work: None,
            front_worked: None,
            front: Duration::ZERO,
            late_since: None,
            halted: None,
            suspension: Suspension::None,
            trial: Asked::Not,
            asked: None,
            is_unanswered: false,
            is_suspected: false,
        }
    }

    /// We stood still, and it perhaps with us: what was seen before says nothing any more, and that it is
    /// late says nothing of it for a while.
    pub fn begin_anew(&mut self, now: Duration) {
        let Self { trial, asked, slowest, late_since, .. } = *self;
        let front_worked = Some(now);
        *self = Self { slowest, front_worked, late_since, trial, asked, ..Self::begin(now) };
    }

    /// Whether somebody has stopped all of it: then it cannot answer, and does not hang.
    pub fn is_suspended(&self) -> bool {
        self.suspension == Suspension::Whole
    }

    /// What its processes do.
    pub fn sampled(&mut self, sample: &Sample, now: Duration) -> Judgement {
        if let Some((then, before)) = self.work.replace((now, sample.work)) {
            let elapsed = now.saturating_sub(then);
            let is_work = |cpu: Duration| cpu >= elapsed / IDLE_SHARE && !cpu.is_zero();
            if is_work(sample.work.cpu.saturating_sub(before.cpu)) {
                self.worked = now;
            }
            if is_work(sample.front.saturating_sub(self.front)) {
                self.front_worked = Some(now);
            }
        }
        self.front = sample.front;
        match &sample.halt {
            Halt::None => {
                if self.is_suspended() {
                    self.begin_anew(now);
                }
                self.halted = None;
                Judgement::Alive
            }
            Halt::All => {
                self.suspension = Suspension::Whole;
                self.halted = None;
                Judgement::Alive
            }
            Halt::Some(stopped) => {
                self.suspension = Suspension::None;
                let since = *self.halted.get_or_insert(now);
                if now.saturating_sub(since) < HALTED_FOR {
                    return Judgement::Alive;
                }
                Judgement::Hung(format!("{} while the others run", named(stopped)))
            }
        }
    }

    /// Its processes cannot be looked at: they may be at work.
    pub fn unsampled(&mut self, now: Duration) {
        self.worked = now;
    }

    /// A check of health was answered.
    pub fn answered(&mut self) {
        self.late_since = None;
    }

    /// A check of health was not answered in time. Whether that is for having much to do: its front works,
    /// and has answered not long before.
    pub fn is_only_late(&mut self, now: Duration) -> bool {
        let since = *self.late_since.get_or_insert(now);
        let is_at_work =
            self.front_worked.is_some_and(|worked| now.saturating_sub(worked) < STILL_FOR);
        is_at_work && !self.is_suspected && now.saturating_sub(since) < BUSY_FOR
    }

    /// What its counters say; `None` if it does not count.
    pub fn pulsed(&mut self, pulse: Option<Pulse>, now: Duration) -> Judgement {
        let Some(pulse) = pulse else { return Judgement::Alive };
        let is_new = self.mark.replace(pulse.mark) != Some(pulse.mark);
        let (was_idle, is_idle) = (self.requests == 0, pulse.requests == 0);
        self.requests = pulse.requests;
        if is_new && !is_idle && !was_idle {
            self.slowest = self.slowest.max(now.saturating_sub(self.moved));
        }
        // Whose clients have gone away still counts their requests, if nothing comes after them (vLLM
        // issue 22545).
        let has_begun = was_idle && !is_idle;
        if is_new || has_begun || pulse.rest == Rest::Asleep || pulse.connections == Some(0) {
            self.moved = now;
            self.is_unanswered = false;
            self.is_suspected = false;
            return Judgement::Alive;
        }
        if self.asked.is_some_and(|asked| now.saturating_sub(asked) > TOKEN_WITHIN * 3)
            && self.trial == Asked::Waiting
        {
            self.trial = Asked::Not;
        }
        let still = now.saturating_sub(self.moved);
        let may_be_due = match self.trial {
            _ if self.is_suspended() || self.trial == Asked::Waiting => false,
            _ if is_idle => {
                self.asked.is_none_or(|asked| now.saturating_sub(asked) >= IDLE_TRIAL_EVERY)
            }
            Asked::InVain => return self.unproven(still, now),
            Asked::Not | Asked::Waiting => true,
        };
        let patience = self.patience(STILL_FOR, now);
        if !may_be_due || still < patience || is_idle && self.trial == Asked::InVain {
            return Judgement::Alive;
        }
        self.trial = Asked::Waiting;
        self.asked = Some(now);
        Judgement::Doubtful
    }

    /// It may have been hurt: it is to be asked for a token, unless it has been. Until it moves, that its
    /// processors work says nothing; and if a second token does not come either, it hangs.
    pub fn suspected(&mut self, now: Duration) -> Judgement {
        if self.trial != Asked::Not || self.is_suspended() {
            return Judgement::Alive;
        }
        self.trial = Asked::Waiting;
        self.asked = Some(now);
        self.is_unanswered = false;
        self.is_suspected = true;
        Judgement::Doubtful
    }

    /// What came of asking it for a token.
    pub fn tried(&mut self, trial: Trial, now: Duration) -> Judgement {
        if self.trial != Asked::Waiting {
            return Judgement::Alive;
        }
        self.trial = Asked::Not;
        let asked = self.asked.unwrap_or(now);
        let still = now.saturating_sub(self.moved);
        match trial {
            Trial::Made | Trial::Resting => {
                self.moved = now;
                self.is_unanswered = false;
                self.is_suspected = false;
            }
            Trial::Unknown => {}
            Trial::Unfit => self.trial = Asked::InVain,
            // It has moved meanwhile, and the token waits for its turn.
            Trial::None if self.moved > asked || self.is_suspended() => {}
            // Of one that does not count nobody knows whether it moves.
            Trial::None if self.mark.is_none() => {}
            Trial::None if self.is_busy(now) && still < BUSY_FOR && !self.is_suspected => {}
            // It may be amid the first step for somebody who is not counted before that is over, or amid
            // a long one.
            Trial::None if (self.requests == 0 || self.is_suspected) && !self.is_unanswered => {
                self.is_unanswered = true;
                self.asked = None;
            }
            Trial::None => return Judgement::Hung(self.stands_still(still)),
        }
        Judgement::Alive
    }

    fn unproven(&self, still: Duration, now: Duration) -> Judgement {
        let patience = self.patience(UNPROVEN_FOR, now);
        if still < patience {
            return Judgement::Alive;
        }
        Judgement::Hung(self.stands_still(still))
    }

    /// How long nothing may move: longer where processors work, and where a step has taken long before.
    fn patience(&self, least: Duration, now: Duration) -> Duration {
        if self.is_busy(now) && !self.is_suspected {
            return BUSY_FOR;
        }
        least.max(self.slowest * 3).min(BUSY_FOR)
    }

    fn is_busy(&self, now: Duration) -> bool {
        now.saturating_sub(self.worked) < STILL_FOR
    }

    fn stands_still(&self, still: Duration) -> String {
        let requests = match self.requests {
            0 => "a request for one token is not answered".to_owned(),
            1 => "1 request is in hand".to_owned(),
            several => format!("{several} requests are in hand"),
        };
        format!("{requests}, and nothing has moved for {} s", still.as_secs())
    }
}

/// `worker 7 is stopped`.
fn named(stopped: &[(u32, Role)]) -> String {
    let names: Vec<String> = stopped.iter().map(|(pid, role)| format!("{role} {pid}")).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb} stopped (SIGSTOP)", names.join(", "))
}

#[cfg(test)]
mod tests;
