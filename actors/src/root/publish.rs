//! Where present and history go: journal and log, then the present, then subscribers.
//!
//! Whoever hears of an event finds it in the present. Guards of launches publish too, from threads
//! of their own and beyond the end of the root: numbering and publishing are one act, and the last
//! event is told when nobody is left who could tell another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::DerivedActorRef;
use tokio::sync::{broadcast, watch};
use tracing::{error, info, warn};

use crate::domain::cause::{Cause, Code};
use crate::domain::event::{Event, EventKind};
use crate::domain::gpu::GpuFinding;
use crate::domain::id::Sequence;
use crate::domain::incident::Incident;
use crate::domain::state::ServiceState;
use crate::ports::{Journal, OrphanLog, Orphaned};
use crate::root::snapshot::Snapshot;

/// Tells everyone who keeps or follows what happens.
#[derive(Debug)]
pub(super) struct Publisher {
    journal: Arc<dyn Journal>,
    events: broadcast::Sender<Arc<Event>>,
    snapshots: watch::Sender<Snapshot>,
    published: Mutex<Published>,
}

/// Under one lock, so that everybody hears events in the order of their numbers.
#[derive(Debug)]
struct Published {
    /// The number of the last event.
    sequence: Sequence,
    /// Actors that are told.
    subscribers: Vec<DerivedActorRef<Arc<Event>>>,
    /// The last event, to be told when all is told.
    last: Option<Event>,
}

impl Publisher {
    pub(super) fn new(
        journal: Arc<dyn Journal>,
        events: broadcast::Sender<Arc<Event>>,
        snapshots: watch::Sender<Snapshot>,
        sequence: Sequence,
    ) -> Self {
        let published = Mutex::new(Published { sequence, subscribers: Vec::new(), last: None });
        Self { journal, events, snapshots, published }
    }

    pub(super) fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    pub(super) fn subscribe(&self, subscriber: DerivedActorRef<Arc<Event>>) {
        self.published().subscribers.push(subscriber);
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the last event.
    pub(super) fn sequence(&self) -> Sequence {
        self.published().sequence
    }

    /// Publishes what happened and what is now so, made for the number of the last event.
    pub(super) fn publish(&self, events: Vec<Event>, present: impl FnOnce(Sequence) -> Snapshot) {
        let mut published = self.published();
        let events: Vec<_> = events.into_iter().map(|event| self.journal.event(event)).collect();
        if let Some(event) = events.last() {
            published.sequence = event.sequence;
        }
        self.snapshots.send_replace(present(published.sequence));
        for event in events {
            self.tell(&mut published, event);
        }
    }

    /// Publishes the last present, and keeps the last event until nobody can tell another.
    pub(super) fn conclude(&self, last: Event, present: impl FnOnce(Sequence) -> Snapshot) {
        let mut published = self.published();
        published.last = Some(last);
        self.snapshots.send_replace(present(published.sequence));
    }

    /// Publishes an event that changes nothing but the history.
    fn add(&self, published: &mut Published, event: Arc<Event>) {
        published.sequence = event.sequence;
        self.snapshots.send_modify(|present| present.sequence = event.sequence);
        self.tell(published, event);
    }

    fn tell(&self, published: &mut Published, event: Arc<Event>) {
        log(&event);
        published.subscribers.retain(|actor| is_told(actor, &event));
        // No subscriber is no error: the journal has it.
        drop(self.events.send(event));
    }
}

impl OrphanLog for Publisher {
    fn orphaned(&self, ended: &Orphaned) {
        let mut published = self.published();
        let event = self.journal.orphaned(ended);
        self.add(&mut published, event);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let mut published = self.published();
        if let Some(last) = published.last.take() {
            let last = self.journal.event(last);
            self.add(&mut published, last);
        }
    }
}

/// An event becomes the subscriber's own message by code of its own, which may panic.
fn is_told(subscriber: &DerivedActorRef<Arc<Event>>, event: &Arc<Event>) -> bool {
    let send = AssertUnwindSafe(|| subscriber.send_message(Arc::clone(event)));
    matches!(catch_unwind(send), Ok(Ok(())))
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
        EventKind::LaunchTimed { launch, phases } => {
            info!(sequence, incarnation, launch = launch.as_str(), took = ?phases.total(), "launched");
        }
        EventKind::LaunchDistrusted { instead } => {
            warn!(
                sequence,
                incarnation,
                instead = instead.as_str(),
                "warm launches are distrusted"
            );
        }
        EventKind::ServiceRecovered { recovery } => {
            let (downtime, incidents) = (recovery.downtime, recovery.incidents);
            info!(sequence, incarnation, ?downtime, incidents, "service recovered");
        }
        EventKind::IncidentRecorded { incident } => log_incident(sequence, incident),
        EventKind::RestartScheduled { attempt, delay, restarts_in_window } => {
            warn!(sequence, incarnation, attempt, ?delay, restarts_in_window, "restart scheduled");
        }
        EventKind::HealthChanged { healthy: true, latency, .. } => {
            info!(sequence, incarnation, ?latency, "healthy");
        }
        EventKind::HealthChanged { healthy: false, consecutive_failures, .. } => {
            warn!(sequence, incarnation, consecutive_failures, "health check failed");
        }
        EventKind::ModelSwitched { from, to, extra_args } => {
            info!(sequence, incarnation, %from, %to, ?extra_args, "model switched");
        }
        EventKind::ModelWanted { from, to, extra_args } => {
            info!(sequence, incarnation, %from, %to, ?extra_args, "another model is wanted");
        }
        EventKind::StateExplained { cause } => log_cause(event, cause, "state explained"),
        EventKind::CleanupBlocked { cause } => log_cause(event, cause, "cleanup blocked"),
        EventKind::GpuFindingRaised { finding } => log_finding(sequence, finding),
        EventKind::GpuFindingCleared { finding } => {
            info!(sequence, %finding, "GPU finding cleared");
        }
        EventKind::SupervisorEnded { reason } => {
            info!(sequence, incarnation, reason = reason.as_str(), "the supervisor has ended");
        }
        EventKind::Orphaned { pid, outcome, left } => {
            warn!(sequence, incarnation, pid, ?outcome, left, "the owner of vLLM ended");
        }
    }
}

fn log_cause(event: &Event, cause: &Cause, what: &str) {
    let (sequence, incarnation) = (event.sequence.get(), event.incarnation.get());
    let (code, summary, remedy) = (cause.code, &cause.summary, cause.remedy());
    error!(sequence, incarnation, %code, summary, remedy, "{what}");
}

fn log_finding(sequence: u64, finding: &GpuFinding) {
    let GpuFinding { index: gpu, summary, is_ours, .. } = finding;
    let (action, remedy) = (finding.action.as_str(), finding.remedy());
    if finding.blocks_us() {
        let code = Code::GpuFault;
        error!(sequence, %code, gpu, summary, action, remedy, "GPU finding");
    } else {
        warn!(sequence, gpu, summary, action, is_ours, remedy, "GPU finding");
    }
}

fn log_incident(sequence: u64, incident: &Incident) {
    let (incarnation, cause) = (incident.incarnation.get(), &incident.cause);
    let (code, summary, remedy) = (cause.code, &cause.summary, cause.remedy());
    let line = cause.line().map(|line| line.text.as_str());
    let log = cause.log().map(|log| log.display().to_string());
    error!(sequence, incarnation, %code, summary, remedy, line, log, "incident recorded");
}

fn log_failure(
    sequence: u64,
    incarnation: u64,
    from: ServiceState,
    to: ServiceState,
    cause: &Cause,
) {
    let (code, summary, remedy) = (cause.code, &cause.summary, cause.remedy());
    if to == ServiceState::Crashed {
        // The incident that follows knows more, and is the error.
        return warn!(sequence, incarnation, %from, %to, %code, summary, "state changed");
    }
    error!(sequence, incarnation, %from, %to, %code, summary, remedy, "state changed");
}
