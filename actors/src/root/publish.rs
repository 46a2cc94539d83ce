//! Where the history goes: journal, log and subscribers, in this order.

use std::sync::Arc;

use ractor::DerivedActorRef;
use tokio::sync::broadcast;
use tracing::{error, info, warn};

use crate::domain::cause::Cause;
use crate::domain::event::{Event, EventKind};
use crate::domain::id::Sequence;
use crate::domain::state::ServiceState;
use crate::ports::Journal;

/// Sends events to everyone who keeps or follows them.
#[derive(Debug)]
pub(super) struct Publisher {
    journal: Arc<dyn Journal>,
    events: broadcast::Sender<Arc<Event>>,
    /// Actors that are told.
    subscribers: Vec<DerivedActorRef<Arc<Event>>>,
}

impl Publisher {
    pub(super) fn new(journal: Arc<dyn Journal>, events: broadcast::Sender<Arc<Event>>) -> Self {
        Self { journal, events, subscribers: Vec::new() }
    }

    pub(super) fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    pub(super) fn subscribe(&mut self, subscriber: DerivedActorRef<Arc<Event>>) {
        self.subscribers.push(subscriber);
    }

    /// Returns the number that the event got.
    pub(super) fn publish(&mut self, event: Event) -> Sequence {
        let event = self.journal.event(event);
        let sequence = event.sequence;
        log(&event);
        self.subscribers.retain(|actor| actor.send_message(Arc::clone(&event)).is_ok());
        // No subscriber is no error: the journal has it.
        drop(self.events.send(event));
        sequence
    }
}

fn log(event: &Event) {
    let (sequence, incarnation) = (event.sequence.get(), event.incarnation.get());
    match &event.kind {
        EventKind::StateChanged { from, to, cause: None } => {
            info!(sequence, incarnation, %from, %to, "state changed");
        }
        EventKind::StateChanged { from, to, cause: Some(cause) } => {
            log_failure(sequence, incarnation, *from, *to, cause);
        }
        EventKind::LoadProgressed { progress } => {
            let percent = progress.percent;
            info!(sequence, incarnation, percent, status = ?progress.status, "load progressed");
        }
        EventKind::RestartScheduled { attempt, delay, restarts_in_window } => {
            warn!(sequence, incarnation, attempt, ?delay, restarts_in_window, "restart scheduled");
        }
        EventKind::HealthChanged { healthy: true, latency, .. } => {
            info!(sequence, incarnation, ?latency, "healthy");
        }
        EventKind::HealthChanged { healthy: false, consecutive_failures, .. } => {
            warn!(sequence, incarnation, consecutive_failures, "health check failed");
        }
        EventKind::ModelSwitched { from, to } => {
            info!(sequence, incarnation, %from, %to, "model switched");
        }
        EventKind::ModelWanted { from, to } => {
            info!(sequence, incarnation, %from, %to, "another model is wanted");
        }
        EventKind::CleanupBlocked { cause } => {
            let (code, summary, remedy) = (cause.code, &cause.summary, cause.remedy());
            error!(sequence, incarnation, %code, summary, remedy, "cleanup blocked");
        }
        EventKind::SupervisorEnded { reason } => {
            info!(sequence, incarnation, reason = reason.as_str(), "the supervisor has ended");
        }
        EventKind::Orphaned { pid, outcome, left } => {
            warn!(sequence, incarnation, pid, ?outcome, left, "the owner of vLLM ended");
        }
    }
}

fn log_failure(
    sequence: u64,
    incarnation: u64,
    from: ServiceState,
    to: ServiceState,
    cause: &Cause,
) {
    let (code, summary, remedy) = (cause.code, &cause.summary, cause.remedy());
    error!(sequence, incarnation, %from, %to, %code, summary, remedy, "state changed");
}
