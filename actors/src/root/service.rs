//! The machine in service: with a clock, with whoever waits for it, and with its present published.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use ractor::{DerivedActorRef, RpcReplyPort};
use tokio::time::Instant;

use crate::domain::event::EventKind;
use crate::domain::event::{EndReason, Event};
use crate::domain::gpu::{Gpu, GpuFinding};
use crate::domain::id::{Incarnation, Sequence};
use crate::domain::incident::Record;
use crate::domain::input::{Effect, Input, Reaction};
use crate::domain::machine::Resume;
use crate::domain::moment::Moment;
use crate::domain::report::{GpuReport, HealthReport};
use crate::domain::restart::RESTART_WINDOW;
use crate::domain::rules::Rules;
use crate::domain::spec::ServiceSpec;
use crate::domain::state::ServiceState;
use crate::domain::target::Wanted;
use crate::domain::ticket::Ticket;
use crate::domain::unit::UnitReading;
use crate::root::message::Answer;
use crate::root::publish::Publisher;
use crate::root::snapshot::{GpuView, HealthNote, RestartCount, Snapshot};

/// See the module.
#[derive(Debug)]
pub(super) struct Service {
    rules: Rules,
    publisher: Arc<Publisher>,
    /// The origin of the monotonic clock.
    origin: Instant,
    /// Callers that have no answer yet.
    waiting: HashMap<Ticket, Answer>,
    /// The last ticket that was handed out.
    ticket: Ticket,
    /// Whether the end has been published.
    ended: bool,
    health: Option<(Incarnation, HealthNote)>,
    listed_models: Vec<String>,
    gpus: GpuView,
    /// As they were when a crash began that has no record yet.
    gpus_at_crash: Vec<Gpu>,
}

impl Service {
    pub(super) fn new(
        spec: ServiceSpec,
        resume: Resume,
        publisher: Arc<Publisher>,
        gpu_findings: Vec<GpuFinding>,
    ) -> Self {
        Self {
            rules: Rules::new(spec, resume, gpu_findings),
            publisher,
            origin: Instant::now(),
            waiting: HashMap::new(),
            ticket: Ticket::default(),
            ended: false,
            health: None,
            listed_models: Vec::new(),
            gpus: GpuView::Pending,
            gpus_at_crash: Vec::new(),
        }
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn now(&self) -> Moment {
        Moment { monotonic: self.origin.elapsed(), wall: SystemTime::now() }
    }

    pub(super) fn begin(&mut self) -> Vec<Effect> {
        self.rules.begin().effects
    }

    /// Takes an input; publishes what happened, answers who waited, and returns what to do.
    pub(super) fn take(&mut self, input: Input) -> Vec<Effect> {
        let reaction = self.rules.on(input, self.now());
        self.publish(reaction)
    }

    /// Takes what a service manager said.
    pub(super) fn hear(&mut self, reading: UnitReading) -> Vec<Effect> {
        let reaction = self.rules.hear(reading, self.now());
        self.publish(reaction)
    }

    fn publish(&mut self, reaction: Reaction) -> Vec<Effect> {
        let Reaction { effects, mut events, answers } = reaction;
        for event in &mut events {
            if let EventKind::StateChanged { to: ServiceState::Crashed, .. } = event.kind {
                self.gpus_at_crash = self.gpus.gpus().to_vec();
            }
            if let EventKind::IncidentRecorded { incident } = &mut event.kind {
                // By now its memory may be free.
                incident.gpus = std::mem::take(&mut self.gpus_at_crash);
                self.publisher.journal().record(Record::Incident(incident.clone()));
            }
            if let EventKind::ServiceRecovered { recovery } = event.kind {
                self.publisher.journal().record(Record::Recovery(recovery));
            }
        }
        // The present is published before anybody is told that it has come.
        self.publisher.publish(events, |sequence| self.snapshot(sequence));
        for (ticket, outcome) in answers {
            if let Some(reply) = self.waiting.remove(&ticket) {
                // A caller that gave up waiting needs no answer.
                drop(reply.send(outcome));
            }
        }
        effects
    }

    pub(super) fn subscribe(&mut self, subscriber: DerivedActorRef<Arc<Event>>) {
        self.publisher.subscribe(subscriber);
    }

    /// Hands out a ticket for a caller that is to be answered.
    pub(super) fn expect_answer(&mut self, reply: Answer) -> Ticket {
        self.forget_those_who_left();
        self.ticket = self.ticket.next();
        self.waiting.insert(self.ticket, reply);
        self.ticket
    }

    /// Callers that gave up are forgotten by the next one, so that there are never more of them than
    /// of those who wait.
    fn forget_those_who_left(&mut self) {
        let rules = &mut self.rules;
        self.waiting.retain(|ticket, reply| {
            if reply.is_closed() {
                rules.forget(*ticket);
            }
            !reply.is_closed()
        });
    }

    /// Says, once, that nobody supervises any more, and why: what becomes of a vLLM that was left alive is
    /// unknown from now on.
    pub(super) fn end(&mut self, reason: EndReason) {
        if self.ended {
            return;
        }
        self.ended = true;
        let now = self.now();
        let last = self.rules.end(reason, now);
        self.publisher.conclude(last, |sequence| self.last_snapshot(reason, sequence));
    }

    fn last_snapshot(&self, reason: EndReason, sequence: Sequence) -> Snapshot {
        let snapshot = self.snapshot(sequence);
        // What was proven down before an orderly end is down.
        let is_known = reason != EndReason::Killed
            && matches!(snapshot.state, ServiceState::Stopped | ServiceState::Failed);
        Snapshot {
            state: if is_known { snapshot.state } else { ServiceState::Unknown },
            pid: None,
            running_since: None,
            launch: None,
            phases: None,
            listed_models: Vec::new(),
            progress: None,
            ended: Some(reason),
            ..snapshot
        }
    }

    pub(super) fn note_health(&mut self, report: &HealthReport) {
        if self.rules.present_incarnation() != Some(report.incarnation) {
            return;
        }
        let at = SystemTime::now();
        let note = match &report.check {
            Ok(healthy) => HealthNote::passed(at, healthy.latency),
            Err(error) => HealthNote::failed(at, error.to_string()),
        };
        if let Ok(healthy) = &report.check {
            self.listed_models.clone_from(&healthy.models);
        }
        self.health = Some((report.incarnation, note));
    }

    pub(super) fn note_gpus(&mut self, report: GpuReport) {
        self.gpus = match report {
            GpuReport::Found(_) => return,
            GpuReport::Sampled(snapshot) => GpuView::Seen(snapshot.gpus),
            GpuReport::Unavailable { reason } => {
                tracing::info!(reason, "no GPU to watch");
                GpuView::Unavailable(reason)
            }
            GpuReport::Stalled { silent_for } => {
                tracing::warn!(?silent_for, "the GPU driver does not answer");
                GpuView::Stalled(self.last_gpus())
            }
        };
        self.publish_snapshot();
    }

    fn last_gpus(&self) -> Vec<Gpu> {
        self.gpus.gpus().to_vec()
    }

    /// Whether this is what is served, or to be.
    pub(super) fn wants(&self, wanted: &Wanted) -> bool {
        wanted.is(self.rules.target())
    }

    pub(super) fn answer_snapshot(&self, reply: RpcReplyPort<Snapshot>) {
        drop(reply.send(self.snapshot(self.publisher.sequence())));
    }

    fn publish_snapshot(&self) {
        self.publisher.publish(Vec::new(), |sequence| self.snapshot(sequence));
    }

    fn snapshot(&self, sequence: Sequence) -> Snapshot {
        let (rules, now) = (&self.rules, self.now());
        let present = rules.present();
        let running_since = present.running_since.map(|since| since.wall);
        let asked = rules.present_incarnation();
        let health = self.health.as_ref().filter(|(of, _)| Some(*of) == asked);
        Snapshot {
            state: present.state,
            mode: rules.spec().mode,
            model: rules.target().model.clone(),
            extra_args: rules.switched_arguments(),
            pid: present.pid,
            incarnation: present.incarnation,
            running_since,
            launch: present.launch,
            phases: present.phases,
            last_health_check: health.map(|(_, note)| note.clone()),
            listed_models: running_since.map_or_else(Vec::new, |_| self.listed_models.clone()),
            restarts: self.restarts(now),
            progress: present.progress,
            gpus: self.gpus.clone(),
            gpu_findings: rules.gpu_findings().to_vec(),
            last_error: present.last_error,
            blocked: present.blocked,
            unit: present.unit,
            ended: None,
            sequence,
        }
    }

    fn restarts(&self, now: Moment) -> RestartCount {
        let (ledger, policy) = (self.rules.ledger(), &self.rules.spec().restart);
        RestartCount {
            in_window: ledger.in_window(now),
            cap: policy.max_restarts.get(),
            window: RESTART_WINDOW,
            reset_at: ledger.until_reset(now).map(|left| now.wall + left),
            total: ledger.total(),
        }
    }
}

/// Whatever ends the supervisor, whoever holds a handle learns of it.
impl Drop for Service {
    fn drop(&mut self) {
        self.end(EndReason::Killed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{broadcast, oneshot, watch};

    use super::*;
    use crate::domain::input::Request;
    use crate::domain::spec::ExitPolicy;
    use crate::testing::harness::Plan;
    use crate::testing::journal::MemoryJournal;

    #[tokio::test]
    async fn who_waits_no_longer_leaves_nothing() {
        let spec = Plan::new(ExitPolicy::Stop).spec;
        let snapshots = watch::Sender::new(Snapshot::initial(spec.target.model.clone(), 3));
        let (journal, events) = (Arc::<MemoryJournal>::default(), broadcast::Sender::new(8));
        let publisher = Publisher::new(journal, events, snapshots, Sequence::NONE);
        let mut service = Service::new(spec, Resume::default(), Arc::new(publisher), Vec::new());
        let mut ask = || {
            let (reply, answer) = oneshot::channel();
            let ticket = service.expect_answer(reply.into());
            assert!(service.take(Input::Request(ticket, Request::Ensure)).is_empty());
            (answer, service.waiting.len(), service.rules().tickets().goals().count())
        };
        let (_waits, ..) = ask();
        for _ in 0..10 {
            let (gives_up, waiting, open) = ask();
            assert_eq!((waiting, open), (2, 2));
            drop(gives_up);
        }
    }
}
