//! The actor that asks vLLM how it is.
//!
//! It asks one question at a time, often while vLLM starts and by the interval when it runs. It
//! never judges: it tells the root what each check found, and the machine counts.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef, DerivedActorRef};
use tokio::time::Instant;

use crate::domain::health::{Cadence, Check};
use crate::domain::id::Incarnation;
use crate::domain::report::HealthReport;
use crate::domain::spec::ModelId;
use crate::ports::Probe;
use crate::tell::{OwnedTask, report, tell, tell_after};

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
    /// The pause between two checks when running.
    pub interval: Duration,
    /// Where reports go.
    pub root: DerivedActorRef<HealthReport>,
}

/// The state of a [`HealthActor`].
#[derive(Debug)]
pub struct HealthState {
    /// What it was given.
    args: HealthArgs,
    /// Whom it asks, if anybody.
    patient: Option<Patient>,
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
        Ok(HealthState { args, patient: None })
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
            HealthMessage::Cease => state.patient = None,
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
            question: None,
            timer: None,
        });
        self.ask(myself, incarnation);
    }

    fn settle(&mut self, myself: &ActorRef<HealthMessage>, incarnation: Incarnation) {
        let interval = self.args.interval;
        let Some(patient) = self.current(incarnation) else { return };
        patient.cadence = Cadence::Steady { interval };
        patient.since = Instant::now();
        patient.failures = 0;
        patient.schedule(myself);
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
        let root = self.args.root.clone();
        let Some(patient) = self.current(incarnation) else { return };
        patient.question = None;
        patient.failures = if check.is_ok() { 0 } else { patient.failures.saturating_add(1) };
        patient.schedule(myself);
        report(&root, HealthReport { incarnation, check });
    }

    fn current(&mut self, incarnation: Incarnation) -> Option<&mut Patient> {
        self.patient.as_mut().filter(|patient| patient.incarnation == incarnation)
    }
}

impl Patient {
    fn schedule(&mut self, myself: &ActorRef<HealthMessage>) {
        let pause = self.cadence.pause(self.since.elapsed(), self.failures);
        let incarnation = self.incarnation;
        self.timer = Some(tell_after(myself, pause, HealthMessage::ProbeDue { incarnation }));
    }
}

#[cfg(test)]
mod tests;
