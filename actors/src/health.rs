//! The actor that asks vLLM how it is.
//!
//! It asks one question at a time, often while vLLM starts and steadily when it runs. It never
//! judges: it tells the root what the checks found (of those that pass in a row, one an interval),
//! and the machine counts. Before a stop it tells when no request runs any more.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef, DerivedActorRef};
use tokio::time::Instant;

use crate::domain::health::{Cadence, Check, DRAIN_PAUSE};
use crate::domain::id::Incarnation;
use crate::domain::report::{HealthNews, HealthReport};
use crate::ports::Probe;
use crate::tell::{OwnedTask, pause, report, tell, tell_after};

mod message;

pub use message::HealthMessage;

/// See the module.
#[derive(Debug)]
pub struct HealthActor;

/// What a [`HealthActor`] is given.
#[derive(Debug)]
pub struct HealthArgs {
    /// Asks.
    pub probe: Arc<dyn Probe>,
    /// How often a server that stays healthy is reported.
    pub interval: Duration,
    /// Where reports go.
    pub root: DerivedActorRef<HealthNews>,
}

/// The state of a [`HealthActor`].
#[derive(Debug)]
pub struct HealthState {
    /// What it was given.
    args: HealthArgs,
    /// Whom it asks, if anybody.
    target: Option<Target>,
    /// Waits for the requests of a launch that is to stop.
    drain: Option<OwnedTask>,
    /// Waits for a completion.
    completion: Option<OwnedTask>,
    /// Reads the counters.
    pulse: Option<OwnedTask>,
    /// Waits for a token.
    token: Option<OwnedTask>,
}

/// A launch that is being asked.
#[derive(Debug)]
struct Target {
    /// Which launch.
    incarnation: Incarnation,
    /// The name under which it should list its model.
    name: String,
    /// How often it is asked.
    cadence: Cadence,
    /// Since when at this cadence.
    since: Instant,
    /// Failed checks in a row.
    failures: u32,
    /// When a passed check was last reported at this cadence.
    reported: Option<Instant>,
    /// The question under way.
    question: Option<OwnedTask>,
    /// The timer of the next one.
    timer: Option<OwnedTask>,
}

#[ractor::actor(message = HealthMessage, state = HealthState, arguments = HealthArgs)]
impl HealthActor {
    async fn pre_start(
        &self,
        _myself: ActorRef<HealthMessage>,
        args: HealthArgs,
    ) -> Result<HealthState, ActorProcessingErr> {
        Ok(HealthState {
            args,
            target: None,
            drain: None,
            completion: None,
            pulse: None,
            token: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<HealthMessage>,
        message: HealthMessage,
        state: &mut HealthState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HealthMessage::Watch { incarnation, name } => {
                state.watch(&myself, incarnation, name);
            }
            HealthMessage::ProbeSteadily { incarnation } => {
                state.probe_steadily(&myself, incarnation);
            }
            HealthMessage::Probe { incarnation } => {
                state.expect(incarnation);
                state.ask(&myself, incarnation);
            }
            HealthMessage::ProbeDue { incarnation } => state.ask(&myself, incarnation),
            HealthMessage::Answered { incarnation, check } => {
                state.answered(&myself, incarnation, check);
            }
            HealthMessage::Drain { incarnation } => state.drain(&myself, incarnation),
            HealthMessage::Compare { incarnation } => state.compare(&myself, incarnation),
            HealthMessage::FeelPulse { incarnation } => state.feel_pulse(&myself, incarnation),
            HealthMessage::AskForToken { incarnation } => {
                state.ask_for_token(&myself, incarnation);
            }
            HealthMessage::Cease => {
                state.target = None;
                state.drain = None;
                state.completion = None;
                state.pulse = None;
                state.token = None;
            }
        }
        Ok(())
    }
}

impl HealthState {
    fn watch(&mut self, myself: &ActorRef<HealthMessage>, incarnation: Incarnation, name: String) {
        self.target = Some(Target {
            incarnation,
            name,
            cadence: Cadence::Eager,
            since: Instant::now(),
            failures: 0,
            reported: None,
            question: None,
            timer: None,
        });
        self.ask(myself, incarnation);
    }

    fn probe_steadily(&mut self, myself: &ActorRef<HealthMessage>, incarnation: Incarnation) {
        let interval = self.args.interval;
        let Some(target) = self.current(incarnation) else { return };
        target.cadence = Cadence::Steady;
        target.since = Instant::now();
        // The check that proved it healthy has just been reported; the next after one that failed is news.
        if target.failures == 0 {
            target.reported = Some(target.since);
        }
        target.schedule(myself, interval);
    }

    /// It is about to serve, or to be judged: what was long until now says nothing any more.
    fn expect(&mut self, incarnation: Incarnation) {
        let Some(target) = self.current(incarnation) else { return };
        if target.cadence == Cadence::Eager {
            target.cadence = Cadence::Imminent;
        }
        target.since = Instant::now();
    }

    fn ask(&mut self, myself: &ActorRef<HealthMessage>, incarnation: Incarnation) {
        let probe = Arc::clone(&self.args.probe);
        let Some(target) = self.current(incarnation) else { return };
        if target.question.is_some() {
            return;
        }
        target.timer = None;
        let (answer, actor) = (probe.check(&target.name), myself.clone());
        target.question = Some(OwnedTask::begin(myself.get_cell(), async move {
            let check = answer.await;
            tell(&actor, HealthMessage::Answered { incarnation, check });
        }));
    }

    fn answered(
        &mut self,
        myself: &ActorRef<HealthMessage>,
        incarnation: Incarnation,
        check: Check,
    ) {
        let (root, interval) = (self.args.root.clone(), self.args.interval);
        let Some(target) = self.current(incarnation) else { return };
        target.question = None;
        let is_due = target.is_worth_a_report(&check, interval);
        target.failures = if check.is_ok() { 0 } else { target.failures.saturating_add(1) };
        target.schedule(myself, interval);
        if is_due {
            report(&root, HealthNews::Checked(HealthReport { incarnation, check }));
        }
    }

    fn drain(&mut self, myself: &ActorRef<HealthMessage>, incarnation: Incarnation) {
        let (probe, root) = (Arc::clone(&self.args.probe), self.args.root.clone());
        self.drain = Some(OwnedTask::begin(myself.get_cell(), async move {
            let mut quiet_since = Instant::now();
            loop {
                match probe.in_hand().await {
                    // Without the counters nobody can say whether anything runs, nor when it would end.
                    Ok(None) => break,
                    Ok(Some(in_hand)) if in_hand.is_drained(quiet_since.elapsed()) => break,
                    Ok(Some(in_hand)) if in_hand.requests == 0 => {}
                    // What could not be looked at may run; the machine knows how long to wait.
                    Ok(Some(_)) | Err(_) => quiet_since = Instant::now(),
                }
                pause(DRAIN_PAUSE).await;
            }
            report(&root, HealthNews::Drained(incarnation));
        }));
    }

    fn compare(&mut self, myself: &ActorRef<HealthMessage>, incarnation: Incarnation) {
        let (probe, root) = (Arc::clone(&self.args.probe), self.args.root.clone());
        let Some(target) = self.current(incarnation) else { return };
        let completion = probe.complete(&target.name);
        self.completion = Some(OwnedTask::begin(myself.get_cell(), async move {
            let text = completion.await;
            report(&root, HealthNews::Completed(incarnation, text));
        }));
    }

    fn feel_pulse(&mut self, myself: &ActorRef<HealthMessage>, incarnation: Incarnation) {
        if self.current(incarnation).is_none() {
            return;
        }
        let (pulse, root) = (self.args.probe.pulse(), self.args.root.clone());
        self.pulse = Some(OwnedTask::begin(myself.get_cell(), async move {
            let pulse = pulse.await;
            report(&root, HealthNews::Felt(incarnation, pulse));
        }));
    }

    fn ask_for_token(&mut self, myself: &ActorRef<HealthMessage>, incarnation: Incarnation) {
        let (probe, root) = (Arc::clone(&self.args.probe), self.args.root.clone());
        let Some(target) = self.current(incarnation) else { return };
        let token = probe.try_token(&target.name);
        self.token = Some(OwnedTask::begin(myself.get_cell(), async move {
            let trial = token.await;
            report(&root, HealthNews::Tried(incarnation, trial));
        }));
    }

    fn current(&mut self, incarnation: Incarnation) -> Option<&mut Target> {
        self.target.as_mut().filter(|target| target.incarnation == incarnation)
    }
}

impl Target {
    /// Every check while it starts, every one that fails, the first that passes after one that
    /// failed, and else one an interval.
    fn is_worth_a_report(&mut self, check: &Check, interval: Duration) -> bool {
        let now = Instant::now();
        let is_due = self.reported.is_none_or(|last| now.duration_since(last) >= interval);
        let is_news = match self.cadence {
            Cadence::Eager | Cadence::Imminent => true,
            Cadence::Steady => check.is_err() || self.failures > 0 || is_due,
        };
        if is_news && check.is_ok() {
            self.reported = Some(now);
        }
        is_news
    }

    fn schedule(&mut self, myself: &ActorRef<HealthMessage>, interval: Duration) {
        let pause = self.cadence.pause(self.since.elapsed(), self.failures, interval);
        let incarnation = self.incarnation;
        self.timer = Some(tell_after(myself, pause, HealthMessage::ProbeDue { incarnation }));
    }
}

#[cfg(test)]
mod tests;
