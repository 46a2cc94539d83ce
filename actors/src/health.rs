//! The actor that asks vLLM how it is.
//!
//! It asks one question at a time, often while vLLM starts and steadily when it runs. It never
//! judges: it tells the root what the checks found (of those that pass in a row, one an interval),
//! and the machine counts. Before a stop it tells when no request runs any more.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, DerivedActorRef};
use tokio::time::Instant;

use crate::domain::health::{Cadence, Check, DRAIN_PAUSE};
use crate::domain::id::Incarnation;
use crate::domain::report::{HealthNews, HealthReport};
use crate::domain::spec::ModelId;
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
    patient: Option<Patient>,
    /// Waits for the requests of a launch that is to stop.
    drain: Option<OwnedTask>,
}

/// A launch that is being asked.
#[derive(Debug)]
struct Patient {
    /// Which launch.
    incarnation: Incarnation,
    /// What it should serve.
    model: ModelId,
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

impl Actor for HealthActor {
    type Msg = HealthMessage;
    type State = HealthState;
    type Arguments = HealthArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<HealthMessage>,
        args: HealthArgs,
    ) -> Result<HealthState, ActorProcessingErr> {
        Ok(HealthState { args, patient: None, drain: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<HealthMessage>,
        message: HealthMessage,
        state: &mut HealthState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HealthMessage::Attend { incarnation, model } => {
                state.attend(&myself, incarnation, model);
            }
            HealthMessage::Settle { incarnation } => state.settle(&myself, incarnation),
            HealthMessage::Probe { incarnation } | HealthMessage::ProbeDue { incarnation } => {
                state.ask(&myself, incarnation);
            }
            HealthMessage::Answered { incarnation, check } => {
                state.answered(&myself, incarnation, check);
            }
            HealthMessage::Drain { incarnation } => state.drain(&myself, incarnation),
            HealthMessage::Cease => {
                state.patient = None;
                state.drain = None;
            }
        }
        Ok(())
    }
}

impl HealthState {
    fn attend(
        &mut self,
        myself: &ActorRef<HealthMessage>,
        incarnation: Incarnation,
        model: ModelId,
    ) {
        self.patient = Some(Patient {
            incarnation,
            model,
            cadence: Cadence::Eager,
            since: Instant::now(),
            failures: 0,
            reported: None,
            question: None,
            timer: None,
        });
        self.ask(myself, incarnation);
    }

    fn settle(&mut self, myself: &ActorRef<HealthMessage>, incarnation: Incarnation) {
        let interval = self.args.interval;
        let Some(patient) = self.current(incarnation) else { return };
        patient.cadence = Cadence::Steady;
        patient.since = Instant::now();
        patient.failures = 0;
        // The check that proved it healthy has just been reported.
        patient.reported = Some(patient.since);
        patient.schedule(myself, interval);
    }

    fn ask(&mut self, myself: &ActorRef<HealthMessage>, incarnation: Incarnation) {
        let probe = Arc::clone(&self.args.probe);
        let Some(patient) = self.current(incarnation) else { return };
        if patient.question.is_some() {
            return;
        }
        patient.timer = None;
        let (answer, actor) = (probe.check(&patient.model), myself.clone());
        patient.question = Some(OwnedTask::begin(myself.get_cell(), async move {
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
        let Some(patient) = self.current(incarnation) else { return };
        patient.question = None;
        let is_due = patient.is_worth_a_report(&check, interval);
        patient.failures = if check.is_ok() { 0 } else { patient.failures.saturating_add(1) };
        patient.schedule(myself, interval);
        if is_due {
            report(&root, HealthNews::Checked(HealthReport { incarnation, check }));
        }
    }

    fn drain(&mut self, myself: &ActorRef<HealthMessage>, incarnation: Incarnation) {
        let (probe, root) = (Arc::clone(&self.args.probe), self.args.root.clone());
        self.drain = Some(OwnedTask::begin(myself.get_cell(), async move {
            let mut quiet_since = Instant::now();
            // Without the counters nobody can say whether anything runs, nor when it would end.
            while let Some(in_hand) = probe.in_hand().await {
                if in_hand.is_drained(quiet_since.elapsed()) {
                    break;
                }
                if in_hand.requests > 0 {
                    quiet_since = Instant::now();
                }
                pause(DRAIN_PAUSE).await;
            }
            report(&root, HealthNews::Drained(incarnation));
        }));
    }

    fn current(&mut self, incarnation: Incarnation) -> Option<&mut Patient> {
        self.patient.as_mut().filter(|patient| patient.incarnation == incarnation)
    }
}

impl Patient {
    /// Every check while it starts, every one that fails, the first that passes after one that
    /// failed, and else one an interval.
    fn is_worth_a_report(&mut self, check: &Check, interval: Duration) -> bool {
        let now = Instant::now();
        let is_due = self.reported.is_none_or(|last| now.duration_since(last) >= interval);
        let is_news = match self.cadence {
            Cadence::Eager => true,
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
